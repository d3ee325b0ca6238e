"""mnasdet/data/pascal.py, alone and against the same pictures in COCO's format."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.data import coco, conversion, label_map, pascal, records
from mnasdet.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
BCCD = SHARED / "bccd"

XML = """<annotation><filename>a.jpg</filename>
<size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>dog</name><difficult>1</difficult>
<bndbox><xmin>15</xmin><ymin>10</ymin><xmax>45</xmax><ymax>30</ymax></bndbox></object>
<object><name>cat</name>
<bndbox><xmin>1.5</xmin><ymin>0</ymin><xmax>60</xmax><ymax>40</ymax></bndbox></object>
</annotation>"""


def convert(files, names, images_dir, output, skip_bad=True, ids=(None, None)):
    return conversion.convert(
        pascal.read(files, names, *ids),
        total=len(files),
        images_dir=images_dir,
        names=names,
        output_path=output / "x.record",
        num_shards=2,
        label_map_output=output / "label_map.pbtxt",
        skip_bad=skip_bad,
    )


def read_all(paths):
    examples = tf.data.TFRecordDataset(paths).as_numpy_iterator()
    return [records.from_example(tf.train.Example.FromString(data)) for data in examples]


@pytest.fixture
def folder(tmp_path, encode_image):
    (tmp_path / "a.jpg").write_bytes(encode_image(40, 60))
    (tmp_path / "a.xml").write_text(XML)
    return tmp_path


def test_record(folder):
    names = pascal.class_names(folder)
    assert names == {1: "cat", 2: "dog"}
    summary = convert(pascal.annotation_files(folder), names, folder, folder / "out")
    (record,) = read_all(summary.paths)
    assert record.source_id == "a"
    np.testing.assert_allclose(record.boxes, [[0.25, 0.25, 0.75, 0.75], [0, 0.025, 1, 1]])
    assert record.class_ids.tolist() == [2, 1]
    assert record.class_names == ["dog", "cat"]
    assert record.area.tolist() == [600, 58.5 * 40]
    assert record.difficult.tolist() == [True, False]
    assert record.is_crowd.tolist() == [False, False]


def test_listed_classes():
    assert pascal.listed_classes(["dog", "cat"]) == {1: "dog", 2: "cat"}
    with pytest.raises(DataError, match="'dog' is empty or comes twice"):
        pascal.listed_classes(["dog", "cat", "dog"])


def test_image_set_with_flags_and_blank_lines(folder):
    image_set = folder / "train.txt"
    image_set.write_text("b  1\n\na -1\n")
    files = pascal.annotation_files(folder, image_set)
    assert [file.name for file in files] == ["b.xml", "a.xml"]


BAD_ANNOTATIONS = [
    (("<xmax>45", "<xmax>15"), "object 1: box .* has no size"),
    (("<xmax>45", "<xmax>199"), "object 1: box .* outside the image of height 40 and width 60"),
    (("<xmax>45", "<xmax>?"), "object 1: <xmax> is '\\?', expected a number"),
    (("<xmax>45", "<xmax>45,5"), "object 1: <xmax> is '45,5', expected a number"),
    (("<xmax>45", "<xmax>inf"), "object 1: <xmax> is 'inf', expected a number"),
    (("<name>dog", "<name>dag"), "object 1: class 'dag' is unknown; expected one of dog, cat"),
    (("<difficult>1", "<difficult>yes"), "object 1: <difficult> is 'yes': expected 0, 1, true"),
    (("bndbox", "box"), "object 1: has no <bndbox>"),
    (("<xmin>15", "<angle>0.3</angle><xmin>15"), "object 1: is a turned box .<angle> 0.3."),
    (("</size>", ""), "no XML: mismatched tag: line 7"),
    (("filename>", "file>"), "expected <annotation> with a <filename>"),
    (("annotation>", "annotations>"), "is CVAT's own XML; export as Pascal VOC or COCO"),
    (("<height>40", "<height>40px"), "<size>: height is '40px', expected a number of pixels"),
    (("<height>40", "<height>1e400"), "<size>: height is '1e400', expected a number of pixels"),
    (("<height>40", "<height>20"), r"says \(height, width\) \(20, 60\), the image has \(40, 60\)"),
    (("a.jpg", "b.jpg"), "no picture 'b.jpg'; did you mean 'a.jpg'"),
    (("<annotation>", '<?xml version="1.0" encoding="none-such"?><annotation>'), "'none-such'"),
    (("<annotation>", '<?xml version="1.0" encoding="hex"?><annotation>'), "encoding 'hex'"),
    (("<name>dog", "<name>d\xf6g"), "is not UTF-8 .byte 0xf6 in line 3.: save it as UTF-8"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ANNOTATIONS)
def test_bad_annotations(folder, change, message):
    (folder / "a.xml").write_bytes(XML.replace(*change).encode("latin-1"))
    names = {1: "cat", 2: "dog"}
    with pytest.raises(DataError, match=message) as error:
        convert([folder / "a.xml"], names, folder, folder / "out", skip_bad=False)
    assert str(folder / "a.xml") in str(error.value)
    assert not list((folder / "out").iterdir())


def test_missing_annotation_is_skipped(folder):
    files = [folder / "a.xml", folder / "missing.xml"]
    summary = convert(files, {1: "cat", 2: "dog"}, folder, folder / "out")
    assert (summary.images, summary.skipped_images) == (1, 1)


# The box [15, 10, 45, 30] (xmin, ymin, xmax, ymax) of a dog in other words; the note.
POINTS = (
    "<{0}1>15</{0}1><{1}1>10</{1}1><{0}2>45</{0}2><{1}2>10</{1}2><{0}3>20</{0}3><{1}3>30</{1}3>"
)
BOX = "<bndbox><xmin>15</xmin><ymin>10</ymin><xmax>45</xmax><ymax>30</ymax></bndbox>"
MENDED = [
    ("<bndbox><xmin>45</xmin><ymin>30</ymin><xmax>15</xmax><ymax>10</ymax></bndbox>", "exchanged"),
    (f"<polygon>{POINTS.format('x', 'y')}</polygon>", "made from polygons"),
    # 20 x 30 about (30, 20), and a quarter of a turn: in radians, and in CVAT's degrees.
    (
        "<robndbox><cx>30</cx><cy>20</cy><w>20</w><h>30</h><angle>1.5707963</angle></robndbox>",
        "turned boxes",
    ),
    (
        "<bndbox><xmin>20</xmin><ymin>5</ymin><xmax>40</xmax><ymax>35</ymax></bndbox>"
        "<attributes><attribute><name>rotation</name><value>270.0</value></attribute></attributes>",
        "turned boxes",
    ),
    (f"<part><name>head</name>{BOX.replace('15', '1')}</part>{BOX}", ""),
]


@pytest.mark.parametrize(("box", "note"), MENDED)
def test_other_shapes_of_a_box(folder, box, note):
    (folder / "a.xml").write_text(XML.replace(BOX, box))
    assert box in (folder / "a.xml").read_text()
    summary = convert([folder / "a.xml"], {1: "cat", 2: "dog"}, folder, folder / "out", False)
    (record,) = read_all(summary.paths)
    np.testing.assert_allclose(record.boxes[0], [0.25, 0.25, 0.75, 0.75], atol=1e-5)
    assert [note in text for text in summary.notes] == [True] * bool(note)


def test_an_angle_in_degrees_is_refused(folder):
    box = "<robndbox><cx>30</cx><cy>20</cy><w>20</w><h>30</h><angle>40</angle></robndbox>"
    (folder / "a.xml").write_text(XML.replace(BOX, box))
    with pytest.raises(DataError, match="<angle> is 40, expected radians"):
        convert([folder / "a.xml"], {1: "cat", 2: "dog"}, folder, folder / "out", False)


@pytest.mark.parametrize(
    ("declared", "written"),
    [
        ("gb2312", "gb2312"),
        ("GB2312", "gbk"),
        ("big5", "big5"),
        ("shift_jis", "shift_jis"),
        ("euc-kr", "euc-kr"),
        ("utf-16", "utf-16"),
        ("utf-16", "utf-8"),
        ("", "utf-8-sig"),
        ("latin-1", "latin-1"),
    ],
)
def test_encodings_of_xml(folder, declared, written):
    # The gbk character is not one of gb2312, which the file declares.
    names = {"latin-1": "caf\u00e9", "euc-kr": "\uae40", "gbk": "\u56cd"}
    name = names.get(written, "\u4e2d")
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    (folder / "a.xml").write_bytes((head + XML.replace("dog", name)).encode(written))
    assert set(pascal.class_names(folder).values()) == {"cat", name}
    (image,) = pascal.read([folder / "a.xml"], {1: "cat", 2: name})
    assert (len(image.objects), image.problems, image.fault) == (2, [], "")


def test_namespaces_and_sizes_that_state_nothing(folder):
    text = XML.replace("<annotation>", '<annotation xmlns="http://example.com">')
    (folder / "a.xml").write_text(text.replace("<width>60", "<width>0").replace("40<", "0<"))
    (folder / "b.xml").write_text(XML.replace("<height>40", "<height>"))
    images = list(pascal.read([folder / "a.xml", folder / "b.xml"], {1: "cat", 2: "dog"}))
    assert [(image.size, len(image.objects), image.fault) for image in images] == [
        (None, 2, "")
    ] * 2


def test_names_and_display_names_of_a_label_map(folder):
    """A name counts before a display_name; what was matched by display_name is said."""
    (folder / "map.pbtxt").write_text(
        "item { id: 1 name: 'dog' display_name: 'canine' }"
        "item { id: 2 name: 'n2' display_name: 'dog' }"
        "item { id: 3 name: 'n3' display_name: 'cat' }"
    )
    names, ids = label_map.load(folder / "map.pbtxt"), label_map.load_ids(folder / "map.pbtxt")
    summary = convert([folder / "a.xml"], names, folder, folder / "out", False, ids)
    (record,) = read_all(summary.paths)
    assert record.class_ids.tolist() == [1, 3]
    assert record.class_names == ["canine", "cat"]
    assert summary.notes == {"boxes whose class is a display_name of the label map": 1}


def test_classes_that_no_object_has_are_an_error(folder):
    with pytest.raises(DataError) as caught:
        convert([folder / "a.xml"], {1: "dgo", 2: "ct"}, folder, folder / "out")
    assert "2 of 2 boxes would be lost" in str(caught.value)
    assert "unknown classes: 'dog' 1 times, 'cat' 1 times" in str(caught.value)
    assert not list((folder / "out").glob("*"))


def test_too_many_unreadable_annotations_are_an_error(folder):
    for name in "bc":
        (folder / f"{name}.xml").write_text("no XML")
    files = [folder / f"{name}.xml" for name in "abc"]
    with pytest.raises(DataError, match="2 of 3 images would be left out.*b.xml: no XML"):
        convert(files, {1: "cat", 2: "dog"}, folder, folder / "out")


def test_unknown_classes_are_counted_by_name(folder):
    summary = convert([folder / "a.xml"], {1: "dog"}, folder, folder / "out")
    assert "left out 0 images and 1 boxes (unknown classes: 'cat' 1 times)" in str(summary)


@pytest.mark.parametrize(
    "line", ["my cat 1", "my cat 1.jpg", "voc/my cat 1.xml", "C:\\v\\my cat 1"]
)
def test_names_with_blanks_in_an_image_set(folder, line):
    (folder / "my cat 1.xml").write_text(XML)
    (folder / "train.txt").write_text(f"{line}\r\na  1\nmissing -1\na\n", encoding="utf-16")
    files = pascal.annotation_files(folder, folder / "train.txt")
    assert [file.name for file in files] == ["my cat 1.xml", "a.xml", "missing.xml"]


def test_a_pipe_is_no_annotation(folder):
    os.mkfifo(folder / "b.xml")
    (image,) = pascal.read([folder / "b.xml"], {1: "cat"})
    assert image.fault == "is no ordinary file but a pipe"


def test_a_folder_of_another_format(folder):
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match="has no .*xml but .*txt; create_yolo_tf_record may be"):
        pascal.annotation_files(folder / "labels")


def test_missing_folders_and_sets(folder):
    with pytest.raises(DataError, match="nowhere: the folder of the annotations does not exist"):
        pascal.annotation_files(folder / "nowhere")
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        pascal.annotation_files(folder, folder / "none.txt")


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared blood-cell pictures")
@pytest.mark.parametrize(
    ("split", "image_set", "images", "boxes", "dropped"),
    [("val", "test", 72, 945, 0), ("train", "trainval", 292, 3941, 2)],
)
def test_real_data_is_the_same_in_both_formats(tmp_path, split, image_set, images, boxes, dropped):
    names = pascal.listed_classes(["RBC", "WBC", "Platelets"])
    sets = BCCD / "voc" / "ImageSets" / "Main"
    files = pascal.annotation_files(BCCD / "voc" / "Annotations", sets / f"{image_set}.txt")
    from_xml = convert(files, names, BCCD / "images", tmp_path / "xml")
    json_names, annotated, _ = coco.read(BCCD / f"instances_{split}.json")
    from_json = conversion.convert(
        annotated,
        total=len(annotated),
        images_dir=BCCD / "images",
        names=json_names,
        output_path=tmp_path / "json" / "x.record",
        num_shards=1,
        label_map_output=tmp_path / "json" / "label_map.pbtxt",
        skip_bad=False,
    )
    assert json_names == names
    assert (from_xml.images, from_xml.boxes, from_xml.skipped_boxes) == (images, boxes, dropped)
    assert (from_json.images, from_json.boxes) == (images, boxes)
    ours = {record.filename: record for record in read_all(from_xml.paths)}
    theirs = {record.filename: record for record in read_all(from_json.paths)}
    assert ours.keys() == theirs.keys()
    for filename, record in ours.items():
        for name, value in vars(theirs[filename]).items():
            # COCO's ids are numbers.
            if name != "source_id":
                np.testing.assert_array_equal(getattr(record, name), value, err_msg=filename)


def test_where_no_annotation_can_be_read_the_first_fault_is_told(folder):
    for file in folder.glob("*.xml"):
        file.write_bytes(b"<?xml version='1.0' encoding='bogus'?><annotation/>")
    with pytest.raises(DataError, match=r"an object with a name; \w+\.xml: .*encoding 'bogus'"):
        pascal.class_names(folder)
