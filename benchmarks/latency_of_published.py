"""The published mobile detectors side by side: weights, multiply-adds and TFLite latency here.

All take images of 320x320, tell 90 classes apart and end before non-maximum suppression, as in the
papers. They run in float32 in one process, one after the other and all of them in every round, so
that what slows the machine down for a while slows all of them down: latencies are medians over the
rounds, ratios and savings medians of what they are within a round.

"NAS-FPN cells" are not NAS-FPNLite, whose 15 cells were never published. They are the 7 published
cells at levels 3 to 7, with separable convolutions, the repeats and widths of NAS-FPNLite and
FPNLite's box predictor: 0.71 and 0.83 B multiply-adds, where the paper's table 1 has 0.76 and
0.98 B.

  python benchmarks/latency_of_published.py
  python benchmarks/latency_of_published.py --rounds=50 --format=json > latency.json
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from mnasdet import config
from mnasdet.detectors.network import detection_network
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import architecture_pb2
from mnasdet.scripts import command
from mnasdet.tflite.devices import host
from mnasdet.tflite.devices.benchmark_model import Options
from mnasdet.tflite.devices.device import DeviceSpec

FLAGS = flags.FLAGS

command.define_format_flag()
flags.DEFINE_integer("rounds", 25, "How often each network has its turn.", lower_bound=1)
flags.DEFINE_integer("num_runs", 10, "Timed runs a turn.", lower_bound=1)
flags.DEFINE_integer("num_threads", 1, "Threads of the TFLite runtime.", lower_bound=1)
flags.DEFINE_string("taskset", "", "Hexadecimal mask of the cores to run on; all if left out.")

IMAGE_SIZE = (320, 320)
NUM_CLASSES = 90
WARMUP_RUNS = 5
TIMEOUT_SECONDS = 600.0

REFERENCE = "MnasFPN"
WITHOUT_ORDERING = "{}, no size-dependent ordering"


def networks() -> dict[str, architecture_pb2.Architecture]:
    """Returns the networks that are compared, by the name in the table."""
    return {
        REFERENCE: mnasfpn(4, True),
        WITHOUT_ORDERING.format(REFERENCE): mnasfpn(4, False),
        f"{REFERENCE} x5": mnasfpn(5, True),
        WITHOUT_ORDERING.format(f"{REFERENCE} x5"): mnasfpn(5, False),
        "MobileNetV3-L + MnasFPN": config.load_architecture("mobilenet_v3_large_mnasfpn"),
        "0.7x MnasFPN": config.load_architecture("mobilenet_v2_0.7_mnasfpn"),
        "FPNLite @ 64": config.load_architecture("mobilenet_v2_fpnlite_64"),
        "FPNLite @ 128": config.load_architecture("mobilenet_v2_fpnlite_128"),
        "NAS-FPN cells, 3 @ 48": separable_nas_fpn(3, 48),
        "NAS-FPN cells, 7 @ 64": separable_nas_fpn(7, 64),
        "MobileNetV2 SSDLite": config.load_architecture("mobilenet_v2_ssdlite"),
        "MobileNetV3-L SSDLite": config.load_architecture("mobilenet_v3_large_ssdlite"),
        "MobileNetV3-L halved SSDLite": config.load_architecture(
            "mobilenet_v3_large_halved_ssdlite"
        ),
        "MobileNetV3-S halved SSDLite": config.load_architecture(
            "mobilenet_v3_small_halved_ssdlite"
        ),
        "MnasNet-A1 SSDLite": config.load_architecture("mnasnet_a1_ssdlite"),
    }


def mnasfpn(repeats: int, size_dependent_ordering: bool) -> architecture_pb2.Architecture:
    architecture = config.load_architecture("mobilenet_v2_mnasfpn")
    pyramid = architecture.feature_pyramid.mnasfpn
    pyramid.repeats, pyramid.size_dependent_ordering = repeats, size_dependent_ordering
    return architecture


def separable_nas_fpn(repeats: int, channels: int) -> architecture_pb2.Architecture:
    architecture = config.load_architecture("mobilenet_v2_nas_fpn_3_256")
    pyramid = architecture.feature_pyramid.nas_fpn
    pyramid.repeats, pyramid.channels, pyramid.separable = repeats, channels, True
    fpnlite = config.load_architecture("mobilenet_v2_fpnlite_64")
    # The predictor of the base takes most of the time, and would hide the pyramid.
    architecture.box_predictor.CopyFrom(fpnlite.box_predictor)
    architecture.box_predictor.weight_shared_convolutional_box_predictor.depth = channels
    return architecture


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        graphs, costs = {}, {}
        # By number: names of networks have blanks and commas.
        for number, (name, architecture) in enumerate(networks().items()):
            logging.info("converting %s", name)
            graphs[name] = Path(folder) / f"{number}.tflite"
            costs[name] = convert(architecture, graphs[name])
        rounds = measure(graphs)
    results = {
        name: cost | latency([turn[name] for turn in rounds], [turn[REFERENCE] for turn in rounds])
        for name, cost in costs.items()
    }
    saved = {
        f"{repeats} repeats": saving(rounds, name)
        for repeats, name in ((4, REFERENCE), (5, f"{REFERENCE} x5"))
    }
    if FLAGS.format == "json":
        command.print_json(
            {
                "networks": results,
                "size_dependent_ordering_saves": saved,
                "rounds": FLAGS.rounds,
                "num_runs": FLAGS.num_runs,
                "provenance": host.provenance(
                    DeviceSpec(
                        options=Options(num_threads=FLAGS.num_threads, taskset=FLAGS.taskset)
                    )
                ),
            }
        )
    else:
        print_table(results, saved)


def convert(architecture: architecture_pb2.Architecture, path: Path) -> dict[str, Any]:
    """Writes the network's TFLite graph; returns its weights and multiply-adds."""
    from mnasdet.networks.keras_builder import keras_model
    from mnasdet.tflite.convert import convert

    network = detection_network(architecture, IMAGE_SIZE, NUM_CLASSES)
    path.write_bytes(convert(keras_model(dict(network.predictions))))
    total = cost_sheet(network.deployed).total
    return {"params": total.params, "multiply_adds": total.multiply_adds}


