"""A box predictor for every feature (Liu et al., "SSD: Single Shot MultiBox Detector", 2016;
depthwise separable in SSDLite: Sandler et al., MobileNetV2, 2018, section 6.2)."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.networks.blocks import conv_bn, depthwise_conv_bn
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.networks.hyperparams import from_proto as read_hyperparams
from mnasdet.protos import box_predictor_pb2

BOX_CODE_SIZE = 4

# The OD API's ssdlite_mobilenet_v3 configs; slim's L2 of 4e-5 halved for Keras.
DEFAULT = Hyperparams(
    kernel=Kernel(Initializer("normal", 0.03), 2e-5),
    depthwise_kernel=Kernel(Initializer("normal", 0.03)),
    normalizer=BatchNorm(momentum=0.97),
)


def convolutional_predictor(
    b: Builder,
    features: Sequence[Node],
    *,
    num_classes: int,
    anchors_per_location: Sequence[int],
    kernel_size: int = 3,
    separable: bool = True,
    num_layers: int = 0,
    min_depth: int = 0,
    max_depth: int = 0,
    dropout: float = 0.0,
    class_bias: float = 0.0,
    hyperparams: Hyperparams = DEFAULT,
) -> tuple[Node, Node]:
    """Predicts boxes and classes from every feature, with weights of its own.

    Args:
      features: finest level first, of any channels.
      num_classes: without the background, which has slot 0 of the class scores.
      anchors_per_location: of each feature.
      kernel_size: also where the feature is smaller. (The OD API's documentation limits it to the
        feature's side; its code and its published weights do not.)
      separable: a depthwise convolution before a 1x1 convolution; `kernel_size` is the former's.
      num_layers: 1x1 convolutions before the predictions, as wide as the feature between
        `min_depth` and `max_depth`. A width of 0 leaves them out.
      dropout: share of the units dropped before the class predictions.
      class_bias: first value of the class logits.

    Returns:
      Box encodings (anchors, 4) and class logits (anchors, num_classes + 1): levels in order,
      within one row by row, within a location anchor by anchor.
    """
    if separable and kernel_size == 1:
        raise ValueError("kernel_size is 1; a depthwise convolution needs more")

    def predict(x: Node, filters: int, name: str, bias: float = 0.0) -> Node:
        if separable:
            activation = hyperparams.activation
            x = depthwise_conv_bn(
                b, x, kernel_size, hyperparams, activation=activation, name=f"{name}/depthwise"
            )
        return b.conv2d(
            x,
            filters,
            1 if separable else kernel_size,
            use_bias=True,
            bias=bias,
            kernel=hyperparams.unnormalized.kernel,
            name=f"{name}/{'pointwise' if separable else 'conv'}",
        )

    # Dropout is for the class predictions alone, as in the OD API's class head.
    boxes, classes = [], []
    slots = num_classes + 1
    for level, (x, anchors) in enumerate(zip(features, anchors_per_location, strict=True)):
        with b.scope(f"feature_{level}"):
            # The OD API's rule: as wide as the feature within the bounds.
            depth = max(min(x.channels, max_depth), min_depth)
            x = _layers(b, x, num_layers if depth else 0, depth, hyperparams)
            box = predict(x, anchors * BOX_CODE_SIZE, "box")
            boxes.append(_by_anchor(b, box, BOX_CODE_SIZE, "box/reshape"))
            dropped = b.dropout(x, dropout, name="class/dropout")
            logits = predict(dropped, anchors * slots, "class", class_bias)
            classes.append(_by_anchor(b, logits, slots, "class/reshape"))
    return b.concat(boxes, name="box_encodings"), b.concat(classes, name="class_logits")


def _layers(b: Builder, x: Node, num_layers: int, depth: int, hyperparams: Hyperparams) -> Node:
    for layer in range(num_layers):
        x = conv_bn(
            b, x, depth, 1, hyperparams, activation=hyperparams.activation, name=f"layer_{layer}"
        )
    return x


def _by_anchor(b: Builder, x: Node, values: int, name: str) -> Node:
    """Reshapes (height, width, anchors * values) to (height * width * anchors, values)."""
    height, width, channels = x.shape
    return b.reshape(x, (height * width * channels // values, values), name=name)


def from_proto(
    b: Builder,
    features: Sequence[Node],
    proto: box_predictor_pb2.ConvolutionalBoxPredictor,
    *,
    num_classes: int,
    anchors_per_location: Sequence[int],
) -> tuple[Node, Node]:
    """Builds `convolutional_predictor` as an Architecture describes it."""
    return convolutional_predictor(
        b,
        features,
        num_classes=num_classes,
        anchors_per_location=anchors_per_location,
        kernel_size=proto.kernel_size,
        separable=proto.use_depthwise,
        num_layers=proto.num_layers_before_predictor,
        min_depth=proto.min_depth,
        max_depth=proto.max_depth,
        dropout=1 - proto.dropout_keep_probability if proto.use_dropout else 0.0,
        class_bias=proto.class_prediction_bias_init,
        hyperparams=read_hyperparams(proto.conv_hyperparams),
    )
