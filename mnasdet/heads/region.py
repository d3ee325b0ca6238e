"""The second stage of a two-stage detector: features of a region to its classes and its box."""

from __future__ import annotations

from mnasdet.backbones import resnet
from mnasdet.networks import operations
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import Hyperparams, Initializer, Kernel, configured
from mnasdet.networks.hyperparams import from_proto as read_hyperparams
from mnasdet.operation_names import parse
from mnasdet.protos import architecture_pb2

BOX_CODE_SIZE = 4

# Ren et al., "Faster R-CNN", 2015, as detectron2 and mmdetection start it; their weight decay of
# 1e-4 halved for Keras.
_L2 = 5e-5
DEFAULT = Hyperparams(
    Kernel(Initializer("uniform", scale=1.0, mode="fan_avg"), _L2),
    normalizer=None,
    activation="relu",
)
_CLASSES = Kernel(Initializer("normal", 0.01), _L2)
_BOXES = Kernel(Initializer("normal", 0.001), _L2)


def fully_connected(
    b: Builder,
    x: Node,
    *,
    num_layers: int = 2,
    channels: int = 1024,
    hyperparams: Hyperparams = DEFAULT,
) -> Node:
    """Builds layers that each see all of a region: (1, 1, channels).

    Lin et al., "Feature Pyramid Networks for Object Detection", 2017, section 5.2. Nothing is
    normalised.
    """
    height, width, channels_in = x.shape
    x = b.reshape(x, (1, 1, height * width * channels_in), name="flat")
    for layer in range(1, num_layers + 1):
        x = b.dense(x, channels, kernel=hyperparams.unnormalized.kernel, name=f"layer_{layer}/conv")
        activation = hyperparams.activation
        x = b.activation(x, activation, name=f"layer_{layer}/{activation}")
    return x


def predictions(
    b: Builder,
    x: Node,
    *,
    num_classes: int,
    class_agnostic_boxes: bool = False,
    dropout: float = 0.0,
    class_kernel: Kernel = _CLASSES,
    box_kernel: Kernel = _BOXES,
) -> tuple[Node, Node]:
    """Predicts the boxes and the classes of a region.

    Args:
      x: (1, 1, channels).
      num_classes: without the background.
      class_agnostic_boxes: one box, and not one for every class.
      dropout: the share of the units dropped before the predictions.

    Returns:
      Box encodings (num_classes or 1, 4) and class logits (num_classes + 1,), slot 0 for the
      background.
    """
    x = b.dropout(x, dropout, name="dropout")
    num_boxes = 1 if class_agnostic_boxes else num_classes
    boxes = b.dense(x, num_boxes * BOX_CODE_SIZE, kernel=box_kernel, name="box/conv")
    logits = b.dense(x, num_classes + 1, kernel=class_kernel, name="class/conv")
    return (
        b.reshape(boxes, (num_boxes, BOX_CODE_SIZE), name="box_encodings"),
        b.reshape(logits, (num_classes + 1,), name="class_logits"),
    )


def from_proto(
    b: Builder, x: Node, architecture: architecture_pb2.Architecture, *, num_classes: int
) -> tuple[Node, Node]:
    """Builds the head that an Architecture describes, in the caller's scope.

    Args:
      x: the features of a region, (height, width, channels).
    """
    proto = architecture.region_head
    stated = read_hyperparams(proto.hyperparams) if proto.HasField("hyperparams") else None
    if proto.HasField("last_backbone_stage"):
        x = resnet.last_stage(
            b,
            x,
            architecture.backbone.resnet,
            strides=proto.last_backbone_stage.stride,
            depth_multiplier=architecture.depth_multiplier,
            min_depth=architecture.min_depth,
            hyperparams=configured(architecture.backbone),
        )
        x = b.global_avg_pool(x, name="mean")
    elif proto.HasField("chosen_layers"):
        for number, layer in enumerate(proto.chosen_layers.layer, start=1):
            with b.scope(f"chosen_{number}"):
                ops = [parse(op) for op in layer.op]
                own = stated or operations.RELEASED
                x = operations.chosen(b, x, ops, layer.channels, own, strides=layer.stride)
        x = fully_connected(
            b,
            x,
            # Hit-Detector has one such layer after the searched blocks, where FPN's head has two.
            num_layers=1,
            channels=proto.chosen_layers.fc_channels,
            hyperparams=stated.unnormalized if stated else DEFAULT,
        )
    else:
        layers = proto.fully_connected
        x = fully_connected(
            b,
            x,
            num_layers=layers.num_layers,
            channels=layers.channels,
            hyperparams=stated or DEFAULT,
        )
    kernels = {}
    if stated:
        kernel = stated.unnormalized.kernel
        kernels = {"class_kernel": kernel, "box_kernel": kernel}
    return predictions(
        b,
        x,
        num_classes=num_classes,
        class_agnostic_boxes=proto.class_agnostic_boxes,
        dropout=proto.dropout,
        **kernels,
    )
