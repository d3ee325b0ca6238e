"""One-stage detectors: a Keras model, its anchors, its losses and the way to boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.architectures import levels
from mnasdet.blueprint import Blueprint
from mnasdet.detectors import anchors, drawing, losses, post_processing, targets
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS, detection_network
from mnasdet.evaluation import coco
from mnasdet.evaluation.detection_evaluator import DetectionEvaluator
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import eval_pb2
from mnasdet.tasks import Loss

# Where the model's outputs have, with deep supervision, the predictions after earlier repeats.
_EARLIER = "earlier"


@dataclass(frozen=True)
class Detector:
    """A Task: a detector that can be trained, evaluated and exported.

    Attributes:
      blueprint: what it was built from.
      model: images [batch, height, width, 3], float32 in [-1, 1], to the raw predictions
        {"box_encodings": [batch, anchors, 4],
        "class_predictions_with_background": [batch, anchors, num_classes + 1]}; with deep
        supervision also "earlier", a list of the same from every earlier repeat.
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax), normalised, in the predictions' order.
      post_processing: raw predictions to detections.
    """

    blueprint: Blueprint
    model: tf_keras.Model
    anchors: np.ndarray
    post_processing: post_processing.PostProcessing

    objective = coco.MAP

    @property
    def compiles(self) -> bool:
        """Returns whether XLA can compile the losses.

        The miner's picks have no fixed number, and the layers of a supernet no fixed size.
        """
        has_miner = self.blueprint.settings.loss.HasField("hard_example_miner")
        return not (has_miner or self.blueprint.subnets)

    @property
    def image_size(self) -> tuple[int, int]:
        """Returns (height, width) in pixels."""
        return self.blueprint.image_size

    @property
    def num_classes(self) -> int:
        """Returns the number of classes without the background."""
        return self.blueprint.num_classes

    def targets(self, example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the image and the targets of `TargetAssigner` for an example.

        Returns:
          image [height, width, 3], class_targets [anchors] and box_targets [anchors, 4].
        """
        # A crowd is no object that a box could find.
        single = ~example["is_crowd"]
        assigner = targets.from_config(self.blueprint.settings, self.anchors)
        classes, boxes = assigner(example["boxes"][single], example["classes"][single])
        return {"image": example["image"], "class_targets": classes, "box_targets": boxes}

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, Loss]:
        """Returns the localization and the classification loss.

        With deep supervision they are the means over all exits, so that the learning rates of the
        plain detector hold.
        """
        loss = losses.from_config(self.blueprint.settings, self.anchors)
        raw = self.model(batch["image"], training=True)
        exits = [
            loss(
                one[BOX_ENCODINGS],
                one[CLASS_LOGITS],
                batch["box_targets"],
                batch["class_targets"],
            )
            for one in (raw, *raw.get(_EARLIER, ()))
        ]
        names = ("localization_loss", "classification_loss")
        return {
            name: Loss(sum(one.total for one in of_exits) / len(exits), of_exits[0].normalizer)
            for name, of_exits in zip(names, zip(*exits, strict=True), strict=True)
        }

    def post_process(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns detections from the raw predictions of `model`."""
        return self.post_processing(raw[BOX_ENCODINGS], raw[CLASS_LOGITS], self.anchors)

    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the detections of `PostProcessing` in images.

        Args:
          images: [batch, height, width, 3], float32 in [-1, 1].
        """
        return self.post_process(self.model(images, training=False))

    def evaluator(self, categories: Mapping[int, str]) -> DetectionEvaluator:
        return DetectionEvaluator(categories)

    def draw(
        self,
        batch: Mapping[str, tf.Tensor],
        predictions: Mapping[str, tf.Tensor],
        settings: eval_pb2.EvalConfig,
    ) -> tf.Tensor:
        return drawing.draw(batch, predictions, settings)


def build(blueprint: Blueprint) -> Detector:
    """Returns the detector of a blueprint with fresh weights."""
    architecture, size = blueprint.architecture, blueprint.image_size
    network = detection_network(architecture, size, blueprint.num_classes)
    earlier = {_EARLIER: network.earlier} if network.earlier else {}
    model = keras_model(
        {**network.predictions, **earlier},
        quantized=blueprint.quantized,
        mixing=blueprint.mixing,
    )
    if blueprint.settings.freeze_batchnorm:
        freeze_batch_norm(model)
    return Detector(
        blueprint=blueprint,
        model=model,
        anchors=anchors.from_proto(
            architecture.anchor_generator, size, network.feature_sizes, levels(architecture)
        ),
        post_processing=post_processing.from_config(blueprint.settings, architecture.box_predictor),
    )


def freeze_batch_norm(model: tf_keras.Model) -> None:
    """Makes batch normalisation use its moving averages in training, too, and change nothing."""
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.trainable = False
