"""The files of a search."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from google.protobuf import text_format

from mnasdet import config, files, search_stages
from mnasdet.architectures import from_trial
from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2, search_pb2
from mnasdet.search import axes, identity, latency
from mnasdet.search.frontier import pareto
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore, list_searches
from mnasdet.search_spaces.space import SearchSpace

SEARCH_FILE = "search.json"
TRIALS_FILE = "trials.db"
_PARETO_FILE = "pareto.json"

# The number of differences that an error names.
_MOST_CHANGES = 5

# The fields that decide which trials are proposed, and the beginnings of what is said of them. With
# a second stage the number of trials of the first one is among what `identity` compares.
_FIXED = tuple(
    f"search_config.{name}"
    for name in (
        "num_trials",
        "seed",
        "search_space",
        "controller",
        "differentiable",
        "max_pending_trials",
        "second_stage is",
        "second_stage.search_space",
        "second_stage.controller",
        "second_stage.num_groups",
    )
)


def frontier(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the complete trials that no other beats in accuracy and cost, cheapest first.

    There are no duplicates among them.
    """
    complete = [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.duplicate_of is None
    ]
    points = [(trial.accuracy or 0.0, trial.cost or 0.0) for trial in complete]
    return [complete[index] for index in pareto.frontier(points)]


def best(trials: Sequence[Trial]) -> Trial:
    """Returns the complete trial with the highest reward, the first of equals."""
    complete = [trial for trial in trials if trial.reward is not None]
    if not complete:
        # Usually all of them failed for one reason.
        reasons = Counter(trial.error for trial in trials if trial.error).most_common(1)
        frequent = f"; most frequent reason: {reasons[0][0]}" if reasons else ""
        raise UserError(f"none of the {len(trials)} trials is complete{frequent}")
    return max(complete, key=lambda trial: (trial.reward, -trial.number))


def search_name(model_dir: Path, settings: search_pb2.TrialStoreConfig) -> str:
    """Returns the name of a folder's search in its store.

    A folder that was renamed, copied or mounted elsewhere holds the search that it held: the name
    is in search.json, or the search is the only one in the folder's own trials.db. A new search is
    named as its folder.
    """
    if settings.search_name:
        return settings.search_name
    named = (_read_description(model_dir) or {}).get("search_name")
    if named:
        return named
    own = model_dir / TRIALS_FILE
    folder = model_dir.resolve().name
    if not settings.url and own.exists():
        # A file that is not sound says so when it is opened.
        with contextlib.suppress(UserError):
            held = [summary.name for summary in list_searches(own, folder)]
            if len(held) == 1:
                return held[0]
    return folder


def start(
    model_dir: Path,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    space: SearchSpace,
    store: TrialStore,
    resume: bool,
    accept_changes: bool = False,
) -> None:
    """Claims folder and store for a search, or checks that they hold this very search.

    Args:
      accept_changes: go on even where config, data or device are not those that the search began
        with; search.json then says so.

    Raises:
      UserError: they hold a search and `resume` is not set, or they hold another one.
    """
    in_folder, in_store = _read_description(model_dir), store.description()
    _check_pair(model_dir, in_folder, in_store, store)
    held = in_store or in_folder
    found = identity.of_search(pipeline)
    if held is None:
        if resume:
            logging.warning("there is no search in %s yet: a new one begins", model_dir)
        description = {
            "id": uuid.uuid4().hex,
            "search_name": store.search_name,
            **_asked(pipeline, space),
            "identity": found,
        }
    elif not resume:
        where = model_dir if (model_dir / SEARCH_FILE).exists() else store.location
        raise UserError(
            f"{where} holds a search already; add --resume to go on with it, or choose another "
            "--model_dir"
        )
    else:
        changes = _accepted_changes(held, found, pipeline, store, accept_changes)
        description = held
        if changes or "identity" not in held:
            description = {**held, **_asked(pipeline, space), "identity": found}
        if changes:
            accepted = {"trials": len(store.trials()), "changes": changes}
            description["accepted_changes"] = [*held.get("accepted_changes", []), accepted]
    files.write(model_dir / "pipeline.config", config.to_text(pipeline))
    if description != in_store:
        store.describe(description)
    if description != in_folder:
        files.write_json(model_dir / SEARCH_FILE, description)


