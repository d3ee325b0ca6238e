import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from mnasdet.data import class_folders, classification_records, input_pipeline, label_map
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import DataError
from mnasdet.protos import input_reader_pb2

COLOURS = {"blue": (0, 0, 250), "green": (0, 250, 0), "red": (250, 0, 0)}


@pytest.fixture
def folder(tmp_path):
    """Ten pictures of each of three classes."""
    for name, colour in COLOURS.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(10):
            picture = Image.new("RGB", (20, 10 + number), colour)
            picture.save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def records(summary, split):
    """The images of a split, in their order."""
    return [
        classification_records.from_example(tf.train.Example.FromString(serialized))
        for serialized in tf.data.TFRecordDataset(summary.paths[split]).as_numpy_iterator()
    ]


def test_every_class_is_divided(folder, tmp_path):
    summary = class_folders.convert(
        folder, tmp_path / "data", validation_fraction=0.2, num_shards=3
    )
    train, validation = records(summary, "train"), records(summary, "validation")
    assert [len(train), len(validation)] == [24, 6] == list(summary.images.values())
    for part, count in ((train, 8), (validation, 2)):
        assert np.bincount([image.class_id for image in part]).tolist() == [0] + [count] * 3
    assert len({image.source_id for image in train + validation}) == 30
    # Not class by class.
    assert [image.class_id for image in train] != sorted(image.class_id for image in train)
    assert label_map.load(tmp_path / "data" / "label_map.pbtxt") == {
        1: "blue",
        2: "green",
        3: "red",
    }
    names = sorted(path.name for path in (tmp_path / "data").glob("*.record*"))
    assert names == [
        *(f"train.record-{i:05}-of-00003" for i in range(3)),
        "val.record-00000-of-00001",
    ]


def test_the_seed_draws(folder, tmp_path):
    drawn = [
        [
            image.source_id
            for image in records(
                class_folders.convert(folder, tmp_path / name, seed=seed), "validation"
            )
        ]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_records_are_read_as_they_were_written(folder, tmp_path):
    class_folders.convert(folder, tmp_path / "data", validation_fraction=0)
    reader = text_format.Parse(
        f'features: IMAGE_CLASS label_map_path: "{tmp_path}/data/label_map.pbtxt" '
        f'tf_record_input_reader {{ input_path: "{tmp_path}/data/train.record*" }}',
        input_reader_pb2.InputReader(),
    )
    dataset = input_pipeline.evaluation_dataset(reader, resizer=ImageResizer((8, 8)), batch_size=30)
    (batch,) = dataset.as_numpy_iterator()
    expected = np.array(list(COLOURS.values()))[batch["class"] - 1]
    np.testing.assert_allclose((batch["image"][:, 4, 4] + 1) * 127.5, expected, atol=1e-3)
    assert not (tmp_path / "data" / "val.record-00000-of-00001").exists()


def test_odd_files_are_named(folder, tmp_path, caplog):
    (folder / "notes.txt").write_text("of mine")
    (folder / "red" / "Thumbs.db").write_text("of Windows")
    (folder / "blue" / "0.png").write_bytes(b"no picture")
    summary = class_folders.convert(folder, tmp_path / "data")
    told = "\n".join(summary.left_out)
    assert "'notes.txt' lies in no folder of a class" in told
    assert "'red/Thumbs.db' is no picture by its ending" in told
    assert "blue/0.png: the image is damaged or no image at all" in told
    assert len(summary.left_out) == 3
    assert summary.images.total() == 29
    assert "left out 3 files" in str(summary)
    with pytest.raises(DataError, match="'notes.txt' lies in no folder"):
        class_folders.convert(folder, tmp_path / "other", skip_bad=False)


def test_pictures_are_written_upright(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    picture = Image.new("RGB", (30, 10))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "images" / "a" / "1.jpg", exif=exif)
    summary = class_folders.convert(tmp_path / "images", tmp_path / "data", validation_fraction=0)
    (image,) = records(summary, "train")
    assert (image.height, image.width) == (30, 10)
    assert "images turned upright, as their EXIF orientation says: 1" in str(summary)


def test_ids_of_a_label_map(folder, tmp_path):
    names = {1: "red", 2: "yellow", 3: "green", 7: "blue"}
    summary = class_folders.convert(folder, tmp_path / "data", names=names)
    assert {image.class_name: image.class_id for image in records(summary, "train")} == {
        "red": 1,
        "green": 3,
        "blue": 7,
    }
    with pytest.raises(DataError, match=r"images/blue: the folder is no class of the label map"):
        class_folders.convert(folder, tmp_path / "other", names={1: "red", 2: "green"})


@pytest.mark.parametrize("make", [False, True])
def test_no_folder_of_classes(tmp_path, make):
    if make:
        (tmp_path / "images").mkdir()
        Image.new("RGB", (5, 5)).save(tmp_path / "images" / "1.png")
    message = "has no pictures in folders; expected" if make else "does not exist"
    with pytest.raises(DataError, match=message):
        class_folders.convert(tmp_path / "images", tmp_path / "data")


def test_too_much_is_broken(folder, tmp_path):
    for path in folder.glob("*/[0-6].png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"\d+ of 30 files would be left out, the first for this: "):
        class_folders.convert(folder, tmp_path / "data", max_lost_share=0.3)
    assert not list((tmp_path / "data").glob("*"))


def test_another_label_map_is_not_overwritten(folder, tmp_path):
    (tmp_path / "data").mkdir()
    label_map.save(tmp_path / "data" / "label_map.pbtxt", {1: "cat"})
    with pytest.raises(DataError, match="exists and differs from the classes of"):
        class_folders.convert(folder, tmp_path / "data")


def test_copies_of_systems_and_links_are_no_pictures(folder, tmp_path):
    for name in ("__MACOSX/red/._0.png", "red/.ipynb_checkpoints/0.png", "red/@eaDir/0.png"):
        copy = folder / name
        copy.parent.mkdir(parents=True)
        copy.write_bytes((folder / "red" / "0.png").read_bytes())
    (folder / "cat").symlink_to(folder / "red")
    listed = class_folders.listing(folder)
    assert listed.names == {1: "blue", 2: "green", 3: "red"}
    assert [len(names) for names in listed.pictures.values()] == [10, 10, 10]
    assert len(listed.odd) == 4
    assert "'cat' is a link to a folder" in " ".join(listed.odd)


def test_records_of_another_split_do_not_stay(folder, tmp_path):
    class_folders.convert(folder, tmp_path / "data", validation_fraction=0.2)
    with pytest.raises(DataError, match="val.record-00000-of-00001: is there, and nothing is for"):
        class_folders.convert(folder, tmp_path / "data", validation_fraction=0)


def test_a_name_of_two_lines_is_no_class(folder):
    (folder / "red").rename(folder / "r\ned")
    with pytest.raises(DataError, match="has a line break in it"):
        class_folders.listing(folder)
