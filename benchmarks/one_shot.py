"""Measures how well a supernet's weights rank networks, and what a search by it costs.

Children of mnasfpn_children.config were each trained by themselves (data/mnasfpn_children.csv.xz).
Here a supernet of their space is trained (one_shot.config), and judges them without any training.

- rank: Kendall's tau-b of both accuracies, with a 90 % interval by bootstrap over the children.
  Beside it what needs no supernet, the order by multiply-adds and by parameters, and the ceiling:
  some children are trained once more with another seed, and their two accuracies are compared.
- frontier: NSGA-II searches with the supernet. Members of its frontier, of those of all children
  and of the first ones, trained in the same seconds, and random children are trained anew, with
  seeds that chose none of them. Their hypervolume is the best mAP within a budget of multiply-adds,
  in the mean over all budgets up to the dearest child.
- seconds: of both ways to a frontier, up to where it is known; what both share, the pretraining, is
  left out. The children's are estimated by those of them that are trained once more here, and
  divided by the processes that train them.
- start: the supernet's frontier is trained from the shared weights and from the pretrained ones.

The supernet and the search are kept in --model_dir; a second run goes on from there.

  python benchmarks/one_shot.py --model_dir=runs/one_shot
  python benchmarks/one_shot.py --model_dir=runs/one_shot --format=json
"""

from __future__ import annotations

import csv
import lzma
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from google.protobuf import text_format
from tqdm import tqdm
from trained_alone import SEED, Accuracies, Trainer, accuracy

from mnasdet import config, files
from mnasdet.architectures import from_trial
from mnasdet.protos import pipeline_pb2
from mnasdet.scripts import command
from mnasdet.search import child, latency, one_shot, results, reward
from mnasdet.search.child import ChildTask
from mnasdet.search.controllers import factory as controllers
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.frontier import pareto
from mnasdet.search.proxy import proxy_task
from mnasdet.search.search import Search
from mnasdet.search.stages import picked
from mnasdet.search.training_queue import num_workers
from mnasdet.search.trials.trial import Trial, TrialState
from mnasdet.search.trials.trial_store import TrialStore
from mnasdet.search_spaces import factory as search_spaces
from mnasdet.search_spaces.space import SearchSpace
from mnasdet.training import runtime

FLAGS = flags.FLAGS

HERE = Path(__file__).parent

command.define_format_flag()
command.define_required("model_dir", "Folder of the supernet and the search; made if missing.")
flags.DEFINE_string("table", str(HERE / "data" / "mnasfpn_children.csv.xz"), "Trained children.")
flags.DEFINE_string("config", str(HERE / "one_shot.config"), "The search by the supernet.")
flags.DEFINE_integer("ceiling", 24, "Children that are trained once more.", lower_bound=1)
flags.DEFINE_integer("members", 6, "Of each frontier that are trained anew.", lower_bound=0)


def load_children(space: SearchSpace) -> list[Trial]:
    """Returns the trained children of the table; of several that are one network, the first."""
    with lzma.open(FLAGS.table, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "complete"]
    trials = []
    for row in rows:
        if row["duplicate_of"]:
            continue
        tokens = tuple(map(int, row["tokens"].split()))
        metrics = {name: float(row[f"metrics.{name}"]) for name in ("params", "multiply_adds")}
        trials.append(
            Trial(
                int(row["number"]),
                tokens,
                text_format.MessageToString(space.decode(tokens)),
                row["key"],
                int(row["seed"]),
                TrialState.COMPLETE,
                metrics=metrics,
                accuracy=float(row["accuracy"]),
                cost=float(row["cost"]),
            )
        )
    return trials


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Kendall's tau-b; 0 where one of the two is the same for all."""
    upper = np.triu_indices(len(a), 1)
    signs = [np.sign(values[:, None] - values[None])[upper] for values in (a, b)]
    pairs = np.sqrt(np.prod([np.abs(sign).sum() for sign in signs]))
    return float((signs[0] * signs[1]).sum() / pairs) if pairs else 0.0


