"""mnasdet/data/coco.py, and what mnasdet/data/conversion.py makes of it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mnasdet.data import coco, conversion, label_map, records
from mnasdet.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def content():
    return {
        "images": [{"id": 5, "file_name": "sub/a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": 90, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 90, "bbox": [15, 10, 30, 20], "area": 321.5},
            {"id": 2, "image_id": 5, "category_id": 1, "bbox": [0, 0, 60, 40], "iscrowd": 1},
        ],
    }


@pytest.fixture
def convert(tmp_path, encode_image):
    """Converts a COCO dictionary with one picture, sub/a.jpg of 40 x 60."""

    def run(content, skip_bad=True):
        path = tmp_path / "instances.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        picture = tmp_path / "images" / "sub" / "a.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        if not picture.exists():
            picture.write_bytes(encode_image(40, 60))
        names, images = coco.read(path)
        return conversion.convert(
            images,
            total=len(images),
            images_dir=tmp_path / "images",
            names=names,
            output_path=tmp_path / "out" / "x.record",
            num_shards=1,
            label_map_output=tmp_path / "out" / "label_map.pbtxt",
            skip_bad=skip_bad,
        )

    return run


def read_all(paths):
    import tensorflow as tf

    examples = tf.data.TFRecordDataset(paths).as_numpy_iterator()
    return [records.from_example(tf.train.Example.FromString(data)) for data in examples]


def test_record(convert, content, tmp_path):
    summary = convert(content)
    (record,) = read_all(summary.paths)
    assert (summary.images, summary.boxes) == (1, 2)
    assert (summary.skipped_images, summary.skipped_boxes) == (0, 0)
    assert record.source_id == "sub/a"
    assert record.filename == "sub/a.jpg"
    # [15, 10, 30, 20] is xmin, ymin, width, height in an image of 40 x 60.
    np.testing.assert_array_equal(record.boxes, [[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]])
    assert record.class_ids.tolist() == [90, 1]
    assert record.class_names == ["dog", "cat"]
    assert record.area.tolist() == [321.5, 2400]
    assert record.is_crowd.tolist() == [False, True]
    assert label_map.load(tmp_path / "out" / "label_map.pbtxt") == {1: "cat", 90: "dog"}


BAD_OBJECTS = [
    ({"bbox": [15, 10, 0, 20]}, "annotation id 1: box .*xmin 15.*xmax 15.* has no size"),
    ({"bbox": [15, 10, 46, 20]}, "annotation id 1: box .*xmax 61.* outside the image of height 40"),
    ({"bbox": [-2, 10, 5, 20]}, "annotation id 1: box .*xmin -2.* outside the image"),
    ({"bbox": [15, 10, 30]}, r"annotation id 1: bbox \[15, 10, 30\]: expected \[x, y, width"),
    ({"bbox": None}, "annotation id 1: bbox None"),
    ({"bbox": [float("nan"), 10, 3, 4]}, "annotation id 1: box .*nan"),
    ({"category_id": 7}, "annotation id 1: category_id 7 is not in 'categories'"),
    ({"area": "big"}, "annotation id 1: area 'big'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_OBJECTS)
def test_bad_objects(convert, content, changes, message, tmp_path):
    content["annotations"][0].update(changes)
    with pytest.raises(DataError, match=f"instances.json: image id 5 .sub/a.jpg.: {message}"):
        convert(content, skip_bad=False)
    assert not list((tmp_path / "out").glob("*"))
    summary = convert(content)
    assert (summary.images, summary.boxes, summary.skipped_boxes) == (1, 1, 1)


BAD_IMAGES = [
    ({"file_name": "sub/b.jpg"}, "sub/b.jpg cannot be read: No such file"),
    ({"height": 41}, r"the annotation says \(height, width\) \(41, 60\), the image has \(40, 60\)"),
    ({"id": 6}, "image id 5: 2 annotations are of an image that is not in 'images'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_IMAGES)
def test_bad_images(convert, content, changes, message):
    content["images"][0].update(changes)
    with pytest.raises(DataError, match=message):
        convert(content, skip_bad=False)


def test_truncated_image(convert, content, tmp_path):
    convert(content)
    picture = tmp_path / "images" / "sub" / "a.jpg"
    picture.write_bytes(picture.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.jpg: the JPEG is cut short"):
        convert(content, skip_bad=False)
    with pytest.raises(DataError, match="no image is left to write, 1 were annotated"):
        convert(content)


def test_repeated_images(convert, content):
    content["images"].append({"id": 5, "file_name": "sub/a.jpg"})
    content["images"].append({"id": 6, "file_name": "sub/a.jpg"})
    assert convert(content).skipped_images == 2


BAD_FILES = [
    ('{"images": [\n]\n', "instances.json:3:1: no JSON"),
    ("[]", "no COCO detection file: has no list of objects 'images'"),
    ('{"images": [], "annotations": []}', "has no list of objects 'categories'"),
    (
        '{"images": [], "annotations": [], "categories": [{"id": 0, "name": "x"}]}',
        "category 'x': id 0; ids start at 1",
    ),
    (
        '{"images": [], "annotations": [], "categories": '
        '[{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]}',
        "category 'y': id 1 is already that of 'x'",
    ),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_bad_files(convert, content, message):
    with pytest.raises(DataError, match=message):
        convert(content)


def test_another_label_map_is_not_overwritten(convert, content, tmp_path):
    (tmp_path / "out").mkdir()
    label_map.save(tmp_path / "out" / "label_map.pbtxt", {1: "dog", 2: "cat"})
    with pytest.raises(DataError, match="exists and differs"):
        convert(content)
    assert os.listdir(tmp_path / "out") == ["label_map.pbtxt"]


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared COCO pictures")
def test_real_coco(tmp_path):
    path = SHARED / "tiny_coco" / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    names, images = coco.read(path)
    summary = conversion.convert(
        images,
        total=len(images),
        images_dir=SHARED / "tiny_coco" / "val2017",
        names=names,
        output_path=tmp_path / "val.record",
        num_shards=2,
        label_map_output=tmp_path / "label_map.pbtxt",
        skip_bad=False,
    )
    # The data's README: 49 images, 381 annotations, 5 of them crowds; 80 categories up to 90.
    assert (summary.images, summary.boxes) == (49, 381)
    assert (len(names), max(names)) == (80, 90)
    read = read_all(summary.paths)
    assert sum(record.is_crowd.sum() for record in read) == 5
    areas = sorted(area for record in read for area in record.area)
    np.testing.assert_allclose(areas, sorted(a["area"] for a in content["annotations"]), rtol=1e-6)
    assert record_index.check_records(summary.paths, names, 100).problems == ()
