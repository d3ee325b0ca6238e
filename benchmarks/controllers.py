"""The controllers side by side: what each has found after some numbers of samples.

Two tasks without any training while they are compared:

- surrogate: the MnasFPN space at 320x320, 1.9e32 architectures, with a made-up accuracy
  (surrogate.py) that is observed with noise, and latencies of data/latency_table.textproto: the
  layers of that space, measured once on one machine.
- trained: the 324 architectures of digits_children.config, every one of them really trained
  (data/digits_children.csv.xz): a sample is a look-up.

Samples come as in our search loop, 8 of them pending. What counts is the truth: the reward, without
noise, of the architecture that a search would hand over, which is the one with the best reward it
saw; and the hypervolume under the frontier of its samples, given as the mean over all latency
budgets, from 0 to the task's slowest, of the best mAP within the budget.

  python benchmarks/controllers.py
  python benchmarks/controllers.py --tasks=trained --controllers=random,ppo --format=json
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import lzma
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from google.protobuf import text_format
from surrogate import Surrogate
from tqdm import tqdm

from mnasdet import config
from mnasdet.detectors.network import detection_network
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import search_pb2
from mnasdet.scripts import command
from mnasdet.search import reward
from mnasdet.search.controllers import factory
from mnasdet.search.controllers.controller import Result
from mnasdet.search.frontier import pareto
from mnasdet.search_spaces import factory as search_spaces
from mnasdet.search_spaces.space import SearchSpace, Tokens
from mnasdet.tflite.latency.latency_table import LatencyTable

FLAGS = flags.FLAGS

CONTROLLERS = ("random", "ppo", "regularized_evolution", "nsga2", "local_search", "optuna")
MAX_PENDING = 8

HERE = Path(__file__).parent

command.define_format_flag()
flags.DEFINE_list("tasks", ["surrogate", "trained"], "One or both.")
flags.DEFINE_list(
    "controllers",
    list(CONTROLLERS),
    "Names, or ControllerConfig messages as text: 'ppo { batch_size: 10 }'.",
)
flags.DEFINE_list("samples", ["50", "100", "200", "500", "2000"], "When to look at each search.")
flags.DEFINE_integer("seeds", 20, "Searches of each controller.", lower_bound=2)
flags.DEFINE_integer("processes", 2, "Searches at once.", lower_bound=1)


@dataclasses.dataclass
class Task:
    """The task of a search.

    Attributes:
      truth: accuracy and latency in ms of an architecture, without noise.
      noise: standard deviation of an observed accuracy.
      slowest_ms: the largest latency budget of the hypervolume.
    """

    space: SearchSpace
    truth: Callable[[Tokens], tuple[float, float]]
    noise: float
    slowest_ms: float


@functools.cache
def surrogate_task() -> Task:
    base = config.load_architecture("mobilenet_v2_mnasfpn")
    space = search_spaces.from_config(search_pb2.SearchSpaceConfig(mnasfpn={}), base)
    surrogate = Surrogate(space)
    table = LatencyTable.load(HERE / "data" / "latency_table.textproto")

    def truth(tokens: Tokens) -> tuple[float, float]:
        architecture = space.decode(tokens)
        sheet = cost_sheet(detection_network(architecture, (320, 320), 90).deployed.outputs)
        return surrogate.accuracy(tokens, architecture, sheet), table.latency_ms(sheet)

    return Task(space, truth, noise=0.004, slowest_ms=60.0)


@functools.cache
def trained_task() -> Task:
    with lzma.open(HERE / "data" / "digits_children.csv.xz", "rt") as file:
        rows = list(csv.DictReader(file))
    results = {
        tuple(map(int, row["tokens"].split())): (
            float(row["accuracy"]),
            float(row["cost"]),
        )
        for row in rows
    }
    pipeline = config.load(HERE / "digits_children.config", readers=())
    space = search_spaces.from_config(
        pipeline.search_config.search_space, config.resolve(pipeline).architecture
    )
    # One child has one result, as in our searches.
    slowest_ms = max(latency_ms for _, latency_ms in results.values())
    return Task(space, results.__getitem__, noise=0.0, slowest_ms=slowest_ms)


TASKS = {"surrogate": surrogate_task, "trained": trained_task}


@dataclasses.dataclass
class Run:
    """One search: what it has found at every look, and the seconds its controller took."""

    rewards: list[float]
    hypervolumes: list[float]
    seconds: float


def search(job: tuple[str, str, int], looks: Sequence[int]) -> Run:
    """Searches a task by a controller with a seed."""
    task_name, controller_name, seed = job
    task = TASKS[task_name]()
    settings = controller_name if "{" in controller_name else f"{controller_name} {{}}"
    controller = factory.from_config(
        text_format.Parse(settings, search_pb2.ControllerConfig()), task.space, seed
    )
    # The controller has the plain seed: its proposals must not depend on the noise.
    rng = np.random.default_rng((seed, 1))
    pending = deque(controller.propose(MAX_PENDING))
    truths: list[tuple[float, float]] = []
    best_seen, best_true = -np.inf, 0.0
    run = Run([], [], 0.0)
    for number in range(1, max(looks) + 1):
        tokens = pending.popleft()
        accuracy, latency_ms = task.truth(tokens)
        truths.append((accuracy, latency_ms))
        seen = accuracy + task.noise * rng.standard_normal()
        seen_reward = reward.mnasfpn(seen, latency_ms)
        if seen_reward > best_seen:
            # Chosen by what was observed, judged by the truth: luck with the noise does not pay.
            best_seen, best_true = seen_reward, reward.mnasfpn(accuracy, latency_ms)
        # The controller's work alone: looking up an accuracy is no cost of it.
        start = time.perf_counter()
        controller.feedback([Result(tokens, seen_reward, (seen, -latency_ms))])
        pending += controller.propose(1)
        run.seconds += time.perf_counter() - start
        if number in looks:
            run.rewards.append(best_true)
            volume = pareto.hypervolume(truths, (0.0, task.slowest_ms))
            run.hypervolumes.append(volume / task.slowest_ms)
    return run


def interval(values: Sequence[float]) -> dict[str, float]:
    """Returns the median and its 90 % interval, by bootstrap over the seeds."""
    resampled = np.random.default_rng(0).choice(values, (2000, len(values)))
    low, high = np.percentile(np.median(resampled, axis=1), [5, 95])
    return {"median": float(np.median(values)), "low": float(low), "high": float(high)}


def summary(runs: Sequence[Run], looks: Sequence[int]) -> dict[str, Any]:
    """Sums up one controller's searches."""
    return {
        "reward": {n: interval([run.rewards[i] for run in runs]) for i, n in enumerate(looks)},
        "hypervolume": {
            n: interval([run.hypervolumes[i] for run in runs]) for i, n in enumerate(looks)
        },
        "milliseconds_a_sample": 1e3 * float(np.median([run.seconds for run in runs])) / looks[-1],
    }


