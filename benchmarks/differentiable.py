"""Compares a differentiable search with random networks, and with one whose cost is milliseconds.

For every seed, the search of --config (Hit-Detector's, on handwritten digits) is run twice after
one screening: once its penalty is the expected multiply-adds, once the expected milliseconds of
this machine's latency table. Both penalties are equal in the mean of all networks. Of each supernet
the most probable network is taken.

- random: networks that are drawn from the whole space, those within 5 % of the multiply-adds of the
  first of the two. All are trained alike, with seeds that the search did not have.
- milliseconds: mAP of the two networks, trained likewise, beside their milliseconds, measured in
  turns as whole TFLite files.

Supernets and figures of each seed are kept in --model_dir; a second run goes on from there.

  python benchmarks/differentiable.py --model_dir=runs/differentiable
  python benchmarks/differentiable.py --model_dir=runs/differentiable --seeds=5 --format=json
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from google.protobuf import text_format
from trained_alone import Trainer

from mnasdet import config, files
from mnasdet.networks.memory import memory_freed
from mnasdet.protos import pipeline_pb2
from mnasdet.scripts import command
from mnasdet.search import latency
from mnasdet.search.candidate import Candidate, candidate
from mnasdet.search.differentiable import records, supernet_training, supernets
from mnasdet.search.differentiable.derivation import Derived
from mnasdet.search_spaces import factory as search_spaces
from mnasdet.search_spaces import supernet
from mnasdet.search_spaces.space import SearchSpace
from mnasdet.training import runtime

FLAGS = flags.FLAGS

ROOT = Path(__file__).parents[1]

command.define_format_flag()
command.define_required("model_dir", "Folder of the supernets; made if missing.")
flags.DEFINE_string(
    "config", str(ROOT / "configs" / "hit_detector_search_digits.config"), "The search."
)
flags.DEFINE_integer("seeds", 3, "Searches of each kind.", lower_bound=1)
flags.DEFINE_integer("random", 8, "Random networks beside each.", lower_bound=1)

# Share by which the multiply-adds of a random network may differ, on either side.
_TOLERANCE = 0.05

_MULTIPLY_ADDS, _MILLISECONDS = "multiply-adds", "milliseconds"


def penalized_by_milliseconds(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the search with an equal penalty in the milliseconds of this machine."""
    copy = pipeline_pb2.TrainEvalPipelineConfig()
    copy.CopyFrom(pipeline)
    copy.search_config.latency.latency_table.SetInParent()
    own, other = (_mean_cost(search) for search in (pipeline, copy))
    copy.search_config.differentiable.cost_weight *= own / other
    return copy


