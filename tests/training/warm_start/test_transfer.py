"""Tests on hand-made weights that a transfer makes up for how the networks differ."""

import numpy as np
import pytest
import tf_keras
from google.protobuf import text_format

from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import name_map_pb2
from mnasdet.training.warm_start.name_map import NameMap
from mnasdet.training.warm_start.report import Report
from mnasdet.training.warm_start.source import Source
from mnasdet.training.warm_start.transfer import Target, target, transfer
from tests.training.test_compressed_learning import network

MAP = """
  batch_norm_epsilon: 0.5
  variable { ours: "kernel" theirs: "/weights" }
  variable { ours: "depthwise_kernel" theirs: ["/dw", "/weights"] }
  variable { ours: "bias" theirs: "/biases" }
  variable { ours: "gamma" theirs: "/gamma" absent: 1 }
  variable { ours: "beta" theirs: "/beta" }
  variable { ours: "moving_mean" theirs: "/mean" }
  variable { ours: "moving_variance" theirs: "/variance" }
  group {
    layer { ours: "backbone/stem/conv" theirs: "conv" }
    layer { ours: "backbone/stem/batch_norm" theirs: "norm" }
  }
  group {
    optional: true
    layer { ours: "classifier/logits/conv" theirs: "logits" }
  }
"""
RNG = np.random.default_rng(0)


def name_map(more=""):
    return NameMap(text_format.Parse(MAP + more, name_map_pb2.NameMap()))


def source(values):
    values = {name: np.asarray(value, np.float32) for name, value in values.items()}
    shapes = {name: value.shape for name, value in values.items()}
    return Source("file", "a file", shapes, values.__getitem__)


def normalized(x, gamma, beta, mean, variance, epsilon):
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


NORM = {
    "norm/beta": RNG.normal(size=4),
    "norm/mean": RNG.normal(size=4),
    "norm/variance": RNG.uniform(0.1, 1, 4),
}
OURS = {f"backbone/stem/batch_norm/{name}": [4] for name in ("beta", "gamma", "moving_mean")}
OURS["backbone/stem/batch_norm/moving_variance"] = [4]


def stem(found, x, epsilon):
    """Our first layers: a convolution of one pixel without a bias, and its normalisation."""
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    values = [found[f"backbone/stem/batch_norm/{name}"] for name in names]
    return normalized(x @ found["backbone/stem/conv/kernel"][0, 0], *values, epsilon)


@pytest.mark.parametrize("has_bias", [False, True])
def test_images_epsilon_and_biases_are_made_up_for(has_bias):
    kernel, gamma, bias = RNG.normal(size=(1, 1, 3, 4)), RNG.normal(size=4), RNG.normal(size=4)
    there = {"conv/weights": kernel, "norm/gamma": gamma, **NORM}
    if has_bias:
        there["conv/biases"] = bias
    images = """images {
      layer: "backbone/stem/conv" mean: [100, 120, 130] deviation: [50, 60, 70] bgr: true
    }"""
    ours = Target(
        {"backbone/stem/conv/kernel": [1, 1, 3, 4], **OURS}, {"backbone/stem/batch_norm": 0.01}, {}
    )
    found = transfer(ours, source(there), name_map(images))
    pixels = RNG.uniform(0, 255, (5, 3))
    theirs = (pixels[:, ::-1] - [100, 120, 130]) / [50, 60, 70] @ kernel[0, 0]
    norm = [NORM[f"norm/{name}"] for name in ("beta", "mean", "variance")]
    expected = normalized(theirs + (bias if has_bias else 0), gamma, *norm, 0.5)
    np.testing.assert_allclose(
        stem(found.values, pixels * 2 / 255 - 1, 0.01), expected, rtol=1e-4, atol=1e-5
    )
    assert "at the border of an image, padding is of another colour" in found.differences


def test_a_normalisation_without_a_factor_has_the_factor_1():
    there = {"conv/weights": RNG.normal(size=(1, 1, 3, 4)), **NORM}
    found = transfer(
        Target(OURS, {"backbone/stem/batch_norm": 0.01}, {}), source(there), name_map()
    )
    variance = NORM["norm/variance"]
    np.testing.assert_allclose(
        found.values["backbone/stem/batch_norm/gamma"],
        np.sqrt((variance + 0.01) / (variance + 0.5)),
        rtol=1e-5,
    )
    # Where there is no such layer at all, there is no factor either.
    found = transfer(
        Target(OURS, {}, {}), source({"conv/weights": np.ones((1, 1, 3, 4))}), name_map()
    )
    assert sorted(found.unmatched) == sorted(OURS)


