"""The files of a search."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from google.protobuf import text_format

import mnasdet
from mnasdet import config, files
from mnasdet.errors import UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.protos import pipeline_pb2
from mnasdet.search import latency, pareto
from mnasdet.search.trial_store import Trial, TrialState, TrialStore
from mnasdet.search_spaces.space import SearchSpace

_PARETO_FILE = "pareto.json"
_VERSIONS = ("tensorflow", "tf-keras", "tf-models-official", "ai-edge-litert", "numpy")


def frontier(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials that no other beats in mAP and latency, fastest first; no duplicates."""
    complete = [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.duplicate_of is None
    ]
    points = [(trial.metrics[MAP], trial.latency_ms or 0.0) for trial in complete]
    return [complete[index] for index in pareto.frontier(points)]


def best(trials: Sequence[Trial]) -> Trial:
    """The complete trial with the highest reward, the first of equals."""
    complete = [trial for trial in trials if trial.reward is not None]
    if not complete:
        reasons = Counter(trial.error for trial in trials if trial.error).most_common(1)
        frequent = f"; most frequent reason: {reasons[0][0]}" if reasons else ""
        raise UserError(f"none of the {len(trials)} trials is complete{frequent}")
    return max(complete, key=lambda trial: (trial.reward, -trial.number))


def start(
    model_dir: Path,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    space: SearchSpace,
    store: TrialStore,
    resume: bool,
) -> None:
    """Claims folder and store for a search, or checks that they hold this very search.

    Raises:
      UserError: they hold a search and `resume` is not set, or they hold another one.
    """
    described = model_dir / "search.json"
    digest = config_digest(pipeline)
    held = json.loads(described.read_text()) if described.exists() else store.description()
    if held:
        where = model_dir if described.exists() else f"{store.location}, {store.search_name!r},"
        if not resume:
            raise UserError(
                f"{where} holds a search already; add --resume to go on with it, or choose "
                "another --model_dir"
            )
        if held["config_sha256"] != digest:
            raise UserError(
                f"{where} holds a search with another config or seed "
                f"({model_dir}/pipeline.config); choose another --model_dir"
            )
    files.write(model_dir / "pipeline.config", text_format.MessageToString(pipeline))
    if held and described.exists():
        return
    search_config = pipeline.search_config
    description = held or {
        "config_sha256": digest,
        "seed": search_config.seed,
        "search_space": search_config.search_space.WhichOneof("search_space_oneof"),
        "cardinality": space.cardinality(),
        "image_size": list(config.image_size(pipeline)),
        "latency_unit": latency.unit(search_config.latency),
        "controller": search_config.controller.WhichOneof("controller_oneof"),
        "versions": {"mnasdet": mnasdet.__version__}
        | {name: metadata.version(name) for name in _VERSIONS},
    }
    store.describe(description)
    _write_json(described, description)


def config_digest(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> str:
    """Of all that decides which trials a search makes: not their number, nor who trains them."""
    decisive = pipeline_pb2.TrainEvalPipelineConfig()
    decisive.CopyFrom(pipeline)
    for field in ("num_trials", "executor", "retrain_config", "trial_store"):
        decisive.search_config.ClearField(field)
    return hashlib.sha256(decisive.SerializeToString(deterministic=True)).hexdigest()


def write(
    model_dir: Path, trials: Sequence[Trial], measured_ms: Mapping[int, float]
) -> dict[str, Any]:
    """pareto.json and architectures/ of the frontier, and search.json with the counts, which is
    returned.

    Args:
      measured_ms: latencies by trial number, as far as they were measured.
    """
    described = model_dir / "search.json"
    description = json.loads(described.read_text()) | {"counts": counts(trials)}
    _write_json(described, description)
    members = frontier(trials)
    described_members = [_describe(trial, measured_ms.get(trial.number)) for trial in members]
    _write_json(model_dir / _PARETO_FILE, described_members)
    folder = model_dir / "architectures"
    shutil.rmtree(folder, ignore_errors=True)
    for trial in members:
        files.write(folder / f"trial_{trial.number:05d}.textproto", trial.architecture)
    return description


def read_measured_ms(model_dir: Path) -> dict[int, float]:
    """What pareto.json holds of them, by trial number; nothing if there is none."""
    path = model_dir / _PARETO_FILE
    members = json.loads(path.read_text()) if path.exists() else []
    return {m["trial"]: m["measured_ms"] for m in members if m.get("measured_ms") is not None}


def read_noise(model_dir: Path) -> dict[str, Any] | None:
    """Returns what the seed does to a child's mAP, if a proxy_quality.json of scripts/measure_proxy
    was put into the folder."""
    path = model_dir / "proxy_quality.json"
    return json.loads(path.read_text())["noise"] if path.exists() else None


def counts(trials: Sequence[Trial]) -> dict[str, int]:
    return {
        "trials": len(trials),
        "complete": sum(trial.state is TrialState.COMPLETE for trial in trials),
        "failed": sum(trial.state is TrialState.FAILED for trial in trials),
        "rejected": sum(trial.state is TrialState.REJECTED for trial in trials),
        "duplicates": sum(trial.duplicate_of is not None for trial in trials),
    }


def _describe(trial: Trial, measured_ms: float | None) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "key": trial.key,
        "mAP": trial.metrics[MAP],
        "latency_ms": trial.latency_ms,
        "measured_ms": measured_ms,
        "multiply_adds": trial.metrics["multiply_adds"],
        "params": trial.metrics["params"],
        "reward": trial.reward,
    }


def _write_json(path: Path, value: Any) -> None:
    files.write(path, json.dumps(value, indent=2) + "\n")
