import numpy as np
import pytest
import tensorflow as tf

from mnasdet.data import augmentation
from mnasdet.data.geometric_augmentation import OF_BOXES
from mnasdet.errors import ConfigError
from mnasdet.protos import preprocessor_pb2
from tests.data.coded_picture import augment, example, step

# Each step's result for the example with seed 5: the image's shape, its mean and the boxes' sum.
# Update only when a change of the augmentation is meant: it changes every training run.
PERMANENT = {
    "random_horizontal_flip {}": ([60, 80], 23.000, 6.7500),
    "random_vertical_flip {}": ([60, 80], 23.000, 5.2500),
    "random_rotation90 {}": ([80, 60], 23.000, 6.7500),
    "random_image_scale { min_scale_ratio: 0.5 max_scale_ratio: 1.5 }": ([58, 77], 22.996, 4.8500),
    "random_jitter_boxes {}": ([60, 80], 23.000, 4.8561),
    "random_crop_image { min_object_covered: 0.5 random_coef: 0.2 }": ([32, 31], 10.833, 1.2077),
    "random_crop_to_aspect_ratio {}": ([60, 60], 21.667, 5.0333),
    "ssd_random_crop {}": ([53, 44], 20.833, 5.0660),
    "ssd_random_crop { operations { min_object_covered: 0.3 min_aspect_ratio: 0.8 "
    "max_aspect_ratio: 1.2 min_area: 0.2 max_area: 0.9 overlap_thresh: 0.4 } }": (
        [45, 40],
        25.500,
        3.9833,
    ),
    "ssd_random_crop_fixed_aspect_ratio {}": ([60, 60], 25.000, 4.0333),
    "ssd_random_crop_fixed_aspect_ratio { aspect_ratio: 1.5 operations { min_area: "
    "0.2 max_area: 0.5 } }": ([35, 52], 21.167, 4.5560),
    "random_pad_image {}": ([99, 118], 23.196, 5.0971),
    "random_crop_pad_image { min_object_covered: 0.1 max_padded_size_ratio: [1.5, 1.5] }": (
        [70, 82],
        20.319,
        2.3425,
    ),
    "ssd_random_crop_pad {}": ([80, 84], 20.942, 5.8131),
    "ssd_random_crop_pad { operations { min_aspect_ratio: 0.8 max_aspect_ratio: 1.2 "
    "min_area: 0.2 max_area: 0.9 pad_color_r: 100 } }": ([80, 84], 31.235, 4.1929),
    "random_square_crop_by_scale {}": ([56, 56], 20.536, 4.5179),
    "random_scale_crop_and_pad_to_square { output_size: 48 scale_min: 0.5 scale_max: 2.0 }": (
        [48, 48],
        19.854,
        4.6576,
    ),
    "random_pixel_value_scale {}": ([60, 80], 22.990, 4.8500),
    "random_rgb_to_gray { probability: 0.9 }": ([60, 80], 31.567, 4.8500),
    "random_adjust_brightness {}": ([60, 80], 20.431, 4.8500),
    "random_adjust_contrast {}": ([60, 80], 23.000, 4.8500),
    "random_adjust_hue { max_delta: 0.5 }": ([60, 80], 24.336, 4.8500),
    "random_adjust_saturation {}": ([60, 80], 23.000, 4.8500),
    "random_distort_color {}": ([60, 80], 38.794, 4.8500),
    "random_distort_color { color_ordering: 1 }": ([60, 80], 37.510, 4.8500),
    "random_black_patches {}": ([60, 80], 22.225, 4.8500),
    "random_absolute_pad_image { max_height_padding: 20 max_width_padding: 30 }": (
        [73, 94],
        23.1,
        4.9948,
    ),
    "random_self_concat_image { concat_vertical_probability: 0.9 "
    "concat_horizontal_probability: 0.9 }": ([120, 160], 23.0, 21.7),
    "random_downscale_to_target_pixels { min_target_pixels: 1000 max_target_pixels: 3000 }": (
        [35, 46],
        23.024,
        4.85,
    ),
    "random_patch_gaussian { min_patch_size: 10 max_patch_size: 40 }": ([60, 80], 30.588, 4.85),
    "random_horizontal_flip { probability: 0.1 }": ([60, 80], 23.0, 4.85),
    "random_jpeg_quality {}": ([60, 80], 23.432, 4.8500),
    "rand_augment {}": ([60, 80], 77.511, 4.8500),
    "rand_augment { num_layers: 3 magnitude: 5 }": ([60, 80], 12.100, 4.8500),
}
STEPS = list(PERMANENT)


def test_every_step_of_the_config_is_tested():
    steps = preprocessor_pb2.PreprocessingStep.DESCRIPTOR.oneofs_by_name[
        "preprocessing_step"
    ].fields
    # A mosaic needs several examples: test_mosaic.py.
    assert {text.split()[0] for text in STEPS} | {"random_mosaic"} == {
        field.name for field in steps
    }


