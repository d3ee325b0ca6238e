"""The TFLite file of a classifier: its softmax, metadata and labels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tf_keras

import mnasdet
from mnasdet.blueprint import Blueprint
from mnasdet.classifiers.classifier import Classifier, found
from mnasdet.classifiers.network import LOGITS
from mnasdet.errors import UserError
from mnasdet.evaluation.evaluate import Predict
from mnasdet.tflite import metadata
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

    @cached_property
    def model(self) -> tf_keras.Model:
        own = self.classifier.model
        softmax = tf_keras.layers.Softmax(name=PROBABILITIES)
        return tf_keras.Model(own.inputs, {PROBABILITIES: softmax(own.output[LOGITS])})

    @property
    def image_size(self) -> tuple[int, int]:
        return self.classifier.image_size

    @property
    def background(self) -> str | None:
        return None

    def finish(self, graph: schema.ModelT) -> None:
        pass  # The softmax is a part of the model.

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
    """
    model = TfliteModel(path)
    if blueprint is not None:
        model.check_image_size(blueprint.image_size)
    return lambda images: found(model.predict(images)[PROBABILITIES])
