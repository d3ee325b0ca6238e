"""mnasdet/data/coco.py, and what mnasdet/data/conversion.py makes of it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnasdet.data import coco, conversion, label_map, record_index, records
from mnasdet.data.box_records import BoxRecords
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

    def run(content, skip_bad=True, **options):
        path = tmp_path / "instances.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        picture = tmp_path / "images" / "sub" / "a.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        if not picture.exists():
            picture.write_bytes(encode_image(40, 60))
        names, images, remarks = coco.read(path)
        return conversion.convert(
            images,
            remarks=remarks,
            total=len(images),
            images_dir=tmp_path / "images",
            names=names,
            output_path=tmp_path / "out" / "x.record",
            num_shards=1,
            label_map_output=tmp_path / "out" / "label_map.pbtxt",
            skip_bad=skip_bad,
            **options,
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
    # The id that results of detection name the image by.
    assert record.source_id == "5"
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
    ({"bbox": [55, 10, 30, 20]}, "annotation id 1: box .*xmax 85.* outside the image of height 40"),
    ({"bbox": [-9, 10, 10, 20]}, "annotation id 1: box .*xmin -9.* outside the image"),
    ({"bbox": [15, 10, 30]}, r"annotation id 1: bbox \[15, 10, 30\]: expected \[x, y, width"),
    ({"bbox": None}, "annotation id 1: bbox None"),
    ({"bbox": [float("nan"), 10, 3, 4]}, "annotation id 1: bbox .*nan"),
    ({"bbox": [1, 2, 3, "4px"]}, "annotation id 1: bbox .*4px"),
    ({"bbox": [0.1, 0.2, 0.3, 0.4]}, "annotation id 1: box .* is a share of the image, not pix"),
    ({"attributes": {"rotation": "x"}}, "annotation id 1: rotation is 'x', expected degrees"),
    ({"bbox": [True, 10, 3, 4]}, "annotation id 1: bbox .*True"),
    ({"bbox": [1, 2, 30, 10**400]}, "annotation id 1: bbox .*inf"),
    ({"category_id": 7}, "annotation id 1: category_id 7 is not in 'categories'"),
    ({"category_id": None}, "annotation id 1: category_id None is not in 'categories'"),
    ({"category_id": True}, "annotation id 1: category_id True is not in 'categories'"),
    ({"iscrowd": "yes"}, "annotation id 1: iscrowd 'yes': expected 0, 1, true or false"),
    ({"iscrowd": 2}, "annotation id 1: iscrowd 2: expected 0, 1, true or false"),
    ({"angle": 0.5}, "annotation id 1: is a turned box .angle 0.5.; only upright"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_OBJECTS)
def test_bad_objects(convert, content, changes, message, tmp_path):
    content["annotations"][0].update(changes)
    with pytest.raises(DataError, match=f"instances.json: image id 5 .sub/a.jpg.: {message}"):
        convert(content, skip_bad=False)
    assert not list((tmp_path / "out").glob("*"))
    summary = convert(content)
    assert (summary.images, summary.boxes, summary.skipped_boxes) == (1, 1, 1)


# Spellings of the box [15, 10, 30, 20] of class 90, with what else is read from them.
SPELLINGS = [
    {"image_id": 5.0, "category_id": 90.0},
    {"image_id": "5", "category_id": "90"},
    {"bbox": ["15", "10.0", 30.0, "2e1"]},
    {"iscrowd": "0"},
    {"iscrowd": "false"},
    {"iscrowd": 0.0},
    {"iscrowd": False},
    {"iscrowd": None},
]


@pytest.mark.parametrize("changes", SPELLINGS)
def test_spellings_of_values(convert, content, changes):
    content["annotations"][0].update(changes)
    (record,) = read_all(convert(content, skip_bad=False).paths)
    np.testing.assert_array_equal(record.boxes[0], [0.25, 0.25, 0.75, 0.75])
    assert record.class_ids.tolist() == [90, 1]
    assert record.is_crowd.tolist() == [False, True]


@pytest.mark.parametrize("flag", [1, 1.0, "1", "true", "True", True])
def test_spellings_of_a_crowd(convert, content, flag):
    content["annotations"][0]["iscrowd"] = flag
    assert read_all(convert(content).paths)[0].is_crowd.tolist() == [True, True]


@pytest.mark.parametrize("area", [None, "big", [600], float("nan"), float("inf"), -5, 0, 0.25])
def test_an_area_that_is_none_is_the_box_s(convert, content, area):
    content["annotations"][0]["area"] = area
    assert read_all(convert(content, skip_bad=False).paths)[0].area[0] == 600


@pytest.mark.parametrize(
    "size", [(40.0, "60"), (None, None), (0, 0), (-1, -1), ("", ""), (float("nan"), 60)]
)
def test_spellings_of_a_size(convert, content, size):
    content["images"][0].update(height=size[0], width=size[1])
    assert convert(content, skip_bad=False).boxes == 2


# Boxes that are mended: bbox, what is read (ymin, xmin, ymax, xmax) in 40 x 60 pixels, the note.
MENDED = [
    ({"bbox": [50, 10, 11, 20]}, [10, 50, 30, 60], "boxes cut at the edge of their image"),
    (
        {"bbox": [-20, -10, 40, 30]},
        [0, 0, 20, 20],
        "boxes cut at the edge of their image by more than a quarter",
    ),
    ({"bbox": [45, 30, -30, -20]}, [10, 15, 30, 45], "boxes whose corners were exchanged"),
    (
        {"bbox": [], "segmentation": [[15, 10, 45, 10, 30, 30]]},
        [10, 15, 30, 45],
        "boxes made from polygons",
    ),
    # A quarter of a turn about the centre (30, 20) exchanges width 30 and height 20.
    (
        {"attributes": {"rotation": 90.0}},
        [5, 20, 35, 40],
        "turned boxes replaced by the upright boxes around them",
    ),
]


@pytest.mark.parametrize(("changes", "box", "note"), MENDED)
def test_mended_boxes_are_counted(convert, content, changes, box, note):
    content["annotations"][0].update(changes)
    summary = convert(content, skip_bad=False)
    (record,) = read_all(summary.paths)
    np.testing.assert_allclose(record.boxes[0] * [40, 60, 40, 60], box, atol=1e-4)
    assert summary.notes == {note: 1}
    assert f"{note}: 1" in str(summary)


def test_the_area_of_a_cut_box_is_cut_with_it(convert, content):
    content["annotations"][0].update(bbox=[50, 10, 20, 20], area=300)
    assert read_all(convert(content).paths)[0].area[0] == 150


BAD_IMAGES = [
    ({"file_name": "sub/b.jpg"}, "no picture 'sub/b.jpg'; did you mean 'sub/a.jpg'"),
    ({"height": 41}, r"the annotation says \(height, width\) \(41, 60\), the image has \(40, 60\)"),
    ({"height": "40px"}, "height is '40px', expected a number of pixels"),
    ({"file_name": "sub/\ud800.jpg"}, "has a file_name that is no Unicode text"),
    ({"file_name": "../images/sub/a.jpg"}, "leads out of .*; give the folder as --images_dir"),
    ({"id": 6}, "image id 5: 2 annotations are of an image that is not in 'images'"),
    ({"id": None}, r"image id None .*: has no id"),
    ({"id": 5.5}, r"image id 5.5 .*: has an id that is no whole number and no text"),
]


def test_annotations_without_an_image(convert, content):
    for annotation in content["annotations"]:
        annotation.pop("image_id", None)
    message = r"image id 5 .*: has no box, but perhaps one of 2 that have no image_id"
    with pytest.raises(DataError, match=message):
        convert(content, skip_bad=False)
    # The picture is no background: it may have the lost objects.
    with pytest.raises(DataError, match="no image is left to write"):
        convert(content, max_lost_share=1.0)
    content["annotations"][0]["image_id"] = 5
    with pytest.raises(DataError, match=r"instances.json: 1 annotations have no image_id"):
        convert(content, skip_bad=False)


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
    with pytest.raises(DataError, match=r"2 of 2 boxes would be lost, 2 .*JPEG is cut short"):
        convert(content)


def add_picture(content, tmp_path, encode_image, name, image_id, **image):
    """Adds a picture of 40 x 60 with one box."""
    path = tmp_path / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(40, 60))
    content["images"].append({"id": image_id, "file_name": name} | image)
    content["annotations"].append(
        {"id": len(content["annotations"]) + 1, "image_id": image_id, "category_id": 1}
        | {"bbox": [10, 10, 20, 20]}
    )


def test_images_of_one_id_are_all_left_out(convert, content, tmp_path, encode_image):
    """Whose the boxes are cannot be known; the boxes are counted once."""
    for number in range(3):
        add_picture(content, tmp_path, encode_image, f"b{number}.jpg", 7 + number)
    content["images"].append({"id": "7", "file_name": "c.jpg"})
    summary = convert(content)
    assert (summary.images, summary.skipped_images, summary.skipped_boxes) == (3, 2, 1)
    assert {record.source_id for record in read_all(summary.paths)} == {"5", "8", "9"}


def test_two_annotations_of_one_picture_are_left_out(convert, content, tmp_path, encode_image):
    for number in range(3):
        add_picture(content, tmp_path, encode_image, f"b{number}.jpg", 7 + number)
    content["images"].append({"id": 17, "file_name": "B0.JPG"})
    summary = convert(content)
    assert (summary.images, summary.skipped_images, summary.skipped_boxes) == (3, 2, 1)


def test_endings_tell_pictures_apart(convert, content, tmp_path, encode_image):
    add_picture(content, tmp_path, encode_image, "sub/a.png", 7)
    read = read_all(convert(content).paths)
    assert [record.filename for record in read] == ["sub/a.jpg", "sub/a.png"]
    assert [record.source_id for record in read] == ["5", "7"]


def test_pictures_without_annotations_are_written_for_their_detections(convert, content):
    """As in COCO's image_info_test-dev2017.json."""
    del content["annotations"]
    content["images"][0]["id"] = "a7"
    summary = convert(content)
    (record,) = read_all(summary.paths)
    assert (summary.images, summary.boxes, summary.empty_images) == (1, 0, 1)
    assert (record.source_id, len(record.boxes)) == ("a7", 0)


