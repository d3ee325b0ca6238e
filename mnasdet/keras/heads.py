"""Heads as Keras layers: `boxes, classes = WeightSharedBoxPredictor(90)([p3, p4, p5, p6])`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import tf_keras

from mnasdet.architectures import anchors_per_location as anchors_of
from mnasdet.architectures import levels
from mnasdet.errors import LayerError
from mnasdet.heads import classifier, convolutional, weight_shared
from mnasdet.keras import parts
from mnasdet.keras.graph_layer import GraphLayer
from mnasdet.networks.builder import Builder, Node

# Their predictors' hyper-parameters are the OD API's.
_PUBLISHED_CONVOLUTIONAL = "mobilenet_v2_ssdlite"
_PUBLISHED_WEIGHT_SHARED = "mobilenet_v2_mnasfpn"

# Fields of a predictor that are for what comes after the network.
_NOT_OF_THE_NETWORK = ("box_code_size", "apply_sigmoid_to_scores", "box_encodings_clip_range")


class BoxPredictor(GraphLayer):
    """A box predictor, from the features of all levels, finest first, to what is said of all
    anchors: box encodings [batch, anchors, 4] and class logits [batch, anchors, num_classes + 1],
    slot 0 for the background. Levels are in order, within one row by row, within a location anchor
    by anchor.

    Both predictors share these arguments:

    Args:
      num_classes: without the background.
      anchors_per_location: at each location of a feature; a list where features differ.
      conv_hyperparams: the fields of `Hyperparams` in protos/hyperparams.proto, by default the OD
        API's for this predictor.
      **kwargs: name, trainable and dtype, as every Keras layer has them.
    """

    # The field of BoxPredictor in protos/box_predictor.proto, what reads it, and the published
    # architecture whose hyper-parameters it has.
    kind: ClassVar[str]
    read: Callable[..., tuple[Node, Node]]
    published: ClassVar[str]

    def __init__(
        self,
        fields: dict[str, Any],
        num_classes: int,
        anchors_per_location: int | Sequence[int],
        conv_hyperparams: dict[str, Any] | None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if conv_hyperparams is None:
            published = getattr(parts.resolved(self.published).box_predictor, self.kind)
            conv_hyperparams = parts.fields(published)["conv_hyperparams"]
        values = {self.kind: fields | {"conv_hyperparams": conv_hyperparams}}
        self._message = parts.checked({"box_predictor": values}, self._title()).box_predictor
        title = self._title()
        self.num_classes = parts.counted("num_classes", num_classes, title)
        at_a_location = anchors_per_location
        self._is_list = isinstance(at_a_location, Sequence)
        # A tuple: Keras would wrap a list.
        self._anchors = tuple(
            parts.counted("anchors_per_location", count, title)
            for count in (at_a_location if isinstance(at_a_location, Sequence) else [at_a_location])
        )

    @classmethod
    def from_architecture(
        cls, architecture: parts.ArchitectureLike, num_classes: int, **kwargs: Any
    ) -> BoxPredictor:
        """Makes the box predictor of an architecture.

        Args:
          architecture: a published one's name, the path of a .textproto (a trial's too), an
            architecture string, or the message.
          num_classes: without the background.
          **kwargs: in place of what the architecture says.
        """
        resolved = parts.resolved(architecture)
        arguments = parts.part_fields(resolved, "box_predictor", cls.kind, cls.__name__)
        for name in _NOT_OF_THE_NETWORK:
            arguments.pop(name, None)
        at_a_location = anchors_of(resolved.anchor_generator, len(levels(resolved)))
        arguments |= {"num_classes": num_classes, "anchors_per_location": at_a_location}
        return cls(**(arguments | kwargs))

    def network(self, b: Builder, inputs: list[Node]) -> list[Node]:
        at_a_location = self._anchors if self._is_list else self._anchors * len(inputs)
        if len(at_a_location) != len(inputs):
            raise ValueError(
                f"{len(inputs)} features come in, and anchors_per_location has "
                f"{len(at_a_location)} values; as many are needed"
            )
        boxes, logits = self.read(
            b,
            inputs,
            getattr(self._message, self.kind),
            num_classes=self.num_classes,
            anchors_per_location=at_a_location,
        )
        return [boxes, logits]

    def get_config(self) -> dict[str, Any]:
        own = parts.fields(getattr(self._message, self.kind))
        for name in _NOT_OF_THE_NETWORK:
            own.pop(name, None)
        # Not in the message: these are the constructor's own arguments.
        own["num_classes"] = self.num_classes
        own["anchors_per_location"] = list(self._anchors) if self._is_list else self._anchors[0]
        return super().get_config() | own


@tf_keras.utils.register_keras_serializable("mnasdet")
class ConvolutionalBoxPredictor(BoxPredictor):
    """A predictor for every feature, of any channels (SSD; with `use_depthwise` SSDLite).

    Args:
      num_classes: without the background.
      anchors_per_location: of each feature in a list, or one number for all.
      kernel_size: of the predictions; at least 3 with `use_depthwise`.
      use_depthwise: a depthwise convolution before a 1x1 convolution.
      num_layers_before_predictor: 1x1 convolutions before the predictions, as wide as the feature
        between `min_depth` and `max_depth`. A width of 0 leaves them out.
      use_dropout: whether `dropout_keep_probability` of the units are kept before the classes in
        training, and the others dropped.
      class_prediction_bias_init: first value of the class logits.
      **kwargs: those of `BoxPredictor`.
    """

    kind = "convolutional_box_predictor"
    read = staticmethod(convolutional.from_proto)
    published = _PUBLISHED_CONVOLUTIONAL

    def __init__(
        self,
        num_classes: int,
        anchors_per_location: int | Sequence[int] = 6,
        *,
        kernel_size: int = 3,
        use_depthwise: bool = True,
        num_layers_before_predictor: int = 0,
        min_depth: int = 0,
        max_depth: int = 0,
        use_dropout: bool = False,
        dropout_keep_probability: float = 0.8,
        class_prediction_bias_init: float = 0.0,
        conv_hyperparams: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        fields = {
            "kernel_size": kernel_size,
            "use_depthwise": use_depthwise,
            "num_layers_before_predictor": num_layers_before_predictor,
            "min_depth": min_depth,
            "max_depth": max_depth,
            "use_dropout": use_dropout,
            "dropout_keep_probability": dropout_keep_probability,
            "class_prediction_bias_init": class_prediction_bias_init,
        }
        super().__init__(fields, num_classes, anchors_per_location, conv_hyperparams, **kwargs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class WeightSharedBoxPredictor(BoxPredictor):
    """One predictor for all features, which have the same channels (Lin et al., "Focal Loss for
    Dense Object Detection", 2017). Batch normalisation is separate for every level.

    Args:
      num_classes: without the background.
      anchors_per_location: the same for all features.
      depth: channels of the tower.
      num_layers_before_predictor: layers of the tower.
      kernel_size: of all convolutions.
      share_prediction_tower: one tower for boxes and classes instead of two.
      use_depthwise: depthwise separable convolutions instead of full ones.
      class_prediction_bias_init: first value of the class logits.
      **kwargs: those of `BoxPredictor`.
    """

    kind = "weight_shared_convolutional_box_predictor"
    read = staticmethod(weight_shared.from_proto)
    published = _PUBLISHED_WEIGHT_SHARED

    def __init__(
        self,
        num_classes: int,
        anchors_per_location: int | Sequence[int] = 9,
        *,
        depth: int = 64,
        num_layers_before_predictor: int = 4,
        kernel_size: int = 3,
        share_prediction_tower: bool = True,
        use_depthwise: bool = True,
        class_prediction_bias_init: float = -4.6,
        conv_hyperparams: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        fields = {
            "depth": depth,
            "num_layers_before_predictor": num_layers_before_predictor,
            "kernel_size": kernel_size,
            "share_prediction_tower": share_prediction_tower,
            "use_depthwise": use_depthwise,
            "class_prediction_bias_init": class_prediction_bias_init,
        }
        super().__init__(fields, num_classes, anchors_per_location, conv_hyperparams, **kwargs)

    def network(self, b: Builder, inputs: list[Node]) -> list[Node]:
        # One kernel for all levels has one number of input channels.
        channels = [node.channels for node in inputs]
        if len(set(channels)) > 1:
            raise ValueError(f"features of {channels} channels come in; they have to be the same")
        return super().network(b, inputs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class Classifier(GraphLayer):
    """The logits [batch, num_classes] of the global average of a backbone's "last" feature.

    Args:
      num_classes: as many as there are logits.
      hidden_channels: of a layer before the logits, with hard swish (MobileNetV3); 0: none.
      dropout: the share dropped before the logits in training.
      **kwargs: name, trainable and dtype, as every Keras layer has them.
    """

    def __init__(
        self, num_classes: int, *, hidden_channels: int = 0, dropout: float = 0.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        values = {"hidden_channels": hidden_channels, "dropout": dropout}
        self._message = parts.checked({"classifier": values}, self._title()).classifier
        self.num_classes = parts.counted("num_classes", num_classes, self._title())

    @classmethod
    def from_architecture(
        cls, architecture: parts.ArchitectureLike, num_classes: int, **kwargs: Any
    ) -> Classifier:
        """Makes the head of an architecture that classifies."""
        resolved = parts.resolved(architecture)
        if not resolved.HasField("classifier"):
            raise LayerError(f'{cls.__name__}: architecture "{resolved.name}" has no classifier')
        return cls(num_classes, **(parts.fields(resolved.classifier) | kwargs))

    def network(self, b: Builder, inputs: list[Node]) -> Node:
        return classifier.from_proto(
            b, parts.only(inputs), self._message, num_classes=self.num_classes
        )

    def get_config(self) -> dict[str, Any]:
        own = parts.fields(self._message) | {"num_classes": self.num_classes}
        return super().get_config() | own
