"""Hit-Detector's neck (Guo et al., "Hit-Detector: Hierarchical Trinity Architecture Search for
Object Detection", 2020, section 4.1, with what the released code adds)."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.networks.blocks import round_channels
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.hyperparams import Hyperparams
from mnasdet.networks.operations import RELEASED, chosen
from mnasdet.operation_names import Operation, parse
from mnasdet.protos import architecture_pb2


def hit_pyramid(
    b: Builder,
    features: Sequence[Node],
    laterals: Sequence[Sequence[Operation]],
    outputs: Sequence[Sequence[Operation]],
    *,
    channels: int = 256,
    num_coarser: int = 1,
    hyperparams: Hyperparams = RELEASED,
) -> list[Node]:
    """Carries coarse features down into finer ones, and the result up again.

    Args:
      features: the backbone's, finest first, each half the size of the one before.
      laterals: the operations of each level before the coarser one is added; several of a level
        are a choice. `outputs`: those after it.
      channels: of every output.
      num_coarser: levels behind the backbone's, each every second place of the one before.

    Returns:
      One feature a level, finest first, (height, width, channels).
    """

    def layers(nodes: Sequence[Node], ops: Sequence[Sequence[Operation]], name: str) -> list[Node]:
        built = []
        for place, (x, of_level) in enumerate(zip(nodes, ops, strict=True)):
            with b.scope(f"{name}_{place}"):
                built.append(chosen(b, x, of_level, channels, hyperparams))
        return built

    down = layers(features, laterals, "lateral")
    for place in range(len(down) - 2, -1, -1):
        coarser = b.upsample(down[place + 1], down[place].size, name=f"top_down_{place}/upsample")
        down[place] = b.add(down[place], coarser, name=f"top_down_{place}/add")
    # The second operation comes after all additions of the first pass: no level reads another
    # one's refined features on the way down.
    refined = layers(down, outputs, "output")
    up = refined[:1]
    for place, x in enumerate(refined[1:], start=1):
        with b.scope(f"bottom_up_{place}"):
            finer = b.max_pool(up[-1], 2, strides=2, name="max_pool")
            # Neither normalised nor activated in the released code.
            up.append(
                b.conv2d(
                    b.add(x, finer, name="add"),
                    channels,
                    3,
                    use_bias=True,
                    kernel=hyperparams.unnormalized.kernel,
                    name="conv",
                )
            )
    # Coarser levels propose regions. None is cropped there, so that no layer is spent on them.
    for number in range(1, num_coarser + 1):
        up.append(b.max_pool(up[-1], 1, strides=2, name=f"coarser_{number}/subsample"))
    return up


def from_proto(
    b: Builder,
    features: BackboneFeatures,
    proto: architecture_pb2.HitPyramid,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 16,
    hyperparams: Hyperparams | None = None,
) -> list[list[Node]]:
    """Builds `hit_pyramid` as an Architecture describes it."""
    channels = proto.channels
    if depth_multiplier != 1.0:
        channels = round_channels(channels * depth_multiplier, min_depth)
    backbone = features.from_level(proto.min_level)
    pyramid = hit_pyramid(
        b,
        backbone,
        [[parse(op) for op in layer.op] for layer in proto.lateral],
        [[parse(op) for op in layer.op] for layer in proto.output],
        channels=channels,
        num_coarser=proto.max_level - proto.min_level + 1 - len(backbone),
        hyperparams=hyperparams or RELEASED,
    )
    return [pyramid]
