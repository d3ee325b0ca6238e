"""Damaged annotations, label maps and records end in lines of our own, or in sound records."""

import contextlib
import io
import json
import logging as python_logging

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from mnasdet.data import coco, conversion, label_map, pascal, record_index, records, yolo
from mnasdet.data.box_records import BoxRecords
from mnasdet.errors import DataError
from tests.mutations import (
    check_lines,
    damaged_bytes,
    damaged_json,
    damaged_text,
    generators,
    outcome,
)

COUNT = 50

COCO = {
    "info": {"year": 2024},
    "images": [
        {"id": 5, "file_name": "a.jpg", "height": 40, "width": 60},
        {"id": 6, "file_name": "b.png", "height": 30, "width": 50},
    ],
    "categories": [
        {"id": 1, "name": "cat", "supercategory": "animal"},
        {"id": 90, "name": "dog", "supercategory": "animal"},
    ],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 90, "bbox": [15, 10, 30, 20], "area": 321.5},
        {"id": 2, "image_id": 5, "category_id": 1, "bbox": [0, 0, 60, 40], "iscrowd": 1},
        {"id": 3, "image_id": 6, "category_id": 1, "segmentation": [[5, 5, 20, 5, 20, 20]]},
        {
            "id": 4,
            "image_id": 6,
            "category_id": 1,
            "bbox": [10, 10, 20, 10],
            "attributes": {"rotation": 30.0, "occluded": False},
        },
    ],
}

VOC = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
  <filename>a.jpg</filename>
  <size><width>60</width><height>40</height><depth>3</depth></size>
  <object>
    <name>cat</name><difficult>0</difficult>
    <bndbox><xmin>10</xmin><ymin>10</ymin><xmax>50</xmax><ymax>30.5</ymax></bndbox>
  </object>
  <object>
    <name>dog</name>
    <polygon><x1>1</x1><y1>2</y1><x2>30</x2><y2>2</y2><x3>30</x3><y3>30</y3></polygon>
  </object>
  <object>
    <name>dog</name>
    <robndbox><cx>30</cx><cy>20</cy><w>20</w><h>10</h><angle>0.5</angle></robndbox>
  </object>
</annotation>
"""

YOLO = "0 0.5 0.5 0.5 0.25\n1 0.25 0.25 0.1 0.2\n1 0.1 0.1 0.4 0.1 0.4 0.4\n"

YAML = "path: data\nnames:\n  0: cat\n  1: dog\nnc: 2\nkpt_shape: [0, 2]\n"

LABEL_MAP = """item {
  id: 1
  name: 'cat'
}
item {
  id: 90
  name: "n02084071"
  display_name: 'dog'  # the animal
}
"""


@pytest.fixture
def folder(tmp_path, encode_image):
    """A folder with two pictures, images/a.jpg and images/b.png."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(encode_image(40, 60))
    (tmp_path / "images" / "b.png").write_bytes(encode_image(30, 50, "PNG"))
    return tmp_path


@pytest.fixture
def warnings():
    """Yields the list of logged messages."""
    lines = []
    handler = python_logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.get_absl_logger()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def convert(folder, read):
    """Converts what a reader reads, and checks the records."""
    names, images, remarks = read()
    summary = conversion.convert(
        images,
        remarks=remarks,
        total=1,
        images_dir=folder / "images",
        names=names,
        output_path=folder / "out" / "x.record",
        num_shards=1,
        label_map_output=folder / "out" / "map.pbtxt",
        skip_bad=True,
        max_lost_share=1,
    )
    check_lines(str(summary))
    label_map_path = folder / "out" / "map.pbtxt"
    assert label_map.load(label_map_path) == names
    label_map_path.unlink()
    index = record_index.check_records(summary.paths, names, BoxRecords(1000))
    assert index.problems == ()
    assert len(index.contents["classes"]) == summary.boxes
    check_contents(index.contents, names)
    return summary


def check_contents(contents, names):
    """Checks that what training gets lies within images and is of known classes."""
    boxes = contents["boxes"]
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert set(contents["classes"].tolist()) <= set(names)
    assert (contents["area"] > 0).all()
    assert np.isfinite(contents["area"]).all()


def check_all(name, damage, run, lines, count=COUNT, listed=False):
    """Runs all damaged inputs; some have to be refused or lose objects, and some not."""
    failures, complaints, total = [], 0, 0
    for seed, rng in generators(name, count):
        content = damage(rng)
        try:
            result = outcome(lambda content=content: run(content), listed=listed)
            for line in lines:
                check_lines(line)
        except Exception as error:
            failures.append(f"seed {seed}: {content[:300]!r}: {error!r}")
            result = error
        complaints += isinstance(result, Exception) or bool(lines)
        total += 1
        lines.clear()
    assert not failures, "\n".join(failures[:10])
    assert total < 20 or 0 < complaints < total


def test_coco(folder, warnings):
    def damage(rng):
        text = json.dumps(damaged_json(COCO, rng))
        return text.encode() if rng.randrange(3) else damaged_text(text, rng)

    def run(content):
        (folder / "coco.json").write_bytes(content)
        return convert(folder, lambda: coco.read(folder / "coco.json"))

    check_all("coco", damage, run, warnings)