@pytest.mark.parametrize("text", STEPS)
def test_eager_and_dataset_agree_and_boxes_stay_valid(text):
    seeds = tf.constant([[7, seed] for seed in range(3)], tf.int64)
    dataset = tf.data.Dataset.from_tensor_slices(seeds)
    dataset = dataset.map(lambda seed: augmentation.augment(example(), [step(text)], seed))
    for seed, mapped in enumerate(dataset.as_numpy_iterator()):
        eager = augment([text], seed)
        assert eager.keys() == mapped.keys()
        for key in eager:
            np.testing.assert_array_equal(eager[key], mapped[key], err_msg=key)
        assert eager["image"].dtype == np.uint8
        boxes = eager["boxes"]
        assert boxes.shape == (len(eager["classes"]), 4)
        assert len(eager["is_crowd"]) == len(eager["area"]) == len(boxes)
        assert (boxes >= 0).all()
        assert (boxes <= 1).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()


@pytest.mark.parametrize("text", STEPS)
def test_images_without_boxes(text):
    empty = {key: example()[key][:0] for key in OF_BOXES}
    result = augmentation.augment({**example(), **empty}, [step(text)], tf.constant([1, 2]))
    assert result["boxes"].shape == (0, 4)
    assert min(result["image"].shape) > 0


@pytest.mark.parametrize("text", STEPS)
def test_static_shapes(text):
    # Later steps need to know the rank and the channels.
    dataset = tf.data.Dataset.from_tensors(tf.io.encode_png(example()["image"]))

    def augmented(encoded):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return augmentation.augment({**example(), "image": image}, [step(text)], [1, 2])

    spec = dataset.map(augmented).element_spec
    assert spec["image"].shape[-1] == 3
    assert spec["boxes"].shape.as_list() in ([3, 4], [None, 4])


@pytest.mark.parametrize("text", STEPS)
def test_permanence(text):
    result = augment([text], 5)
    shape, mean, boxes = PERMANENT[text]
    assert list(result["image"].shape[:2]) == shape
    assert result["image"].mean() == pytest.approx(mean, abs=0.02)
    assert result["boxes"].sum() == pytest.approx(boxes, abs=1e-3)


def test_order_and_seeds_of_the_steps_are_permanent():
    # Update only when a change of the augmentation is meant: it changes every training run.
    steps = ["random_horizontal_flip {}", "ssd_random_crop {}", "random_vertical_flip {}"]
    found = [augment(steps, seed, traced=True) for seed in range(3)]
    assert [list(result["image"].shape[:2]) for result in found] == PERMANENT_SIZES
    assert [result["image"][0, 0, :2].tolist() for result in found] == PERMANENT_CORNERS


PERMANENT_SIZES = [[46, 72], [60, 80], [54, 74]]
PERMANENT_CORNERS = [[47, 74], [0, 0], [58, 5]]

_CROP = "max_area: 1 min_area: 1 min_aspect_ratio: 1 max_aspect_ratio: 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ssd_random_crop { operations {} }", r"ssd_random_crop.operations\[0\]: min_aspect_ratio"),
        (
            "ssd_random_crop_fixed_aspect_ratio { operations { max_area: 1 } }",
            r"ssd_random_crop_fixed_aspect_ratio.operations\[0\]: min_area 0 and max_area 1",
        ),
        ("random_crop_image { min_area: 0.5 max_area: 0.2 }", "min_area 0.5 and max_area 0.2"),
        ("random_crop_pad_image { max_area: 1.5 }", "random_crop_pad_image: max_area 1.5: at most"),
        ("random_crop_pad_image { pad_color: 1 }", "pad_color has 1 values; 3 are needed, or none"),
        ("random_pad_image { pad_color: [1, 2] }", "random_pad_image: pad_color has 2 values"),
        (
            f"ssd_random_crop_pad {{ operations {{ {_CROP} min_padded_size_ratio: 1 }} }}",
            r"ssd_random_crop_pad.operations\[0\]: min_padded_size_ratio has 1 values; 2",
        ),
        ("random_distort_color { color_ordering: 2 }", "color_ordering 2: 0 or 1"),
        ("", "names no operation"),
    ],
)
def test_bad_steps(text, message):
    with pytest.raises(ConfigError, match=message):
        augmentation.augment(example(), [step(text)], tf.constant([0, 0]))


@pytest.mark.parametrize(
    "text", ["rand_augment {}", "random_crop_image { min_object_covered: 0 min_area: 0.5 }"]
)
def test_nothing_is_done_about_boxes_where_there_are_none(text):
    none = {
        "boxes": tf.zeros([0, 4]),
        "classes": tf.zeros([0], tf.int32),
        "is_crowd": tf.zeros([0], tf.bool),
        "area": tf.zeros([0]),
    }
    result = augmentation.augment(example(**none), [step(text)], tf.constant([7, 5], tf.int64))
    assert all(result[key] is none[key] for key in OF_BOXES)
    np.testing.assert_array_equal(result["image"], augment([text], 5)["image"])
