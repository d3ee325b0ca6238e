"""What a detector's TFLite files lose against Keras."""

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
from mnasdet.detectors.detector import Detector
from mnasdet.protos import pipeline_pb2
from mnasdet.tflite.convert import is_quantized
from mnasdet.tflite.export import GRAPH_FILE, export
from mnasdet.tflite.interpreter import detection_function

# What is compared in every case, but of a detector that was trained for int8 alone.
COMPARED = ("none", "fp16", "int8")

# So many pictures are evaluated in seconds, though nobody asked for it.
_FEW_IMAGES = 200

Detect = Callable[..., dict[str, Any]]


def is_quick(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> bool:
    """Tells whether the evaluation set is so small that a file is evaluated unasked."""
    records = tf.data.TFRecordDataset(input_files(pipeline.eval_input_reader[0]))
    return sum(1 for _ in records.take(_FEW_IMAGES + 1)) <= _FEW_IMAGES


def compare(
    detector: Detector,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    graph: str | os.PathLike,
    evaluate: Callable[[Detect], float],
    *,
    quantization: str = "none",
    others: Sequence[str] = COMPARED,
    **kind: Any,
) -> dict[str, dict[str, Any]]:
    """Evaluates the Keras model, a TFLite file that was exported from it, and files that differ
    from that one by the quantisation alone. Keras has the config's own post-processing.

    Args:
      graph: the file; `quantization` and `kind` are arguments of `export` that it was exported
        with.
      evaluate: gives the mAP of a function as `Detector.detect` is.
      others: quantisations of the other files.

    Returns:
      By quantisation, Keras first: mAP; of files also drop, the mAP that Keras has above it, and
      bytes.
    """
    keras_map = _evaluated("Keras", tf.function(detector.detect, autograph=False), evaluate)
    compared: dict[str, dict[str, Any]] = {"keras": {"mAP": keras_map}}
    if is_quantized(detector.model):
        others = ()
    with tempfile.TemporaryDirectory() as folder:
        for other in dict.fromkeys((*others, quantization)):
            path = Path(graph)
            if other != quantization:
                path = Path(folder) / other / GRAPH_FILE
                logging.info("exporting quantization %s to compare", other)
                export(detector, path.parent, quantization=other, **kind)
            detect = detection_function(pipeline, path)
            file_map = _evaluated(f"quantization {other}", detect, evaluate)
            compared[other] = {
                "mAP": file_map,
                "drop": keras_map - file_map,
                "bytes": path.stat().st_size,
            }
    return compared


def _evaluated(name: str, detect: Detect, evaluate: Callable[[Detect], float]) -> float:
    """Returns the mAP, and says before and meanwhile what is being done: it may take minutes."""
    logging.info("evaluating %s", name)
    with tqdm(desc=f"evaluating {name}", unit="image", delay=2, disable=None) as bar:

        def watched(images: tf.Tensor) -> dict[str, Any]:
            found = detect(images)
            bar.update(len(images))
            return found

        start = time.perf_counter()
        mean_ap = evaluate(watched)
    seconds = time.perf_counter() - start
    logging.info("evaluated %s: mAP %.4f, %.1f s", name, mean_ap, seconds)
    return mean_ap
