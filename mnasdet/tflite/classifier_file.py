"""The TFLite file of a classifier: its softmax, metadata and labels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

import mnasdet
from mnasdet.blueprint import Blueprint
from mnasdet.classifiers.classifier import Classifier, found
from mnasdet.classifiers.network import LOGITS
from mnasdet.errors import UserError
from mnasdet.evaluation.evaluate import Predict
from mnasdet.tflite import graph_file, metadata
from mnasdet.tflite.convert import quiet
from mnasdet.tflite.graph_file import schema
from mnasdet.tflite.interpreter import TfliteModel
from mnasdet.tflite.metadata import AXIS_LABELS, Tensor

# The name of the output.
PROBABILITIES = "probabilities"


@dataclass(frozen=True)
class ClassifierFile:
    """An Exportable: a classifier that gives probabilities, as MediaPipe's image classifier and
    Android's Task library read them."""

    classifier: Classifier

    @property
    def model(self) -> tf_keras.Model:
        return self.classifier.model

    @property
    def image_size(self) -> tuple[int, int]:
        return self.classifier.image_size

    @property
    def background(self) -> str | None:
        return None

    def finish(self, graph: schema.ModelT) -> None:
        # A graph of its own, as suppression is. In int8 a softmax gives 0 to every class below
        # 1/512, and the five best would go by their numbers.
        (tensor,) = graph_file.append(graph, graph_file.read(_softmax(self.classifier.num_classes)))
        graph_file.set_outputs(graph, {PROBABILITIES: tensor}, {PROBABILITIES: PROBABILITIES})

    def metadata(self, *, input_type: str, labels: bool) -> metadata.Model:
        height, width = self.image_size
        probabilities = Tensor(
            PROBABILITIES,
            "Probabilities of the classes, the lines of the label map.",
            limits=(0.0, 1.0),
            labels=AXIS_LABELS if labels else 0,
        )
        return metadata.Model(
            name="mnasdet classifier",
            description=f"Tells {self.classifier.num_classes} classes of images of {height} rows "
            f"and {width} columns apart.",
            version=mnasdet.__version__,
            inputs=[metadata.image_tensor(self.image_size, input_type)],
            outputs=[probabilities],
        )

    def files(self) -> dict[str, bytes]:
        return {}

    def describe(self) -> dict[str, Any]:
        return {"num_classes": self.classifier.num_classes}


def _softmax(num_classes: int) -> bytes:
    """Returns a TFLite graph of float32: logits to probabilities."""

    def probabilities(logits):
        return {PROBABILITIES: tf.nn.softmax(logits)}

    signature = [tf.TensorSpec((1, num_classes), name=LOGITS)]
    function = tf.function(probabilities, signature, autograph=False).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    with quiet():
        return converter.convert()


def classifier_file(
    classifier: Classifier,
    *,
    nms: bool = False,
    nms_score_threshold: float | None = None,
    nms_type: str | None = None,
) -> ClassifierFile:
    """Returns a classifier's file.

    Raises:
      UserError: it was asked to end with non-maximum suppression.
    """
    if nms:
        raise UserError("--nms: a classifier finds no boxes to suppress; leave it out")
    return ClassifierFile(classifier)


def predict_function(blueprint: Blueprint | None, path: str | os.PathLike) -> Predict:
    """Returns a function from images [batch, height, width, 3] to what `Classifier.predict` gives.

    Args:
      blueprint: the classifier's, to compare the file with.
      path: a file of `export`.

    Raises:
      UserError: it is another file, or takes other images or tells other classes than the config.
    """
    model = TfliteModel(path)
    if model.output_names != [PROBABILITIES]:
        raise UserError(
            f"{path}: gives {', '.join(model.output_names)}; a classifier's file gives "
            f"{PROBABILITIES}: use the config that it was exported with"
        )
    if blueprint is not None:
        model.check_image_size(blueprint.image_size)
        image = np.zeros((1, *model.image_size, 3), np.float32)
        num_classes = model.predict(image)[PROBABILITIES].shape[-1]
        if num_classes != blueprint.num_classes:
            raise UserError(
                f"{path}: tells {num_classes} classes apart, the config has num_classes: "
                f"{blueprint.num_classes}; use the config that it was exported with"
            )
    return lambda images: found(tf.constant(model.predict(images)[PROBABILITIES]))
