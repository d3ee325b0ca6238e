"""Measures how many evaluations partial-order pruning saves until the full search's front is found.

The task is a table of really trained children (data/base_code_children.csv.xz, made by
base_code_children.config): every backbone of a small space of SM-NAS's base codes, each a
classifier of digits. An evaluation is a look-up of a child that was not looked up before. Samples
come as in our search loop, 8 of them pending.

The full search is the same evolution with a trust of 0: it prunes nothing, and ends when it has
seen the whole table. Its front is what is to be found. For every seed both searches are compared by
the hypervolume under their fronts, out to the dearest child: after how many evaluations each has
first reached some share of the full search's, and how much of the table each has evaluated in the
end.

Before that it prints how often the children violate what pruning assumes.

  python benchmarks/partial_order.py
  python benchmarks/partial_order.py --trusts=1,0.9,0.7 --seeds=50 --format=json
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import lzma
import multiprocessing
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from mnasdet import config
from mnasdet.scripts import command
from mnasdet.search import order
from mnasdet.search.controllers.controller import Result
from mnasdet.search.controllers.partial_order import PartialOrder
from mnasdet.search.frontier import pareto
from mnasdet.search.trials.trial import Trial, TrialState
from mnasdet.search_spaces import factory as search_spaces
from mnasdet.search_spaces.space import SearchSpace, Tokens

FLAGS = flags.FLAGS

MAX_PENDING = 8

# Shares of the full search's hypervolume that a search has to reach.
SHARES = (0.99, 0.999, 1.0)

# Proposals in a row that are known already: the search has nothing left that it would try.
MOST_REPEATED = 20

HERE = Path(__file__).parent

command.define_format_flag()
flags.DEFINE_string("table", str(HERE / "data" / "base_code_children.csv.xz"), "Trained children.")
flags.DEFINE_string("config", str(HERE / "base_code_children.config"), "Their search.")
flags.DEFINE_list("trusts", ["1", "0.9"], "Shares of pruned candidates that stay pruned.")
flags.DEFINE_integer("witnesses", 2, "num_witnesses of the searches that prune.", lower_bound=1)
flags.DEFINE_bool("costs", True, "Whether costs are known before a training, as multiply-adds are.")
flags.DEFINE_integer("seeds", 20, "Searches of each kind.", lower_bound=2)
flags.DEFINE_integer("processes", 2, "Searches at once.", lower_bound=1)


@dataclasses.dataclass
class Task:
    """The table as a task: (accuracy, cost) of all children of a space."""

    space: SearchSpace
    children: dict[Tokens, tuple[float, float]]

    @property
    def dearest(self) -> float:
        return max(cost for _, cost in self.children.values())


@dataclasses.dataclass
class Run:
    """One search.

    Attributes:
      hypervolumes: after each evaluation.
      found: the members of its front.
    """

    hypervolumes: list[float]
    found: set[Tokens]

    @property
    def num_evaluated(self) -> int:
        return len(self.hypervolumes)


@functools.cache
def load(table: str, config_path: str) -> Task:
    """Returns the table. Of children that are one network, each has the result of the first."""
    with lzma.open(table, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "complete"]
    children = {
        tuple(map(int, row["tokens"].split())): (float(row["accuracy"]), float(row["cost"]))
        for row in rows
    }
    pipeline = config.load(config_path, readers=())
    space = search_spaces.from_config(
        pipeline.search_config.search_space, config.resolve(pipeline).architecture
    )
    # The same pairs are compared again and again.
    space.precedes = functools.cache(space.precedes)  # type: ignore[method-assign]
    return Task(space, children)


def search(
    job: tuple[float, int], table: str, config_path: str, costs: bool, witnesses: int
) -> Run:
    """Searches with a trust and a seed until the controller has nothing new to propose."""
    trust, seed = job
    task = load(table, config_path)
    controller = PartialOrder(
        task.space,
        seed=seed,
        trust=trust,
        num_witnesses=witnesses,
        cost=(lambda tokens: task.children[tokens][1]) if costs else None,
    )
    pending = deque(controller.propose(MAX_PENDING))
    front: list[tuple[float, float]] = []
    seen: dict[Tokens, tuple[float, float]] = {}
    hypervolumes: list[float] = []
    repeated = 0
    while repeated < MOST_REPEATED:
        tokens = pending.popleft()
        accuracy, cost = task.children[tokens]
        repeated = repeated + 1 if tokens in seen else 0
        if tokens not in seen:
            seen[tokens] = accuracy, cost
            front.append((accuracy, cost))
            front = [front[place] for place in pareto.frontier(front)]
            hypervolumes.append(pareto.hypervolume(front, (0.0, task.dearest)))
        controller.feedback([Result(tokens, accuracy, (accuracy, -cost))])
        pending += controller.propose(1)
    known = list(seen)
    members = pareto.frontier(list(seen.values()))
    return Run(hypervolumes, {known[place] for place in members})


def evaluations(run: Run, hypervolume: float) -> float:
    """Returns after how many evaluations a search had that much; infinite if it never had."""
    reached = (n for n, value in enumerate(run.hypervolumes, start=1) if value >= hypervolume)
    return next(reached, float("inf"))


def interval(values: Sequence[float]) -> dict[str, float]:
    """Returns the median and its 90 % interval, by bootstrap over the seeds."""
    resampled = np.random.default_rng(0).choice(values, (2000, len(values)))
    low, high = np.percentile(np.median(resampled, axis=1), [5, 95], method="nearest")
    return {"median": float(np.median(values)), "low": float(low), "high": float(high)}


def compare(pruned: Sequence[Run], full: Sequence[Run]) -> dict[str, Any]:
    """Returns what pruning saved, seed by seed."""
    shares: dict[str, Any] = {}
    for share in SHARES:
        # Sums in another order differ in the last digit.
        wanted = [share * run.hypervolumes[-1] * (1 - 1e-12) for run in full]
        ours, theirs = (
            [evaluations(run, value) for run, value in zip(runs, wanted, strict=True)]
            for runs in (pruned, full)
        )
        reached = [pair for pair in zip(ours, theirs, strict=True) if pair[0] < float("inf")]
        shares[str(share)] = {
            "reached_by": len(reached),
            **(
                {
                    "evaluations": interval([one for one, _ in reached]),
                    "full_search": interval([other for _, other in reached]),
                    "saved": interval([1 - one / other for one, other in reached]),
                }
                if reached
                else {}
            ),
        }
    both = list(zip(pruned, full, strict=True))
    return {
        "evaluated": interval([run.num_evaluated for run in pruned]),
        "evaluated_by_full_search": interval([run.num_evaluated for run in full]),
        "saved": interval([1 - one.num_evaluated / other.num_evaluated for one, other in both]),
        "hypervolume": interval([one.hypervolumes[-1] / o.hypervolumes[-1] for one, o in both]),
        "front_found": interval([len(one.found & o.found) / len(o.found) for one, o in both]),
        "shares": shares,
    }


def violations(task: Task) -> order.Violations:
    """Returns how often the children of the whole table violate what pruning assumes."""
    trials = [
        Trial(n, tokens, "", "", 0, TrialState.COMPLETE, accuracy=accuracy, cost=cost)
        for n, (tokens, (accuracy, cost)) in enumerate(task.children.items())
    ]
    found = order.violations(task.space, trials)
    assert found
    return found


def run_all() -> dict[str, Any]:
    task = load(FLAGS.table, FLAGS.config)
    trusts = [float(trust) for trust in FLAGS.trusts]
    jobs = list(itertools.product([0.0, *trusts], range(FLAGS.seeds)))
    work = functools.partial(
        search,
        table=FLAGS.table,
        config_path=FLAGS.config,
        costs=FLAGS.costs,
        witnesses=FLAGS.witnesses,
    )
    with multiprocessing.get_context("spawn").Pool(FLAGS.processes) as pool:
        found = pool.imap(work, jobs)
        searches = tqdm(found, total=len(jobs), desc="searching", unit="search")
        runs = dict(zip(jobs, searches, strict=True))

    def of(trust: float) -> list[Run]:
        return [runs[trust, seed] for seed in range(FLAGS.seeds)]

    return {
        "children": len(task.children),
        "front": len(pareto.frontier(list(task.children.values()))),
        "violations": dataclasses.asdict(violations(task)),
        "seeds": FLAGS.seeds,
        "trusts": {f"{trust:g}": compare(of(trust), of(0.0)) for trust in trusts},
    }


def shown(values: dict[str, float], form: str) -> str:
    low, high = (format(values[name], form) for name in ("low", "high"))
    return f"{values['median']:{form}} ({low} to {high})"


def print_text(result: dict[str, Any]) -> None:
    print(f"{result['children']} trained children, {result['front']} of them on the front")
    print(order.Violations(**result["violations"]).text)
    print(f"Medians of {result['seeds']} seeds, and their 90 % intervals:")
    for trust, found in result["trusts"].items():
        print(f"\ntrust {trust}")
        full = shown(found["evaluated_by_full_search"], ".0f")
        print(f"  evaluated in all: {shown(found['evaluated'], '.0f')}, by the full search {full}:")
        print(f"    {shown(found['saved'], '.0%')} less")
        print(
            f"  hypervolume of the full search's in the end: {shown(found['hypervolume'], '.2%')}"
        )
        print(f"  members of the full search's front: {shown(found['front_found'], '.0%')}")
        for share, reached in found["shares"].items():
            count = reached["reached_by"]
            print(f"  {float(share):.1%} of it: reached by {count} of {result['seeds']} seeds")
            if count:
                print(
                    f"    after {shown(reached['evaluations'], '.0f')} evaluations, the full "
                    f"search {shown(reached['full_search'], '.0f')}: "
                    f"{shown(reached['saved'], '.0%')} less"
                )


def main() -> None:
    result = run_all()
    if FLAGS.format == "json":
        command.print_json(result)
    else:
        print_text(result)


if __name__ == "__main__":
    command.run(main)
