"""How well a latency table predicts whole networks, and what multiply-adds and parameters make of
the same ones.

For every space a table of this machine, from nothing, by `build_latency_table.py`: its layers, 50
random networks that it is fitted to, and 50 others to be predicted; all at 320x320 with 90 classes,
on one thread. Multiply-adds and parameters get a scale and a constant from the same 50.

Beside it the time of a look-up, from the network to its latency, as a median.

  python benchmarks/latency_table_fidelity.py
  python benchmarks/latency_table_fidelity.py --spaces=mnasfpn --format=json

While nothing else runs: what runs beside it is in the latencies, and not evenly.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging
from google.protobuf import text_format

from mnasdet import config, configs, text_proto
from mnasdet.errors import UserError
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import pipeline_pb2
from mnasdet.scripts import command
from mnasdet.search.candidate import candidate
from mnasdet.search_spaces import factory
from mnasdet.tflite.latency.latency_table import LatencyTable

FLAGS = flags.FLAGS

# Each with the architecture in which it chooses. NAS-FPN's own, of one width, is under a predictor
# that takes most of the time and is the same for all: its networks differ by a few per cent.
SPACES = {
    "mnasfpn": ("mobilenet_v2_mnasfpn", "mnasfpn {}"),
    "mnasnet": ("mnasnet_a1_ssdlite", "mnasnet {}"),
    "nas_fpn": (
        "mobilenet_v2_nas_fpn_3_256",
        "nas_fpn { channels: [64, 128, 192, 256] repeats: [3, 5, 7] }",
    ),
    "nas_fpn_3_256": ("mobilenet_v2_nas_fpn_3_256", "nas_fpn {}"),
}

CONFIG = Path(configs.__file__).with_name("mnasfpn_search_coco.config")

FIGURES = ("r2", "spearman", "within_5_percent", "within_10_percent")

command.define_format_flag()
flags.DEFINE_list("spaces", list(SPACES), f"Of {', '.join(SPACES)}.")
flags.DEFINE_integer("num_fit", 50, "Networks that give the scale.", lower_bound=2)
flags.DEFINE_integer("num_test", 50, "Networks to be predicted.", lower_bound=2)


def build(space: str) -> dict[str, Any]:
    """Returns what the command tells, and the seconds it took."""
    pipeline = text_proto.read(CONFIG, pipeline_pb2.TrainEvalPipelineConfig)
    pipeline.model.architecture_name, decisions = SPACES[space]
    pipeline.search_config.search_space.Clear()
    text_format.Parse(decisions, pipeline.search_config.search_space)
    with tempfile.TemporaryDirectory() as folder:
        config_path = Path(folder) / "pipeline.config"
        config_path.write_text(text_format.MessageToString(pipeline))
        start = time.perf_counter()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "mnasdet.scripts.build_latency_table",
                f"--pipeline_config_path={config_path}",
                f"--output={folder}/table.textproto",
                f"--num_fit={FLAGS.num_fit}",
                f"--num_test={FLAGS.num_test}",
                "--format=json",
            ],
            stdout=subprocess.PIPE,
        )
        if done.returncode:
            raise UserError(f"{space}: no table")
        seconds = time.perf_counter() - start
        lookup_ms = median_lookup_ms(config_path, f"{folder}/table.textproto")
        return json.loads(done.stdout) | {"seconds": seconds, "lookup_ms": lookup_ms}


def median_lookup_ms(config_path: Path, table_path: str) -> float:
    """Returns the median time from a network that the search has at hand to its latency."""
    pipeline = config.load(config_path, readers=())
    base = config.resolve(pipeline).architecture
    space = factory.from_config(pipeline.search_config.search_space, base)
    table = LatencyTable.load(table_path)
    rng = np.random.default_rng(1)
    taken_ms = []
    for _ in range(FLAGS.num_test):
        network = candidate(pipeline, space.decode(space.sample(rng))).network
        start = time.perf_counter()
        table.latency_ms(cost_sheet(network))
        taken_ms.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken_ms)


def print_table(space: str, report: dict[str, Any]) -> None:
    agreement = report["fidelity"]
    print(
        f"\n{space}: {report['num_layers']} layers, {agreement['num_networks']} networks of "
        f"{agreement['min_ms']:.1f} to {agreement['max_ms']:.1f} ms, {report['num_noisy']} noisy; "
        f"{report['seconds']:.0f} s in all, a look-up {report['lookup_ms']:.1f} ms"
    )
    print(f"{'':<15}{'R2':>10}{'Spearman':>10}{'in 5 %':>10}{'in 10 %':>10}{'error':>10}")
    for name, figures in {"latency_table": agreement, **report["peers"]}.items():
        cells = "".join(f"{figures[figure]:>10.4f}" for figure in FIGURES)
        print(f"{name:<15}{cells}{figures['mean_absolute_percentage_error']:>8.1f} %")


def main() -> None:
    unknown = [space for space in FLAGS.spaces if space not in SPACES]
    if unknown:
        raise UserError(f"--spaces={unknown[0]}: one of {', '.join(SPACES)} is needed")
    reports = {}
    for space in FLAGS.spaces:
        logging.info("%s", space)
        reports[space] = build(space)
        if FLAGS.format == "text":
            print_table(space, reports[space])
    if FLAGS.format == "json":
        command.print_json(reports)


if __name__ == "__main__":
    command.run(main)