def test_a_picture_that_lost_its_boxes_is_no_background(convert, content, tmp_path, encode_image):
    add_picture(content, tmp_path, encode_image, "b.jpg", 7)
    add_picture(content, tmp_path, encode_image, "c.jpg", 8)
    content["annotations"][2]["bbox"] = [100, 100, 5, 5]
    content["images"].append({"id": 9, "file_name": "d.jpg"})
    (tmp_path / "images" / "d.jpg").write_bytes(encode_image(40, 60))
    summary = convert(content)
    assert (summary.images, summary.boxes, summary.empty_images) == (3, 3, 1)
    assert (summary.skipped_images, summary.skipped_boxes) == (1, 1)
    assert {record.source_id for record in read_all(summary.paths)} == {"5", "8", "9"}
    assert "left out 1 images and 1 boxes; 1 images have no box and are background" in str(summary)


def test_too_many_lost_boxes_are_an_error(convert, content, tmp_path):
    bad, good = content["annotations"][0] | {"category_id": 6}, content["annotations"][1]
    content["annotations"] = [bad, bad, good, bad]
    with pytest.raises(DataError) as caught:
        convert(content)
    assert "3 of 4 boxes would be lost, 3 of them as this one" in str(caught.value)
    assert "category_id 6 is not in 'categories'" in str(caught.value)
    assert "--max_lost_boxes=1" in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))
    assert convert(content, max_lost_share=1).boxes == 1