def measure(graphs: dict[str, Path]) -> list[dict[str, float]]:
    """Returns the median ms of every network's turn, round by round."""
    rounds: list[dict[str, float]] = []
    with host.Worker(FLAGS.taskset) as worker:
        while len(rounds) < FLAGS.rounds:
            logging.info("round %d of %d", len(rounds) + 1, FLAGS.rounds)
            rounds.append({})
            for name, graph in graphs.items():
                result = worker.run(
                    graph,
                    num_threads=FLAGS.num_threads,
                    num_runs=FLAGS.num_runs,
                    warmup_runs=WARMUP_RUNS,
                    timeout_seconds=TIMEOUT_SECONDS,
                )
                rounds[-1][name] = float(np.median(result["runs_ms"]))
    return rounds


def latency(turns: Sequence[float], references: Sequence[float]) -> dict[str, float]:
    """Returns the median over the rounds, its spread, and the ratio to the reference."""
    lower, median, upper = np.percentile(turns, [25, 50, 75])
    # Within a round first: what slows the machine down for a while cancels out.
    ratio = np.median(np.divide(turns, references))
    return {"median_ms": median, "iqr_ms": upper - lower, "ratio": float(ratio)}


def saving(rounds: Sequence[dict[str, float]], name: str) -> dict[str, float]:
    """Returns the share of the latency that size-dependent ordering saves."""
    shares = [1 - turn[name] / turn[WITHOUT_ORDERING.format(name)] for turn in rounds]
    lower, median, upper = np.percentile(shares, [25, 50, 75])
    return {"median": median, "iqr": upper - lower}


def print_table(results: dict[str, dict[str, Any]], saved: dict[str, dict[str, float]]) -> None:
    print(f"{'':<40} {'params':>10} {'multiply-adds':>14} {'ms':>7} {'IQR':>6} {'ratio':>6}")
    for name, result in results.items():
        print(
            f"{name:<40} {result['params']:>10,} {result['multiply_adds']:>14,} "
            f"{result['median_ms']:>7.2f} {result['iqr_ms']:>6.2f} {result['ratio']:>6.3f}"
        )
    for repeats, share in saved.items():
        print(
            f"size-dependent ordering saves {share['median']:.1%} (IQR {share['iqr']:.1%}) with "
            f"{repeats}"
        )


if __name__ == "__main__":
    command.run(main)
