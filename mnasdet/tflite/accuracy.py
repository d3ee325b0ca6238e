"""What a detector's TFLite files lose against Keras."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mnasdet.detectors.detector import Detector
from mnasdet.protos import pipeline_pb2
from mnasdet.tflite.convert import is_quantized
from mnasdet.tflite.export import GRAPH_FILE, export
from mnasdet.tflite.interpreter import detection_function

# What is compared in every case, but of a detector that was trained for int8 alone.
COMPARED = ("none", "fp16", "int8")


def compare(
    detector: Detector,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    graph: str | os.PathLike,
    evaluate: Callable[[Callable], float],
    *,
    quantization: str,
    input_type: str,
    nms: bool,
    calibration_images: np.ndarray | None,
) -> dict[str, dict[str, Any]]:
    """mAP of the Keras model, of a TFLite file that was exported from it, and of files that differ
    from that one by the quantisation alone.

    Args:
      graph: the file, with `quantization`, `input_type` and `nms` as it was exported with.
      evaluate: gives the mAP of a function as `Detector.detect` is.

    Returns:
      By quantisation, Keras first: mAP; of files also drop, the mAP that Keras has above it, and
      bytes.
    """
    keras_map = evaluate(tf.function(detector.detect, autograph=False))
    compared: dict[str, dict[str, Any]] = {"keras": {"mAP": keras_map}}
    with tempfile.TemporaryDirectory() as folder:
        others = () if is_quantized(detector.model) else COMPARED
        for other in dict.fromkeys((*others, quantization)):
            path = Path(graph)
            if other != quantization:
                path = Path(folder) / other / GRAPH_FILE
                export(
                    detector,
                    path.parent,
                    quantization=other,
                    input_type=input_type,
                    nms=nms,
                    calibration_images=calibration_images,
                )
            file_map = evaluate(detection_function(pipeline, path))
            compared[other] = {
                "mAP": file_map,
                "drop": keras_map - file_map,
                "bytes": path.stat().st_size,
            }
    return compared
