import numpy as np
import pytest
import tensorflow as tf

from mnasdet.data import augmentation, input_pipeline, label_map, mosaic
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import ConfigError
from mnasdet.protos import input_reader_pb2
from tests.data.coded_picture import step

SIZE = 64
STEP = step(f"random_mosaic {{ probability: 1.0 output_size: {SIZE} }}")

# The red of each picture; its box is as much green.
REDS = (50, 110, 170, 230)


def picture(number):
    """A red picture with a box of 8 rows and 12 columns in the middle of 24 x 36 pixels."""
    image = np.zeros((24, 36, 3), np.uint8)
    image[..., 0] = REDS[number]
    image[8:16, 12:24] = (0, REDS[number], 0)
    return {
        "image": tf.constant(image),
        "boxes": tf.constant([[8 / 24, 12 / 36, 16 / 24, 24 / 36]], tf.float32),
        "classes": tf.constant([number + 1]),
        "is_crowd": tf.constant([number == 2]),
        "area": tf.constant([96.0 + number]),
        "source_id": tf.constant(str(number)),
    }


def four():
    return {**picture(0), "others": tuple(picture(number) for number in (1, 2, 3))}


def augmented(seed, text=STEP):
    result = augmentation.augment(four(), [text], tf.constant([3, seed], tf.int64))
    return {key: value.numpy() for key, value in result.items()}


def test_four_pictures_fill_a_square():
    middles = set()
    for seed in range(6):
        image = augmented(seed)["image"]
        assert image.shape == (SIZE, SIZE, 3)
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]].max(-1)
        assert corners.tolist() == list(REDS)
        # Where the left column and the upper row change their picture.
        down = int((image[:, 0].max(-1) == REDS[0]).sum())
        right = int((image[0].max(-1) == REDS[0]).sum())
        assert (image[down:, :right].max(-1) > REDS[1]).any()
        middles.add((down, right))
        assert min(down, right) >= SIZE // 4
        assert max(down, right) <= 3 * SIZE // 4
    assert len(middles) > 4


def test_boxes_are_on_their_objects():
    seen = set()
    for seed in range(12):
        result = augmented(seed)
        pixels = result["boxes"] * SIZE
        for number, box in zip(result["classes"] - 1, pixels, strict=True):
            # Finds this picture's box alone. Its smoothed edges are only half as green.
            green = np.abs(result["image"][..., 1].astype(int) - REDS[number]) < 25
            rows, columns = np.nonzero(green & (result["image"][..., 0] < 25))
            found = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
            np.testing.assert_allclose(box, found, atol=1.6)
            seen.add(int(number))
        assert result["is_crowd"].tolist() == [number == 3 for number in result["classes"]]
        assert result["area"].tolist() == [95 + number for number in result["classes"]]
    assert seen == {0, 1, 2, 3}


def test_a_box_that_is_cut_off_is_dropped():
    all_of_it = step("random_mosaic { probability: 1 output_size: 64 overlap_thresh: 1 }")
    counts = {len(augmented(seed, all_of_it)["classes"]) for seed in range(12)}
    assert min(counts) < 4


def test_without_luck_the_image_stays():
    result = augmented(0, step("random_mosaic { probability: 0 }"))
    assert result.keys() == picture(0).keys()
    for key, value in picture(0).items():
        np.testing.assert_array_equal(result[key], value)


def test_it_comes_first():
    with pytest.raises(ConfigError, match="random_mosaic has to be the first"):
        augmentation.augment(picture(0), [STEP], tf.constant([1, 2], tf.int64))


def followers(start, count):
    """The ids of each example of a stream from `start` on, and of those with it."""
    stream = tf.data.Dataset.range(start, start + count + 3)
    stream = stream.map(lambda x: {"id": x, "boxes": tf.zeros([x, 4])})
    return [
        (int(x["id"]), [int(other["id"]) for other in x["others"]], len(x["boxes"]))
        for x in mosaic.with_others(stream).as_numpy_iterator()
    ]


def test_the_others_are_those_that_follow():
    assert followers(0, 3) == [(i, [i + 1, i + 2, i + 3], i) for i in range(3)]


def test_a_later_start_goes_on_with_the_same():
    assert followers(0, 9)[5:] == followers(5, 4)


@pytest.mark.parametrize("cache", [False, True])
def test_training_sees_mosaics(tmp_path, make_record, write_records, cache):
    paths = write_records([make_record(str(i)) for i in range(6)])
    label_map.save(tmp_path / "map.pbtxt", {1: "cat", 3: "dog"})
    reader = input_reader_pb2.InputReader(
        label_map_path=str(tmp_path / "map.pbtxt"), cache_decoded_images=cache
    )
    reader.tf_record_input_reader.input_path.extend(paths)
    dataset = input_pipeline.training_dataset(
        reader,
        resizer=ImageResizer((32, 32)),
        batch_size=6,
        augmentations=[STEP, step("random_horizontal_flip {}")],
        transform=lambda x: {"id": x["source_id"], "boxes": tf.shape(x["boxes"])[0]},
        seed=0,
    )
    first, second = dataset.take(2).as_numpy_iterator()
    # Every picture is once an epoch the first of its four; more boxes than the two of one.
    assert sorted(first["id"]) == sorted(second["id"]) == [b"%d" % i for i in range(6)]
    assert first["boxes"].max() > 2
