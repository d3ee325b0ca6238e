import pytest

from mnasdet import text_files
from mnasdet.errors import DataError

TEXT = "Käse 血球\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_with_and_without_marks(tmp_path, encoding):
    (tmp_path / "x").write_text(TEXT, encoding=encoding)
    assert text_files.read_text(tmp_path / "x", DataError, "text") == TEXT


def test_utf_16_of_either_byte_order():
    assert (
        text_files.decode(b"\xff\xfea\x00", "text")
        == text_files.decode(b"\xfe\xff\x00a", "text")
        == "a"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nK\xe4se".encode("latin-1"), "is not UTF-8 (byte 0xe4 in line 2): save it as UTF-8"),
        (b"ab\x00c", "is a binary file; a text is needed"),
        (b"\xff\xfea", "is not UTF-16 (byte 0x61 in line 1): declare its encoding or save it so"),
        (b" \n", "is empty"),
        (b"\n<!DOCTYPE html>\n<html>", "is a web page, not a text; download the file itself"),
        (b'<?xml version="1.0" encoding="x-y"?>', "declares the unknown encoding 'x-y'"),
        (b'<?xml version="1.0" encoding="zlib"?>', "declares the unknown encoding 'zlib'"),
        (
            b'<?xml version="1.0" encoding="undefined"?>',
            "declares the unknown encoding 'undefined'",
        ),
    ],
)
def test_what_is_no_text(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError) as caught:
        text_files.read_text(tmp_path / "x", DataError, "text")
    assert str(caught.value).startswith(f"{tmp_path / 'x'}: {message}")
