"""Tests that absurdly large input is refused before it costs memory or time."""

import io
import json
import struct
import sys
import time
import zlib

import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image, ImageFile

from mnasdet import text_proto
from mnasdet.data import (
    coco,
    label_map,
    pascal,
    pictures,
    reader_checks,
    record_index,
    records,
    yolo,
)
from mnasdet.data.box_records import BoxRecords
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import DataError
from mnasdet.protos import input_reader_pb2
from mnasdet.protos.string_int_label_map_pb2 import StringIntLabelMap
from tests.mutations import damaged_text, generators

NAMES = {1: "cat", 3: "dog"}


def png_chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def patched(content, place, values):
    """The bytes with others from a place on."""
    return content[:place] + values + content[place + len(values) :]


def huge(image_format):
    """A picture of a few hundred bytes whose header says 16,000 x 16,000 pixels or so."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, image_format)
    content = file.getvalue()
    if image_format == "PNG":
        header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
        return content[:8] + png_chunk(b"IHDR", header) + content[33:]
    if image_format == "JPEG":
        return patched(content, content.index(b"\xff\xc0") + 5, struct.pack(">HH", 30_000, 30_000))
    if image_format == "GIF":
        return patched(content, 6, struct.pack("<HH", 30_000, 30_000))
    if image_format == "BMP":
        return patched(content, 18, struct.pack("<ii", 30_000, 30_000))
    # A key frame's start code, and after it the sides in 14 bits each.
    return patched(content, content.index(b"\x9d\x01\x2a") + 3, struct.pack("<HH", 16_000, 16_000))


@pytest.fixture
def no_decoder(monkeypatch):
    """Pixels must not be asked for."""

    def fail(*args, **kwargs):
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    monkeypatch.setattr(pictures, "can_be_decoded", fail)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_pixels_of_a_huge_picture_are_not_decoded(tmp_path, image_format, no_decoder):
    path = tmp_path / "huge"
    path.write_bytes(huge(image_format))
    with pytest.raises(ValueError, match="is too large: "):
        pictures.load(path)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_pixels_of_a_huge_picture_in_a_record_are_not_decoded(
    make_record, write_records, image_format, no_decoder
):
    record = make_record(encoded=huge(image_format))
    index = record_index.check_records(write_records([record]), NAMES, BoxRecords(100))
    (problem,) = index.problems
    assert "(image 'a'): is too large: " in problem
    assert index.num_usable == index.decoded_bytes == 0


# The lengths of a record, and their checksums as TFRecord files have them.
LENGTHS = {
    2**40: bytes.fromhex("0000000000010000aa3d6be4"),
    2**62: bytes.fromhex("00000000000000407f85f000"),
}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("num_before", [0, 2])
def test_a_record_longer_than_its_file(make_record, write_records, length, num_before):
    """TensorFlow alone takes the memory first, and dies of it."""
    (path,) = write_records([make_record(str(i)) for i in range(num_before)])
    with open(path, "ab") as file:
        file.write(LENGTHS[length] + b"and no more than that")
    index = record_index.check_records([path], NAMES, BoxRecords(100))
    (problem,) = index.problems
    assert problem.startswith(f"{path}: record {num_before}: the file is damaged")
    assert index.num_usable == num_before


@pytest.mark.parametrize("max_bytes", [0, 1e9])
def test_the_check_of_a_reader_survives_it_too(
    make_record, write_records, tmp_path, monkeypatch, max_bytes
):
    monkeypatch.setattr(reader_checks, "_MAX_BYTES", max_bytes)
    paths = write_records([make_record(str(i)) for i in range(2)])
    with open(paths[0], "ab") as file:
        file.write(LENGTHS[2**40] + b"and no more than that")
    label_map.save(tmp_path / "map.pbtxt", NAMES)
    reader = input_reader_pb2.InputReader(label_map_path=str(tmp_path / "map.pbtxt"))
    reader.tf_record_input_reader.input_path[:] = paths
    (problem,) = reader_checks.reader_problems(reader, ImageResizer((32, 32)), 2)
    assert problem.startswith(f"{paths[0]}: record 2: the file is damaged or cut short; ")
    reader.bad_records = input_reader_pb2.InputReader.SKIP
    assert reader_checks.reader_problems(reader, ImageResizer((32, 32)), 2) == []
    if max_bytes:
        (problem,) = reader_checks.reader_problems(reader, ImageResizer((32, 32)), 3)
        assert problem.endswith("batch_size is 3; 2 images are fewer than that; lower it")


def test_a_hundred_thousand_boxes_in_one_record(tmp_path, make_record):
    example = records.to_example(make_record())
    features = example.features.feature
    for side, value in (("ymin", 0.1), ("xmin", 0.1), ("ymax", 0.9), ("xmax", 0.9)):
        features[f"image/object/bbox/{side}"].float_list.value[:] = [value] * 10**5
    features["image/object/class/label"].int64_list.value[:] = [1] * 10**5
    for name in ("class/text", "is_crowd", "area", "difficult"):
        del features[f"image/object/{name}"]
    path = str(tmp_path / "x.record")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(example.SerializeToString())
    (problem,) = record_index.check_records([path], NAMES, BoxRecords(100)).problems
    assert "100000 boxes, more than max_number_of_boxes: 100; raise it" in problem


@pytest.mark.parametrize("width", [1e-200, 1e-320, 1e-7])
@pytest.mark.parametrize("height", [1e-200, 20])
def test_a_box_of_no_size_in_a_record_is_not_written(width, height):
    """Its sides differ in 64 bits, and not in the 32 of a record."""
    with pytest.raises(ValueError, match=r"^\[ymin 8, xmin 5, ymax .* has no size: "):
        records.cut((8, 5, 8 + height, 5 + width), 40, 60, {})
    with pytest.raises(ValueError, match=r"^\[ymin 0, xmin 0, ymax .* has no size: "):
        records.cut((0, 0, height, 1e-320), 40, 60, {})


def calls(function):
    """The Python calls that a function makes, which do not depend on the machine."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def coco_text(count):
    return json.dumps(
        {
            "images": [
                {"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in range(count)
            ],
            "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(count)],
            "annotations": [
                {
                    "id": i,
                    "image_id": i // 2,
                    "category_id": i // 3 + 1,
                    "segmentation": [[1, 1, 9, 1, 9, 9 + i]],
                }
                for i in range(3 * count)
            ],
        }
    )


def test_coco_is_read_in_linear_time(tmp_path):
    costs = []
    for count in (100, 400):
        (tmp_path / "coco.json").write_text(coco_text(count))
        costs.append(calls(lambda: coco.read(tmp_path / "coco.json")))
    assert costs[1] < 5 * costs[0]


def test_pascal_voc_is_read_in_linear_time(tmp_path):
    costs = []
    for count in (100, 400):
        objects = "".join(
            f"<object><name>{i}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
            "<ymax>9</ymax></bndbox></object>"
            for i in range(count)
        )
        xml = f"<annotation><filename>a.jpg</filename>{objects}</annotation>"
        (tmp_path / "a.xml").write_text(xml)

        def read():
            names = pascal.class_names(tmp_path)
            (image,) = pascal.read([tmp_path / "a.xml"], names)
            assert len(image.objects) == len(names)

        costs.append(calls(read))
    assert costs[1] < 5 * costs[0]


def test_names_near_to_unknown_ones_are_looked_for_a_few_times(tmp_path, monkeypatch):
    searches = []
    monkeypatch.setattr(
        "difflib.get_close_matches", lambda name, *args, **kwargs: searches.append(name) or []
    )
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    objects = "".join(f"<object><name>unknown {i}</name>{box}</object>" for i in range(500)) * 2
    (tmp_path / "a.xml").write_text(f"<annotation><filename>a.jpg</filename>{objects}</annotation>")
    (image,) = pascal.read([tmp_path / "a.xml"], {i: f"class {i}" for i in range(1, 1001)})
    assert len(image.problems) == 1000
    assert image.problems[-1].endswith(
        "class 'unknown 499' is unknown; expected one of 1000 classes"
    )
    assert len(searches) <= 100


def test_entities_of_xml_are_not_expanded_without_end(tmp_path):
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "lol"}">' for i in range(12))
    text = f"<!DOCTYPE a [{entities}]><annotation><filename>&e11;</filename></annotation>"
    (tmp_path / "a.xml").write_text(text)
    (image,) = pascal.read([tmp_path / "a.xml"], NAMES)
    assert image.fault.startswith("no XML: ")


