import hashlib
import subprocess
import sys

import numpy as np
import pytest

from mnasdet.data import digits, label_map, record_index
from mnasdet.data.box_records import BoxRecords
from mnasdet.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MNASDET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_records_are_good():
    (path,), label_map_path = digits.records("train", 20, 64)
    names = label_map.load(label_map_path)
    assert names == {
        1: "0",
        2: "1",
        3: "2",
        4: "3",
        5: "4",
        6: "5",
        7: "6",
        8: "7",
        9: "8",
        10: "9",
    }
    index = record_index.check_records([str(path)], names, BoxRecords(5))
    assert index.problems == ()
    assert index.num_usable == 20


def test_pictures():
    classes, heights = set(), []
    for image, class_ids, boxes in digits.images("validation", 100, 128):
        assert image.shape == (128, 128, 3)
        assert image.dtype == np.uint8
        assert 1 <= len(class_ids) == len(boxes) <= 5
        classes.update(class_ids)
        for number, box in enumerate(boxes):
            ymin, xmin, ymax, xmax = box
            assert 0 <= ymin < ymax <= 128
            assert 0 <= xmin < xmax <= 128
            heights.append((ymax - ymin) / 128)
            assert all(digits._overlap(box, other) <= 0.1 for other in boxes[:number])
    assert classes == set(range(1, 11))
    assert 0.15 < min(heights) < 0.25
    assert 0.4 < max(heights) < 0.56


def test_ink_stands_out_within_the_box():
    for image, _, boxes in digits.images("train", 30, 96):
        edge = np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]), 0)
        for ymin, xmin, ymax, xmax in boxes:
            contrast = np.abs(image[ymin:ymax, xmin:xmax] - edge).sum(-1).max()
            assert contrast > 100


def test_fewer_pictures_are_the_first_of_more():
    three, five = list(digits.images("train", 3, 64)), list(digits.images("train", 5, 64))
    for one, two in zip(three, five, strict=False):
        np.testing.assert_array_equal(one[0], two[0])


def test_pictures_are_permanent():
    # When the pictures are meant to change, raise digits._VERSION with these values.
    (image, class_ids, boxes) = next(digits.images("train", 1, 128))
    assert (class_ids, boxes) == PERMANENT_OBJECTS
    assert hashlib.sha256(image.tobytes()).hexdigest()[:16] == PERMANENT_PIXELS


PERMANENT_OBJECTS = (
    [3, 3, 9, 1],
    [(6, 4, 35, 26), (2, 78, 42, 105), (18, 26, 75, 73), (79, 39, 115, 64)],
)
PERMANENT_PIXELS = "3ce35b251370168d"


def test_made_once():
    (path,), _ = digits.records("train", 2, 32)
    before = path.stat()
    digits.records("train", 2, 32)
    assert path.stat() == before


def test_a_killed_maker_does_no_harm(cache):
    (path,), label_map_path = digits.records("train", 2, 32)
    content = path.read_bytes()
    label_map_path.unlink()
    path.unlink()
    path.with_name(f".{path.name}.1.tmp").write_bytes(b"half")
    digits.records("train", 2, 32)
    assert path.read_bytes() == content
    assert label_map_path.exists()


def test_makers_at_once(cache):
    code = (
        "from mnasdet.data import box_records, digits, record_index;"
        "(path,), _ = digits.records('train', 30, 32);"
        "index = record_index.check_records([str(path)], digits.NAMES, box_records.BoxRecords(9));"
        "assert index.num_usable == 30, index.problems"
    )
    makers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [maker.wait() for maker in makers] == [0, 0]
    names = sorted(path.name for path in cache.glob("*/*"))
    assert names == ["digits.record-00000-of-00001", "label_map.pbtxt"]
    assert [path.name for path in cache.glob("*/.*")] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", 2, 32), "split 'test'; expected one of"),
        (("train", 0, 32), "num_images 0; at least 1"),
        (("train", 2, 16), "image_size 16; at least 32"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(DataError, match=message):
        digits.records(*arguments)


def test_a_cache_that_cannot_be_written(cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written: .*MNASDET_CACHE_DIR"):
        digits.records("train", 2, 32)
