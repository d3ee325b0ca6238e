"""Writes a detector as the files that a device needs."""

from __future__ import annotations

import io
import json
import os
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import mnasdet
from mnasdet import files
from mnasdet.detectors.detector import Detector
from mnasdet.tflite.convert import convert
from mnasdet.tflite.interpreter import ANCHORS_FILE, TfliteModel

GRAPH_FILE = "detect.tflite"
DESCRIPTION_FILE = "export.json"

# Enough to see a difference, few enough to take no time.
NUM_PARITY_IMAGES = 20

_PACKAGES = ("tensorflow", "tf-keras", "ai-edge-litert")


def export(
    detector: Detector,
    output_dir: str | os.PathLike,
    *,
    images: np.ndarray | None = None,
    quantization: str = "none",
) -> dict[str, Any]:
    """Writes detect.tflite, anchors.npy and, last, export.json.

    Args:
      images: [batch, height, width, 3] float32 in [-1, 1] to compare the graph with Keras on; two
        of random noise where none are given.
      quantization: one of `convert.QUANTIZATIONS`.

    Returns:
      What export.json holds: input, outputs, anchors, box_coder_scales, parity with Keras (the
      largest absolute difference of each raw output), sizes in bytes, seconds, versions.
    """
    if images is None:
        shape = (2, *detector.image_size, 3)
        images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    start = time.perf_counter()
    graph = convert(detector.model, quantization)
    conversion_seconds = time.perf_counter() - start
    model = TfliteModel(graph)
    raw = model.predict(images)
    expected = detector.model.predict_on_batch(images)
    anchors = io.BytesIO()
    np.save(anchors, detector.anchors)
    description = {
        "graph": GRAPH_FILE,
        "quantization": quantization,
        "input": {
            "name": model.input_name,
            "shape": [1, *detector.image_size, 3],
            "dtype": "float32",
            "normalisation": "x * 2 / 255 - 1",
        },
        "outputs": {name: {"shape": [1, *raw[name].shape[1:]]} for name in model.output_names},
        "num_classes": detector.num_classes,
        "anchors": {
            "file": ANCHORS_FILE,
            "shape": list(detector.anchors.shape),
            "coordinates": "ymin, xmin, ymax, xmax; normalised",
        },
        "box_coder_scales": list(detector.post_processing.box_scales),
        "parity": {
            "num_images": len(images),
            "max_abs_difference": {
                name: float(np.abs(raw[name] - expected[name]).max()) for name in raw
            },
        },
        "bytes": {GRAPH_FILE: len(graph), ANCHORS_FILE: anchors.tell()},
        "conversion_seconds": round(conversion_seconds, 3),
        "versions": {"mnasdet": mnasdet.__version__}
        | {package: metadata.version(package) for package in _PACKAGES},
    }
    folder = Path(output_dir)
    files.write(folder / GRAPH_FILE, graph)
    files.write(folder / ANCHORS_FILE, anchors.getvalue())
    files.write(folder / DESCRIPTION_FILE, json.dumps(description, indent=2) + "\n")
    return description