def test_corners_in_place_of_sizes_are_an_error(convert, content):
    """Boxes of two corners reach far outside when they are read as a corner and a size."""
    content["annotations"] = [
        content["annotations"][0] | {"id": i, "bbox": [20 + i, 10, 50 + i, 35]} for i in range(3)
    ]
    with pytest.raises(DataError, match=r"3 of 3 boxes reach far outside .* is .x, y, width, hei"):
        convert(content)
    assert convert(content, max_lost_share=1).boxes == 3


@pytest.mark.parametrize(
    ("categories", "class_ids", "expected", "remark"),
    [
        # Label Studio counts from 0, whether a split uses 0 or not.
        ([(0, "dog", ""), (1, "cat", "")], (0, 1), {1: "dog", 2: "cat"}, "one higher"),
        ([(0, "dog", ""), (1, "cat", "")], (1, 1), {1: "dog", 2: "cat"}, "one higher"),
        # Roboflow's id 0 is the data set itself, and may have the name of a class.
        ([(0, "pets", "none"), (1, "dog", "pets"), (2, "pets", "pets")], (1, 2), None, "Roboflow"),
        ([(0, "fish", "none")], (0, 0), {1: "fish"}, "one higher"),
        ([(0, "Background", ""), (1, "dog", "")], (1, 1), {1: "dog"}, "is the background"),
    ],
)
def test_category_id_0(convert, content, categories, class_ids, expected, remark):
    content["categories"] = [
        {"id": class_id, "name": name, "supercategory": above}
        for class_id, name, above in categories
    ]
    for annotation, class_id in zip(content["annotations"], class_ids, strict=True):
        annotation["category_id"] = class_id
    summary = convert(content, skip_bad=False)
    (record,) = read_all(summary.paths)
    names = dict(zip(record.class_ids.tolist(), record.class_names, strict=True))
    listed = {class_id: name for class_id, name, _ in categories}
    assert record.class_names == [listed[class_id] for class_id in class_ids]
    assert names.items() <= (expected or {1: "dog", 2: "pets"}).items()
    assert remark in str(summary)


