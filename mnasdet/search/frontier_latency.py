"""What the frontier of a search really takes, beside what the search went by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import text_format
from tqdm import tqdm

from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search import latency
from mnasdet.search.search import build_network
from mnasdet.search.trial_store import Trial
from mnasdet.tflite.network_latency import network_latency


def measure(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    members: Sequence[Trial],
    known: Mapping[int, float],
) -> dict[int, float]:
    """Milliseconds of whole networks as float32 TFLite files, by trial number: on the device that
    the search measures on, or else on this machine.

    Args:
      known: what was measured already.
    """
    measured = dict(known)
    new = [trial for trial in members if trial.number not in known]
    if not new:
        return measured
    with latency.device_spec(pipeline.search_config.latency).open() as device:
        for trial in tqdm(new, desc="measuring the frontier", unit="network"):
            architecture = text_format.Parse(trial.architecture, architecture_pb2.Architecture())
            outputs = build_network(pipeline, architecture).outputs
            measured[trial.number] = network_latency(outputs, device).latency_ms
    return measured
