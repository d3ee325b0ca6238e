"""Every network of keras.applications has a map, under all names that Keras gives its layers.

Names, kinds and sizes are written here from the published networks, so that not all of them have to
be built; test_keras_files.py has what Keras itself writes of some.
"""

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet.backbones.factory import backbone_features
from mnasdet.networks.builder import Builder, reachable
from mnasdet.protos import architecture_pb2
from mnasdet.training.warm_start import load
from mnasdet.training.warm_start.source import Source
from mnasdet.training.warm_start.transfer import Target, transfer
from tests.training.warm_start.torch_networks import MOBILENET_V2, MOBILENET_V3, divisible

CONV, DEPTHWISE, NORM = "conv2d", "depthwise_conv2d", "batch_normalization"


def conv(name, size, inputs, channels, *, bias=False):
    shapes = {"kernel": (size, size, inputs, channels)}
    return CONV, name, shapes | ({"bias": (channels,)} if bias else {})


def depthwise(name, size, channels):
    return DEPTHWISE, name, {"depthwise_kernel": (size, size, channels, 1)}


def norm(name, channels):
    variables = ("gamma", "beta", "moving_mean", "moving_variance")
    return NORM, name, dict.fromkeys(variables, (channels,))


def mobilenet_v2():
    yield from (conv("Conv1", 3, 3, 32), norm("bn_Conv1", 32))
    inputs, index = 32, 0
    for ratio, channels, repeats, _ in MOBILENET_V2:
        for _ in range(repeats):
            name = f"block_{index}" if index else "expanded_conv"
            width = inputs * ratio
            if index:
                yield from (
                    conv(f"{name}_expand", 1, inputs, width),
                    norm(f"{name}_expand_BN", width),
                )
            yield from (
                depthwise(f"{name}_depthwise", 3, width),
                norm(f"{name}_depthwise_BN", width),
            )
            yield conv(f"{name}_project", 1, width, channels)
            yield norm(f"{name}_project_BN", channels)
            inputs, index = channels, index + 1
    yield from (conv("Conv_1", 1, 320, 1280), norm("Conv_1_bn", 1280))


def mobilenet_v3(size, names):
    """`names` are the endings of tf_keras or of Keras 3."""
    first, last, bn, sep, squeeze, excite = names
    yield from (conv(first, 3, 3, 16), norm(f"{first}{bn}", 16))
    inputs = 16
    for index, (kernel, width, channels, squeezes, _, _) in enumerate(MOBILENET_V3[size]):
        name = f"expanded_conv_{index}{sep}" if index else f"expanded_conv{sep}"
        if index:
            yield conv(f"{name}expand", 1, inputs, width)
            yield norm(f"{name}expand{bn}", width)
        yield depthwise(f"{name}depthwise", kernel, width)
        yield norm(f"{name}depthwise{bn}", width)
        if squeezes:
            squeezed = divisible(width / 4)
            yield conv(f"{name}{squeeze}", 1, width, squeezed, bias=True)
            yield conv(f"{name}{excite}", 1, squeezed, width, bias=True)
        yield from (
            conv(f"{name}project", 1, width, channels),
            norm(f"{name}project{bn}", channels),
        )
        inputs = channels
    yield from (conv(last, 1, inputs, inputs * 6), norm(f"{last}{bn}", inputs * 6))


TF_KERAS = ("Conv", "Conv_1", "/BatchNorm", "/", "squeeze_excite/Conv", "squeeze_excite/Conv_1")
KERAS_3 = ("conv", "conv_1", "_bn", "_", "squeeze_excite_conv", "squeeze_excite_conv_1")


