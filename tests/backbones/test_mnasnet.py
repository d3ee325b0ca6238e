"""MnasNet: published counts, scaling, the choices of a block."""

from pathlib import Path

import numpy as np
import pytest

from mnasdet import text_proto
from mnasdet.backbones.mnasnet import Block, from_proto, mnasnet
from mnasdet.heads import classifier
from mnasdet.networks.builder import Builder, canonical_key, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2

CONFIGS = Path(__file__).parents[2] / "configs" / "architectures"

# Strides to level 5 behind a block under test.
TAIL = tuple(Block(8, stride=2, expansion=1) for _ in range(3))


def backbone(image_size=(224, 224), **arguments):
    b = Builder()
    return mnasnet(b, b.input((*image_size, 3)), **arguments)


def layers(**choices):
    """The nodes of a network whose first block, of stride 2, has some choices."""
    blocks = (Block(**{"channels": 8, "stride": 2} | choices), *TAIL)
    features = backbone((64, 64), blocks=blocks, stem_channels=8)
    return {
        node.name.removeprefix("block_1/"): node
        for node in reachable([features.last])
        if node.name.startswith("block_1/")
    }


@pytest.mark.parametrize(
    ("name", "size", "params", "multiply_adds"),
    # By an independent count; published: A1 3.9 M and 312 M, small 2.0 M and 68 M.
    [
        ("mnasnet_a1", 224, 3.887e6, 311.6e6),
        ("mnasnet_b1", 224, 4.383e6, 314.4e6),
        ("mnasnet_small", 224, 2.030e6, 68.34e6),
        ("mnasnet_d1", 224, 3.638e6, 967.7e6),
        ("mnasnet_d1_320", 320, 6.932e6, 3688e6),
    ],
)
def test_counts_of_the_published_classifiers(name, size, params, multiply_adds):
    whole = text_proto.read(CONFIGS / f"{name}.textproto", architecture_pb2.Architecture)
    assert whole.published_at.height == whole.published_at.width == size
    b = Builder()
    features = from_proto(b, b.input((size, size, 3)), whole.backbone.mnasnet)
    logits = classifier.from_proto(b, features.last, whole.classifier, num_classes=1000)
    total = cost_sheet([logits]).total
    assert total.trainable_params == pytest.approx(params, rel=3e-4)
    assert total.multiply_adds == pytest.approx(multiply_adds, rel=5e-4)


# Channels, repeats, kernel size, stride, expansion of the blocks, those with squeeze and excitation
# and those without a skip, by number: figure 7, and tensorflow/tpu, models/official/mnasnet.
BLOCKS = {
    "a1": (
        [(16, 1, 3, 1, 1), (24, 2, 3, 2, 6), (40, 3, 5, 2, 3), (80, 4, 3, 2, 6), (112, 2, 3, 1, 6),
         (160, 3, 5, 2, 6), (320, 1, 3, 1, 6)], {3, 5, 6}, {1}
    ),
    "b1": (
        [(16, 1, 3, 1, 1), (24, 3, 3, 2, 3), (40, 3, 5, 2, 3), (80, 3, 5, 2, 6), (96, 2, 3, 1, 6),
         (192, 4, 5, 2, 6), (320, 1, 3, 1, 6)], set(), {1, 7}
    ),
    "small": (
        [(8, 1, 3, 1, 1), (16, 1, 3, 2, 3), (16, 2, 3, 2, 6), (32, 4, 5, 2, 6), (32, 3, 3, 1, 6),
         (88, 3, 5, 2, 6), (144, 1, 3, 1, 6)], {4, 5, 6}, {1}
    ),
    "d1": (
        [(24, 1, 3, 1, 9), (36, 3, 3, 2, 9), (48, 5, 3, 2, 9), (96, 4, 5, 2, 9), (96, 5, 7, 1, 3),
         (80, 3, 3, 2, 9), (320, 1, 7, 1, 6)], set(), {7}
    ),
    "d1_320": (
        [(24, 3, 5, 1, 6), (36, 4, 7, 2, 9), (48, 5, 5, 2, 9), (96, 5, 7, 2, 6), (144, 5, 3, 1, 9),
         (160, 5, 5, 2, 6), (320, 1, 7, 1, 9)], set(), set()
    ),
}  # fmt: skip


def published(name):
    """The backbone of an architecture file."""
    path = CONFIGS / f"mnasnet_{name}.textproto"
    return text_proto.read(path, architecture_pb2.Architecture).backbone.mnasnet


def of_file(name, image_size=(224, 224), **arguments):
    b = Builder()
    return from_proto(b, b.input((*image_size, 3)), published(name), **arguments)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_blocks_of_the_architecture_files(name):
    rows, squeezed, unskipped = BLOCKS[name]
    blocks = [
        Block(
            *row,
            se_ratio=0.25 if number in squeezed else 0.0,
            skip="none" if number in unskipped else "identity",
        )
        for number, row in enumerate(rows, start=1)
    ]
    expected = backbone((64, 64), blocks=blocks, stem_channels=8 if name == "small" else 32)
    assert canonical_key([of_file(name, (64, 64)).last]) == canonical_key([expected.last])


