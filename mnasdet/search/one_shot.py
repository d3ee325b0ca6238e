"""Searches whose children share the weights of one training and are not trained themselves."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np

from mnasdet import config, models
from mnasdet.blueprint import Blueprint, Subnets
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import architecture_pb2, pipeline_pb2, search_pb2
from mnasdet.search_spaces import factory
from mnasdet.search_spaces.space import SearchSpace, Tokens

# Draws for the choices that the first ones have not met: a second of them. The rarest choice of the
# published spaces, one of 98 sets of inputs, is met in less than a tenth of these.
_MOST_FURTHER_DRAWS = 10_000


def train(pipeline: pipeline_pb2.TrainEvalPipelineConfig, folder: Path) -> str:
    """Trains the shared weights into `folder`, or goes on doing so, and returns the checkpoint."""
    from mnasdet.training import checkpoints, trainer

    training = pipeline_pb2.TrainEvalPipelineConfig()
    training.CopyFrom(pipeline)
    training.train_config.CopyFrom(pipeline.search_config.one_shot.train_config)
    seed = pipeline.search_config.seed
    trainer.train(training, folder, blueprint=supernet(pipeline), seed=seed)
    return checkpoints.find(folder)


def supernet(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> Blueprint:
    """Returns the blueprint of the supernet: networks drawn from the space by the search's seed.

    The two networks of the least and the most multiply-adds come first. Its input is the largest of
    theirs.
    """
    settings = pipeline.search_config
    blueprint = config.resolve(pipeline)
    space = factory.from_config(settings.search_space, blueprint.architecture)
    # A function of the seed: the search and its children make the same supernet again, and only
    # its weights are stored.
    drawn = [space.decode(tokens) for tokens in _drawn(space, settings)]

    blueprints = [config.resolve(pipeline, architecture) for architecture in drawn]
    costs = [cost_sheet(models.network(own)).total.multiply_adds for own in blueprints]
    by_cost = sorted(range(len(drawn)), key=costs.__getitem__)
    # `SharedNetwork` takes the two of the sandwich from the first two places.
    ends = [by_cost[0], by_cost[-1]]
    others = [place for place in range(len(drawn)) if place not in ends]
    ordered = tuple(drawn[place] for place in [*ends, *others])
    subnets = Subnets(ordered, settings.one_shot.sandwich)
    largest = max((own.resizer for own in blueprints), key=lambda resizer: resizer.image_size)
    return dataclasses.replace(blueprint, resizer=largest, subnets=subnets)


def _drawn(space: SearchSpace, settings: search_pb2.SearchConfig) -> list[Tokens]:
    """Returns networks of the space, among which every choice of every decision is met.

    The supernet is as large as the largest of them: a child beyond that would have no weights.
    """
    rng = np.random.default_rng(settings.seed)
    drawn = [space.sample(rng) for _ in range(settings.one_shot.num_networks)]
    met = [set(tokens) for tokens in zip(*drawn, strict=True)]
    for _ in range(_MOST_FURTHER_DRAWS):
        if all(len(of) == len(d.choices) for of, d in zip(met, space.decisions, strict=True)):
            break
        tokens = space.sample(rng)
        # Most further networks would add nothing.
        if any(token not in of for token, of in zip(tokens, met, strict=True)):
            drawn.append(tokens)
            for of, token in zip(met, tokens, strict=True):
                of.add(token)
    return drawn


def metrics(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, architecture: architecture_pb2.Architecture
) -> dict[str, float]:
    """Returns the metrics of a child with the shared weights."""
    return _judge(pipeline.SerializeToString()).metrics(architecture)


# One search a process: its supernet is loaded and traced once.
@functools.lru_cache(maxsize=1)
def _judge(serialized: bytes):
    from mnasdet.supernets.judge import Judge
    from mnasdet.training import checkpoints, training_data

    pipeline = pipeline_pb2.TrainEvalPipelineConfig.FromString(serialized)
    one_shot = pipeline.search_config.one_shot
    task = models.build(supernet(pipeline))
    checkpoints.load_weights(task.model, one_shot.checkpoint)
    batches = training_data.training_set(task, pipeline, pipeline.search_config.seed)
    images = [
        batch["image"] for batch in itertools.islice(batches, one_shot.num_recalibration_batches)
    ]
    return Judge(task, pipeline, images)


def save_part(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    architecture: architecture_pb2.Architecture,
    folder: Path,
) -> None:
    """Writes a checkpoint of one network with its part of the shared weights."""
    import tensorflow as tf

    from mnasdet.training import checkpoint_writer, checkpoints

    weights = _judge(pipeline.SerializeToString()).weights(architecture)
    variables = {name: tf.Variable(value, trainable=False) for name, value in weights.items()}
    checkpoint_writer.save(
        tf.train.Checkpoint(**{checkpoints.WEIGHTS: variables}), folder, step=0, max_to_keep=1
    )
