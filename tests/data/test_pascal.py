"""mnasdet/data/pascal.py, alone and against the same pictures in COCO's format."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.data import coco, conversion, pascal, records
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


def convert(files, names, images_dir, output, skip_bad=True):
    return conversion.convert(
        pascal.read(files, names),
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
    (("<xmax>45", "<xmax>99"), "object 1: box .* outside the image of height 40 and width 60"),
    (("<xmax>45", "<xmax>?"), "object 1: <xmax> is '\\?', expected a number"),
    (("<name>dog", "<name>dag"), "object 1: class 'dag' is unknown; expected one of dog, cat"),
    (("bndbox", "box"), "object 1: has no <bndbox>"),
    (("</size>", ""), "no XML: mismatched tag: line 7"),
    (("filename>", "file>"), "expected <annotation> with a <filename>"),
    (("<height>40", "<height>"), "<height> is ''"),
    (("<height>40", "<height>20"), r"says \(height, width\) \(20, 60\), the image has \(40, 60\)"),
    (("a.jpg", "b.jpg"), "b.jpg cannot be read: No such file"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ANNOTATIONS)
def test_bad_annotations(folder, change, message):
    (folder / "a.xml").write_text(XML.replace(*change))
    names = {1: "cat", 2: "dog"}
    with pytest.raises(DataError, match=message) as error:
        convert([folder / "a.xml"], names, folder, folder / "out", skip_bad=False)
    assert str(folder / "a.xml") in str(error.value)
    assert not list((folder / "out").iterdir())


def test_missing_annotation_is_skipped(folder):
    files = [folder / "a.xml", folder / "missing.xml"]
    summary = convert(files, {1: "cat", 2: "dog"}, folder, folder / "out")
    assert (summary.images, summary.skipped_images) == (1, 1)


def test_missing_folders_and_sets(folder):
    with pytest.raises(DataError, match="nowhere: the folder of the annotations does not exist"):
        pascal.annotation_files(folder / "nowhere")
    with pytest.raises(DataError, match=r"none\.txt: the image set cannot be read"):
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
    json_names, annotated = coco.read(BCCD / f"instances_{split}.json")
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
    ours = {record.source_id: record for record in read_all(from_xml.paths)}
    theirs = {record.source_id: record for record in read_all(from_json.paths)}
    assert ours.keys() == theirs.keys()
    for source_id, record in ours.items():
        for name, value in vars(theirs[source_id]).items():
            np.testing.assert_array_equal(getattr(record, name), value, err_msg=source_id)
