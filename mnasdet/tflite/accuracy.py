"""Compares TFLite files with the Keras model that they were exported from."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from mnasdet.data.input_pipeline import input_files
from mnasdet.evaluation import metric_text
from mnasdet.evaluation.evaluate import Predict
from mnasdet.protos import pipeline_pb2
from mnasdet.tasks import Task
from mnasdet.tflite.convert import is_quantized

# The quantisations that are always compared, except where training was for int8 alone.
COMPARED = ("none", "fp16", "int8")

# So few pictures are evaluated in seconds, so it is done unasked.
_FEW_IMAGES = 200


def is_quick(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> bool:
    """Tells whether the evaluation set is so small that a file is evaluated unasked."""
    records = tf.data.TFRecordDataset(input_files(pipeline.eval_input_reader[0]))
    return sum(1 for _ in records.take(_FEW_IMAGES + 1)) <= _FEW_IMAGES


def compare(
    task: Task,
    graph: str | os.PathLike,
    evaluate: Callable[[Predict], float],
    *,
    export: Callable[[Path, str], Any],
    predict_function: Callable[[Path], Predict],
    quantization: str = "none",
    others: Sequence[str] = COMPARED,
) -> dict[str, dict[str, Any]]:
    """Evaluates the Keras model, a TFLite file of it, and files of other quantisations.

    The files differ by the quantisation alone; Keras has the config's own post-processing.

    Args:
      graph: the file, and its quantization.
      evaluate: returns the objective of a function as `Task.predict` is.
      export: writes a file of the same name and another quantisation into a folder.
      predict_function: reads such a file.
      others: quantisations of the other files.

    Returns:
      By quantisation, Keras first: the objective by its display name; of files also drop, which is
      how much more Keras has, and bytes.
    """
    name = metric_text.display_name(task.objective)
    keras = _evaluated("Keras", name, tf.function(task.predict, autograph=False), evaluate)
    compared: dict[str, dict[str, Any]] = {"keras": {name: keras}}
    if is_quantized(task.model):
        others = ()
    with tempfile.TemporaryDirectory() as folder:
        # The file's own quantisation may be among the others; it is evaluated once.
        for other in dict.fromkeys((*others, quantization)):
            path = Path(graph)
            if other != quantization:
                path = Path(folder) / other / path.name
                logging.info("exporting quantization %s to compare", other)
                export(path.parent, other)
            of_file = _evaluated(f"quantization {other}", name, predict_function(path), evaluate)
            compared[other] = {
                name: of_file,
                "drop": keras - of_file,
                "bytes": path.stat().st_size,
            }
    return compared


def _evaluated(
    what: str, objective: str, predict: Predict, evaluate: Callable[[Predict], float]
) -> float:
    """Returns the objective of a model.

    Tells before and meanwhile what is being done: it may take minutes.
    """
    logging.info("evaluating %s", what)
    with tqdm(desc=f"evaluating {what}", unit="image", delay=2, disable=None) as bar:

        def watched(images: tf.Tensor) -> dict[str, Any]:
            found = predict(images)
            bar.update(len(images))
            return found

        start = time.perf_counter()
        accuracy = evaluate(watched)
    seconds = time.perf_counter() - start
    logging.info("evaluated %s: %s %.4f, %.1f s", what, objective, accuracy, seconds)
    return accuracy
