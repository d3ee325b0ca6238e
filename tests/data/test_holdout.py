"""Images that are kept out of training."""

import json

import pytest

from mnasdet.data import coco, conversion, records
from mnasdet.data.holdout import Holdout, holdout_path
from mnasdet.errors import DataError

NAMES = [f"{i:03}.jpg" for i in range(100)]


def test_the_same_images_whatever_their_order():
    drawn = Holdout(count=30).drawn(NAMES)
    assert len(drawn) == 30
    assert drawn < set(NAMES)
    assert Holdout(count=30).drawn(NAMES[::-1]) == drawn
    assert Holdout(fraction=0.3).drawn(NAMES) == drawn
    assert Holdout(count=30, seed=1).drawn(NAMES) != drawn
    # One more image takes the place of one at most.
    assert len(drawn - Holdout(count=30).drawn([*NAMES, "new.jpg"])) <= 1


def test_permanence():
    """Rule: another result is another split of everybody's data; it needs a new major version."""
    for seed, numbers in ((0, (8, 12, 32, 39, 70)), (7, (39, 40, 44, 45, 87))):
        drawn = Holdout(count=5, seed=seed).drawn(NAMES)
        assert sorted(drawn) == [f"{number:03}.jpg" for number in numbers]


def test_every_image_is_as_likely():
    """Over 300 seeds, an image is drawn 90 times; the deviation of that is about 8."""
    counts = dict.fromkeys(NAMES, 0)
    for seed in range(300):
        for name in Holdout(count=30, seed=seed).drawn(NAMES):
            counts[name] += 1
    assert min(counts.values()) > 90 - 5 * 8
    assert max(counts.values()) < 90 + 5 * 8


@pytest.mark.parametrize(
    ("holdout", "message"),
    [
        (Holdout(count=100), "--holdout=100 holds 100 images out; 1 to 99 are allowed, for 100"),
        (Holdout(fraction=0.001), "--holdout_fraction=0.001 holds 0 images out; 1 to 99 are"),
        (Holdout(fraction=1.0), "--holdout_fraction=1.0 holds 100 images out"),
    ],
)
def test_something_has_to_be_on_either_side(holdout, message):
    with pytest.raises(DataError, match=f"^{message}"):
        holdout.drawn(NAMES)


def test_the_name_of_the_second_set():
    assert str(holdout_path("coco/search_train.record")) == "coco/search_train_holdout.record"
    assert str(holdout_path("train")) == "train_holdout"


@pytest.fixture
def convert(tmp_path, encode_image):
    """Converts twenty pictures, image i with i % 3 boxes, given in an order."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.jpg").write_bytes(encode_image(8, 8))

    def run(order=range(20), output="train.record", **options):
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg", "height": 8, "width": 8} for i in order],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [
                {"id": 10 * i + k, "image_id": i, "category_id": 1, "bbox": [k, 0, 4, 4]}
                for i in order
                for k in range(i % 3)
            ],
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        names, images, _ = coco.read(path)
        return conversion.convert(
            images,
            total=len(images),
            images_dir=folder,
            names=names,
            output_path=tmp_path / "out" / output,
            num_shards=4,
            label_map_output=tmp_path / "out" / "label_map.pbtxt",
            skip_bad=True,
            **options,
        )

    return run


def source_ids(paths):
    import tensorflow as tf

    return {
        records.source_id(tf.train.Example.FromString(raw.numpy()))
        for raw in tf.data.TFRecordDataset(list(paths))
    }


def test_two_sets_of_records(convert):
    summary = convert(holdout=Holdout(count=5, seed=3))
    kept, held = source_ids(summary.paths), source_ids(summary.holdout_paths)
    assert kept | held == {str(i) for i in range(20)}
    assert not kept & held
    assert (summary.images, summary.holdout_images) == (len(kept), len(held)) == (15, 5)
    boxes = sum(int(name) % 3 for name in held)
    assert (summary.boxes, summary.holdout_boxes) == (19 - boxes, boxes)
    # A quarter of the images in a quarter of the files.
    assert (len(summary.paths), len(summary.holdout_paths)) == (4, 1)
    name = "train_holdout.record-00000-of-00001"
    assert f"; held out 5 images with {boxes} boxes, which are in " in str(summary)
    assert summary.holdout_paths[0].endswith(f"/out/{name}")
    again = convert(range(19, -1, -1), "other.record", holdout=Holdout(fraction=0.25, seed=3))
    assert source_ids(again.holdout_paths) == held


def test_no_records_of_a_holdout_stay_beside_all_images(convert):
    summary = convert(holdout=Holdout(count=5))
    with pytest.raises(DataError) as caught:
        convert()
    assert str(caught.value).startswith(f"{summary.holdout_paths[0]}: is left from a run with --ho")


def test_broken_pictures_are_left_out_of_either_set(convert, tmp_path):
    """All that are held out are broken: nothing is written."""
    for name in Holdout(count=2).drawn([f"{i}.jpg" for i in range(20)]):
        (tmp_path / "images" / name).write_bytes(b"no picture")
    with pytest.raises(DataError, match="no image of those to hold out is left to write, 20 were"):
        convert(holdout=Holdout(count=2))
    assert list((tmp_path / "out").iterdir()) == []
