"""Runs exported detectors. The raw predictions need no TensorFlow, only the detections do."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from mnasdet import files
from mnasdet.blueprint import Blueprint
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.errors import UserError
from mnasdet.tflite import metadata
from mnasdet.tflite.devices.provenance import sha256

# The file that `export` writes beside a graph of raw predictions.
ANCHORS_FILE = "anchors.npy"

GRAPH_FILE = "detect.tflite"
# The file with suppression where both are in one folder.
NMS_GRAPH_FILE = "detect_nms.tflite"
CLASSIFIER_GRAPH_FILE = "classify.tflite"
DESCRIPTION_FILES = {
    GRAPH_FILE: "export.json",
    CLASSIFIER_GRAPH_FILE: "export.json",
    NMS_GRAPH_FILE: "export_nms.json",
}

# The outputs of a graph with non-maximum suppression, in the order of TFLite_Detection_PostProcess.
NMS_OUTPUTS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")

_IDENTIFIER = b"TFL3"


def read_graph(path: str | os.PathLike) -> bytes:
    """Reads the bytes of a TFLite file; raises UserError for anything else."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; a TFLite graph is needed")
    graph = path.read_bytes()
    check_exported(path, path, graph)
    if graph[4:8] != _IDENTIFIER:
        raise UserError(f"{path}: not a TFLite file (no {_IDENTIFIER.decode()} at byte 4)")
    return graph


def check_exported(graph_path: Path, path: Path, content: bytes) -> None:
    """Compares a file of an export with what the export's description says of it.

    Descriptions of older versions say nothing of it, and a graph may lie alone.

    Args:
      graph_path: the export's graph.
      path: the graph itself or a file beside it, with this content.

    Raises:
      UserError: the file is another one, or is cut or damaged; or the description is.
    """
    if graph_path.name not in DESCRIPTION_FILES:
        return
    described = graph_path.with_name(DESCRIPTION_FILES[graph_path.name])
    if not described.exists():
        return
    remedy = "export again with export_tflite"
    held = files.read_json(described, "description of an export", remedy=remedy)
    of_files = held.get("files")
    of_file = of_files.get(path.name) if isinstance(of_files, dict) else None
    if of_file is None:
        return
    met = {"bytes": len(content), "sha256": sha256(content)}
    if met != of_file:
        raise UserError(
            f"{path}: is not the file that {described.name} describes: another export's, cut or "
            f"damaged; {remedy}, or remove {described} if you changed it on purpose"
        )