def compare(looks: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Returns the results by task and controller."""
    jobs = list(itertools.product(FLAGS.tasks, FLAGS.controllers, range(FLAGS.seeds)))
    with multiprocessing.get_context("spawn").Pool(FLAGS.processes) as pool:
        searches = pool.imap(functools.partial(search, looks=looks), jobs)
        runs = dict(
            zip(jobs, tqdm(searches, total=len(jobs), desc="searching", unit="search"), strict=True)
        )
    return {
        task: {
            controller: summary([runs[task, controller, i] for i in range(FLAGS.seeds)], looks)
            for controller in FLAGS.controllers
        }
        for task in FLAGS.tasks
    }


def print_table(task: str, figure: str, controllers: dict[str, Any], looks: Sequence[int]) -> None:
    print(f"\n{task}: {figure}, median of {FLAGS.seeds} seeds (its 90 % interval)")
    print(f"{'':<22}" + "".join(f"{n:>24}" for n in looks))
    for name, result in controllers.items():
        cells = "".join(
            f"{r['median']:>8.4f} ({r['low']:.4f}-{r['high']:.4f})" for r in result[figure].values()
        )
        print(f"{name:<22}{cells}")


def main() -> None:
    looks = sorted(map(int, FLAGS.samples))
    results = compare(looks)
    if FLAGS.format == "json":
        command.print_json({"seeds": FLAGS.seeds, "tasks": results})
        return
    for task, controllers in results.items():
        for figure in ("reward", "hypervolume"):
            print_table(task, figure, controllers, looks)
        for name, result in controllers.items():
            print(f"{name:<22}{result['milliseconds_a_sample']:.2f} ms a sample of its own")


if __name__ == "__main__":
    command.run(main)
