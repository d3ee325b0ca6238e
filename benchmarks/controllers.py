"""The controllers side by side: what each has found after so many samples.

Two tasks without any training while they are compared:

- surrogate: the MnasFPN space at 320x320 with a made-up accuracy (see surrogate.py), noise of
  0.004 mAP on every sample, and latencies of data/latency_table.textproto, the layers of that
  space measured on one machine. 1.9e32 architectures.
- trained: every architecture of the small space of digits_children.config, really trained
  (data/digits_children.csv.xz), so that a sample is a look-up. 512 architectures, repetitions free.

A search sees noisy accuracies, in the order and with the delay of our search loop (8 trials
pending). What counts is the truth: the reward without noise of the architecture that it would hand
over, the one with the best reward it saw; and the hypervolume under the true frontier of all its
samples, down to mAP 0 and out to the slowest of the reference points, as a share of the box.

  python benchmarks/controllers.py --seeds=20
  python benchmarks/controllers.py --task=trained --controllers=random,ppo --format=json
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import functools
import lzma
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from google.protobuf import text_format

from benchmarks.surrogate import Surrogate
from mnasdet import config
from mnasdet.detectors.network import detection_network
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import search_pb2
from mnasdet.scripts import command
from mnasdet.search import pareto, reward
from mnasdet.search.controllers import factory
from mnasdet.search.controllers.controller import Result
from mnasdet.search_spaces import factory as search_spaces
from mnasdet.tflite.latency_table import LatencyTable

FLAGS = flags.FLAGS

CONTROLLERS = {
    "random": "random {}",
    "ppo": "ppo { batch_size: 10 learning_rate: 0.003 }",
    "regularized_evolution": "regularized_evolution { population_size: 50 tournament_size: 15 }",
    "nsga2": "nsga2 { population_size: 50 }",
    "local_search": "local_search {}",
    "optuna": "optuna {}",
}
TASKS = ("surrogate", "trained")

command.define_format_flag()
flags.DEFINE_list("task", list(TASKS), "surrogate, trained, or both.")
flags.DEFINE_list("controllers", list(CONTROLLERS), "Which of them.")
flags.DEFINE_list("samples", ["50", "100", "200", "500", "2000"], "When to look at each search.")
flags.DEFINE_integer("seeds", 20, "Searches of each controller.", lower_bound=2)
flags.DEFINE_integer("processes", 2, "Searches at once.", lower_bound=1)

DATA = Path(__file__).parent / "data"
CHILDREN_CONFIG = Path(__file__).parent / "digits_children.config"
ACCURACY = "DetectionBoxes_Precision/mAP"
MAX_PENDING = 8
NOISE = 0.004

# Both from the trials of a long random search, so that nobody's own results set the scale.
SLOWEST_MS = {"surrogate": 60.0, "trained": None}


class SurrogateTask:
    """Accuracy and latency of any architecture of the MnasFPN space."""

    def __init__(self) -> None:
        base = config.load_architecture("mobilenet_v2_mnasfpn")
        self.space = search_spaces.from_config(search_pb2.SearchSpaceConfig(mnasfpn={}), base)
        self._surrogate = Surrogate(self.space)
        self._table = LatencyTable.load(DATA / "latency_table.textproto")
        self.reward = reward.mnasfpn
        self.slowest_ms = 60.0

    def truth(self, tokens) -> tuple[float, float]:
        """(mAP, latency in ms) without noise."""
        architecture = self.space.decode(tokens)
        sheet = cost_sheet(detection_network(architecture, (320, 320), 90).outputs)
        mean_ap = self._surrogate.mean_ap(tokens, architecture, sheet)
        return mean_ap, self._table.latency_ms(sheet)

    def observe(self, mean_ap: float, rng: np.random.Generator) -> float:
        return mean_ap + NOISE * rng.standard_normal()


class TrainedTask:
    """The small space, every architecture of which was trained."""

    def __init__(self) -> None:
        with lzma.open(DATA / "digits_children.csv.xz", "rt") as file:
            rows = list(csv.DictReader(file))
        by_tokens = {tuple(map(int, row["tokens"].split())): row for row in rows}
        self._truth = {
            tokens: (float(row[ACCURACY]), float(row["latency_ms"]))
            for tokens, row in by_tokens.items()
        }
        pipeline = config.load(CHILDREN_CONFIG)
        self.space = search_spaces.from_config(
            pipeline.search_config.search_space, config.architecture(pipeline)
        )
        self.reward = reward.from_config(pipeline.search_config.reward)
        self.slowest_ms = max(ms for _, ms in self._truth.values())

    def truth(self, tokens) -> tuple[float, float]:
        return self._truth[tokens]

    def observe(self, mean_ap: float, rng: np.random.Generator) -> float:
        """As it was trained: one child has one result, as in our searches."""
        return mean_ap


@functools.lru_cache(maxsize=None)
def make_task(name: str) -> SurrogateTask | TrainedTask:
    return {"surrogate": SurrogateTask, "trained": TrainedTask}[name]()


@dataclasses.dataclass
class Run:
    """One search: true reward of its pick and hypervolume at each look, and its own seconds."""

    rewards: list[float]
    hypervolumes: list[float]
    seconds: float


def search(arguments: tuple[str, str, int, list[int]]) -> Run:
    """One search of a controller."""
    task_name, controller_name, seed, samples = arguments
    task = make_task(task_name)
    settings = text_format.Parse(CONTROLLERS[controller_name], search_pb2.ControllerConfig())
    controller = factory.from_config(settings, task.space, seed)
    rng = np.random.default_rng((seed, 1))
    pending = collections.deque(controller.propose(MAX_PENDING))
    truths: list[tuple[float, float]] = []
    best_seen, best_true = -np.inf, 0.0
    run, seconds = Run([], [], 0.0), 0.0
    for number in range(1, max(samples) + 1):
        tokens = pending.popleft()
        mean_ap, latency_ms = task.truth(tokens)
        truths.append((mean_ap, latency_ms))
        seen = task.observe(mean_ap, rng)
        seen_reward = task.reward(seen, latency_ms)
        if seen_reward > best_seen:
            best_seen, best_true = seen_reward, task.reward(mean_ap, latency_ms)
        start = time.perf_counter()
        controller.feedback([Result(tokens, seen_reward, (seen, -latency_ms))])
        pending += controller.propose(1)
        seconds += time.perf_counter() - start
        if number in samples:
            run.rewards.append(best_true)
            box = 0.4 * task.slowest_ms
            run.hypervolumes.append(pareto.hypervolume(truths, (0.0, task.slowest_ms)) / box)
    return dataclasses.replace(run, seconds=seconds)


def interval(values: np.ndarray) -> dict[str, float]:
    """The median over the seeds and its 90 % interval, by bootstrap."""
    rng = np.random.default_rng(0)
    resampled = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.percentile(resampled, [5, 95])
    return {"median": float(np.median(values)), "low": float(low), "high": float(high)}


def compare(task: str, samples: list[int]) -> dict[str, Any]:
    """Of every controller: reward and hypervolume at every look, and the time it takes itself."""
    jobs = [
        (task, name, seed, samples) for name in FLAGS.controllers for seed in range(FLAGS.seeds)
    ]
    context = multiprocessing.get_context("spawn")
    with context.Pool(FLAGS.processes) as pool:
        runs = pool.map(search, jobs, chunksize=1)
    results = {}
    for name in FLAGS.controllers:
        own = [run for job, run in zip(jobs, runs, strict=True) if job[1] == name]
        results[name] = {
            "reward": {
                n: interval(np.array([r.rewards[i] for r in own])) for i, n in enumerate(samples)
            },
            "hypervolume": {
                n: interval(np.array([r.hypervolumes[i] for r in own]))
                for i, n in enumerate(samples)
            },
            "milliseconds_per_trial": 1e3
            * float(np.median([r.seconds for r in own]))
            / max(samples),
        }
    return results


def main() -> None:
    samples = sorted(map(int, FLAGS.samples))
    results = {task: compare(task, samples) for task in FLAGS.task}
    if FLAGS.format == "json":
        command.print_json({"seeds": FLAGS.seeds, "tasks": results})
        return
    for task, controllers in results.items():
        for figure in ("reward", "hypervolume"):
            print(f"\n{task}: {figure}, median of {FLAGS.seeds} seeds (90 % interval)")
            print(f"{'':<22}" + "".join(f"{n:>24}" for n in samples))
            for name, result in controllers.items():
                cells = "".join(
                    f"{r['median']:>8.4f} ({r['low']:.4f}-{r['high']:.4f})"
                    for r in result[figure].values()
                )
                print(f"{name:<22}{cells}")
        for name, result in controllers.items():
            print(f"{name:<22}{result['milliseconds_per_trial']:.2f} ms a trial of its own")


if __name__ == "__main__":
    command.run(main)
