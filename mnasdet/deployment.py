"""Deploys a model by its kind: TFLite files, SavedModels, and how they are read again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import logging

from mnasdet import config, files, text_proto
from mnasdet.blueprint import Blueprint
from mnasdet.data import label_map as label_maps
from mnasdet.data.input_pipeline import label_map
from mnasdet.errors import UserError
from mnasdet.evaluation.classification import ClassificationEvaluator
from mnasdet.evaluation.detection_evaluator import DetectionEvaluator
from mnasdet.evaluation.evaluate import Predict, evaluate_pipeline, first_images
from mnasdet.protos import pipeline_pb2
from mnasdet.saved_model import export as saving
from mnasdet.saved_model import loaded
from mnasdet.saved_model.classifier_outputs import classifier_outputs
from mnasdet.saved_model.detector_outputs import detector_outputs, two_stage_outputs
from mnasdet.saved_model.server import Outputs, Server
from mnasdet.tasks import Evaluator, Task
from mnasdet.tflite import accuracy, classifier_file, interpreter
from mnasdet.tflite import export as exporting
from mnasdet.tflite.detector_file import detector_file
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.exportable import Exportable
from mnasdet.timing.predict import PredictTimer


@dataclass(frozen=True)
class Form:
    """A file that a model is deployed as.

    Attributes:
      content: what the file gives, for people.
      arguments: of `export`.
    """

    graph_name: str
    content: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """How models of one kind are deployed.

    Attributes:
      forms: the TFLite files of a model, by name; "raw" is the first. A kind without any is
        deployed as a SavedModel.
      exportable: takes the task and the arguments of `deployment.exportable`.
      predict_function: as of `deployment.predict_function`.
      outputs: makes the outputs of a task's SavedModel.
      saved_model_function: as of `deployment.saved_model_function`.
      evaluator: as `Task.evaluator`, without a task.
    """

    forms: Mapping[str, Form]
    exportable: Callable[..., Exportable]
    predict_function: Callable[[Blueprint | None, str | os.PathLike], Predict]
    outputs: Callable[[Any], Outputs]
    saved_model_function: Callable[[str | os.PathLike], Predict]
    evaluator: Callable[[Mapping[int, str]], Evaluator]


_DETECTORS = _Kind(
    {
        "raw": Form(exporting.GRAPH_FILE, "raw predictions"),
        "nms": Form(exporting.NMS_GRAPH_FILE, "detections, for phone apps", {"nms": True}),
    },
    detector_file,
    interpreter.detection_function,
    detector_outputs,
    loaded.detection_function,
    DetectionEvaluator,
)


def _no_tflite(*arguments: Any, **kind: Any) -> Any:
    raise UserError(
        "two-stage detectors have no TFLite file: what they do between their graphs, proposals and "
        "crops, is no TFLite operation; use the command export_saved_model, and --saved_model_path"
    )


# By the model's field in DetectionModel.
_KINDS = {
    "ssd": _DETECTORS,
    "faster_rcnn": _Kind(
        {},
        _no_tflite,
        _no_tflite,
        two_stage_outputs,
        loaded.detection_function,
        DetectionEvaluator,
    ),
    "classification": _Kind(
        {"raw": Form(interpreter.CLASSIFIER_GRAPH_FILE, "probabilities, for phone apps")},
        classifier_file.classifier_file,
        classifier_file.predict_function,
        classifier_outputs,
        loaded.class_function,
        ClassificationEvaluator,
    ),
}


# The form of models without a TFLite file.
_SAVED_MODEL = Form(saving.MODEL_FOLDER, "detections, in TensorFlow")


def check_tflite(kind: str) -> None:
    """Raises UserError unless models of a kind have TFLite files.

    Args:
      kind: the model's field in DetectionModel.
    """
    if not _KINDS[kind].forms:
        _no_tflite()


def exportable(
    task: Task,
    *,
    nms: bool = False,
    nms_score_threshold: float | None = None,
    nms_type: str | None = None,
) -> Exportable:
    """Returns what a task's file holds.

    Args:
      nms: a detector's file ends with non-maximum suppression and gives detections.
      nms_score_threshold, nms_type: of the suppression, as `tflite.nms.of_file` takes them.
    """
    kind = _KINDS[task.blueprint.kind]
    return kind.exportable(
        task, nms=nms, nms_score_threshold=nms_score_threshold, nms_type=nms_type
    )


def export(
    task: Task,
    output_dir: str | os.PathLike,
    *,
    nms: bool = False,
    nms_score_threshold: float | None = None,
    nms_type: str | None = None,
    **kind: Any,
) -> dict[str, Any]:
    """Writes a task's TFLite file with its description, which is returned.

    Args:
      nms, nms_score_threshold, nms_type: see `exportable`.
      kind: further arguments of `tflite.export.export`.
    """
    content = exportable(task, nms=nms, nms_score_threshold=nms_score_threshold, nms_type=nms_type)
    graph_name = _KINDS[task.blueprint.kind].forms["raw"].graph_name
    return exporting.export(content, output_dir, **({"graph_name": graph_name} | kind))


def deploy(
    task: Task,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    folder: Path,
    device: DeviceSpec | None = None,
) -> dict[str, Any]:
    """Exports a task as float32 in all forms of its kind, and benchmarks each.

    Args:
      folder: gets the files of the kind: a detector's detect.tflite with export.json, its
        detect_nms.tflite, which apps open as it is, with export_nms.json; a two-stage detector's
        saved_model/, with export.json and label_map.pbtxt; and benchmark.json.
      device: that is measured on; this machine if left out.

    Returns:
      The benchmark's result for the first file, with those of the others by their forms: "nms".
    """
    logging.info("exporting to %s", folder)
    labels = label_map(pipeline.eval_input_reader[0])
    if not _KINDS[task.blueprint.kind].forms:
        return _deploy_saved_model(task, folder, labels, device or DeviceSpec())
    images = first_images(pipeline, task.blueprint.resizer, exporting.NUM_PARITY_IMAGES)
    graphs = {}
    for name, form in _KINDS[task.blueprint.kind].forms.items():
        graphs[name] = folder / form.graph_name
        kind = form.arguments
        described = export(
            task, folder, images=images, labels=labels, graph_name=form.graph_name, **kind
        )
        # Suppression with a threshold of its own may cost accuracy, so its file is judged where
        # that is quick.
        if kind and accuracy.is_quick(pipeline):
            described["accuracy"] = compare(task, pipeline, graphs[name], others=(), **kind)
            exporting.write_description(folder, described)
    logging.info("timing %s", " and ".join(graph.name for graph in graphs.values()))
    with opened(device or DeviceSpec()) as timing_device:
        first, *others = [(name, timing_device.benchmark(graph)) for name, graph in graphs.items()]
    timing = first[1] | dict(others)
    files.write_json(folder / "benchmark.json", timing)
    return timing


def _deploy_saved_model(
    task: Task, folder: Path, labels: Mapping[int, str], device: DeviceSpec
) -> dict[str, Any]:
    """Exports a task as a SavedModel into the folder of its checkpoints, and times `predict`."""
    input_type = "image_tensor"
    description = saving.export_beside(
        _server(task, input_type),
        folder,
        input_type=input_type,
        others=_label_map_file(labels),
        described=_described(task.blueprint),
    )
    logging.info("timing detection in TensorFlow")
    timer = PredictTimer(device)
    with timer.held() as benchmark:
        timing = benchmark(task.blueprint)
    timer.close()
    timing["model_bytes"] = sum(description["bytes"].values())
    timing["provenance"]["graph"] = os.fspath(folder / saving.MODEL_FOLDER)
    files.write_json(folder / "benchmark.json", timing)
    return timing


def timings(kind: str, timing: dict[str, Any]) -> Iterator[tuple[Form, dict[str, Any]]]:
    """Yields every file of a deployed model with its benchmark's result.

    Args:
      kind: the model's field in DetectionModel.
      timing: what `deploy` returned.
    """
    forms = _KINDS[kind].forms or {"saved_model": _SAVED_MODEL}
    for number, (name, form) in enumerate(forms.items()):
        yield form, timing[name] if number else timing


def predict_function(blueprint: Blueprint | None, path: str | os.PathLike) -> Predict:
    """Returns a function from images to what `Task.predict` gives, by an exported file.

    Args:
      blueprint: None will do for a detector's graph with non-maximum suppression.
    """
    kind = _KINDS[blueprint.kind] if blueprint else _DETECTORS
    return kind.predict_function(blueprint, path)


def export_saved_model(
    task: Task,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    output_dir: str | os.PathLike,
    *,
    labels: Mapping[int, str],
    input_type: str = "image_tensor",
) -> dict[str, Any]:
    """Writes a task's SavedModel with config, label map and description, which is returned.

    Args:
      input_type: one of `server.INPUT_TYPES`, that of the signature "serving_default".
    """
    return saving.export(
        _server(task, input_type),
        output_dir,
        input_type=input_type,
        others={"pipeline.config": config.to_text(pipeline), **_label_map_file(labels)},
        described=_described(task.blueprint),
    )


def _server(task: Task, input_type: str) -> Server:
    outputs = _KINDS[task.blueprint.kind].outputs(task)
    return Server(task.blueprint.resizer, task.model, outputs, input_type)


def _label_map_file(labels: Mapping[int, str]) -> dict[str, str]:
    return {"label_map.pbtxt": text_proto.sealed(label_maps.to_text(labels))}


def _described(blueprint: Blueprint) -> dict[str, Any]:
    """Returns what the description of a SavedModel says of a model."""
    return {
        "kind": blueprint.kind,
        "image_size": list(blueprint.image_size),
        "num_classes": blueprint.num_classes,
    }


def saved_model_function(kind: str, path: str | os.PathLike) -> Predict:
    """Returns a function from original images to what `Task.predict` gives, by a SavedModel.

    It takes uint8 [1, height, width, 3], an image of any size.

    Args:
      kind: the model's field in DetectionModel.
      path: the folder of `export_saved_model`, or a SavedModel with the OD API's outputs.
    """
    return _KINDS[kind].saved_model_function(path)


def evaluator(kind: str, categories: Mapping[int, str]) -> Evaluator:
    """Returns a new evaluator for models of a kind, without building one."""
    return _KINDS[kind].evaluator(categories)


def compare(
    task: Task,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    graph: str | os.PathLike,
    *,
    quantization: str = "none",
    others: tuple[str, ...] = accuracy.COMPARED,
    **kind: Any,
) -> dict[str, dict[str, Any]]:
    """Compares a file of `export`, and its kin of other quantisations, with Keras.

    Args:
      graph: the file; `quantization` and `kind` are arguments of `export` that it was exported
        with.
      others: quantisations of the other files.

    Returns:
      As `accuracy.compare`.
    """

    def export_other(folder: Path, other: str) -> None:
        name = Path(graph).name
        export(task, folder, quantization=other, **({"graph_name": name} | kind))

    return accuracy.compare(
        task,
        graph,
        lambda predict: evaluate_pipeline(task, pipeline, predict)[task.objective],
        export=export_other,
        predict_function=lambda path: predict_function(task.blueprint, path),
        quantization=quantization,
        others=others,
    )