@pytest.mark.parametrize("ending", ["yaml", "txt"])
def test_classes_of_yolo_are_read_in_linear_time(tmp_path, ending):
    costs = []
    for count in (200, 800):
        path = tmp_path / f"classes.{ending}"
        names = [f"class {i}" for i in range(count)]
        path.write_text(f"names: {json.dumps(names)}" if ending == "yaml" else "\n".join(names))
        costs.append(calls(lambda path=path: yolo.classes(path)))
        assert len(yolo.classes(path)[0]) == count
    assert costs[1] < 5 * costs[0]


def test_many_classes_of_yolo_do_not_take_minutes(tmp_path):
    """Python's `in` is one call, however long the list is."""
    (tmp_path / "classes.txt").write_text("\n".join(f"class {i}" for i in range(40_000)))
    start = time.process_time()
    assert len(yolo.classes(tmp_path / "classes.txt")[0]) == 40_000
    assert time.process_time() - start < 5


ALIASES = "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10) if i else 1}]\n" for i in range(12)
)


@pytest.mark.parametrize("use", ["names: *a11", "names: [*a11]", "names: [a]\nkpt_shape: *a11"])
def test_aliases_of_yaml_are_not_expanded(tmp_path, use):
    """Written out, they are ten to the power of twelve values."""
    (tmp_path / "data.yaml").write_text(ALIASES + use)
    with pytest.raises(DataError) as caught:
        yolo.classes(tmp_path / "data.yaml")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("number", ["2147483647", "9" * 30, "0x" + "f" * 5000])
