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
    hyperparams: Hyperparams = DEFAULT,
) -> tuple[Node, Node]:
    """Predicts the boxes and the objectness of anchors on all levels, with one set of kernels.

    Args:
      features: finest level first, all with the same channels.
      channels: of the convolution before the predictions.
      num_logits: of an anchor: 1, or 2 with the background's first.

    Returns:
      Box encodings (anchors, 4) and objectness logits (anchors, num_logits): levels in order,
      within one row by row, within a location anchor by anchor.
    """
    predicting = hyperparams.unnormalized.kernel

    def predict(x: Node, values: int, name: str, level: int) -> Node:
        height, width, _ = x.shape
        x = b.conv2d(
            x,
            anchors_per_location * values,
            1,
            use_bias=True,
            kernel=predicting,
            name=f"{name}/conv",
            shared=True,
        )
        count = height * width * anchors_per_location
        return b.reshape(x, (count, values), name=f"{name}/feature_{level}")

    boxes, objectness = [], []
    for level, x in enumerate(features):
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
        x = b.activation(x, activation, name=f"hidden/feature_{level}/{activation}")
        boxes.append(predict(x, BOX_CODE_SIZE, "box", level))
        objectness.append(predict(x, num_logits, "objectness", level))
    return b.concat(boxes, name="box_encodings"), b.concat(objectness, name="objectness")


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
        num_logits=2 if proto.objectness == proto.SOFTMAX else 1,
        hyperparams=(
            read_hyperparams(proto.conv_hyperparams)
            if proto.HasField("conv_hyperparams")
            else DEFAULT
        ),
    )
    return {BOX_ENCODINGS: boxes, OBJECTNESS: objectness}
