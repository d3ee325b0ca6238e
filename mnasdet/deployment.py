"""Deploys a model by its kind: TFLite files, and how they are read again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import logging

from mnasdet import files
from mnasdet.blueprint import Blueprint
from mnasdet.data.input_pipeline import label_map
from mnasdet.evaluation.evaluate import Predict, evaluate_pipeline, first_images
from mnasdet.protos import pipeline_pb2
from mnasdet.tasks import Task
from mnasdet.tflite import accuracy, classifier_file, interpreter
from mnasdet.tflite import export as exporting
from mnasdet.tflite.detector_file import detector_file
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.exportable import Exportable


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
      forms: the files of a model, by name; "raw" is the first.
      exportable: takes the task and the arguments of `deployment.exportable`.
      predict_function: as of `deployment.predict_function`.
    """

    forms: Mapping[str, Form]
    exportable: Callable[..., Exportable]
    predict_function: Callable[[Blueprint | None, str | os.PathLike], Predict]


_DETECTORS = _Kind(
    {
        "raw": Form(exporting.GRAPH_FILE, "raw predictions"),
        "nms": Form(exporting.NMS_GRAPH_FILE, "detections, for phone apps", {"nms": True}),
    },
    detector_file,
    interpreter.detection_function,
)

# By the model's field in DetectionModel.
_KINDS = {
    "ssd": _DETECTORS,
    "classification": _Kind(
        {"raw": Form(interpreter.CLASSIFIER_GRAPH_FILE, "probabilities, for phone apps")},
        classifier_file.classifier_file,
        classifier_file.predict_function,
    ),
}


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
        detect_nms.tflite, which apps open as it is, with export_nms.json; and benchmark.json.
      device: that is measured on; this machine if left out.

    Returns:
      The benchmark's result for the first file, with those of the others by their forms: "nms".
    """
    logging.info("exporting to %s", folder)
    labels = label_map(pipeline.eval_input_reader[0])
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


def timings(kind: str, timing: dict[str, Any]) -> Iterator[tuple[Form, dict[str, Any]]]:
    """Yields every file of a deployed model with its benchmark's result.

    Args:
      kind: the model's field in DetectionModel.
      timing: what `deploy` returned.
    """
    for number, (name, form) in enumerate(_KINDS[kind].forms.items()):
        yield form, timing[name] if number else timing


def predict_function(blueprint: Blueprint | None, path: str | os.PathLike) -> Predict:
    """Returns a function from images to what `Task.predict` gives, by an exported file.

    Args:
      blueprint: None will do for a detector's graph with non-maximum suppression.
    """
    kind = _KINDS[blueprint.kind] if blueprint else _DETECTORS
    return kind.predict_function(blueprint, path)


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
