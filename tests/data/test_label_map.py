import time

import pytest

from mnasdet.data import label_map
from mnasdet.errors import DataError


def test_round_trip_with_gaps(tmp_path):
    path = tmp_path / "map.pbtxt"
    label_map.save(path, {90: "toothbrush", 1: "Käse 'x'"})
    assert label_map.load(path) == {1: "Käse 'x'", 90: "toothbrush"}
    assert list(label_map.load(path)) == [1, 90]


def test_od_api_file_with_display_names(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text('item {\n  name: "/m/01g317"\n  id: 1\n  display_name: "person"\n}\n')
    assert label_map.load(path) == {1: "person"}


def test_the_background_may_have_id_0(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text("item { id: 0 name: 'background' } item { id: 1 name: 'cat' }")
    assert label_map.load(path) == {1: "cat"}
    assert label_map.load_ids(path) == ({"cat": 1}, {})


def test_classes_of_one_display_name(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(
        "item { id: 1 name: 'n1' display_name: 'crane' } item { id: 3 name: 'dog' }"
        "item { id: 2 name: 'n2' display_name: 'crane' }"
    )
    assert label_map.load(path) == {1: "crane (n1)", 2: "crane (n2)", 3: "dog"}
    by_name, by_display_name = label_map.load_ids(path)
    assert by_name == {"n1": 1, "n2": 2, "dog": 3}
    assert by_display_name == {"crane (n1)": 1, "crane (n2)": 2}


def test_fields_without_effect(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(
        "item { id: 1 name: 'a' keypoints { id: 0 label: 'nose' } ancestor_ids: 2 "
        "descendant_ids: [3, 4] frequency: RARE instance_count: 7 }"
    )
    assert label_map.load(path) == {1: "a"}


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "\ufeff"), ("utf-16", "")])
def test_encodings(tmp_path, encoding, mark):
    path = tmp_path / "map.pbtxt"
    path.write_text(mark + "item { id: 1 name: 'Käse' }", encoding=encoding)
    assert label_map.load(path) == {1: "Käse"}


def test_many_classes_take_seconds(tmp_path):
    """Code whose time grows with the square of the classes would take minutes here."""
    names = {class_id: f"class {class_id}" for class_id in range(1, 20_001)}
    label_map.save(tmp_path / "map.pbtxt", names)
    start = time.process_time()
    assert label_map.load(tmp_path / "map.pbtxt") == names
    assert len(label_map.load_ids(tmp_path / "map.pbtxt")[0]) == 20_000
    assert time.process_time() - start < 30


def test_ids_of():
    assert label_map.ids_of({2: "b", 7: "a"}) == {"b": 2, "a": 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "'b'.*id 1 is already that of 'a'"),
        ("item { id: 1 name: 'a' } item { id: 2 name: 'a' }", "name is already that of id 1"),
        ("item { id: 0 name: 'a' }", "'a'.*id 0; ids start at 1.*: take out what is no class"),
        ("item { name: 'a' }", "'a'.*no id; ids start at 1"),
        ("item { id: 3 }", "item 1: has neither a name"),
        ("item {\n  id: 1\n  nam: 'a'\n}", "map.pbtxt:3:.*nam"),
        ("item { id: 'x' name: 'a' }", "map.pbtxt:1:"),
        ("# nothing", "no item"),
        ("item { id: 0 name: 'background' }", "no item"),
        ("item { id: 1 name: 'a' id: 2 name: 'b' }", "two classes share one pair of braces; expec"),
        ('{"1": "a"}', "is JSON, not a label map; expected item . id: 1 name: 'cat'"),
        ("<!DOCTYPE html>", "is a web page, not a text proto; download the file itself"),
        ("item { id 1 name: 'a' }", "map.pbtxt:1:.*; expected item . id: 1 name: 'cat'"),
        ("cat\ndog\n", "map.pbtxt:1:.*; expected item . id: 1 name: 'cat'"),
    ],
)
def test_bad_label_maps(tmp_path, text, message):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        label_map.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_another_encoding_is_named(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_bytes("item {\n  id: 1 # 从1开始\n  name: 'a'\n}".encode("gbk"))
    with pytest.raises(DataError, match=r"is not UTF-8 .byte 0xb4 in line 2.: save it as UTF-8"):
        label_map.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"missing\.pbtxt: no such file"):
        label_map.load(tmp_path / "missing.pbtxt")