@pytest.mark.parametrize(
    ("depth_multiplier", "params", "multiply_adds"),
    # The README of tensorflow/tpu's MnasNet, A1 at 224. Its multiply-adds are 1 to 2.5 % above a
    # count of the convolutions, also of the unscaled network (315.2 M, in the paper 312 M).
    [(1.4, 6.1e6, 591.5e6), (0.75, 2.9e6, 226.7e6), (0.5, 2.1e6, 105.2e6), (0.35, 1.7e6, 63.2e6)],
)
def test_counts_of_the_scaled_a1(depth_multiplier, params, multiply_adds):
    b = Builder()
    features = from_proto(
        b, b.input((224, 224, 3)), published("a1"), depth_multiplier=depth_multiplier
    )
    total = cost_sheet([classifier.classifier(b, features.last, num_classes=1000)]).total
    assert total.trainable_params == pytest.approx(params, abs=0.05e6)
    assert total.multiply_adds == pytest.approx(multiply_adds, rel=0.025)
    assert total.multiply_adds < multiply_adds


def test_levels_and_taps_at_an_odd_size():
    features = of_file("a1", (321, 300))
    assert [node.shape for node in features.from_level(2)] == [
        (81, 75, 24),
        (41, 38, 40),
        (21, 19, 112),
        (11, 10, 320),
    ]
    assert features.last.shape == (11, 10, 1280)
    assert features.expansion.shape == (21, 19, 6 * 112)
    assert features.expansion.name == "block_6/layer_1/expand/relu"


def test_the_last_convolution_is_not_scaled():
    features = of_file("a1", depth_multiplier=0.35)
    assert (features.levels[5].channels, features.last.channels) == (112, 1280)


def test_widths_stay_as_given_without_a_multiplier():
    assert of_file("d1").levels[2].channels == 36


def test_small_has_no_residual_in_its_first_block():
    features = of_file("small")
    added = [n.name for n in reachable([features.last]) if n.name.endswith("/add")]
    # Repeats 2, 4, 3 and 3 of blocks 3 to 6; block 5 keeps its width of 32.
    assert [name.split("/")[0] for name in added] == (
        ["block_3"] + ["block_4"] * 3 + ["block_5"] * 3 + ["block_6"] * 2
    )


def test_squeeze_and_excitation_counts_from_the_layers_input():
    nodes = layers(repeats=2, channels=16, se_ratio=0.25)
    assert nodes["layer_1/squeeze_excite/squeeze/conv"].channels == 2
    assert nodes["layer_2/squeeze_excite/squeeze/conv"].channels == 4
    assert nodes["layer_2/squeeze_excite/excite/sigmoid"].channels == 6 * 16
    assert layers(se_ratio=0.05)["layer_1/squeeze_excite/squeeze/conv"].channels == 1


def test_ops():
    separable = layers(op="separable", kernel_size=5)
    assert list(separable) == [
        "layer_1/depthwise/depthwise",
        "layer_1/depthwise/batch_norm",
        "layer_1/depthwise/relu",
        "layer_1/project/conv",
        "layer_1/project/batch_norm",
    ]
    conv = layers(op="conv", kernel_size=5)
    assert list(conv) == ["layer_1/conv/conv", "layer_1/conv/batch_norm", "layer_1/conv/relu"]
    assert conv["layer_1/conv/conv"].attrs["kernel_size"] == 5
    assert list(layers(op="mbconv", expansion=1)) == list(separable)


def test_skips():
    def skips(**choices):
        return [
            name
            for name in layers(repeats=2, **choices)
            if name.endswith("/add") or "/skip/" in name
        ]

    assert skips(skip="none") == []
    assert skips(skip="identity") == ["layer_2/add"]
    # The first layer strides: its input is pooled, and projected where it widens as well.
    assert skips(skip="pool") == ["layer_1/skip/avg_pool", "layer_1/add", "layer_2/add"]
    # The paper lists pooling beside the identity.
    assert skips(skip="average_pool") == [
        "layer_1/skip/avg_pool",
        "layer_1/add",
        "layer_2/skip/avg_pool",
        "layer_2/add",
    ]
    assert skips(skip="pool", channels=16) == [
        "layer_1/skip/avg_pool",
        "layer_1/skip/conv",
        "layer_1/skip/batch_norm",
        "layer_1/add",
        "layer_2/add",
    ]


def test_too_few_strides():
    with pytest.raises(ValueError, match="give level 4; 5, stride 32, is needed"):
        backbone(blocks=TAIL)


def test_keras_has_the_weights_of_the_cost_sheet_and_the_published_deviations():
    features = of_file("a1", (33, 40))
    model = keras_model({"last": features.last})
    assert model.count_params() == cost_sheet([features.last]).total.params
    assert model(np.zeros((1, 33, 40, 3), np.float32))["last"].shape == (1, 2, 2, 1280)
    weights = {v.name: v.numpy() for v in model.variables}
    # sqrt(2 / 1280), and for 5x5 depthwise kernels sqrt(2 / 25).
    assert weights["last/conv/kernel:0"].std() == pytest.approx((2 / 1280) ** 0.5, rel=0.01)
    depthwise = weights["block_6/layer_2/depthwise/depthwise/depthwise_kernel:0"]
    assert depthwise.std() == pytest.approx((2 / 25) ** 0.5, rel=0.03)