def _asked(pipeline: pipeline_pb2.TrainEvalPipelineConfig, space: SearchSpace) -> dict[str, Any]:
    """Returns what search.json tells people of the config."""
    search_config = pipeline.search_config
    weighed = axes.from_config(pipeline)
    settings = search_stages.settings(search_config)
    # Where the second stage's trials begin; a search of one stage says nothing of it.
    firsts = [0, search_config.num_trials][: len(settings)]
    stages = [
        {"first": first, "unit": latency.unit(own.latency)}
        for first, own in zip(firsts, settings, strict=True)
    ]
    return {
        "seed": search_config.seed,
        "search_space": search_config.search_space.WhichOneof("search_space_oneof"),
        "cardinality": space.cardinality(),
        "image_size": list(config.resolve(pipeline).image_size),
        "objective": weighed.objective,
        "unit": weighed.unit,
        "controller": search_config.controller.WhichOneof("controller_oneof")
        or ("differentiable" if search_config.HasField("differentiable") else None),
        "max_pending_trials": search_config.max_pending_trials,
        **({"stages": stages} if len(stages) > 1 else {}),
        "versions": identity.versions(),
    }


def describe_more(model_dir: Path, store: TrialStore, **values: Any) -> None:
    """Adds to what search.json and the store tell of a search."""
    description = read_description(model_dir) | values
    files.write_json(model_dir / SEARCH_FILE, description)
    store.describe(description)


def _check_pair(
    model_dir: Path,
    in_folder: Mapping[str, Any] | None,
    in_store: Mapping[str, Any] | None,
    store: TrialStore,
) -> None:
    """Raises UserError where the folder tells of another search than the store holds."""
    path = model_dir / SEARCH_FILE
    # A lost database would else be begun anew without a word, beside the results of the old one.
    if in_folder and not in_store and not store.trials():
        raise UserError(
            f"{path} tells of search {store.search_name!r}, and {store.location} has none of its "
            f"trials; put them back, or remove {path} to begin anew"
        )
    if in_folder and in_store:
        for name in ("id", "config_sha256", "seed"):
            if name in in_folder and name in in_store and in_folder[name] != in_store[name]:
                raise UserError(
                    f"{path} is of another search than the trials in {store.location}, whose "
                    f"{name} is {in_store[name]} in place of {in_folder[name]}; put back the file "
                    f"that belongs there, or remove {path} to go by the trials"
                )


def _read_description(model_dir: Path) -> dict[str, Any] | None:
    """Returns what search.json holds; None, with a warning, where it is damaged."""
    path = model_dir / SEARCH_FILE
    if not path.exists():
        return None
    try:
        return read_description(model_dir)
    except UserError as error:
        logging.warning("%s; the trial store has what it held", error)
        return None


def read_description(model_dir: Path) -> dict[str, Any]:
    """Returns what search.json holds.

    Raises:
      UserError: it is missing or damaged.
    """
    return files.read_json(model_dir / SEARCH_FILE, "description of a search")