def test_kernels_of_torch_are_turned():
    kernel = RNG.normal(size=(4, 3, 5, 7))
    dense = RNG.normal(size=(10, 4))
    ours = {
        "backbone/stem/conv/kernel": [5, 7, 3, 4],
        "classifier/logits/conv/kernel": [1, 1, 4, 10],
    }
    there = source({"conv/weights": kernel, "logits/weights": dense})
    found = transfer(Target(ours, {}, {}), there, name_map("kernel_layout: OIHW")).values
    # Each weight by its place: out 2, in 1, row 3, column 5.
    assert found["backbone/stem/conv/kernel"][3, 5, 1, 2] == np.float32(kernel[2, 1, 3, 5])
    assert found["classifier/logits/conv/kernel"][0, 0, 3, 8] == np.float32(dense[8, 3])


def test_a_depthwise_kernel_of_torch_has_its_channels_last():
    kernel = RNG.normal(size=(4, 1, 3, 5))
    ours = Target({"backbone/stem/conv/depthwise_kernel": [3, 5, 4, 1]}, {}, {})
    found = transfer(ours, source({"conv/weights": kernel}), name_map("kernel_layout: OIHW")).values
    taken = found["backbone/stem/conv/depthwise_kernel"]
    assert taken[2, 4, 3, 0] == np.float32(kernel[3, 0, 2, 4])


def test_what_is_not_there_and_what_has_another_shape():
    ours = {
        "backbone/stem/conv/kernel": [1, 1, 3, 8],
        "backbone/other/conv/kernel": [1, 1, 8, 8],
        "classifier/logits/conv/kernel": [1, 1, 8, 5],
        "box_predictor/conv/kernel": [1, 1, 8, 8],
    }
    there = {"conv/weights": np.ones((1, 1, 3, 4)), "logits/weights": np.ones((8, 1000))}
    found = transfer(Target(ours, {}, {}), source(there), name_map())
    # The map knows nothing of the box predictor, so it is no part of what is needed.
    assert found.unmatched == ["backbone/other/conv/kernel"]
    assert list(found.misshapen.values()) == [
        "backbone/stem/conv/kernel is [1, 1, 3, 4] there, [1, 1, 3, 8] here",
        "classifier/logits/conv/kernel is [1, 1, 8, 1000] there, [1, 1, 8, 5] here",
    ]
    assert found.optional == {"classifier/logits/conv/kernel"}
    found = transfer(Target(ours, {}, {}), source(there), name_map(), ["backbone", "box_predictor"])
    assert found.unmatched == ["backbone/other/conv/kernel", "box_predictor/conv/kernel"]
    assert list(found.misshapen) == ["backbone/stem/conv/kernel"]


def test_other_strides_are_told_where_they_differ():
    strided = 'strided { layer: "backbone/block_{n:2-3}/conv" difference: "strides differ" }'
    for strides, told in (
        ({"backbone/block_2/conv": 1, "backbone/block_3/conv": 2}, ["strides differ"]),
        ({"backbone/block_2/conv": 2, "backbone/block_4/conv": 1}, []),
    ):
        found = transfer(Target({}, {}, strides), source({}), name_map(strided))
        assert found.differences == told


def test_the_target_knows_what_layers_do():
    x = tf_keras.Input((8, 8, 3))
    y = tf_keras.layers.Conv2D(4, 3, 2, use_bias=False, name="backbone/stem/conv")(x)
    y = tf_keras.layers.BatchNormalization(epsilon=0.02, name="backbone/stem/batch_norm")(y)
    y = tf_keras.layers.DepthwiseConv2D(3, use_bias=False, name="backbone/depthwise")(y)
    found = target(tf_keras.Model(x, y))
    assert found.epsilons == {"backbone/stem/batch_norm": 0.02}
    assert found.strides == {"backbone/stem/conv": 2, "backbone/depthwise": 1}
    assert found.shapes["backbone/stem/conv/kernel"] == [3, 3, 3, 4]


def test_a_model_that_rounds_to_int8_is_the_same_target():
    """It has its layers in wrappers, and ranges that no file has."""
    plain, rounded = (
        target(keras_model(network(), quantized=quantized)) for quantized in (False, True)
    )
    assert rounded == plain
    assert plain.epsilons
    assert plain.strides["backbone/conv"] == 2


def report(matched, unmatched, optional=0):
    return Report("f", "a file", "backbone", ["a"] * matched, ["b"] * unmatched, [], optional)


def test_the_share_that_a_message_names_is_enough():
    """For every count: a share is printed with three digits."""
    for matched in range(1, 40):
        for unmatched in range(1, 40):
            one = report(matched, unmatched)
            with pytest.raises(Exception, match="min_matched_share: ") as caught:
                one.check(1.0)
            one.check(float(str(caught.value).partition("share: ")[2].split()[0]))


def test_a_last_layer_for_other_classes_does_not_count():
    report(10, 2, optional=2).check(1.0)
    assert report(10, 2, optional=2).share == 1.0
    with pytest.raises(Exception, match="of the 12 variables of the backbone 10 match"):
        report(10, 2, optional=1).check(1.0)
