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


def test_ids_of():
    assert label_map.ids_of({2: "b", 7: "a"}) == {"b": 2, "a": 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "'b'.*id 1 is already that of 'a'"),
        ("item { id: 1 name: 'a' } item { id: 2 name: 'a' }", "name is already that of id 1"),
        ("item { id: 0 name: 'a' }", "'a'.*id 0; ids start at 1"),
        ("item { name: 'a' }", "'a'.*no id; ids start at 1"),
        ("item { id: 3 }", "item 1: has neither a name"),
        ("item {\n  id: 1\n  nam: 'a'\n}", "map.pbtxt:3:.*nam"),
        ("item { id: 'x' name: 'a' }", "map.pbtxt:1:"),
        ("# nothing", "no item"),
    ],
)
def test_bad_label_maps(tmp_path, text, message):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        label_map.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"missing\.pbtxt: no such file"):
        label_map.load(tmp_path / "missing.pbtxt")
