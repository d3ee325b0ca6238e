"""Writes a model as the files that a device needs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

import mnasdet
from mnasdet import files
from mnasdet.tflite import graph_file, layer_errors, metadata
from mnasdet.tflite.convert import FULL_QUANTIZATIONS, convert
from mnasdet.tflite.devices.provenance import sha256
from mnasdet.tflite.exportable import Exportable
from mnasdet.tflite.interpreter import DESCRIPTION_FILES, TfliteModel, to_pixels
from mnasdet.tflite.interpreter import GRAPH_FILE as GRAPH_FILE
from mnasdet.tflite.interpreter import NMS_GRAPH_FILE as NMS_GRAPH_FILE
from mnasdet.tflite.latency.picture_latency import latencies_ms

# A warning comes where the suppression takes longer than its network.
_SLOW = 2.0

# Enough to see a difference, few enough to take no time.
NUM_PARITY_IMAGES = 20
# Each takes a run of all layers in float32 and quantised, with all tensors kept.
_NUM_LAYER_ERROR_IMAGES = 4

_PACKAGES = ("tensorflow", "tf-keras", "ai-edge-litert")


def export(
    exportable: Exportable,
    output_dir: str | os.PathLike,
    *,
    images: np.ndarray | None = None,
    quantization: str = "none",
    input_type: str = "float32",
    calibration_images: np.ndarray | None = None,
    labels: Mapping[int, str] | None = None,
    with_layer_errors: bool = False,
    graph_name: str = GRAPH_FILE,
) -> dict[str, Any]:
    """Writes the graph, the files that belong beside it and, last, their description.

    Args:
      images: [batch, height, width, 3] float32 in [-1, 1] to compare the graph with Keras on, and
        to time one on that computes more than the network; two of random noise, and no times, where
        none are given.
      quantization: one of `convert.QUANTIZATIONS`.
      input_type: one of `convert.INPUT_TYPES`; uint8 takes pixels.
      calibration_images: like `images`, for int8 and int16x8.
      labels: class id to name, for the file's metadata.
      with_layer_errors: look for the layers that quantisation to int8 or int16x8 harms most.
      graph_name: a name in `DESCRIPTION_FILES`, which has the description's name.

    Returns:
      What the description holds: input, outputs, `Exportable.describe`, parity with Keras (the
      largest absolute difference of each raw output), sizes in bytes, seconds, versions; of a graph
      with suppression also latency_ms of the file and of its network alone.
    """
    given = images is not None
    if images is None:
        shape = (2, *exportable.image_size, 3)
        images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    start = time.perf_counter()
    heads = convert(
        exportable.model,
        quantization,
        calibration_images=calibration_images,
        input_type=input_type,
    )
    graph = _finished(heads, exportable, input_type=input_type, labels=labels)
    conversion_seconds = time.perf_counter() - start
    written = {graph_name: graph, **exportable.files()}
    description = (
        {"graph": graph_name, "quantization": quantization}
        | _describe(graph, exportable, quantization)
        | {"parity": _parity(heads, exportable, images)}
        | {"bytes": {name: len(content) for name, content in written.items()}}
        | {
            "files": {
                name: {"bytes": len(content), "sha256": sha256(content)}
                for name, content in written.items()
            }
        }
        | {"conversion_seconds": round(conversion_seconds, 3)}
    )
    # Noise holds no objects: the time of its suppression would say nothing.
    if given and "suppression" in description:
        description["latency_ms"] = _latency_ms(graph, heads, images)
    if quantization in FULL_QUANTIZATIONS and calibration_images is not None:
        description["num_calibration_images"] = len(calibration_images)
    if quantization in FULL_QUANTIZATIONS and with_layer_errors:
        description["layer_errors"] = _layer_errors(heads, exportable, input_type, images)
    description["versions"] = {"mnasdet": mnasdet.__version__} | {
        package: packages.version(package) for package in _PACKAGES
    }
    _write(Path(output_dir), written, description)
    return description


def _write(folder: Path, written: Mapping[str, bytes], description: dict[str, Any]) -> None:
    """Writes the files of an export as one; its description is the last.

    What ends this in between leaves no description of other files, and no graph beside the anchors
    of another one.
    """
    with files.replacing([folder / name for name in written]) as partial:
        for path, content in zip(partial, written.values(), strict=True):
            files.fill(path, content)
        # Not links: `replacing` puts the new files where they lead.
        for name in (DESCRIPTION_FILES[description["graph"]], *written):
            Path(os.path.realpath(folder / name)).unlink(missing_ok=True)
    write_description(folder, description)


def write_description(output_dir: str | os.PathLike, description: dict[str, Any]) -> None:
    """Writes export.json, or export_nms.json for `NMS_GRAPH_FILE`."""
    path = Path(output_dir) / DESCRIPTION_FILES[description["graph"]]
    files.write_json(path, description)


def _latency_ms(graph: bytes, heads: bytes, images: np.ndarray) -> dict[str, float]:
    """Returns what the file takes for a picture, and its network alone; warns of a slow one."""
    file_ms, network_ms = (round(ms, 4) for ms in latencies_ms([graph, heads], images))
    if file_ms > _SLOW * network_ms:
        logging.warning(
            "the suppression takes longer than the network: with it %.3f ms, without %.3f ms; a "
            "higher --nms_score_threshold or --nms_type=fast makes it faster",
            file_ms,
            network_ms,
        )
    return {"with_suppression": file_ms, "network": network_ms}


def _finished(
    heads: bytes, exportable: Exportable, *, input_type: str, labels: Mapping[int, str] | None
) -> bytes:
    """Returns the file that is deployed: with all that it computes, and with metadata.

    Args:
      heads: what `convert` makes of the model.
    """
    graph = graph_file.read(heads)
    exportable.finish(graph)
    metadata.attach(graph, exportable.metadata(input_type=input_type, labels=bool(labels)))
    packed = {}
    if labels:
        packed[metadata.LABELS_FILE] = metadata.label_file(labels, exportable.background)
    return graph_file.write(graph, packed)


def _describe(graph: bytes, exportable: Exportable, quantization: str) -> dict[str, Any]:
    """Returns how to read the graph."""
    model = TfliteModel(graph)
    image = np.zeros((1, *exportable.image_size, 3), np.float32)
    shapes = {name: list(value.shape) for name, value in model.predict(image).items()}
    return {
        "input": {
            "name": model.input_name,
            "shape": [1, *exportable.image_size, 3],
            "dtype": model.input_type,
            "normalisation": _normalisation(quantization, model.input_type),
        },
        "outputs": {name: {"shape": shapes[name]} for name in model.output_names},
    } | exportable.describe()


def _normalisation(quantization: str, input_type: str) -> str:
    if input_type == "float32":
        return "x * 2 / 255 - 1"
    if quantization == "int8":
        return "none: pixels; the input's scale and zero point make x * 2 / 255 - 1 of them"
    return "none: pixels; the graph begins with x * 2 / 255 - 1"


def _parity(heads: bytes, exportable: Exportable, images: np.ndarray) -> dict[str, Any]:
    """Compares the raw predictions, whatever the file computes from them."""
    raw = TfliteModel(heads).predict(images)
    # Tracing a model that is run once takes longer than running it.
    expected = exportable.model(images, training=False)
    return {
        "num_images": len(images),
        "max_abs_difference": {
            name: float(np.abs(raw[name] - expected[name].numpy()).max()) for name in raw
        },
    }


def _layer_errors(
    heads: bytes, exportable: Exportable, input_type: str, images: np.ndarray
) -> list[dict[str, str | float]]:
    exact = convert(exportable.model, input_type=input_type)
    samples = images[:_NUM_LAYER_ERROR_IMAGES]
    if input_type == "uint8":
        samples = to_pixels(samples)
    return layer_errors.worst_layers(exact, heads, samples)