def _accepted_changes(
    held: Mapping[str, Any],
    found: identity.Identity,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    store: TrialStore,
    accept_changes: bool,
) -> list[str]:
    """Returns one line for each decisive thing that is not what the search began with.

    Raises:
      UserError: there are such things, and they were not accepted or cannot be.
    """
    begun = held.get("identity")
    if begun is None:  # By a version that kept a digest of the config alone.
        changes = []
        if held.get("config_sha256") != config_digest(pipeline):
            changes = ["the config or the seed is another"]
    else:
        changes = identity.differences(begun, found)
        for line in identity.differing_versions(begun, found):
            logging.warning("results may differ from those of the trials so far: %s", line)
    began = f"search {store.search_name!r} began otherwise"
    # With another seed, space or controller the trials so far are not the first ones.
    if fixed := [line for line in changes if line.startswith(_FIXED)]:
        raise UserError(f"{began}: {_list(fixed)}; undo that, or choose another --model_dir")
    if changes and not accept_changes:
        raise UserError(
            f"{began}: {_list(changes)}; undo that, choose another --model_dir, or go on all the "
            "same with --accept_changes"
        )
    for line in changes:
        logging.warning("accepted: %s", line)
    return changes


def _list(lines: Sequence[str]) -> str:
    """Returns the first lines, and how many more there are."""
    shown = "; ".join(lines[:_MOST_CHANGES])
    more = len(lines) - _MOST_CHANGES
    return f"{shown}; and {more} more" if more > 0 else shown


def config_digest(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> str:
    """Returns what latency tables and searches of version 0.1.0 know a config by."""
    decisive = pipeline_pb2.TrainEvalPipelineConfig()
    decisive.CopyFrom(pipeline)
    # A search may go on for more trials, elsewhere, and be retrained otherwise.
    for field in ("num_trials", "executor", "retrain_config", "trial_store"):
        decisive.search_config.ClearField(field)
    return hashlib.sha256(decisive.SerializeToString(deterministic=True)).hexdigest()


def write(
    model_dir: Path, trials: Sequence[Trial], measured_ms: Mapping[int, float]
) -> dict[str, Any]:
    """Writes pareto.json and architectures/ of the frontier, and search.json with the counts.

    Args:
      measured_ms: latencies by trial number, as far as they were measured.

    Returns:
      The content of search.json.
    """
    description = read_description(model_dir) | {"counts": counts(trials)}
    files.write_json(model_dir / SEARCH_FILE, description)
    members = frontier(trials)
    described_members = [_describe(trial, measured_ms.get(trial.number)) for trial in members]
    files.write_json(model_dir / _PARETO_FILE, described_members)
    folder = model_dir / "architectures"
    # Members of an earlier frontier would stay among those of this one.
    shutil.rmtree(folder, ignore_errors=True)
    for trial in members:
        text = text_format.MessageToString(from_trial(trial.architecture))
        files.write(folder / f"trial_{trial.number:05d}.textproto", text)
    return description


def read_measured_ms(model_dir: Path) -> dict[int, float]:
    """Returns the measured latencies of pareto.json by trial number.

    There are none where the file is missing, or is damaged, of which a warning tells: they can be
    measured again.
    """
    path = model_dir / _PARETO_FILE
    if not path.exists():
        return {}
    try:
        members = files.read_json(path, "frontier", of=list, keys=["trial"])
    except UserError as error:
        logging.warning("%s; the frontier is measured anew", error)
        return {}
    measured = {member["trial"]: member.get("measured_ms") for member in members}
    return {number: ms for number, ms in measured.items() if ms is not None}


def read_frontier(model_dir: Path) -> list[dict[str, Any]]:
    """Returns what pareto.json holds.

    Raises:
      UserError: it is missing or damaged.
    """
    return files.read_json(model_dir / _PARETO_FILE, "frontier", of=list)


def read_noise(model_dir: Path) -> dict[str, Any] | None:
    """Returns what the seed does to a child's accuracy.

    That is known if a proxy_quality.json of scripts/measure_proxy was put into the folder.
    """
    path = model_dir / "proxy_quality.json"
    if not path.exists():
        return None
    remedy = "put the file there once more, or delete it"
    return files.read_json(path, "result of measure_proxy", keys=["noise"], remedy=remedy)["noise"]


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
        "accuracy": trial.accuracy,
        "cost": trial.cost,
        "measured_ms": measured_ms,
        "multiply_adds": trial.metrics["multiply_adds"],
        "params": trial.metrics["params"],
        "reward": trial.reward,
    }
