"""Conversion reads no file outside the folder of the images and none that has no end."""

import json
import os
import re
import signal
import socket
import tempfile

import pytest
import tensorflow as tf

from mnasdet.data import coco, conversion, ordinary_files, pascal, pictures, records, yolo
from mnasdet.errors import DataError

NAMES = {1: "cat"}
BOX = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"


@pytest.fixture(autouse=True)
def _patience():
    """Fails what waits for a pipe."""

    def give_up(*_):
        raise AssertionError("waits for a pipe")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path, encode_image, monkeypatch):
    """Files that are not to be read beside two in "images", which is a link, that are."""
    images = tmp_path / "disk" / "images"
    (images / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for name in ("disk/images/good.jpg", "outside/secret.jpg", "secret.jpg"):
        (tmp_path / name).write_bytes(encode_image(40, 60))
    (tmp_path / "images").symlink_to(images)
    (images / "within.jpg").symlink_to("good.jpg")
    (images / "link.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    (images / "up").symlink_to(tmp_path)
    (images / "zero.jpg").symlink_to("/dev/zero")
    (images / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(images / "pipe.jpg")
    (images / "folder.jpg").mkdir()
    # The path of a socket has 107 bytes at most.
    monkeypatch.chdir(images)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        yield tmp_path


# The reason for which each name is refused.
REASONS = {
    "../secret.jpg": "leads out of",
    "sub/../../secret.jpg": "leads out of",
    "link.jpg": "'link.jpg' is a link out of .*give the folder that the links lead to as --images",
    "up/secret.jpg": "'up/secret.jpg' is a link out of",
    "zero.jpg": "is a link out of",
    "loop.jpg": "is a link to nothing",
    "pipe.jpg": "'pipe.jpg' is no ordinary file but a pipe",
    "socket.jpg": "is no ordinary file but a socket",
    "folder.jpg": "is no ordinary file but a folder",
}


def read_coco(folder, names):
    objects = [
        {"id": number, "image_id": number, "category_id": 1, "bbox": [1, 1, 8, 8]}
        for number in range(len(names))
    ]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "a.json").write_text(json.dumps(content))
    return coco.read(folder / "a.json")[1]


def read_pascal(folder, names):
    (folder / "xml").mkdir()
    for number, name in enumerate(names):
        text = f"<annotation><filename>{name}</filename>{BOX}</bndbox></object></annotation>"
        (folder / "xml" / f"{number}.xml").write_text(text)
    return list(pascal.read(pascal.annotation_files(folder / "xml"), NAMES))


def read_yolo(folder, names):
    """YOLO's annotations have no names: all pictures of the folder that have a file of labels."""
    (folder / "labels").mkdir()
    for name in names:
        if "/" not in name:
            (folder / "labels" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    return yolo.read(folder / "images", folder / "labels", NAMES)[0]


@pytest.mark.parametrize("read", [read_coco, read_pascal, read_yolo])
def test_pictures_elsewhere_are_left_out(read, folder, monkeypatch):
    opened = []
    load = pictures.load
    monkeypatch.setattr(pictures, "load", lambda path: opened.append(path.name) or load(path))
    names = ["good.jpg", "within.jpg", *REASONS, str(folder / "secret.jpg")]
    images = read(folder, names)
    asked = {id(image): image.filename for image in images}
    summary = conversion.convert(
        images,
        total=len(images),
        images_dir=folder / "images",
        names=NAMES,
        output_path=folder / "out" / "x.record",
        num_shards=1,
        label_map_output=folder / "out" / "label_map.pbtxt",
        skip_bad=True,
        max_lost_share=1.0,
    )
    faults = {asked[id(image)]: image.fault for image in images if image.fault}
    written = tf.data.TFRecordDataset(summary.paths).as_numpy_iterator()
    examples = [records.from_example(tf.train.Example.FromString(data)) for data in written]
    # A link within the folder is a picture like others.
    assert [example.filename for example in examples] == ["good.jpg", "within.jpg"]
    assert opened == ["good.jpg", "within.jpg"]
    expected = REASONS | {str(folder / "secret.jpg"): "no picture"}
    if read is read_yolo:
        # The walk through the folder goes into no link and names no folder.
        expected = {n: r for n, r in REASONS.items() if "/" not in n and n != "folder.jpg"}
        faults = {name: fault for name, fault in faults.items() if name}
    assert set(faults) == set(expected)
    for name, reason in expected.items():
        assert re.search(reason, faults[name])


def test_many_links_out_are_one_cause(folder):
    """A data set that is linked together says how to go on."""
    names = [f"link {number}.jpg" for number in range(3)]
    for name in names:
        (folder / "images" / name).symlink_to(folder / "outside" / "secret.jpg")
    with pytest.raises(DataError, match=r"3 of 3 boxes would be lost, 3 of them .*copy the pic"):
        conversion.convert(
            read_coco(folder, names),
            total=3,
            images_dir=folder / "images",
            names=NAMES,
            output_path=folder / "out" / "x.record",
            num_shards=1,
            label_map_output=folder / "out" / "label_map.pbtxt",
            skip_bad=True,
        )


def test_a_file_of_labels_that_is_a_pipe(folder):
    (folder / "labels").mkdir()
    os.mkfifo(folder / "labels" / "good.txt")
    os.mkfifo(folder / "labels" / "of_no_picture.txt")
    (folder / "labels" / "within.txt").symlink_to("nothing.txt")
    images, _ = yolo.read(folder / "images", folder / "labels", NAMES)
    faults = {image.filename: image.fault for image in images}
    assert faults["good.jpg"] == "the labels cannot be read: is no ordinary file but a pipe"
    assert faults["within.jpg"].startswith("the labels cannot be read: ")
    assert faults[""] == "has no picture"


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm on this system")
def test_a_file_in_the_memory_disk_is_an_ordinary_one_beside_devices():
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"four")
        file.flush()
        assert ordinary_files.size(file.name) == 4
    for device in ("/dev/zero", "/dev/urandom"):
        with pytest.raises(ValueError, match="is no ordinary file but a device"):
            ordinary_files.size(device)


def test_a_file_is_looked_at_before_it_is_read(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is no ordinary file but a device"):
        pictures.load(os.devnull)
    with pytest.raises(ValueError, match="is no ordinary file but a folder"):
        pictures.load(tmp_path)
    # A file with a hole takes no room on the disk, and terabytes in memory.
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"is too large: 1,099,511,627,776 bytes, more than 1,0"):
        pictures.load(tmp_path / "a.jpg")
    assert ordinary_files.size(tmp_path / "a.jpg") == 2**40
