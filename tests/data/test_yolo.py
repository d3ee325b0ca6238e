"""mnasdet/data/yolo.py and what mnasdet/data/conversion.py makes of it."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.data import conversion, records, yolo
from mnasdet.errors import DataError

NAMES = {1: "cat", 2: "dog"}


@pytest.fixture
def folder(tmp_path, encode_image):
    """Three pictures of 40 x 60: two boxes, an empty txt file, and none."""
    (tmp_path / "images" / "sub").mkdir(parents=True)
    (tmp_path / "labels" / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg", "c.jpg"):
        (tmp_path / "images" / name).write_bytes(encode_image(40, 60))
    # Centre (30, 20), 30 wide, 20 high; and a triangle.
    (tmp_path / "labels" / "a.txt").write_text(
        "1 0.5 0.5 0.5 0.5\n\n0 0.25 0.25 0.75 0.25 0.3 0.75\n"
    )
    (tmp_path / "labels" / "sub" / "b.txt").write_text("")
    (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\n")
    return tmp_path


def convert(folder, names=NAMES, keypoint_values=0, **options):
    images_dir = folder / "images"
    labels_dir = yolo.labels_folder(images_dir)
    images, remarks = yolo.read(images_dir, labels_dir, names, keypoint_values)
    return conversion.convert(
        images,
        total=len(images),
        images_dir=images_dir,
        names=names,
        output_path=folder / "out" / "x.record",
        num_shards=1,
        label_map_output=folder / "out" / "label_map.pbtxt",
        remarks=remarks,
        **{"skip_bad": False} | options,
    )


def read_all(paths):
    examples = tf.data.TFRecordDataset(paths).as_numpy_iterator()
    return {
        record.source_id: record
        for data in examples
        for record in [records.from_example(tf.train.Example.FromString(data))]
    }


def test_boxes_polygons_and_background(folder):
    summary = convert(folder)
    read = read_all(summary.paths)
    np.testing.assert_allclose(read["a"].boxes, [[0.25, 0.25, 0.75, 0.75]] * 2, atol=1e-6)
    assert read["a"].class_ids.tolist() == [2, 1]
    assert read["a"].class_names == ["dog", "cat"]
    assert read["a"].area.tolist() == [600, 600]
    assert [len(read[name].boxes) for name in ("sub/b", "c")] == [0, 0]
    assert "2 images have no box and are background; boxes made from polygons: 1" in str(summary)
    assert "1 images have no txt file" in str(summary)


BAD_LINES = [
    ("2 0.5 0.5 0.5 0.5", "class 2 is not in the classes 0 to 1"),
    ("x 0.5 0.5 0.5 0.5", "'x' is no number; expected class x_center"),
    ("0 0.5 0.5 0.5", "has 4 values; expected class x_center"),
    ("0 0.5 0.5 0.5 0.5 0.9", "has 6 values; expected class x_center"),
    ("0 30 20 30 20", "are pixels; expected shares of the image"),
    ("0 1.4 0.5 0.5 0.5", "outside the image of height 40 and width 60"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_bad_lines(folder, line, message):
    path = folder / "labels" / "a.txt"
    path.write_text("1 0.5 0.5 0.5 0.5\n" + line)
    with pytest.raises(DataError, match=r"a\.txt .a\.jpg.: line 2: .*" + message):
        convert(folder)
    assert convert(folder, skip_bad=True).skipped_boxes == 1


def test_labels_without_a_picture_are_lost(folder):
    (folder / "images" / "a.jpg").rename(folder / "images" / "z.jpg")
    with pytest.raises(DataError, match="2 of 2 boxes would be lost.*has no picture"):
        convert(folder, skip_bad=True)


def test_no_labels_at_all(folder):
    (folder / "labels").rename(folder / "others")
    with pytest.raises(DataError, match="has no txt file for any of 3 pictures"):
        convert(folder)


def test_keypoints_are_not_read(folder):
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 2")
    summary = convert(folder, keypoint_values=6)
    np.testing.assert_allclose(read_all(summary.paths)["a"].boxes, [[0.25, 0.25, 0.75, 0.75]])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("classes.txt", "cat\ndog\n\n", NAMES),
        ("obj.names", "\ufeffcat\r\ndog\r\n", NAMES),
        ("data.yaml", "nc: 2\nnames: ['cat', 'dog']\n", NAMES),
        ("data.yaml", "names:\n  0: cat\n  1: dog\n", NAMES),
        ("data.yml", "names:\n- cat\n- dog\n", NAMES),
        ("data.yaml", "names: [1, 2]\n", {1: "1", 2: "2"}),
    ],
)
def test_classes(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert yolo.classes(tmp_path / name) == (expected, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 2", "has no classes; expected names"),
        ("names: [a, a]", "class 1: 'a': no name, or twice"),
        ("names: {x: a}", "class x: 'a'"),
        ("names: [a", "no YAML: "),
        ("names: [a]\nkpt_shape: 7", "kpt_shape 7: expected"),
    ],
)
def test_bad_classes(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        yolo.classes(tmp_path / "data.yaml")
    assert "\n" not in str(caught.value)
