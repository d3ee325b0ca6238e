"""The first stage of a two-stage detector that predicts its own anchors (Wang et al., "Region
Proposal by Guided Anchoring", 2019, section 3): where they are, how large, and what they show."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from mnasdet.heads.region_proposal import (
    BOX_CODE_SIZE,
    BOX_ENCODINGS,
    DEFAULT,
    OBJECTNESS,
    configured,
    flat,
    hidden,
    objectness_logits,
    predicted,
)
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import Hyperparams, Initializer
from mnasdet.protos import architecture_pb2

# The names of the outputs, beside those of `region_proposal`.
ANCHOR_SHAPES = "rpn/anchor_shapes"
LOCATIONS = "rpn/locations"

# Height and width.
SHAPE_SIZE = 2

# At first a place has an object with a probability of 1 in 100 (mmdetection's).
LOCATION_BIAS = -math.log(99)

# The initialiser of the offsets, which start from shapes near 0 (mmdetection's).
_OFFSET_INITIALIZER = Initializer("normal", 0.1)


def guided_anchoring(
    b: Builder,
    features: Sequence[Node],
    *,
    channels: int = 256,
    kernel_size: int = 3,
    num_logits: int = 1,
    deformable_groups: int = 4,
    deformable_kernel_size: int = 3,
    hyperparams: Hyperparams = DEFAULT,
) -> dict[str, Node]:
    """Predicts one anchor for every place of all levels, and its box, with one set of kernels.

    Args:
      features: finest level first, all with the same channels.
      channels: of the convolution before the predictions, and of the deformable one.
      num_logits: of an anchor's objectness: 1, or 2 with the background's first.
      deformable_groups: of the convolution that fits the features to the shapes of the anchors.
      deformable_kernel_size: of the same.

    Returns:
      By name: box encodings (places, 4), relative to the anchors of the predicted shapes;
      objectness logits (places, num_logits); the shapes, encoded (places, 2); logits (places, 1) of
      whether an object is centred there. Levels are in order, within one row by row.
    """
    by_name: dict[str, list[Node]] = defaultdict(list)
    for level, feature in enumerate(features):
        x = hidden(b, feature, level, channels, kernel_size, hyperparams)
        locations = predicted(b, x, 1, "location", hyperparams, LOCATION_BIAS)
        shapes = predicted(b, x, SHAPE_SIZE, "shape", hyperparams)
        offsets = b.conv2d(
            # The shapes learn from objects alone, whatever offsets the features could use.
            b.stop_gradient(shapes, name=f"adaptation/feature_{level}/stop_gradient"),
            2 * deformable_groups * deformable_kernel_size**2,
            1,
            kernel=replace(hyperparams.unnormalized.kernel, initializer=_OFFSET_INITIALIZER),
            name="adaptation/offset/conv",
            shared=True,
        )
        x = b.deformable_conv2d(
            x,
            offsets,
            channels,
            deformable_kernel_size,
            deformable_groups=deformable_groups,
            kernel=hyperparams.unnormalized.kernel,
            name="adaptation/conv",
            shared=True,
        )
        x = b.activation(x, "relu", name=f"adaptation/feature_{level}/relu")
        boxes = predicted(b, x, BOX_CODE_SIZE, "box", hyperparams)
        objectness = predicted(b, x, num_logits, "objectness", hyperparams)
        for output, maps, values, name in (
            (BOX_ENCODINGS, boxes, BOX_CODE_SIZE, "box"),
            (OBJECTNESS, objectness, num_logits, "objectness"),
            (ANCHOR_SHAPES, shapes, SHAPE_SIZE, "shape"),
            (LOCATIONS, locations, 1, "location"),
        ):
            by_name[output].append(flat(b, maps, values, name, level))
    return {
        output: b.concat(levels, name=output.rpartition("/")[2])
        for output, levels in by_name.items()
    }


def from_proto(
    b: Builder, features: Sequence[Node], proto: architecture_pb2.RegionProposal
) -> dict[str, Node]:
    """Builds `guided_anchoring` as an Architecture describes it."""
    return guided_anchoring(
        b,
        features,
        channels=proto.channels,
        kernel_size=proto.kernel_size,
        num_logits=objectness_logits(proto),
        deformable_groups=proto.guided_anchoring.deformable_groups,
        deformable_kernel_size=proto.guided_anchoring.deformable_kernel_size,
        hyperparams=configured(proto),
    )
