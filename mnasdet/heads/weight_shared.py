"""The box predictor that all levels share (Lin et al., "Focal Loss for Dense Object Detection",
2017, section 4; separable convolutions and one tower as in the OD API)."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.networks.blocks import normalized, separable_conv
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.networks.hyperparams import from_proto as read_hyperparams
from mnasdet.networks.hyperparams import initializer_from_proto as read_initializer
from mnasdet.protos import box_predictor_pb2

BOX_CODE_SIZE = 4

# The OD API's MobileNetV2 FPNLite configs; slim's L2 of 4e-5 halved for Keras.
DEFAULT = Hyperparams(
    kernel=Kernel(Initializer("normal", 0.01), 2e-5),
    depthwise_kernel=Kernel(Initializer("normal", 0.01)),
    normalizer=BatchNorm(momentum=0.997),
)


def weight_shared_predictor(
    b: Builder,
    features: Sequence[Node],
    *,
    num_classes: int,
    anchors_per_location: int,
    num_layers: int = 4,
    channels: int = 64,
    kernel_size: int = 3,
    share_tower: bool = True,
    separable: bool = True,
    # -ln(99): at first every anchor has an object with a probability of 0.01 (section 4.1), or
    # the loss of the background would drown all others.
    class_bias: float = -4.6,
    prediction_initializer: Initializer | None = None,
    hyperparams: Hyperparams = DEFAULT,
) -> tuple[Node, Node]:
    """Predicts boxes and classes from all levels.

    The levels share the kernels. Each has a batch normalisation of its own, for their statistics
    differ.


    Args:
      features: finest level first, all with the same channels.
      num_classes: without the background, which has slot 0 of the class scores.
      channels: of the tower.
      class_bias: first value of the class logits.
      prediction_initializer: of the kernels that predict; that of `hyperparams` if left out.

    Returns:
      Box encodings (anchors, 4) and class logits (anchors, num_classes + 1): levels in order,
      within one row by row, within a location anchor by anchor.
    """

    predicting = hyperparams.unnormalized
    if prediction_initializer:
        predicting = predicting.initialized(prediction_initializer)

    def conv(x: Node, filters: int, name: str, own: Hyperparams, **arguments) -> Node:
        if separable:
            return separable_conv(
                b, x, filters, kernel_size, own, name=name, shared=True, **arguments
            )
        return b.conv2d(
            x,
            filters,
            kernel_size,
            kernel=own.kernel,
            name=f"{name}/conv",
            shared=True,
            **arguments,
        )

    def tower(x: Node, name: str, level: int) -> Node:
        for layer in range(num_layers):
            # The normalisation has an offset of its own.
            use_bias = hyperparams.normalizer is None
            x = conv(x, channels, f"{name}/{layer}", hyperparams, use_bias=use_bias)
            x = normalized(b, x, hyperparams, f"{name}/{layer}/feature_{level}")
            activation = hyperparams.activation
            x = b.activation(x, activation, name=f"{name}/{layer}/feature_{level}/{activation}")
        return x

    def predict(x: Node, filters: int, name: str, bias: float = 0.0) -> Node:
        return conv(x, filters, name, predicting, use_bias=True, bias=bias)

    def flat(x: Node, values: int, name: str) -> Node:
        height, width, _ = x.shape
        return b.reshape(x, (height * width * anchors_per_location, values), name=name)

    boxes, classes = [], []
    for level, x in enumerate(features):
        box_tower = tower(x, "tower" if share_tower else "box_tower", level)
        # MnasFPN's published config shares it; RetinaNet has a tower for each.
        class_tower = box_tower if share_tower else tower(x, "class_tower", level)
        box = predict(box_tower, anchors_per_location * BOX_CODE_SIZE, "box")
        boxes.append(flat(box, BOX_CODE_SIZE, f"box/feature_{level}"))
        slots = num_classes + 1
        logits = predict(class_tower, anchors_per_location * slots, "class", bias=class_bias)
        classes.append(flat(logits, slots, f"class/feature_{level}"))
    return b.concat(boxes, name="box_encodings"), b.concat(classes, name="class_logits")


def from_proto(
    b: Builder,
    features: Sequence[Node],
    proto: box_predictor_pb2.WeightSharedConvolutionalBoxPredictor,
    *,
    num_classes: int,
    anchors_per_location: Sequence[int],
) -> tuple[Node, Node]:
    """Builds `weight_shared_predictor` as an Architecture describes it.

    All levels have as many anchors, which the config checks hold.
    """
    return weight_shared_predictor(
        b,
        features,
        num_classes=num_classes,
        anchors_per_location=anchors_per_location[0],
        num_layers=proto.num_layers_before_predictor,
        channels=proto.depth,
        kernel_size=proto.kernel_size,
        share_tower=proto.share_prediction_tower,
        separable=proto.use_depthwise,
        class_bias=proto.class_prediction_bias_init,
        prediction_initializer=(
            read_initializer(proto.prediction_initializer)
            if proto.HasField("prediction_initializer")
            else None
        ),
        hyperparams=read_hyperparams(proto.conv_hyperparams),
    )
