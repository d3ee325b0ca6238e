"""Backbones of layers that are one operation each: Hit-Detector's (Guo et al., "Hit-Detector:
Hierarchical Trinity Architecture Search for Object Detection", 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnasdet.networks.blocks import conv_bn, round_channels
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.hyperparams import Hyperparams
from mnasdet.networks.operations import RELEASED, chosen
from mnasdet.operation_names import Operation, parse
from mnasdet.protos import architecture_pb2


@dataclass(frozen=True)
class Layer:
    """A layer that is one of some operations.

    Attributes:
      ops: one, or in a supernet several.
      channels: of the output.
      strides: 1 or 2.
    """

    ops: tuple[Operation, ...]
    channels: int
    strides: int = 1


def operation_layers(
    b: Builder,
    image: Node,
    layers: Sequence[Layer],
    *,
    stem_channels: int = 16,
    last_channels: int = 0,
    hyperparams: Hyperparams = RELEASED,
) -> BackboneFeatures:
    """Builds a stem of stride 2 and the layers.

    The levels are the outputs of the last layer of each stride; the last level is that of the 1x1
    convolution behind the layers, where there is one.

    Args:
      image: (height, width, 3).
      last_channels: of the 1x1 convolution; 0: none.
    """
    x = conv_bn(b, image, stem_channels, 3, hyperparams, strides=2, activation="relu", name="stem")
    level, levels = 1, {}
    for number, layer in enumerate(layers, start=1):
        level += layer.strides == 2
        with b.scope(f"layer_{number}"):
            x = chosen(b, x, layer.ops, layer.channels, hyperparams, strides=layer.strides)
        levels[level] = x
    # The released Hit-Detector ends with a 1x1 convolution of 2048 channels. The paper does not
    # mention it.
    if last_channels:
        x = conv_bn(b, x, last_channels, 1, hyperparams, activation="relu", name="last")
        levels[level] = x
    return BackboneFeatures(levels, x)


def from_proto(
    b: Builder,
    image: Node,
    proto: architecture_pb2.OperationLayers,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams | None = None,
) -> BackboneFeatures:
    """Builds `operation_layers` as an Architecture describes it."""

    def width(channels: int) -> int:
        # At 1 the stated widths stay as they are, also those that the rounding would change. A
        # width of 0 stands for a convolution that is left out.
        if depth_multiplier == 1.0 or not channels:
            return channels
        return round_channels(channels * depth_multiplier, min_depth)

    layers = [
        Layer(tuple(map(parse, layer.op)), width(layer.channels), layer.stride)
        for layer in proto.layer
    ]
    return operation_layers(
        b,
        image,
        layers,
        stem_channels=width(proto.stem_channels),
        last_channels=width(proto.last_channels),
        hyperparams=hyperparams or RELEASED,
    )