def exif(content, tmp_path, orientation, height, width, bbox):
    """Makes the picture 40 x 60 pixels with an orientation; a 10 x 10 corner marks the object."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[30:, :10] = 255
    image = Image.fromarray(pixels)
    data = image.getexif()
    data[0x0112] = orientation
    path = tmp_path / "images" / "sub" / "a.jpg"
    path.parent.mkdir(parents=True)
    image.save(path, exif=data, quality=95)
    content["images"][0].update(height=height, width=width)
    content["annotations"] = [
        {"id": i, "image_id": 5, "category_id": 1, "bbox": box} for i, box in enumerate(bbox)
    ]


def mean_inside(record):
    """The brightness inside of the first box, as TensorFlow decodes the picture."""
    import tensorflow as tf

    pixels = tf.io.decode_image(record.encoded).numpy()
    ymin, xmin, ymax, xmax = np.round(record.boxes[0] * ([*pixels.shape[:2]] * 2)).astype(int)
    return pixels[ymin:ymax, xmin:xmax].mean()


# The stored picture has its white corner at the lower left. Orientation 6 turns it clockwise, to
# the upper left of 60 x 40; 3 turns it half, to the upper right of 40 x 60. The second box, if any,
# fits one of the two sizes alone.
@pytest.mark.parametrize(
    ("orientation", "size", "bbox", "turned"),
    [
        (6, (60, 40), [[0, 0, 10, 10]], True),
        (6, (None, None), [[0, 0, 10, 10]], True),
        (6, (40, 60), [[0, 0, 10, 10], [5, 45, 10, 10]], True),
        (6, (40, 60), [[0, 30, 10, 10], [45, 5, 10, 10]], False),
        (6, (None, None), [[0, 30, 10, 10], [45, 5, 10, 10]], False),
        (3, (40, 60), [[50, 0, 10, 10]], True),
    ],
)
def test_boxes_are_where_the_annotator_saw_them(
    convert, content, tmp_path, orientation, size, bbox, turned
):
    exif(content, tmp_path, orientation, *size, bbox)
    summary = convert(content, skip_bad=False)
    (record,) = read_all(summary.paths)
    assert mean_inside(record) > 240
    text = "turned upright" if turned else "annotated as stored"
    assert [text in note for note in summary.notes] == [True]


def test_an_orientation_that_nothing_decides(convert, content, tmp_path):
    exif(content, tmp_path, 6, 40, 60, [[0, 0, 10, 10]])
    with pytest.raises(DataError, match="EXIF turns .*--drawn_on=upright or --drawn_on=stored"):
        convert(content, skip_bad=False)
    (record,) = read_all(convert(content, drawn_on="upright").paths)
    assert (record.height, record.width) == (60, 40)
    assert mean_inside(record) > 240
    (record,) = read_all(convert(content, drawn_on="stored").paths)
    assert (record.height, record.width) == (40, 60)
    assert mean_inside(record) < 10


def test_an_orientation_that_fits_no_size(convert, content, tmp_path):
    exif(content, tmp_path, 6, 50, 50, [[0, 0, 10, 10]])
    with pytest.raises(DataError, match=r"says .height, width. \(50, 50\), the image has \(60, 40"):
        convert(content, skip_bad=False)


def test_many_boxes_need_a_setting(convert, content):
    content["annotations"] *= 60
    assert "set max_number_of_boxes: 120 in the input reader" in str(convert(content))


BAD_FILES = [
    ('{"images": [\n]\n', "instances.json:3:1: no JSON"),
    ("[]", "no COCO detection file: has no list of objects 'images'"),
    ('{"images": [], "annotations": []}', "has no list of objects 'categories'"),
    (
        '{"images": [], "annotations": [], "categories": [{"id": -1, "name": "x"}]}',
        "category 'x': id -1; ids start at 1",
    ),
    (
        '{"images": [], "annotations": [], "categories": [{"id": 2147483648, "name": "x"}]}',
        "category 'x': id 2147483648; ids start at 1 and are below 2147483647",
    ),
    (
        '{"images": [], "annotations": [], "categories": [{"id": %s, "name": "x"}]}' % ("9" * 5000),
        "category 'x': id inf: no number",
    ),
    (
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\\ud800"}]}',
        "category id 1 has a name that is no Unicode text",
    ),
    ('{"images": [], "annotations": [], "categories": []}', "'categories' is empty"),
    ("[" * 200_000, "is nested too deeply"),
    ('{"images": []}\n{"images": []}', "instances.json:2:1: no JSON: several JSON values"),
    ("<annotation/>", "is XML; Pascal VOC's is read by create_pascal_tf_record"),
    ('{"a.jpg1": {"filename": "a.jpg", "regions": []}}', "this is VIA's own JSON; export as COCO"),
    ('{"_via_settings": {}, "_via_img_metadata": {}}', "this is VIA's own JSON; export as COCO"),
    ('{"shapes": [], "imagePath": "a.jpg"}', "this is LabelMe's own JSON"),
    ('[{"data": {}, "annotations": []}]', "this is Label Studio's own JSON; export as COCO"),
    ('[{"image": "a.jpg", "annotations": []}]', "this is CreateML's JSON; export as COCO"),
    ('[{"image_id": 1, "category_id": 1, "score": 1}]', "this is a list of detections"),
    (
        '{"images": [], "annotations": [], "categories": '
        '[{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]}',
        "category 'y': id 1 is already that of 'x'",
    ),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES, ids=lambda value: value[:40])
def test_bad_files(convert, content, message):
    with pytest.raises(DataError, match=message):
        convert(content)


def test_a_folder_is_no_json(tmp_path):
    with pytest.raises(DataError, match="is a folder; .*create_pascal_tf_record"):
        coco.read(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(content, tmp_path, encoding):
    content["categories"][0]["name"] = "Käfer"
    (tmp_path / "x.json").write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    assert coco.read(tmp_path / "x.json")[0] == {1: "cat", 90: "Käfer"}


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
    names, images, _ = coco.read(path)
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
    assert record_index.check_records(summary.paths, names, BoxRecords(100)).problems == ()
