"""Runs SavedModels: those of `export`, and others with the OD API's outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mnasdet.classifiers.classifier import found
from mnasdet.errors import UserError, foreign_line
from mnasdet.saved_model.export import MODEL_FOLDER, SERVING

_MODEL_FILE = "saved_model.pb"

# The outputs that detections are read from.
DETECTIONS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
PROBABILITIES = ("probabilities",)

# The signatures that are looked for, in this order: pixels need not be encoded first.
_SIGNATURES = ("image_tensor", SERVING)


class LoadedModel:
    """A SavedModel that takes one picture after the other.

    Attributes:
      output_names: sorted.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Loads the model of a folder; raises UserError where there is none."""
        self._path = os.fspath(path)
        # Kept: its functions are gone with it.
        self._model = _load(Path(path))
        signatures = self._model.signatures
        name = next((name for name in _SIGNATURES if name in signatures), None)
        if name is None:
            raise UserError(
                f"{path}: has the signatures {', '.join(signatures) or 'none'}; {SERVING} is needed"
            )
        self._function = signatures[name]
        inputs = self._function.structured_input_signature[1]
        if len(inputs) != 1:
            raise UserError(
                f"{path}: {name} takes {', '.join(inputs)}; one input, of pictures, is needed"
            )
        ((self._input_name, self._input),) = inputs.items()
        self.output_names = sorted(self._function.structured_outputs)

    def check_outputs(self, needed: Collection[str], kind: str) -> None:
        """Raises UserError unless the model has the outputs of a kind of model."""
        if missing := [name for name in needed if name not in self.output_names]:
            raise UserError(
                f"{self._path}: gives {', '.join(self.output_names)}; {kind} has {missing[0]}, too"
            )

    def predict(self, images: tf.Tensor) -> dict[str, np.ndarray]:
        """Returns the outputs, [batch, ...] each.

        Args:
          images: uint8 [batch, height, width, 3]. A model that takes files gets PNGs of them.
        """
        dtype = self._input.dtype
        if dtype == tf.string:
            pictures = tf.stack([tf.io.encode_png(image) for image in images])
        else:
            pictures = tf.cast(images, dtype)
        try:
            outputs = self._function(**{self._input_name: pictures})
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            raise UserError(
                f"{self._path}: cannot take a picture, {dtype.name} {list(pictures.shape)}: "
                f"{foreign_line(error)}"
            ) from None
        return {name: value.numpy() for name, value in outputs.items()}


def _load(path: Path) -> Any:
    folder = path / MODEL_FOLDER if (path / MODEL_FOLDER).is_dir() else path
    if not (folder / _MODEL_FILE).is_file():
        raise UserError(
            f"{path}: has no {_MODEL_FILE}; name the folder of a SavedModel, such as "
            "export_saved_model writes"
        )
    try:
        return tf.saved_model.load(str(folder))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(f"{folder}: TensorFlow cannot load it: {foreign_line(error)}") from None


def detection_function(path: str | os.PathLike) -> Callable[[tf.Tensor], dict[str, Any]]:
    """Returns a function from uint8 images [1, height, width, 3] to what `Detector.predict` gives,
    in shares of the images themselves.

    Raises:
      UserError: the folder has no SavedModel of a detector.
    """
    model = LoadedModel(path)
    model.check_outputs(DETECTIONS, "a detector")

    def detect(images: tf.Tensor) -> dict[str, np.ndarray]:
        outputs = model.predict(images)
        return {name: outputs[name] for name in DETECTIONS}

    return detect


def class_function(path: str | os.PathLike) -> Callable[[tf.Tensor], dict[str, Any]]:
    """Returns a function from uint8 images [1, height, width, 3] to what `Classifier.predict`
    gives.

    Raises:
      UserError: the folder has no SavedModel of a classifier.
    """
    model = LoadedModel(path)
    model.check_outputs(PROBABILITIES, "a classifier")
    return lambda images: found(tf.constant(model.predict(images)["probabilities"]))