def test_numbers_of_classes_that_no_label_map_holds(tmp_path, number):
    (tmp_path / "data.yaml").write_text(f"names:\n  ? {number}\n  : cat\n")
    with pytest.raises(DataError, match="'cat': expected a number of 0 to 2147483646"):
        yolo.classes(tmp_path / "data.yaml")


def test_label_maps_of_many_classes_do_not_wait_for_protobuf(tmp_path, monkeypatch):
    """Its parser, which is written in Python, takes 8 s for 100,000 classes."""

    def fail(*args, **kwargs):
        raise AssertionError("was parsed by protobuf")

    names = {class_id: f"class {class_id}" for class_id in range(1, 20_001)}
    label_map.save(tmp_path / "map.pbtxt", names)
    monkeypatch.setattr(text_format, "Parse", fail)
    assert label_map.load(tmp_path / "map.pbtxt") == names
    assert label_map.load_ids(tmp_path / "map.pbtxt")[0] == label_map.ids_of(names)


def test_problems_of_a_label_map_cost_linear_time(tmp_path):
    """The same id again and again is told once, and found as quickly."""
    costs = []
    for count in (100, 400):
        path = tmp_path / f"{count}.pbtxt"
        items = (f"item {{ id: {i + 1} name: '{i % (count - 1)}' }}" for i in range(count))
        path.write_text("\n".join(items))

        def read(path=path):
            with pytest.raises(DataError, match="the name is already that of id 1"):
                label_map.load(path)

        costs.append(calls(read))
    assert costs[1] < 5 * costs[0]


@pytest.mark.parametrize("read", ["coco", "pascal", "yolo", "label_map"])
def test_a_text_is_no_name_of_a_class(tmp_path, read):
    name = "x" * 1001
    path = tmp_path / "a.xml"
    contents = {
        "coco": '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "NAME"}]}',
        "pascal": "<annotation><object><name>NAME</name></object></annotation>",
        "yolo": "NAME",
        "label_map": "item { id: 1 name: 'NAME' }",
    }
    readers = {
        "coco": coco.read,
        "pascal": lambda path: pascal.class_names(path.parent),
        "yolo": yolo.classes,
        "label_map": label_map.load,
    }
    path.write_text(contents[read].replace("NAME", name))
    with pytest.raises(DataError, match="'x.*: the name has 1001 characters; at most 1000 are all"):
        readers[read](path)
    path.write_text(contents[read].replace("NAME", name[1:]))
    readers[read](path)


PLAIN = """
item { name: "x # y: {" id: 7 } item {id:8 name:'it "is"',display_name: "\t"; }item{ }
item {
  id: 2147483647
  name: "Käse"
}
item { frequency: RARE id: 010 instance_count: -3 name: 'a' 'b' }  # octal, and in two pieces
"""


def test_plain_text_is_read_as_protobuf_reads_it():
    """The same messages, and protobuf's own problems, also of damaged text."""
    texts = [PLAIN, "", " item {} ", PLAIN[: PLAIN.index("item {\n")]]
    for _, rng in generators("plain", 300):
        text = damaged_text(texts[rng.choice([0, 3, 3])], rng).decode("utf-8", "replace")
        texts.append(text.replace("\\" * 1000, ""))
    read = 0
    for text in texts:
        plain = text_proto._plain_message(text, StringIntLabelMap)
        if plain is not None:
            read += 1
            assert plain == text_format.Parse(text, StringIntLabelMap()), text
    assert read > len(texts) / 20


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("item { id: 1 name: 'a' }\n" * 700_000, "map.pbtxt: has 17,500,000 bytes; a text proto"),
        ("item { name: '" + "\\\\" * 10_000 + "' id: 1 }", ":1:15: 1000 backslashes in a row"),
        ("item {" * 10_000, "is no field of StringIntLabelMapItem but of StringIntLabelMap"),
        ("item { id: 1 } " + "x" * 2_000_000, "map.pbtxt:1:16: no field "),
    ],
)
def test_large_and_deep_label_maps(tmp_path, text, told):
    (tmp_path / "map.pbtxt").write_text(text)
    with pytest.raises(DataError) as caught:
        label_map.load(tmp_path / "map.pbtxt")
    assert told in str(caught.value)
    assert len(str(caught.value)) <= 1000 or "\n" in str(caught.value)
