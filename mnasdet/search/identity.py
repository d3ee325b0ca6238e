"""The facts that decide the trials of a search: compared when it goes on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format

import mnasdet
from mnasdet import message_differences
from mnasdet.data import input_pipeline
from mnasdet.protos import pipeline_pb2, train_pb2
from mnasdet.search import latency
from mnasdet.training.warm_start import load

Identity = Mapping[str, Any]

_PACKAGES = ("tensorflow", "tf-keras", "tf-models-official", "ai-edge-litert", "numpy")

# A file of records is known by its size and this number of its first bytes: a data set of many
# gigabytes is compared in a second.
_HEAD_BYTES = 2**16


def of_search(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> dict[str, Any]:
    """Returns what decides the trials of a search, as JSON has it.

    Files count by their content: they may be elsewhere when the search goes on.

    Returns:
      config: its decisive fields, as a text proto. data: {use: [[bytes, hash of the head]]}.
      latency: {field: value} of the device or the table; second_latency: that of a second stage
      with a source of its own. versions: {package: version}.
    """
    second = pipeline.search_config.second_stage
    return {
        "config": text_format.MessageToString(decisive(pipeline)),
        "data": {use: [_fingerprint(file) for file in files] for use, files in _data(pipeline)},
        "latency": latency.identity(pipeline.search_config.latency),
        **(
            {"second_latency": latency.identity(second.latency)}
            if second.HasField("latency")
            else {}
        ),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Returns the versions of mnasdet and of what it computes with, by package."""
    found = {"mnasdet": mnasdet.__version__}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # Such as tensorflow-cpu.
            found[name] = metadata.version(name)
    return found


def decisive(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the fields of a config that decide the results of its trials.

    The number of trials, the executor, the trial store and the places of files decide none.
    """
    kept = pipeline_pb2.TrainEvalPipelineConfig()
    kept.CopyFrom(pipeline)
    search_config = kept.search_config
    for field in ("executor", "retrain_config", "trial_store"):
        search_config.ClearField(field)
    sources = [search_config.latency]
    # The trials of a second stage come after those of the first, and depend on all of them.
    if search_config.HasField("second_stage"):
        second = search_config.second_stage
        second.ClearField("num_trials")
        sources += [second.latency] if second.HasField("latency") else []
    else:
        search_config.ClearField("num_trials")
    for reader in (kept.train_input_reader, *kept.eval_input_reader):
        reader.ClearField("label_map_path")
        if reader.HasField("tf_record_input_reader"):
            reader.tf_record_input_reader.ClearField("input_path")
    for training in _trainings(kept):
        training.ClearField("fine_tune_checkpoint")
    if search_config.HasField("one_shot"):
        # Made by the search, and where the winner starts decides no trial.
        for field in ("checkpoint", "winner_starts_from_shared_weights"):
            search_config.one_shot.ClearField(field)
    for source in sources:
        if source.WhichOneof("latency_oneof") in (None, "latency_table"):
            source.latency_table.SetInParent()  # Unset, it is this source.
            source.latency_table.ClearField("path")
    return kept


def differences(held: Identity, found: Identity) -> list[str]:
    """Returns one line for each decisive thing that differs, versions left out."""
    there, here = (
        # A later version may have written fields that this one does not know.
        text_format.Parse(
            one["config"], pipeline_pb2.TrainEvalPipelineConfig(), allow_unknown_field=True
        )
        for one in (held, found)
    )
    lines = list(message_differences.lines(there, here))
    for use in sorted(held["data"].keys() | found["data"].keys()):
        files = [one["data"].get(use) for one in (held, found)]
        if files[0] != files[1]:
            lines.append(f"{use}: {_described(files[0])} at the start, {_described(files[1])} now")
    for source in ("latency", "second_latency"):
        device, own_device = (dict(one.get(source, {})) for one in (held, found))
        if "governors" not in device or "governors" not in own_device:  # A container may hide them.
            device.pop("governors", None)
            own_device.pop("governors", None)
        lines += _differing_values(device, own_device, f"{source}: ")
    return lines


def differing_versions(held: Identity, found: Identity) -> list[str]:
    """Returns one line for each package of another version, which may change results."""
    return list(_differing_values(held["versions"], found["versions"], ""))


def _differing_values(
    held: Mapping[str, Any], found: Mapping[str, Any], prefix: str
) -> Iterator[str]:
    for name in sorted(held.keys() | found.keys()):
        if held.get(name) != found.get(name):
            there, here = (one.get(name, "nothing") for one in (held, found))
            yield f"{prefix}{name} was {there} at the start, is {here} now"


def _data(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> Iterator[tuple[str, Sequence[str | Path]]]:
    """Yields the files that the trials depend on, by what they are for."""
    readers = {"training data": [pipeline.train_input_reader]}
    readers["evaluation data"] = list(pipeline.eval_input_reader)
    for use, ones in readers.items():
        yield (
            use,
            [
                file
                for reader in ones
                if reader.HasField("tf_record_input_reader")
                for file in input_pipeline.input_files(reader)
            ],
        )
    every = [pipeline.train_input_reader, *pipeline.eval_input_reader]
    label_maps = list(dict.fromkeys(reader.label_map_path for reader in every))
    yield "label map", [path for path in label_maps if path]
    paths = [training.fine_tune_checkpoint for training in _trainings(pipeline)]
    yield "fine_tune_checkpoint", [load.identifying_file(path) for path in paths if path]


def _trainings(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> list[train_pb2.TrainConfig]:
    """Returns the trainings that decide the results of trials."""
    search_config = pipeline.search_config
    trainings = [pipeline.train_config]
    if search_config.HasField("pretrain_config"):
        trainings.append(search_config.pretrain_config)
    if search_config.second_stage.HasField("train_config"):
        trainings.append(search_config.second_stage.train_config)
    if search_config.HasField("one_shot"):
        trainings.append(search_config.one_shot.train_config)
    if search_config.HasField("differentiable"):
        own = search_config.differentiable
        trainings.append(own.train_config)
        if own.HasField("screening"):
            trainings.append(own.screening.train_config)
    return trainings


def _fingerprint(path: str | Path) -> list[Any]:
    # Not by time or name: data that was copied is the same data.
    with tf.io.gfile.GFile(str(path), "rb") as file:
        head = file.read(_HEAD_BYTES)
        return [file.size(), hashlib.sha256(head).hexdigest()[:16]]


def _described(files: Sequence[Sequence[Any]] | None) -> str:
    if not files:
        return "none"
    size = sum(file[0] for file in files)
    digest = hashlib.sha256(repr(files).encode()).hexdigest()[:8]
    return f"{len(files)} files of {size:,} bytes ({digest})"
