"""The measured latency of a search's frontier, beside what the search went by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tqdm import tqdm

from mnasdet.architectures import from_trial
from mnasdet.protos import pipeline_pb2
from mnasdet.search import latency
from mnasdet.search.candidate import candidate
from mnasdet.search.trials.trial_store import Trial


def measure(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    members: Sequence[Trial],
    known: Mapping[int, float],
) -> dict[int, float]:
    """Measures whole networks in turns, as `latency.meter` does.

    It does so on the device that the search measures on, or else on this machine.

    Args:
      known: what was measured already.

    Returns:
      Milliseconds by trial number: of the fastest turn.
    """
    measured = dict(known)
    new = [trial for trial in members if trial.number not in known]
    if not new:
        return measured
    candidates = [
        (trial.number, candidate(pipeline, from_trial(trial.architecture))) for trial in new
    ]
    meter = latency.meter(pipeline)
    # Every network in turn: a machine's restless second must not decide.
    turns = candidates * meter.turns
    with meter.opened() as turn:
        for number, network in tqdm(turns, desc="measuring the frontier", unit="turn"):
            turn_ms = turn(network).latency_ms
            # The fastest turn: whatever else the machine does only adds to a latency.
            measured[number] = min(turn_ms, measured.get(number, turn_ms))
    return measured
