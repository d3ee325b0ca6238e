"""The variables of checkpoints of slim, the TF Object Detection API and tf-models-official.

Written down from builds of the programs themselves: object_detection and nets of
tf-models-research-object-detection 2.8.0, official of tf-models-official 2.20.0.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from mnasdet.networks.builder import Node, reachable

Shapes = dict[str, tuple[int, ...]]

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
AVERAGE = "/.OPTIMIZER_SLOT/optimizer/average" + VALUE

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")

# Expansion, channels, repeats, stride: table 2 of the paper.
_MOBILENET_V2 = [
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 3),
    (6, 64, 4),
    (6, 96, 3),
    (6, 160, 3),
    (6, 320, 1),
]

# Kernel, expanded channels, channels, squeeze and excitation: tables 1 and 2 of the paper.
_MOBILENET_V3 = {
    "large": [
        (3, 16, 16, 0),
        (3, 64, 24, 0),
        (3, 72, 24, 0),
        (5, 72, 40, 24),
        (5, 120, 40, 32),
        (5, 120, 40, 32),
        (3, 240, 80, 0),
        (3, 200, 80, 0),
        (3, 184, 80, 0),
        (3, 184, 80, 0),
        (3, 480, 112, 120),
        (3, 672, 112, 168),
        (5, 672, 160, 168),
        (5, 960, 160, 240),
        (5, 960, 160, 240),
    ],
    "small": [
        (3, 16, 16, 8),
        (3, 72, 24, 0),
        (3, 88, 24, 0),
        (5, 96, 40, 24),
        (5, 240, 40, 64),
        (5, 240, 40, 64),
        (5, 120, 48, 32),
        (5, 144, 48, 40),
        (5, 288, 96, 72),
        (5, 576, 96, 144),
        (5, 576, 96, 144),
    ],
}
_LAST = {"large": 960, "small": 576}

_RESNET = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def divisible(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _norm(name: str, channels: int) -> Shapes:
    return {f"{name}/{variable}": (channels,) for variable in _NORM}


def _conv(name: str, size: int, inputs: int, outputs: int) -> Shapes:
    return {f"{name}/weights": (size, size, inputs, outputs), **_norm(f"{name}/BatchNorm", outputs)}


def _biased(name: str, size: int, inputs: int, outputs: int) -> Shapes:
    return {f"{name}/weights": (size, size, inputs, outputs), f"{name}/biases": (outputs,)}


def _depthwise(name: str, size: int, channels: int) -> Shapes:
    shapes: Shapes = {f"{name}/depthwise_weights": (size, size, channels, 1)}
    return shapes | _norm(f"{name}/BatchNorm", channels)


def _separable(name: str, size: int, inputs: int, outputs: int) -> Shapes:
    return {
        f"{name}/depthwise_weights": (size, size, inputs, 1),
        f"{name}/pointwise_weights": (1, 1, inputs, outputs),
    }


def _bottleneck(
    scope: str, size: int, inputs: int, expanded: int, outputs: int, squeezed: int = 0
) -> Shapes:
    shapes: Shapes = {}
    if expanded != inputs:
        shapes |= _conv(f"{scope}/expand", 1, inputs, expanded)
    shapes |= _depthwise(f"{scope}/depthwise", size, expanded)
    if squeezed:
        shapes |= _biased(f"{scope}/squeeze_excite/Conv", 1, expanded, squeezed)
        shapes |= _biased(f"{scope}/squeeze_excite/Conv_1", 1, squeezed, expanded)
    return shapes | _conv(f"{scope}/project", 1, expanded, outputs)


def _numbered(name: str, number: int) -> str:
    """Returns a scope's name as TF1 makes it unique: expanded_conv, expanded_conv_1 and so on."""
    return f"{name}_{number}" if number else name


def slim_mobilenet_v2(multiplier: float = 1.0, last: int = 1280, scope: str = "") -> Shapes:
    """Returns the variables of nets/mobilenet/mobilenet_v2.py without its logits."""
    root = f"{scope}MobilenetV2"
    channels = divisible(32 * multiplier)
    shapes = _conv(f"{root}/Conv", 3, 3, channels)
    number = 0
    for ratio, width, repeats in _MOBILENET_V2:
        for _ in range(repeats):
            outputs = divisible(width * multiplier)
            block = f"{root}/{_numbered('expanded_conv', number)}"
            expanded = channels if ratio == 1 else divisible(ratio * channels)
            shapes |= _bottleneck(block, 3, channels, expanded, outputs)
            channels, number = outputs, number + 1
    return shapes | (_conv(f"{root}/Conv_1", 1, channels, last) if last else {})