def _mean_cost(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> float:
    costs = _costs(pipeline)
    return costs.fixed + sum(map(np.mean, costs.of_candidates.values()))


def _costs(pipeline: pipeline_pb2.TrainEvalPipelineConfig):
    """Returns the costs of the whole space, before its screening."""
    whole = supernet.supernet(
        pipeline.search_config.search_space.supernet, config.resolve(pipeline).architecture
    )
    return supernets.expected_costs(pipeline, supernets.blueprint_of(pipeline, whole))


def derived(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, space: SearchSpace, folder: Path
) -> Candidate:
    """Trains the supernet, or goes on doing so, and returns its most probable network."""
    with memory_freed():
        supernet_training.train(pipeline, folder)
    (tokens,) = Derived(space, records.probabilities(folder)).propose(1)
    return candidate(pipeline, space.decode(tokens), tokens)


def as_costly(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, space: SearchSpace, of: Candidate, seed: int
) -> list[Candidate]:
    """Returns random networks of about the multiply-adds of another one."""
    costs = _costs(pipeline)
    wanted = of.sheet.total.multiply_adds / 1e9
    rng = np.random.default_rng(seed)
    found: dict[str, Candidate] = {}
    while len(found) < FLAGS.random:
        tokens = space.sample(rng)
        chosen = {
            f"{decision.name}/choice": token
            for decision, token in zip(space.decisions, tokens, strict=True)
        }
        if abs(costs.of(chosen) / wanted - 1) < _TOLERANCE:
            drawn = candidate(pipeline, space.decode(tokens), tokens)
            found.setdefault(drawn.key, drawn)
    return list(found.values())


def measured_ms(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, networks: Sequence[Candidate]
) -> list[float]:
    """Returns the milliseconds of whole networks: of the fastest turn of each."""
    meter = latency.meter(pipeline)
    with meter.opened() as turn:
        turns = [[turn(network).latency_ms for network in networks] for _ in range(meter.turns)]
    return np.min(turns, axis=0).tolist()


def run_seed(pipeline: pipeline_pb2.TrainEvalPipelineConfig, seed: int) -> dict[str, Any]:
    """Returns the figures of one seed; they are kept."""
    folder = Path(FLAGS.model_dir) / str(seed)
    kept = folder / "figures.json"
    if kept.exists():
        return files.read_json(kept, "figures")
    pipeline.search_config.seed = seed
    space = search_spaces.from_config(
        pipeline.search_config.search_space, config.resolve(pipeline).architecture
    )
    searches = {
        _MULTIPLY_ADDS: pipeline,
        _MILLISECONDS: penalized_by_milliseconds(pipeline),
    }
    found = {}
    for name, search in searches.items():
        own = folder / name
        screened = folder / _MULTIPLY_ADDS / records.SCREENING
        if screened.exists() and not own.exists():
            shutil.copytree(screened, own / records.SCREENING)
        found[name] = derived(search, space, own)
    drawn = as_costly(pipeline, space, found[_MULTIPLY_ADDS], seed)
    networks = [*found.values(), *drawn]
    accuracies = Trainer(pipeline).accuracies(
        [text_format.MessageToString(network.architecture) for network in networks],
        f"seed {seed}",
    )
    ms = measured_ms(searches[_MILLISECONDS], networks)
    figures = [
        dataclasses.asdict(Figures(network.sheet.total.multiply_adds / 1e6, network_ms, accuracy))
        for network, network_ms, accuracy in zip(networks, ms, accuracies, strict=True)
    ]
    result = {**dict(zip(found, figures, strict=False)), "random": figures[len(found) :]}
    files.write_json(kept, result)
    return result


@dataclasses.dataclass(frozen=True)
class Figures:
    """Figures of one network that was trained by itself."""

    millions_of_multiply_adds: float
    milliseconds: float
    accuracy: float


def means(of_seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the figures in the mean over the seeds."""

    def mean(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}

    return {
        name: mean([mean(found[name]) if name == "random" else found[name] for found in of_seeds])
        for name in of_seeds[0]
    }


def print_text(result: Mapping[str, Any]) -> None:
    print("mAP at M multiply-adds and measured ms, all trained by themselves")
    print(f"{'':<6}{'by multiply-adds':<30}{'by milliseconds':<30}random, as many multiply-adds")

    def text(figures: Mapping[str, float]) -> str:
        return (
            f"{figures['accuracy']:.4f} at {figures['millions_of_multiply_adds']:.2f}, "
            f"{figures['milliseconds']:.3f} ms"
        )

    for seed, found in result["seeds"].items():
        drawn = [one["accuracy"] for one in found["random"]]
        spread = f"{np.mean(drawn):.4f} ({min(drawn):.4f} to {max(drawn):.4f})"
        own = "".join(f"{text(found[name]):<30}" for name in (_MULTIPLY_ADDS, _MILLISECONDS))
        print(f"{seed:<6}{own}{spread}")
    print(f"{'mean':<6}" + "".join(f"{text(found):<30}" for found in result["mean"].values()))


def main() -> None:
    runtime.use_threads()
    pipeline = config.load(FLAGS.config)
    with files.locked(Path(FLAGS.model_dir)):
        seeds = {str(seed): run_seed(pipeline, seed) for seed in range(FLAGS.seeds)}
    result = {"seeds": seeds, "mean": means(list(seeds.values()))}
    if FLAGS.format == "json":
        command.print_json(result)
        return
    print_text(result)


if __name__ == "__main__":
    command.run(main)
