"""The measured latency of a search's frontier, beside what the search went by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tqdm import tqdm

from mnasdet.architectures import from_trial
from mnasdet.protos import pipeline_pb2
from mnasdet.search import latency
from mnasdet.search.candidate import candidate
from mnasdet.search.trials.trial_store import Trial
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.latency.network_latency import network_latency

# Turns of every network, with the others' in between: a machine's restless second must not decide.
_TURNS = 5


def measure(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    members: Sequence[Trial],
    known: Mapping[int, float],
) -> dict[int, float]:
    """Measures whole networks as float32 TFLite files.

    It does so on the device that the search measures on, or else on this machine.

    Args:
      known: what was measured already.

    Returns:
      Milliseconds by trial number: of the fastest of five turns.
    """
    measured = dict(known)
    new = [trial for trial in members if trial.number not in known]
    if not new:
        return measured
    networks = [
        (trial.number, candidate(pipeline, from_trial(trial.architecture)).network) for trial in new
    ]
    with opened(latency.device_spec(pipeline.search_config.latency)) as device:
        for number, network in tqdm(networks * _TURNS, desc="measuring the frontier", unit="turn"):
            turn_ms = network_latency(network, device).latency_ms
            # The fastest turn: whatever else the machine does only adds to a latency.
            measured[number] = min(turn_ms, measured.get(number, turn_ms))
    return measured