def slim_mobilenet_v3(size: str, detects: bool = False, scope: str = "") -> Shapes:
    """Returns the variables of nets/mobilenet/mobilenet_v3.py without the layers after the pool."""
    root, channels = f"{scope}MobilenetV3", 16
    shapes = _conv(f"{root}/Conv", 3, 3, 16)
    blocks = _MOBILENET_V3[size]
    # V3_LARGE_DETECTION and V3_SMALL_DETECTION halve the outputs from the stride of 32 on.
    halved = len(blocks) - 3 if detects else len(blocks)
    table_channels = 16
    for number, (kernel, expanded, width, squeezed) in enumerate(blocks):
        outputs = width // 2 if number >= halved else width
        # They expand what is halved by the same factor.
        inner = expanded * channels // table_channels
        squeezed = squeezed and divisible(inner / 4)
        block = f"{root}/{_numbered('expanded_conv', number)}"
        shapes |= _bottleneck(block, kernel, channels, inner, outputs, squeezed)
        channels, table_channels = outputs, width
    last = _LAST[size] // (2 if detects else 1)
    return shapes | _conv(f"{root}/Conv_1", 1, channels, last)


def slim_resnet(depth: int, scope: str = "") -> Shapes:
    """Returns the variables of nets/resnet_v1.py without its logits."""
    root, channels = f"{scope}resnet_v1_{depth}", 64
    shapes = _conv(f"{root}/conv1", 7, 3, 64)
    for block, units in enumerate(_RESNET[depth], start=1):
        width = 64 * 2 ** (block - 1)
        for unit in range(1, units + 1):
            name = f"{root}/block{block}/unit_{unit}/bottleneck_v1"
            if unit == 1:
                shapes |= _conv(f"{name}/shortcut", 1, channels, 4 * width)
            shapes |= _conv(f"{name}/conv1", 1, channels, width)
            shapes |= _conv(f"{name}/conv2", 3, width, width)
            shapes |= _conv(f"{name}/conv3", 1, width, 4 * width)
            channels = 4 * width
    return shapes