def resnet(blocks):
    yield from (conv("conv1_conv", 7, 3, 64, bias=True), norm("conv1_bn", 64))
    inputs = 64
    for stage, repeats in enumerate(blocks, start=2):
        width = 16 * 2**stage
        for block in range(1, repeats + 1):
            layers = [(1, 1, inputs, width), (2, 3, width, width), (3, 1, width, width * 4)]
            if block == 1:
                # Keras lists the projection beside the third convolution, in front of it.
                layers.insert(2, (0, 1, inputs, width * 4))
            for place, size, before, after in layers:
                name = f"conv{stage}_block{block}_{place}"
                yield conv(f"{name}_conv", size, before, after, bias=True)
                yield norm(f"{name}_bn", after)
            inputs = width * 4


# Our backbone, the layers, and whether there are files of tf_keras, which may be without names.
NETWORKS = {
    "MobileNetV2": ("mobilenet_v2 {}", mobilenet_v2(), True),
    "MobileNetV3Small": ("mobilenet_v3 { size: SMALL }", mobilenet_v3("small", TF_KERAS), True),
    "MobileNetV3Large": ("mobilenet_v3 { size: LARGE }", mobilenet_v3("large", TF_KERAS), True),
    "MobileNetV3Small of Keras 3": (
        "mobilenet_v3 { size: SMALL }",
        mobilenet_v3("small", KERAS_3),
        False,
    ),
    "MobileNetV3Large of Keras 3": (
        "mobilenet_v3 { size: LARGE }",
        mobilenet_v3("large", KERAS_3),
        False,
    ),
    "ResNet50": ("resnet { depth: 50 }", resnet((3, 4, 6, 3)), True),
    "ResNet101": ("resnet { depth: 101 }", resnet((3, 4, 23, 3)), True),
    "ResNet152": ("resnet { depth: 152 }", resnet((3, 8, 36, 3)), True),
}


def numbered(layers):
    """The layers as they are named in files without names: each kind is counted for itself."""
    count = dict.fromkeys((CONV, DEPTHWISE, NORM), 0)
    for kind, _, shapes in layers:
        number = f"_{count[kind]}" if count[kind] else ""
        count[kind] += 1
        kernel = {"depthwise_kernel": "kernel"}
        yield kind, f"layers/{kind}{number}", {kernel.get(n, n): s for n, s in shapes.items()}


def our_target(backbone):
    """The variables of a backbone, from its graph."""
    b = Builder()
    proto = text_format.Parse(backbone, architecture_pb2.Backbone())
    features = backbone_features(b, b.input((64, 64, 3)), proto, classifies=True)
    shapes, epsilons = {}, {}
    for node in reachable([features.last]):
        attrs, inputs = node.attrs, node.inputs[0].channels if node.inputs else 0
        if node.op == "conv2d":
            size = attrs["kernel_size"]
            shapes[f"{node.name}/kernel"] = [size, size, inputs, node.channels]
            if attrs["use_bias"]:
                shapes[f"{node.name}/bias"] = [node.channels]
        elif node.op == "depthwise_conv2d":
            size = attrs["kernel_size"]
            shapes[f"{node.name}/depthwise_kernel"] = [size, size, inputs, 1]
        elif node.op == "batch_norm":
            epsilons[node.name] = attrs["epsilon"]
            for name in ("gamma", "beta", "moving_mean", "moving_variance"):
                shapes[f"{node.name}/{name}"] = [node.channels]
    return Target(shapes, epsilons, {})


@pytest.mark.parametrize("name", NETWORKS)
def test_every_variable_is_matched_once(name):
    backbone, layers, has_numbers = NETWORKS[name]
    layers = list(layers)
    target = our_target(backbone)
    for kind in [layers, list(numbered(layers))] if has_numbers else [layers]:
        shapes = {f"{layer}/{last}": shape for _, layer, of in kind for last, shape in of.items()}
        read = set()

        def value(variable, shapes=shapes, read=read):
            read.add(variable)
            return np.ones(shapes[variable], np.float32)

        source = Source("file", "a Keras file", shapes, value)
        found = transfer(target, source, load.recognized(source))
        assert (found.unmatched, found.misshapen) == ([], {})
        assert len(found.values) == len(target.shapes)
        # Biases ahead of a normalisation are read, too.
        assert read == shapes.keys()