def interval(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Returns tau-b and its 90 % interval, by bootstrap over the children.

    A child that is drawn twice makes no pair with itself: that is a tie in both.
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    draws = np.random.default_rng(0).integers(0, len(first), (2000, len(first)))
    taus = [kendall(first[drawn], second[drawn]) for drawn in draws]
    low, high = np.percentile(taus, [5, 95])
    return {"tau": kendall(first, second), "low": float(low), "high": float(high)}


def hypervolume(accuracies: Sequence[float], costs: Sequence[float], dearest: float) -> float:
    """Returns the mean of the best accuracy within a budget, over all budgets up to `dearest`."""
    return pareto.hypervolume(list(zip(accuracies, costs, strict=True)), (0.0, dearest)) / dearest


def some(number: int, count: int) -> list[int]:
    """Returns `count` of the numbers below `number`, drawn at random; all where it is less."""
    drawn = np.random.default_rng(SEED).choice(number, min(number, count), replace=False)
    return sorted(drawn.tolist())


def millions(trials: Sequence[Trial]) -> list[float]:
    """Returns the multiply-adds of the trials' networks, in millions."""
    return [trial.metrics["multiply_adds"] / 1e6 for trial in trials]


def search_by_supernet(
    children: pipeline_pb2.TrainEvalPipelineConfig, space: SearchSpace, folder: Path
) -> list[Trial]:
    """Searches with the shared weights, or goes on doing so, and returns the finished trials."""
    settings = children.search_config
    with closing(TrialStore(folder / results.TRIALS_FILE)) as store, store.claimed():
        return Search(
            pipeline=children,
            store=store,
            space=space,
            controller=controllers.from_config(settings.controller, space, settings.seed),
            reward=reward.from_config(settings.reward),
            latency=latency.from_config(settings.latency),
            executor=ThisProcess(child.run_safely),
            max_pending=settings.max_pending_trials,
        ).run(settings.num_trials)


def ranks(
    table: Sequence[Trial], judged: Accuracies, again: Accuracies, places: Sequence[int]
) -> dict[str, Any]:
    """Returns the rank correlations with the children's accuracies.

    Args:
      judged: accuracies with the supernet's weights.
      again: those of a second training of the children at `places`.
    """
    own = [trial.accuracy or 0.0 for trial in table]
    found = {"supernet": interval(judged, own)}
    for name in ("multiply_adds", "params"):
        found[name] = interval([trial.metrics[name] for trial in table], own)
    found["second training"] = interval(again, [own[place] for place in places])
    found["supernet, the same children"] = interval(
        [judged[place] for place in places], [own[place] for place in places]
    )
    return found


def run_all() -> dict[str, Any]:
    runtime.use_threads()
    pipeline = config.load(FLAGS.config)
    base = config.resolve(pipeline).architecture
    space = search_spaces.from_config(pipeline.search_config.search_space, base)
    table = load_children(space)
    folder = Path(FLAGS.model_dir)
    with files.locked(folder):
        return compare(pipeline, space, table, folder)


def compare(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    space: SearchSpace,
    table: Sequence[Trial],
    folder: Path,
) -> dict[str, Any]:
    """Trains the supernet and returns all figures."""
    children = proxy_task.prepare(pipeline, folder / "pretrained")
    training = files.read_json(folder / "supernet" / "metrics.json", "metrics file")
    trainer = Trainer(children)

    # First of all, so that loading the supernet is among its seconds.
    trials = search_by_supernet(children, space, folder)
    judged = [
        accuracy(child.run_safely(ChildTask(children.SerializeToString(), trial.architecture, 0)))
        for trial in tqdm(table, desc="judging", unit="child")
    ]
    places = some(len(table), FLAGS.ceiling)
    again = trainer.trained([table[place].architecture for place in places], "training once more")
    workers = num_workers(children.search_config.executor)
    a_child = np.mean([outcome.seconds for outcome in again]) / workers
    seconds = {
        "supernet": training["train_seconds"],
        "search": sum(trial.seconds or 0.0 for trial in trials),
        "children": len(table) * float(a_child),
    }
    own = seconds["supernet"] + seconds["search"]
    seconds["share"] = own / seconds["children"]
    return {
        "children": len(table),
        "trials": len(trials),
        "rank": ranks(table, judged, [*map(accuracy, again)], places),
        "seconds": seconds,
        "frontiers": frontiers(children, trainer, table, trials, seconds["share"], folder),
    }


def frontiers(
    children: pipeline_pb2.TrainEvalPipelineConfig,
    trainer: Trainer,
    table: Sequence[Trial],
    trials: Sequence[Trial],
    share: float,
    folder: Path,
) -> dict[str, Any]:
    """Returns the hypervolumes of frontiers whose members were trained anew.

    Args:
      share: of the seconds of the children that the search by the supernet took.
      folder: gets the parts of the shared weights that members start from.
    """
    count = FLAGS.members
    affordable = table[: max(1, round(share * len(table)))]
    chosen = {
        "supernet": picked(results.frontier(trials), count),
        "all trained children": picked(results.frontier(table), count),
        "children of the same seconds": picked(results.frontier(affordable), count),
        "random children": [table[place] for place in some(len(table), count)],
    }
    dearest = max(millions(table))

    def summary(members: Sequence[Trial], accuracies: Accuracies) -> dict[str, Any]:
        costs = millions(members)
        return {
            "hypervolume": hypervolume(accuracies, costs, dearest),
            "accuracies": accuracies,
            "millions_of_multiply_adds": costs,
        }

    found = {
        name: summary(members, trainer.accuracies([t.architecture for t in members], name))
        for name, members in chosen.items()
    }

    def part(place: int, text: str) -> Path:
        start = folder / "starts" / str(place)
        one_shot.save_part(children, from_trial(text), start)
        return start

    members = chosen["supernet"]
    name = "supernet, from shared weights"
    found[name] = summary(
        members, trainer.accuracies([t.architecture for t in members], name, start=part)
    )
    return found


def print_text(result: dict[str, Any]) -> None:
    print(f"{result['children']} children, each trained by itself; Kendall's tau-b with their mAP")
    print("(its 90 % interval):")
    for name, rank in result["rank"].items():
        print(f"  {name:<30}{rank['tau']:>6.2f} ({rank['low']:.2f} to {rank['high']:.2f})")
    seconds = result["seconds"]
    print("\nseconds to a frontier:")
    print(f"  {'training the supernet':<30}{seconds['supernet']:>8.0f}")
    print(
        f"  {'judging ' + str(result['trials']) + ' trials with it':<30}{seconds['search']:>8.0f}"
    )
    print(f"  {'training all children':<30}{seconds['children']:>8.0f}")
    print(f"  the supernet's way takes {seconds['share']:.0%} of the children's")
    print("\nfrontiers, their members trained anew: hypervolume, and mAP at M multiply-adds")
    for name, found in result["frontiers"].items():
        pairs = zip(found["accuracies"], found["millions_of_multiply_adds"], strict=True)
        shown = "  ".join(f"{accuracy:.3f} at {cost:.2f}" for accuracy, cost in pairs)
        print(f"  {name:<30}{found['hypervolume']:>8.4f}   {shown}")


def main() -> None:
    result = run_all()
    if FLAGS.format == "json":
        command.print_json(result)
        return
    print_text(result)


if __name__ == "__main__":
    command.run(main)