def tf1_ssd_layers(root: str, layer: int, inputs: int, separable: bool) -> Shapes:
    """Returns SSD's extra layers after a layer of the backbone."""
    shapes: Shapes = {}
    for number, width in enumerate((512, 256, 256, 128), start=2):
        reduce = f"{root}/layer_{layer}_1_Conv2d_{number}_1x1_{width // 2}"
        shapes |= _conv(reduce, 1, inputs, width // 2)
        name = f"{root}/layer_{layer}_2_Conv2d_{number}_3x3_s2_{width}"
        if separable:
            shapes |= _depthwise(f"{name}_depthwise", 3, width // 2)
            shapes |= _conv(name, 1, width // 2, width)
        else:
            shapes |= _conv(name, 3, width // 2, width)
        inputs = width
    return shapes


def tf1_box_predictors(inputs: tuple[int, ...], slots: int, kernel: int) -> Shapes:
    """Returns a ConvolutionalBoxPredictor, separable for a kernel above 1."""
    shapes: Shapes = {}
    for number, channels in enumerate(inputs):
        anchors = 3 if number == 0 else 6
        for name, values in (("BoxEncodingPredictor", 4), ("ClassPredictor", slots)):
            scope = f"BoxPredictor_{number}/{name}"
            if kernel > 1:
                shapes |= _depthwise(f"{scope}_depthwise", kernel, channels)
            shapes |= _biased(scope, 1, channels, anchors * values)
    return shapes


def tf1_fpn(root: str, inputs: tuple[int, int, int], channels: int, mobile: bool) -> Shapes:
    """Returns the levels 3 to 7 of fpn_top_down_feature_maps."""
    shapes: Shapes = {}
    coarse = ("bottom_up_Conv2d_20", "bottom_up_Conv2d_21")
    if not mobile:
        coarse = ("bottom_up_block5", "bottom_up_block6")
    for number, width in enumerate(inputs, start=1):
        shapes |= _biased(f"{root}/fpn/projection_{number}", 1, width, channels)
    for name in ("smoothing_1", "smoothing_2", *coarse):
        scope = f"{root}/fpn/{name}"
        if mobile:
            shapes |= _separable(scope, 3, channels, channels)
            shapes |= _norm(f"{scope}/BatchNorm", channels)
        else:
            shapes |= _conv(scope, 3, channels, channels)
    return shapes


def tf1_shared_predictor(
    features: int, channels: int, slots: int, mobile: bool, depth: int = 0, anchors: int = 6
) -> Shapes:
    """Returns a WeightSharedConvolutionalBoxPredictor of four layers, one tower if separable."""
    root, shapes = "WeightSharedConvolutionalBoxPredictor", {}
    depth = depth or channels
    for tower in ["PredictionTower"] if mobile else ["BoxPredictionTower", "ClassPredictionTower"]:
        inputs = channels
        for layer in range(4):
            name = f"{root}/{tower}/conv2d_{layer}"
            if mobile:
                shapes |= _separable(name, 3, inputs, depth)
            else:
                shapes[f"{name}/weights"] = (3, 3, inputs, depth)
            for feature in range(features):
                shapes |= _norm(f"{name}/BatchNorm/feature_{feature}", depth)
            inputs = depth
    for name, values in (("BoxPredictor", 4), ("ClassPredictor", slots)):
        outputs = anchors * values
        if mobile:
            shapes |= _separable(f"{root}/{name}", 3, depth, outputs)
        else:
            shapes[f"{root}/{name}/weights"] = (3, 3, depth, outputs)
        shapes[f"{root}/{name}/biases"] = (outputs,)
    return shapes


# Figure 2 of the MnasFPN paper: inputs, F, kernel.
_MNASFPN_CELL = [
    ((1, 2), 256, 3),
    ((0, 4), 128, 3),
    ((5, 4), 128, 3),
    ((4, 3), 128, 5),
    ((4, 3), 96, 3),
]


def tf1_mnasfpn(channels: int = 48) -> Shapes:
    """Returns the head of ssd_mobilenet_v2_mnasfpn."""
    root = "FeatureExtractor/MnasFPN"
    shapes = _conv(f"{root}/C6_Conv1x1", 1, 320, channels)
    for cell in range(4):
        widths = [32, 96, 320, channels] if cell == 0 else [channels] * 4
        for block, (inputs, expanded, kernel) in enumerate(_MNASFPN_CELL):
            scope = f"{root}/cell_{cell}/block_{block}"
            for place, which in enumerate(inputs):
                shapes |= _conv(f"{scope}/input_{place}/Conv1x1", 1, widths[which], expanded)
            shapes |= _separable(f"{scope}/SepConv", kernel, expanded, channels)
            shapes |= _norm(f"{scope}/SepConv/BatchNorm", channels)
            widths.append(channels)
    return shapes


def tf1_detector(extractor: str, slots: int) -> Shapes:
    """Returns a detector of tests/od_api_configs.py as the OD API makes it in TF1.

    Args:
      slots: classes with the background.
    """
    scope = "FeatureExtractor/"
    match extractor.split("_"):
        case ["ssd", "mobilenet", "v2"]:
            return (
                slim_mobilenet_v2(scope=scope)
                | tf1_ssd_layers(f"{scope}MobilenetV2", 19, 1280, separable=False)
                | tf1_box_predictors((576, 1280, 512, 256, 256, 128), slots, kernel=1)
            )
        case ["ssd", "mobilenet", "v2", "fpn"]:
            return (
                slim_mobilenet_v2(last=256, scope=scope)
                | tf1_fpn(f"{scope}MobilenetV2", (32, 96, 256), 128, mobile=True)
                | tf1_shared_predictor(5, 128, slots, mobile=True)
            )
        case ["ssd", "mobilenet", "v2", "mnasfpn"]:
            return (
                slim_mobilenet_v2(last=0, scope=scope)
                | tf1_mnasfpn()
                | tf1_shared_predictor(4, 48, slots, mobile=True, depth=64, anchors=9)
            )
        case ["ssd", "mobilenet", "v3", size]:
            layer, first, last = {"large": (17, 672, 480), "small": (13, 288, 288)}[size]
            return (
                slim_mobilenet_v3(size, detects=True, scope=scope)
                | tf1_ssd_layers(f"{scope}MobilenetV3", layer, last, separable=True)
                | tf1_box_predictors((first, last, 512, 256, 256, 128), slots, kernel=3)
            )
        case ["ssd", resnet, "v1", "fpn"]:
            depth = int(resnet.removeprefix("resnet"))
            root = f"{scope}resnet_v1_{depth}"
            return (
                slim_resnet(depth, scope)
                | tf1_fpn(root, (512, 1024, 2048), 256, mobile=False)
                | tf1_shared_predictor(5, 256, slots, mobile=False)
            )
    raise ValueError(extractor)


def _keras_norm(name: str, channels: int) -> Shapes:
    return {f"{name}/{variable}{VALUE}": (channels,) for variable in _NORM}


def _keras_conv(name: str, size: int, inputs: int, outputs: int, bias: bool = False) -> Shapes:
    shapes: Shapes = {f"{name}/kernel{VALUE}": (size, size, inputs, outputs)}
    return shapes | ({f"{name}/bias{VALUE}": (outputs,)} if bias else {})


def _keras_depthwise(name: str, size: int, channels: int) -> Shapes:
    return {f"{name}/depthwise_kernel{VALUE}": (size, size, channels, 1)}


def _keras_separable(name: str, inputs: int, outputs: int, bias: bool = False) -> Shapes:
    shapes = _keras_depthwise(name, 3, inputs)
    shapes[f"{name}/pointwise_kernel{VALUE}"] = (1, 1, inputs, outputs)
    return shapes | ({f"{name}/bias{VALUE}": (outputs,)} if bias else {})


class _Numbered:
    """Counts the layers with weights of a Keras model."""

    def __init__(self, root: str):
        self.root = root
        self.shapes: Shapes = {}
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"{self.root}/layer_with_weights-{self.count - 1}"

    def conv_norm(self, size: int, inputs: int, outputs: int, bias: bool = False) -> None:
        self.shapes |= _keras_conv(self.name(), size, inputs, outputs, bias)
        self.shapes |= _keras_norm(self.name(), outputs)

    def depthwise_norm(self, channels: int) -> None:
        self.shapes |= _keras_depthwise(self.name(), 3, channels)
        self.shapes |= _keras_norm(self.name(), channels)


def tf2_mobilenet_v2(root: str, multiplier: float = 1.0, last: int = 1280) -> Shapes:
    """Returns MobileNetV2 of keras.applications, counted as an object graph does."""
    layers = _Numbered(root)
    channels = divisible(32 * multiplier)
    layers.conv_norm(3, 3, channels)
    for ratio, width, repeats in _MOBILENET_V2:
        for _ in range(repeats):
            expanded = channels
            if ratio > 1:
                expanded = divisible(ratio * channels)
                layers.conv_norm(1, channels, expanded)
            layers.depthwise_norm(expanded)
            channels = divisible(width * multiplier)
            layers.conv_norm(1, expanded, channels)
    layers.conv_norm(1, channels, last)
    return layers.shapes


def tf2_resnet(root: str, depth: int, bias: bool = False) -> Shapes:
    """Returns ResNet of keras.applications, counted as an object graph does.

    Keras sorts by the distance from the output: a shortcut comes beside the last convolution of its
    block.
    """
    layers = _Numbered(root)
    layers.conv_norm(7, 3, 64, bias)
    channels = 64
    for stage, blocks in enumerate(_RESNET[depth]):
        width = 64 * 2**stage
        for block in range(blocks):
            layers.conv_norm(1, channels, width, bias)
            layers.conv_norm(3, width, width, bias)
            convs = [layers.name() for _ in range(2 if block == 0 else 1)]
            inputs = [channels, width] if block == 0 else [width]
            for name, count in zip(convs, inputs, strict=True):
                layers.shapes |= _keras_conv(name, 1, count, 4 * width, bias)
            for _ in convs:
                layers.shapes |= _keras_norm(layers.name(), 4 * width)
            channels = 4 * width
    return layers.shapes


_EXTRACTOR = "model/_feature_extractor"
_PREDICTOR = "model/_box_predictor"
TF2_BACKBONE = f"{_EXTRACTOR}/classification_backbone"


def tf2_fpn(inputs: tuple[int, int, int], channels: int, mobile: bool) -> Shapes:
    """Returns the levels 3 to 7 of KerasFpnTopDownFeatureMaps and the coarse layers after it."""
    root = f"{_EXTRACTOR}/_fpn_features_generator"
    shapes = _keras_conv(f"{root}/top_layers/0", 1, inputs[2], channels, bias=True)
    shapes |= _keras_conv(f"{root}/residual_blocks/0/0", 1, inputs[1], channels, bias=True)
    shapes |= _keras_conv(f"{root}/residual_blocks/1/0", 1, inputs[0], channels, bias=True)
    coarse = f"{_EXTRACTOR}/_coarse_feature_layers"
    lists = (f"{root}/conv_layers/0", f"{root}/conv_layers/1", f"{coarse}/0", f"{coarse}/1")
    for name in lists:
        if mobile:
            shapes |= _keras_separable(f"{name}/0", channels, channels)
        else:
            shapes |= _keras_conv(f"{name}/0", 3, channels, channels)
        shapes |= _keras_norm(f"{name}/1", channels)
    return shapes


def tf2_shared_predictor(channels: int, slots: int, mobile: bool) -> Shapes:
    """Returns a WeightSharedConvolutionalBoxPredictor as in `tf1_shared_predictor`."""
    towers = {"PredictionTower": "box_encodings"}
    if not mobile:
        towers = {
            "BoxPredictionTower": "box_encodings",
            "ClassPredictionTower": "class_predictions_with_background",
        }
    shapes: Shapes = {}
    for tower, head in towers.items():
        for layer in range(4):
            name = f"{_PREDICTOR}/_head_scope_conv_layers/{tower}/{layer}"
            if mobile:
                shapes |= _keras_separable(name, channels, channels)
            else:
                shapes |= _keras_conv(name, 3, channels, channels)
            for feature in range(5):
                # Each layer is a convolution, a normalisation and an activation.
                base = f"{_PREDICTOR}/_base_tower_layers_for_heads/{head}/{feature}"
                shapes |= _keras_norm(f"{base}/{3 * layer + 1}", channels)
    heads = f"{_PREDICTOR}/_prediction_heads/class_predictions_with_background"
    for name, values in (
        (f"{_PREDICTOR}/_box_prediction_head/_box_encoder_layers/0", 4),
        (f"{heads}/_class_predictor_layers/0", slots),
    ):
        if mobile:
            shapes |= _keras_separable(name, channels, 6 * values, bias=True)
        else:
            shapes |= _keras_conv(name, 3, channels, 6 * values, bias=True)
    return shapes


def tf2_ssd(slots: int) -> Shapes:
    """Returns the layers after the backbone of ssd_mobilenet_v2_keras."""
    shapes: Shapes = {}
    inputs = 1280
    for number, width in enumerate((512, 256, 256, 128), start=2):
        name = f"{_EXTRACTOR}/feature_map_generator/convolutions/{number}"
        shapes |= _keras_conv(f"{name}/0", 1, inputs, width // 2)
        shapes |= _keras_norm(f"{name}/1", width // 2)
        shapes |= _keras_conv(f"{name}/3", 3, width // 2, width)
        shapes |= _keras_norm(f"{name}/4", width)
        inputs = width
    heads = f"{_PREDICTOR}/_prediction_heads"
    for number, channels in enumerate((576, 1280, 512, 256, 256, 128)):
        anchors = 3 if number == 0 else 6
        box = f"{heads}/box_encodings/{number}/_box_encoder_layers/0"
        shapes |= _keras_conv(box, 1, channels, anchors * 4, bias=True)
        head = f"{heads}/class_predictions_with_background/{number}/_class_predictor_layers/0"
        shapes |= _keras_conv(head, 1, channels, anchors * slots, bias=True)
    return shapes


def tf2_detector(extractor: str, slots: int) -> Shapes:
    """Returns a detector of tests/od_api_configs.py as the OD API saves it in TF2."""
    match extractor.split("_"):
        case ["ssd", "mobilenet", "v2", "keras"]:
            return tf2_mobilenet_v2(TF2_BACKBONE) | tf2_ssd(slots)
        case ["ssd", "mobilenet", "v2", "fpn", "keras"]:
            return (
                tf2_mobilenet_v2(TF2_BACKBONE)
                | tf2_fpn((32, 96, 1280), 128, mobile=True)
                | tf2_shared_predictor(128, slots, mobile=True)
            )
        case ["ssd", resnet, "v1", "fpn", "keras"]:
            return (
                tf2_resnet(TF2_BACKBONE, int(resnet.removeprefix("resnet")))
                | tf2_fpn((512, 1024, 2048), 256, mobile=False)
                | tf2_shared_predictor(256, slots, mobile=False)
            )
    raise ValueError(extractor)


def official_mobilenet_v2(root: str, multiplier: float = 1.0) -> Shapes:
    """Returns MobileNetV2 of official/vision/modeling/backbones/mobilenet.py."""
    channels = divisible(32 * multiplier)

    def conv_norm(name: str, number: int, inputs: int, outputs: int, size: int = 1) -> Shapes:
        shapes = _keras_conv(f"{name}/_conv{number}", size, inputs, outputs)
        return shapes | _keras_norm(f"{name}/_norm{number}", outputs)

    shapes = conv_norm(f"{root}/layer_with_weights-0", 0, 3, channels, 3)
    number = 0
    for ratio, width, repeats in _MOBILENET_V2:
        for _ in range(repeats):
            number += 1
            name = f"{root}/layer_with_weights-{number}"
            expanded, outputs = channels, divisible(width * multiplier)
            if ratio > 1:
                expanded = divisible(ratio * channels)
                shapes |= conv_norm(name, 0, channels, expanded)
            shapes |= _keras_depthwise(f"{name}/_conv1", 3, expanded)
            shapes |= _keras_norm(f"{name}/_norm1", expanded)
            shapes |= conv_norm(name, 2, expanded, outputs)
            channels = outputs
    return shapes | conv_norm(f"{root}/layer_with_weights-18", 0, channels, 1280)


def official_resnet(root: str, depth: int) -> Shapes:
    """Returns a ResNet of official/vision/modeling/backbones/resnet.py."""
    layers = _Numbered(root)
    layers.conv_norm(7, 3, 64)
    channels = 64
    for stage, blocks in enumerate(_RESNET[depth]):
        width = 64 * 2**stage
        for block in range(blocks):
            name = layers.name()
            convs = {1: (1, channels, width), 2: (3, width, width), 3: (1, width, 4 * width)}
            for number, (size, inputs, outputs) in convs.items():
                layers.shapes |= _keras_conv(f"{name}/_conv{number}", size, inputs, outputs)
                layers.shapes |= _keras_norm(f"{name}/_norm{number}", outputs)
            if block == 0:
                layers.shapes |= _keras_conv(f"{name}/_shortcut", 1, channels, 4 * width)
                layers.shapes |= _keras_norm(f"{name}/_norm0", 4 * width)
            channels = 4 * width
    return layers.shapes


def value_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns values that only a variable of this name and shape has, above 0 as variances are."""
    return np.random.default_rng(zlib.crc32(name.encode())).uniform(0.5, 1.5, shape).astype("f4")


def write(prefix: object, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Writes a checkpoint whose variables have their `value_of`; returns its prefix."""
    names = list(shapes)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(value_of(name, shapes[name])) for name in names],
    )
    return str(prefix)


def variables(outputs: list[Node]) -> Shapes:
    """Returns the variables of a network of ours, from its graph, without building a model."""
    shapes: Shapes = {}
    for node in reachable(outputs):
        attrs = node.attrs
        if node.op in ("conv2d", "depthwise_conv2d"):
            size = attrs["kernel_size"]
            inputs = node.inputs[0].channels
            if node.op == "conv2d":
                shapes[f"{node.name}/kernel"] = (size, size, inputs, attrs["filters"])
            else:
                shapes[f"{node.name}/depthwise_kernel"] = (size, size, inputs, 1)
            if attrs["use_bias"]:
                shapes[f"{node.name}/bias"] = (node.channels,)
        elif node.op == "batch_norm":
            left_out = {"gamma": not attrs["scale"], "beta": not attrs["center"]}
            for variable in _NORM:
                if not left_out.get(variable):
                    shapes[f"{node.name}/{variable}"] = (node.channels,)
    return shapes


def strides(outputs: list[Node]) -> dict[str, int]:
    """Returns the strides of the convolutions of a network of ours, from its graph."""
    convolutions = ("conv2d", "depthwise_conv2d")
    return {n.name: n.attrs["strides"] for n in reachable(outputs) if n.op in convolutions}
