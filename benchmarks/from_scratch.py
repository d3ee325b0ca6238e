"""Training from scratch with batch normalisation, with group normalisation, and with that and
standardised weights, at a small and a large rate: the ablation of SM-NAS (Yao et al., 2020, table
4) on small data.

Each cell of the table trains the same config anew, and gives the accuracy at the end: the median
over seeds, with the lowest and the highest. A training that diverged counts as 0. Any config will
do whose architecture states a normalisation and whose rate is a cosine; the benchmark puts its own
in place of them.

  python benchmarks/from_scratch.py
  python benchmarks/from_scratch.py --seeds=1 --num_steps=30
  python benchmarks/from_scratch.py --pipeline_config_path=bccd.config --rates=0.01,0.1 \
    --train_input=train.record --eval_input=val.record --label_map=label_map.pbtxt
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from google.protobuf import text_format

from mnasdet import config
from mnasdet.errors import UserError
from mnasdet.protos import hyperparams_pb2, pipeline_pb2
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_format_flag()
command.define_pipeline_flags(required=False)
flags.DEFINE_list("rates", ["0.02", "0.24"], "The base of each cosine.")
flags.DEFINE_integer("seeds", 3, "Trainings of each cell.", lower_bound=1)
flags.DEFINE_integer("num_steps", None, "Of a training; the config's if left out.", lower_bound=1)
flags.DEFINE_integer("groups", 4, "Of a group normalisation.", lower_bound=1)

DEFAULT_CONFIG = Path(__file__).parent / "from_scratch.config"

# Normalisations that replace the config's; BN is the config's own.
NORMALISATIONS = {
    "BN": "",
    "GN": "group_norm { groups: %d }",
    "GN+WS": "group_norm { groups: %d } standardize_weights: true",
}


def with_normalisation(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, name: str
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the config with another normalisation wherever it has one."""
    changed = pipeline_pb2.TrainEvalPipelineConfig()
    changed.CopyFrom(pipeline)
    if text := NORMALISATIONS[name]:
        normaliser = text_format.Parse(text % FLAGS.groups, hyperparams_pb2.Hyperparams())
        for hyperparams in _normalised(changed.model):
            hyperparams.MergeFrom(normaliser)
    return changed


def _normalised(message: Any) -> Iterator[hyperparams_pb2.Hyperparams]:
    """Yields the hyper-parameters inside a message that state a normalisation."""
    if isinstance(message, hyperparams_pb2.Hyperparams):
        if message.WhichOneof("normalizer_oneof"):
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type:
            for inside in value if field.is_repeated else [value]:
                yield from _normalised(inside)


def with_rate(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, rate: float
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the config with another base of its cosine, over the steps of --num_steps."""
    changed = pipeline_pb2.TrainEvalPipelineConfig()
    changed.CopyFrom(pipeline)
    optimizer = changed.train_config.optimizer
    chosen = getattr(optimizer, optimizer.WhichOneof("optimizer")).learning_rate
    if not chosen.HasField("cosine_decay_learning_rate"):
        raise UserError("the config's learning rate: a cosine_decay_learning_rate is needed")
    cosine = chosen.cosine_decay_learning_rate
    cosine.learning_rate_base = rate
    # Both are shares of the config's own rate and steps.
    cosine.warmup_learning_rate = min(cosine.warmup_learning_rate, rate)
    if FLAGS.num_steps:
        cosine.warmup_steps = cosine.warmup_steps * FLAGS.num_steps // cosine.total_steps
        changed.train_config.num_steps = cosine.total_steps = FLAGS.num_steps
    return changed


def accuracy(pipeline: pipeline_pb2.TrainEvalPipelineConfig, seed: int) -> float:
    """Trains and returns the accuracy; 0 if the training diverged."""
    from mnasdet.evaluation.objectives import objective
    from mnasdet.networks.memory import memory_freed
    from mnasdet.training import trainer

    blueprint = config.resolve(pipeline)
    with memory_freed():
        try:
            metrics = trainer.train(pipeline, blueprint=blueprint, seed=seed)
        except trainer.DivergedError:
            return 0.0
    return metrics[objective(blueprint.kind)]


def main() -> None:
    FLAGS.pipeline_config_path = FLAGS.pipeline_config_path or str(DEFAULT_CONFIG)
    pipeline = command.load_pipeline()
    rates = [float(rate) for rate in FLAGS.rates]
    table: dict[str, dict[str, Any]] = {}
    for name in NORMALISATIONS:
        for rate in rates:
            cell = with_rate(with_normalisation(pipeline, name), rate)
            reached = [accuracy(cell, seed) for seed in range(FLAGS.seeds)]
            table.setdefault(name, {})[f"{rate:g}"] = {
                "median": statistics.median(reached),
                "low": min(reached),
                "high": max(reached),
            }
    if FLAGS.format == "json":
        command.print_json({"seeds": FLAGS.seeds, "accuracy": table})
        return
    print(f"{f'median of {FLAGS.seeds}':<14}" + "".join(f"{f'rate {r:g}':>22}" for r in rates))
    for name, cells in table.items():
        row = (f"{c['median']:.3f} ({c['low']:.3f}-{c['high']:.3f})" for c in cells.values())
        print(f"{name:<14}" + "".join(f"{text:>22}" for text in row))


if __name__ == "__main__":
    command.run(main)
