"""The first stage of a two-stage detector (Ren et al., "Faster R-CNN: Towards Real-Time Object
Detection with Region Proposal Networks", 2015, section 3.1): tells anchors with an object from
anchors without, and where the object is."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.networks.blocks import normalized
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import Hyperparams, Initializer, Kernel
from mnasdet.networks.hyperparams import from_proto as read_hyperparams
from mnasdet.protos import architecture_pb2

# The names of the outputs.
BOX_ENCODINGS = "rpn/box_encodings"
OBJECTNESS = "rpn/objectness"

BOX_CODE_SIZE = 4

# Ren et al., section 3.3; their weight decay of 1e-4 (mmdetection's), halved for Keras.
DEFAULT = Hyperparams(Kernel(Initializer("normal", 0.01), 5e-5), normalizer=None, activation="relu")


def region_proposal(
    b: Builder,
    features: Sequence[Node],
    *,
    anchors_per_location: int,
    channels: int = 256,
    kernel_size: int = 3,
    num_logits: int = 1,
    level_predictions: bool = False,
    hyperparams: Hyperparams = DEFAULT,
) -> tuple[Node, Node]:
    """Predicts the boxes and the objectness of anchors on all levels, with one set of kernels.

    Args:
      features: finest level first, all with the same channels.
      channels: of the convolution before the predictions.
      num_logits: of an anchor: 1, or 2 with the background's first.
      level_predictions: every level has kernels of its own after that convolution.

    Returns:
      Box encodings (anchors, 4) and objectness logits (anchors, num_logits): levels in order,
      within one row by row, within a location anchor by anchor.
    """
    boxes: list[Node] = []
    objectness: list[Node] = []
    for level, feature in enumerate(features):
        x = hidden(b, feature, level, channels, kernel_size, hyperparams)
        for found, values, name in (
            (boxes, BOX_CODE_SIZE, "box"),
            (objectness, num_logits, "objectness"),
        ):
            kernel = f"{name}/feature_{level}" if level_predictions else name
            maps = predicted(b, x, anchors_per_location * values, kernel, hyperparams)
            found.append(flat(b, maps, values, name, level))
    return b.concat(boxes, name="box_encodings"), b.concat(objectness, name="objectness")


def hidden(
    b: Builder, x: Node, level: int, channels: int, kernel_size: int, hyperparams: Hyperparams
) -> Node:
    """Adds the convolution before the predictions, with the kernel that all levels share."""
    x = b.conv2d(
        x,
        channels,
        kernel_size,
        use_bias=hyperparams.normalizer is None,
        kernel=hyperparams.kernel,
        name="hidden/conv",
        shared=True,
    )
    # The statistics of the levels differ.
    x = normalized(b, x, hyperparams, f"hidden/feature_{level}")
    activation = hyperparams.activation
    return b.activation(x, activation, name=f"hidden/feature_{level}/{activation}")


def predicted(
    b: Builder, x: Node, values: int, name: str, hyperparams: Hyperparams, bias: float = 0.0
) -> Node:
    """Predicts some values for each place, with the 1x1 kernel that all levels share.

    Args:
      bias: their first value.
    """
    return b.conv2d(
        x,
        values,
        1,
        use_bias=True,
        bias=bias,
        kernel=hyperparams.unnormalized.kernel,
        name=f"{name}/conv",
        shared=True,
    )


def flat(b: Builder, x: Node, values: int, name: str, level: int) -> Node:
    """Returns a map as (anchors, values): row by row, in a place anchor by anchor."""
    height, width, channels = x.shape
    shape = (height * width * channels // values, values)
    return b.reshape(x, shape, name=f"{name}/feature_{level}")


def from_proto(
    b: Builder,
    features: Sequence[Node],
    proto: architecture_pb2.RegionProposal,
    *,
    anchors_per_location: Sequence[int],
) -> dict[str, Node]:
    """Builds `region_proposal` as an Architecture describes it, its outputs by name.

    All levels have as many anchors, which the config checks hold.
    """
    boxes, objectness = region_proposal(
        b,
        features,
        anchors_per_location=anchors_per_location[0],
        channels=proto.channels,
        kernel_size=proto.kernel_size,
        num_logits=objectness_logits(proto),
        level_predictions=proto.level_predictions,
        hyperparams=configured(proto),
    )
    return {BOX_ENCODINGS: boxes, OBJECTNESS: objectness}


def objectness_logits(proto: architecture_pb2.RegionProposal) -> int:
    """Returns the logits of one anchor's objectness."""
    return 2 if proto.objectness == proto.SOFTMAX else 1


def configured(proto: architecture_pb2.RegionProposal) -> Hyperparams:
    """Returns the hyper-parameters that a message states, or those of the publication."""
    stated = proto.HasField("conv_hyperparams")
    return read_hyperparams(proto.conv_hyperparams) if stated else DEFAULT
