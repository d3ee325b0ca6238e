"""A whole detector: the Keras model, its anchors and the way from raw predictions to boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet import config
from mnasdet.detectors import anchors, post_processing
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS, detection_network
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2, pipeline_pb2


@dataclass(frozen=True)
class Detector:
    """A detector that can be trained, evaluated and exported.

    Attributes:
      model: images [batch, height, width, 3], float32 in [-1, 1], to the raw predictions
        {"box_encodings": [batch, anchors, 4],
        "class_predictions_with_background": [batch, anchors, num_classes + 1]}; with deep
        supervision also those of every earlier repeat, with "/exit_1" and so on behind the names.
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax), normalised, in the predictions' order.
      image_size: (height, width) in pixels.
      num_classes: without the background.
      post_processing: raw predictions to detections.
    """

    model: tf_keras.Model
    anchors: np.ndarray
    image_size: tuple[int, int]
    num_classes: int
    post_processing: post_processing.PostProcessing

    def post_process(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Detections from the raw predictions of `model`."""
        return self.post_processing(raw[BOX_ENCODINGS], raw[CLASS_LOGITS], self.anchors)

    def detect(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detections in images [batch, height, width, 3], float32 in [-1, 1]."""
        return self.post_process(self.model(images, training=False))


def build(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    architecture: architecture_pb2.Architecture | None = None,
) -> Detector:
    """The detector of a pipeline config with fresh weights; with a `graph_rewriter`, its model
    rounds as TFLite does in int8.

    Args:
      architecture: in place of the config's own.
    """
    architecture = architecture or config.architecture(pipeline)
    ssd = pipeline.model.ssd
    size = config.image_size(pipeline)
    network = detection_network(architecture, size, ssd.num_classes)
    raw = {"": network.predictions}
    raw |= {f"/exit_{i}": earlier for i, earlier in enumerate(network.earlier, start=1)}
    return Detector(
        model=keras_model(
            {BOX_ENCODINGS + exit_: predictions.box_encodings for exit_, predictions in raw.items()}
            | {
                CLASS_LOGITS + exit_: predictions.class_logits for exit_, predictions in raw.items()
            },
            quantized=pipeline.HasField("graph_rewriter"),
        ),
        anchors=anchors.from_proto(architecture.anchor_generator, size, network.feature_sizes),
        image_size=size,
        num_classes=ssd.num_classes,
        post_processing=post_processing.from_config(ssd, architecture.box_predictor),
    )