def load(graph: bytes, num_threads: int, name: str) -> Interpreter:
    """Returns an interpreter ready to run; `name` stands in the message where `graph` is broken."""
    try:
        interpreter = Interpreter(model_content=graph, num_threads=num_threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: the TFLite runtime cannot load it: {reason}") from None
    return interpreter


class TfliteModel:
    """A graph of one image with one signature of one input, as `convert` makes it.

    Attributes:
      image_size: (height, width) in pixels.
      input_name: of the image; input_type: float32 or uint8.
      output_names: of the raw predictions, or the detections, sorted.
    """

    def __init__(self, graph: str | os.PathLike | bytes, num_threads: int = 1) -> None:
        """Loads a graph from a file or its bytes. Raises UserError where it is no such graph."""
        self._name = "TFLite graph" if isinstance(graph, bytes) else os.fspath(graph)
        content = graph if isinstance(graph, bytes) else read_graph(graph)
        self._interpreter = load(content, num_threads, self._name)
        signatures = self._interpreter.get_signature_list()
        if len(signatures) != 1:
            raise UserError(
                f"{self._name}: {len(signatures)} signatures; a graph of export_tflite has one"
            )
        self._runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        inputs = self._runner.get_input_details()
        shapes = {name: tuple(map(int, detail["shape"])) for name, detail in inputs.items()}
        self.input_name = next(iter(shapes))
        if len(shapes) != 1 or len(shapes[self.input_name]) != 4 or shapes[self.input_name][0] != 1:
            raise UserError(f"{self._name}: inputs {shapes}; one [1, height, width, 3] is needed")
        self.input_type = np.dtype(inputs[self.input_name]["dtype"]).name
        self.image_size = shapes[self.input_name][1:3]
        self._image_shape = shapes[self.input_name][1:]
        self.output_names = sorted(self._runner.get_output_details())

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Raises UserError unless the graph takes the images of a config, (height, width)."""
        if self.image_size != image_size:
            height, width = image_size
            raise UserError(
                f"{self._name}: takes images of {self.image_size[0]}x{self.image_size[1]}, the "
                f"pipeline config has {height}x{width}; use the config that it was exported with"
            )

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns raw predictions, or detections, by name, [batch, ...] each.

        Args:
          images: [batch, height, width, 3] float32 in [-1, 1]; a graph that takes uint8 gets the
            nearest pixels.
        """
        images = np.asarray(images, np.float32)
        if images.shape[1:] != self._image_shape:
            raise UserError(
                f"{self._name}: images {images.shape}; "
                f"[batch, {', '.join(map(str, self._image_shape))}] are needed"
            )
        if self.input_type == "uint8":
            images = to_pixels(images)
        runs = [self._runner(**{self.input_name: image[None]}) for image in images]
        return {name: np.concatenate([run[name] for run in runs]) for name in self.output_names}


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Converts images in [-1, 1] to uint8."""
    return np.clip(np.rint((images + 1.0) * 127.5), 0, 255).astype(np.uint8)


def detection_function(
    blueprint: Blueprint | None, path: str | os.PathLike
) -> Callable[[np.ndarray], dict[str, Any]]:
    """Returns a function from images [batch, height, width, 3] to what `Detector.predict` gives.

    Args:
      blueprint: the detector's, for the post-processing; None will do for a graph with non-maximum
        suppression.
      path: a graph of `export`: with non-maximum suppression, or with its anchors beside it.
    """
    model = TfliteModel(path)
    has_suppression = model.output_names == sorted(NMS_OUTPUTS)
    if blueprint is None and not has_suppression:
        raise UserError(
            f"{path}: gives raw predictions, and only the pipeline config says how to read them: "
            "give --pipeline_config_path, or export with --nms"
        )
    if blueprint is not None:
        model.check_image_size(blueprint.image_size)
    if has_suppression:
        return lambda images: _as_of_detector(model.predict(images))
    assert blueprint is not None
    return _from_raw(blueprint, model, Path(path))


def labels(path: str | os.PathLike) -> dict[int, str]:
    """Returns the class names that a graph of `export` holds, by class id; none without any."""
    # Raw predictions of a detector have a slot for the background; a classifier's have none.
    return metadata.read_labels(path, background=CLASS_LOGITS in TfliteModel(path).output_names)


def _as_of_detector(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns TFLite's detections as the Keras detector gives them.

    TFLite counts classes from 0, leaves boxes unclipped, and the values after the last detection
    undefined.
    """
    counts = found["num_detections"].astype(np.int32)
    valid = np.arange(found["detection_scores"].shape[1]) < counts[:, None]
    boxes = np.clip(found["detection_boxes"], 0.0, 1.0)
    return {
        "detection_boxes": np.where(valid[..., None], boxes, 0.0),
        "detection_scores": np.where(valid, found["detection_scores"], 0.0),
        "detection_classes": np.where(valid, found["detection_classes"] + 1.0, 0.0),
        "num_detections": counts,
    }


def _from_raw(
    blueprint: Blueprint, model: TfliteModel, graph_path: Path
) -> Callable[[np.ndarray], dict[str, Any]]:
    from mnasdet.detectors import post_processing

    anchors_path = graph_path.with_name(ANCHORS_FILE)
    if not anchors_path.exists():
        raise UserError(f"{anchors_path}: no such file; export_tflite writes it beside the graph")
    content = anchors_path.read_bytes()
    check_exported(graph_path, anchors_path, content)
    try:
        # A pickle may run code, and these files come from elsewhere.
        anchors = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{anchors_path}: is damaged: {reason}; export again") from None
    predictor = blueprint.architecture.box_predictor
    post_process = post_processing.from_config(blueprint.settings, predictor)

    def detect(images: np.ndarray) -> dict[str, Any]:
        raw = model.predict(images)
        return post_process(raw[BOX_ENCODINGS], raw[CLASS_LOGITS], anchors)

    return detect