def test_voc(folder, warnings):
    (folder / "xml").mkdir()

    def run(content):
        (folder / "xml" / "a.xml").write_bytes(content)
        names = {1: "cat", 2: "dog"}
        pascal.class_names(folder / "xml")
        images = pascal.read(pascal.annotation_files(folder / "xml"), names)
        return convert(folder, lambda: (names, list(images), []))

    check_all("voc", lambda rng: damaged_text(VOC, rng), run, warnings)


def test_yolo_labels(folder, warnings):
    names = {1: "cat", 2: "dog"}

    def run(content):
        (folder / "labels" / "a.txt").write_bytes(content)
        images, remarks = yolo.read(folder / "images", folder / "labels", names)
        return convert(folder, lambda: (names, images, remarks))

    check_all("yolo", lambda rng: damaged_text(YOLO, rng), run, warnings)


@pytest.mark.parametrize(("ending", "text"), [("yaml", YAML), ("txt", "cat\ndog\n")])
def test_yolo_classes(folder, warnings, ending, text):
    (folder / "labels" / "a.txt").write_text(YOLO)

    def run(content):
        path = folder / f"classes.{ending}"
        path.write_bytes(content)
        names, keypoints = yolo.classes(path)
        images, remarks = yolo.read(folder / "images", folder / "labels", names, keypoints)
        return convert(folder, lambda: (names, images, remarks))

    check_all(f"classes {ending}", lambda rng: damaged_text(text, rng), run, warnings)


PICTURES = ["JPEG", "JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]


def encoded_picture(image_format):
    """A picture of 40 x 60 that EXIF turns, where the format has EXIF."""
    image = Image.linear_gradient("L").resize((60, 40)).convert("RGB")
    exif = image.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, image_format, **({} if image_format in ("GIF", "BMP") else {"exif": exif}))
    return file.getvalue()


def test_pictures(folder, warnings):
    sound = {image_format: encoded_picture(image_format) for image_format in PICTURES}

    def damage(rng):
        content = sound[rng.choice(PICTURES)]
        if rng.randrange(2):
            return damaged_bytes(content, rng)
        # Most of a format is in its first bytes.
        return damaged_bytes(content[:200], rng) + content[200:]

    def run(content):
        (folder / "images" / "a.jpg").write_bytes(content)
        (folder / "coco.json").write_text(json.dumps(COCO))
        return convert(folder, lambda: coco.read(folder / "coco.json"))

    check_all("pictures", damage, run, warnings)


def test_label_maps(tmp_path, warnings):
    path = tmp_path / "map.pbtxt"

    def run(content):
        path.write_bytes(content)
        names = label_map.load(path)
        assert all(0 < class_id < 2**31 for class_id in names)
        assert len(set(names.values())) == len(names)
        label_map.load_ids(path)
        return names

    check_all("label map", lambda rng: damaged_text(LABEL_MAP, rng), run, warnings, listed=True)


NUMBERS = [0, 1, -1, 2**31, -(2**63), 2**63 - 1]
FLOATS = [0.0, 0.5, 1.0, -1.0, 1e-45, 1e38, float("nan"), float("inf"), -float("inf")]


def damaged_example(record, rng):
    """A serialized example with one to three features damaged."""
    example = records.to_example(record)
    features = example.features.feature
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(sorted(features))
        feature = features[key]
        kind = rng.randrange(6)
        values = getattr(feature, feature.WhichOneof("kind") or "float_list").value
        if kind == 0:
            del features[key]
        elif kind == 1:
            count = rng.choice([0, 1, 2, 3, 100])
            feature.int64_list.value[:] = [rng.choice(NUMBERS) for _ in range(count)]
        elif kind == 2:
            count = rng.choice([0, 1, 2, 3, 100])
            feature.float_list.value[:] = [rng.choice(FLOATS) for _ in range(count)]
        elif kind == 3:
            damaged = damaged_bytes(record.encoded, rng)
            feature.bytes_list.value[:] = rng.choice([[], [b""], [b"\xff\0\x1b\n"], [damaged] * 2])
        elif kind == 4 and key == "image/encoded" and values and isinstance(values[0], bytes):
            values[0] = damaged_bytes(values[0], rng)
        elif values:
            del values[rng.randrange(len(values)) :]
    return example.SerializeToString()


def test_records(tmp_path, make_record, warnings):
    path = str(tmp_path / "x.record")
    record = make_record(height=20, width=30)

    def damage(rng):
        content = damaged_example(record, rng)
        if rng.randrange(4) == 0:
            content = damaged_bytes(content, rng)
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(content)
        written = (tmp_path / "x.record").read_bytes()
        return damaged_bytes(written, rng) if rng.randrange(4) == 0 else written

    def run(content):
        (tmp_path / "x.record").write_bytes(content)
        names = {1: "cat", 3: "dog"}
        index = record_index.check_records([path], names, BoxRecords(100))
        for problem in index.problems:
            check_lines(problem)
        check_contents(index.contents, names)
        contents = {key: tf.constant(value) for key, value in index.contents.items()}
        if index.num_usable:
            (serialized,) = tf.data.TFRecordDataset(path).take(1)
            parsed = records.parse(serialized, tf.constant(0), contents)
            with contextlib.suppress(tf.errors.InvalidArgumentError):  # The pixels are damaged.
                assert records.decode(parsed)["image"].shape == (20, 30, 3)
            return index
        raise DataError("no usable record")

    check_all("records", damage, run, warnings)
