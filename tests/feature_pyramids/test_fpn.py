"""FPN in both variants: shapes, values by hand, the order of layers, the published counts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet import architectures, text_proto
from mnasdet.backbones import mobilenet_v2, resnet
from mnasdet.feature_pyramids.fpn import (
    OBJECT_DETECTION_API,
    TWO_STAGE,
    fpn,
    from_proto,
    two_stage_fpn,
)
from mnasdet.heads import weight_shared
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2

CONFIGS = Path(__file__).parents[2] / "configs" / "architectures"
VARIANTS = ["retinanet", "object_detection_api"]
SHAPES = [(16, 16, 8), (8, 8, 12), (4, 4, 16)]


def inputs(b, shapes=SHAPES):
    """C3 and on, named after their levels."""
    return [b.input(shape, f"c{level}") for level, shape in enumerate(shapes, start=3)]


def pyramid(shapes=SHAPES, **arguments):
    b = Builder()
    return fpn(b, inputs(b, shapes), **{"channels": 24, **arguments})


def names(outputs):
    return [node.name for node in reachable(outputs)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_output_shapes_from_finest_to_coarsest(variant):
    outputs = pyramid(variant=variant)
    assert [node.shape for node in outputs] == [(s, s, 24) for s in (16, 8, 4, 2, 1)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_sizes_of_a_300_pixel_image(variant):
    shapes = [(38, 38, 8), (19, 19, 8), (10, 10, 8)]
    outputs = pyramid(shapes, variant=variant)
    assert [node.size[0] for node in outputs] == [38, 19, 10, 5, 3]


def test_other_levels():
    outputs = pyramid(SHAPES[1:], min_level=4, max_level=6)
    assert [node.size[0] for node in outputs] == [8, 4, 2]


def test_layers_of_the_retinanet_variant():
    outputs = pyramid(variant="retinanet")
    assert [node.op for node in outputs] == ["batch_norm"] * 5
    convs = [node.inputs[0] for node in outputs]
    assert [(c.op, c.attrs["kernel_size"], c.attrs["strides"]) for c in convs] == [
        *[("conv2d", 3, 1)] * 3,
        *[("conv2d", 3, 2)] * 2,
    ]
    # P6 reads P5 before its normalisation, P7 the activated P6; nothing else is activated.
    assert convs[3].inputs[0] is convs[2]
    assert convs[4].inputs[0].attrs["function"] == "relu"
    assert convs[4].inputs[0].inputs[0] is convs[3]
    assert [node.op for node in reachable(outputs)].count("activation") == 1
    assert all(node.attrs["use_bias"] for node in reachable(outputs) if node.op == "conv2d")


def test_layers_of_the_object_detection_api_variant():
    p3, p4, p5, p6, p7 = outputs = pyramid(variant="object_detection_api")
    for node in (p3, p4, p6, p7):
        assert node.attrs["function"] == "relu6"
        assert node.inputs[0].op == "batch_norm"
        assert not node.inputs[0].inputs[0].attrs["use_bias"]
    # The backbone's coarsest level is its lateral, neither smoothed nor normalised.
    assert (p5.op, p5.attrs["kernel_size"], p5.attrs["use_bias"]) == ("conv2d", 1, True)
    assert p6.inputs[0].inputs[0].inputs[0] is p5
    assert p7.inputs[0].inputs[0].inputs[0] is p6
    laterals = [name for name in names(outputs) if "lateral" in name]
    assert sorted(laterals) == [f"lateral_{level}/conv" for level in (3, 4, 5)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_separable_convolutions_are_the_3x3_ones(variant):
    nodes = reachable(pyramid(variant=variant, separable=True))
    full = [node.attrs["kernel_size"] for node in nodes if node.op == "conv2d"]
    depthwise = [node for node in nodes if node.op == "depthwise_conv2d"]
    assert set(full) == {1}
    assert len(depthwise) == (5 if variant == "retinanet" else 4)


def test_without_batch_norm_there_are_biases():
    hyperparams = dataclasses.replace(OBJECT_DETECTION_API, normalizer=None)
    nodes = reachable(pyramid(variant="object_detection_api", hyperparams=hyperparams))
    assert all(node.attrs["use_bias"] for node in nodes if node.op == "conv2d")


def identity_3x3(model, channels):
    """Sets every 3x3 kernel to pass on its middle."""
    for variable in model.variables:
        if variable.shape[:2] == (3, 3):
            kernel = np.zeros(variable.shape, np.float32)
            kernel[1, 1] = np.eye(channels)
            variable.assign(kernel)


def by_hand(model, features):
    """Laterals and top-down additions in numpy, finest first."""
    laterals = []
    for level, x in enumerate(features, start=3):
        kernel, bias = model.get_layer(f"lateral_{level}/conv").get_weights()
        laterals.append(x @ kernel[0, 0] + bias)
    merged = [laterals[-1]]
    for lateral in reversed(laterals[:-1]):
        merged.insert(0, lateral + merged[0].repeat(2, axis=1).repeat(2, axis=2))
    return merged


@pytest.mark.parametrize("variant", VARIANTS)
def test_values_by_hand(variant):
    outputs = pyramid([(8, 8, 3), (4, 4, 5)], channels=2, max_level=6, variant=variant)
    model = keras_model({f"p{level}": node for level, node in enumerate(outputs, start=3)})
    rng = np.random.default_rng(0)
    for level in (3, 4):
        layer = model.get_layer(f"lateral_{level}/conv")
        layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    identity_3x3(model, 2)
    features = [rng.normal(size=(1, 8, 8, 3)) * 4, rng.normal(size=(1, 4, 4, 5)) * 4]
    out = model({"c3": np.float32(features[0]), "c4": np.float32(features[1])}, training=False)
    p3, p4 = by_hand(model, features)
    # Means 0 and variances 1 are stored; a strided SAME convolution starts in row and column 1.
    if variant == "retinanet":
        p5 = p4[:, 1::2, 1::2]
        p6 = np.maximum(p5, 0)[:, 1::2, 1::2]
        expected = [p / np.sqrt(1 + 1e-4) for p in (p3, p4, p5, p6)]
    else:

        def layer(x):
            return np.clip(x / np.sqrt(1 + 1e-3), 0, 6)

        p5 = layer(p4[:, 1::2, 1::2])
        expected = [layer(p3), p4, p5, layer(p5[:, 1::2, 1::2])]
    for level, values in enumerate(expected, start=3):
        np.testing.assert_allclose(out[f"p{level}"], values, rtol=1e-4, atol=1e-5)


def read(proto, **arguments):
    b = Builder()
    levels = dict(enumerate(inputs(b), start=3))
    features = BackboneFeatures(levels, b.input((4, 4, 40), "last"))
    (outputs,) = from_proto(b, features, proto, **arguments)
    return outputs


@pytest.mark.parametrize(("variant", "coarsest"), zip(VARIANTS, ["c5", "last"], strict=True))
def test_the_coarsest_backbone_feature(variant, coarsest):
    number = architecture_pb2.Fpn.Variant.Value(variant.upper())
    nodes = reachable(read(architecture_pb2.Fpn(variant=number)))
    found = {"c5", "last"} & {node.name for node in nodes}
    assert found == {coarsest}


@pytest.mark.parametrize(
    ("channels", "multiplier", "expected"),
    # 0.3 x 64 = 19.2 is cut, not rounded to 24; 0.5 x 24 = 12 is below the least.
    [(64, 1.0, 64), (64, 0.3, 19), (24, 0.5, 16)],
)
def test_depth_multiplier(channels, multiplier, expected):
    proto = architecture_pb2.Fpn(channels=channels)
    outputs = read(proto, depth_multiplier=multiplier, min_depth=16)
    assert {node.channels for node in outputs} == {expected}


def test_weights_of_the_retinanet_pyramid():
    shapes = [(80, 80, 512), (40, 40, 1024), (20, 20, 2048)]
    total = cost_sheet(pyramid(shapes, channels=256)).total
    laterals = (512 + 1024 + 2048 + 3) * 256
    convs = 5 * (9 * 256 + 1) * 256
    assert total.trainable_params == laterals + convs + 5 * 2 * 256


BACKBONES = {"resnet": resnet.from_proto, "mobilenet_v2": mobilenet_v2.from_proto}


@pytest.mark.parametrize(
    ("name", "params", "operations"),
    # NAS-FPN, table 1, with two operations a multiply-add.
    [
        ("resnet50_fpn_256", 34.0e6, 193.6e9),
        ("mobilenet_v2_fpnlite_64", 2.02e6, 1.51e9),
        ("mobilenet_v2_fpnlite_128", 2.20e6, 2.03e9),
    ],
)
def test_published_counts(name, params, operations):
    path = CONFIGS / f"{name}.textproto"
    architecture = text_proto.read(path, architecture_pb2.Architecture)
    b = Builder()
    backbone = architecture.backbone.WhichOneof("backbone_oneof")
    with b.scope("backbone"):
        image = b.input((*architectures.default_input_size(architecture), 3))
        features = BACKBONES[backbone](b, image, getattr(architecture.backbone, backbone))
    with b.scope("feature_pyramid"):
        (levels,) = from_proto(b, features, architecture.feature_pyramid.fpn)
    predictor = architecture.box_predictor.weight_shared_convolutional_box_predictor
    with b.scope("box_predictor"):
        outputs = weight_shared.from_proto(
            b, levels, predictor, num_classes=90, anchors_per_location=[9] * 5
        )
    total = cost_sheet(outputs).total
    assert total.trainable_params == pytest.approx(params, rel=0.005)
    assert 2 * total.multiply_adds == pytest.approx(operations, rel=0.005)


def two_stage(entering, leaving, **arguments):
    """The pyramid over features of a 256x384 image, with 2, 3, 4 and 5 channels."""
    b = Builder()
    features = {
        level: b.input((256 >> level, 384 >> level, level), f"c{level}") for level in entering
    }
    return two_stage_fpn(b, features, leaving, **{"channels": 6, **arguments})


@pytest.mark.parametrize("strided_levels", [False, True])
@pytest.mark.parametrize(
    ("entering", "leaving"),
    [
        ([2, 3, 4, 5], [2, 3, 4, 5, 6]),
        # SM-NAS's E0, P2 to P5; two of the choices that its figure 2 shows; others.
        ([3, 4, 5], [3, 4, 5, 6]),
        ([2, 3, 4, 5], [2, 3, 4, 5]),
        ([3, 5], [3, 5, 6]),
        ([2, 5], [2, 7]),
        ([3], [3, 4, 7]),
    ],
)
def test_levels_of_the_two_stage_variant(entering, leaving, strided_levels):
    outputs = two_stage(entering, leaving, strided_levels=strided_levels)
    assert [node.shape for node in outputs] == [
        (256 >> level, 384 >> level, 6) for level in leaving
    ]


def test_layers_of_the_two_stage_variant():
    nodes = {node.name: node for node in reachable(two_stage([3, 5], [3, 5, 6]))}
    convs = [name for name, node in nodes.items() if node.op == "conv2d"]
    assert sorted(convs) == ["lateral_3/conv", "lateral_5/conv", "p3/conv", "p5/conv"]
    assert all(nodes[name].attrs["use_bias"] for name in convs)
    assert {node.op for node in nodes.values()} == {
        *("input", "conv2d", "upsample", "add", "max_pool"),
    }
    # Two octaves at once; a level more is every other value of the last output.
    assert nodes["top_down_3/upsample"].inputs[0].name == "lateral_5/conv"
    assert nodes["p6/subsample"].inputs[0].name == "p5/conv"


def test_strided_levels_come_from_the_backbone_as_retinanet_s():
    nodes = {n.name: n for n in reachable(two_stage([4, 5], [4, 5, 7], strided_levels=True))}
    assert nodes["p6/conv"].inputs[0].name == "c5"
    assert nodes["p7/conv"].inputs[0].name == "p7/relu"
    assert nodes["p7/relu"].inputs[0].name == "p6/conv"
    assert [nodes[f"p{level}/conv"].attrs["strides"] for level in (4, 5, 6, 7)] == [1, 1, 2, 2]


def test_the_two_stage_variant_normalises_if_it_is_told_to():
    hyperparams = dataclasses.replace(OBJECT_DETECTION_API, activation="linear")
    outputs = two_stage([4, 5], [4, 5, 6], strided_levels=True, hyperparams=hyperparams)
    nodes = reachable(outputs)
    assert {node.op for node in outputs} == {"batch_norm"}
    assert sum(node.op == "batch_norm" for node in nodes) == 5
    assert not any(node.attrs["use_bias"] for node in nodes if node.op == "conv2d")
    assert TWO_STAGE.normalizer is None


def test_values_of_a_pyramid_with_a_gap_by_hand():
    outputs = two_stage([3, 5], [3, 5, 6], channels=2)
    model = keras_model({f"p{level}": x for level, x in zip((3, 5, 6), outputs, strict=True)})
    rng = np.random.default_rng(0)
    for level in (3, 5):
        layer = model.get_layer(f"lateral_{level}/conv")
        layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    identity_3x3(model, 2)
    c3, c5 = rng.normal(size=(1, 32, 48, 3)), rng.normal(size=(1, 8, 12, 5))
    out = model({"c3": np.float32(c3), "c5": np.float32(c5)}, training=False)
    (k3, b3), (k5, b5) = (model.get_layer(f"lateral_{i}/conv").get_weights() for i in (3, 5))
    p5 = c5 @ k5[0, 0] + b5
    p3 = c3 @ k3[0, 0] + b3 + p5.repeat(4, axis=1).repeat(4, axis=2)
    for name, expected in {"p3": p3, "p5": p5, "p6": p5[:, ::2, ::2]}.items():
        np.testing.assert_allclose(out[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("input_level: [3, 5] output_level: [3, 5, 7]", [16, 4, 1]),
        ("min_level: 3 max_level: 6", [16, 8, 4, 2]),
    ],
)
def test_two_stage_levels_of_a_message(text, sizes):
    proto = text_format.Parse(f"variant: TWO_STAGE channels: 8 {text}", architecture_pb2.Fpn())
    outputs = read(proto, min_depth=8)
    assert [node.size[0] for node in outputs] == sizes


def test_weights_of_faster_r_cnn_s_pyramid():
    b = Builder()
    widths = {2: 256, 3: 512, 4: 1024, 5: 2048}
    features = {
        level: b.input((512 >> level, 512 >> level, channels), f"c{level}")
        for level, channels in widths.items()
    }
    total = cost_sheet(two_stage_fpn(b, features, [2, 3, 4, 5, 6])).total
    # Hit-Detector, table 1: 3.3 M.
    assert total.params == (3840 + 4) * 256 + 4 * (9 * 256 + 1) * 256 == 3_344_384
