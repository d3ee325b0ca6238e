"""Drops operations before a supernet is trained (Guo et al., "Hit-Detector", 2020, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mnasdet import files
from mnasdet.architectures import chosen_place, chosen_places
from mnasdet.errors import ConfigError
from mnasdet.networks import penalties
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search.differentiable import alternation, records, supernets
from mnasdet.training import checkpoints, trainer


def screen(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    whole: architecture_pb2.Architecture,
    folder: Path,
) -> architecture_pb2.Architecture:
    """Returns the supernet with the operations that screening keeps.

    One part is screened after the other. Layers of parts that are screened already have their most
    probable operation meanwhile, those of parts that come later the first of their list.

    Args:
      folder: gets a training for each round, and the scores and what was dropped of all of them.
    """
    settings = pipeline.search_config.differentiable.screening
    small = _halved(whole) if settings.half_backbone else _copy(whole)
    rounds = records.rounds(folder)
    kept: dict[str, list[str]] = {}
    start: dict[str, Any] = {"folder": None, "alphas": {}}
    for part, pool in _pools(whole).items():
        if len(pool) <= settings.num_kept:
            continue
        kept[part] = pool
        for number, size in enumerate(sizes(len(pool), settings.num_kept, settings.num_rounds)):
            name = f"{part}_{number + 1}"
            if name not in rounds:
                rounds[name] = _round(pipeline, small, part, kept[part], size, folder / name, start)
                # At once: an interrupted search goes on after the last round that is whole.
                _store(folder, rounds)
            found = rounds[name]
            kept[part] = found["kept"]
            start = {"folder": folder / name, "alphas": found["alphas"]}
        _choose(small, part, rounds[name]["alphas"])
    return _with_ops(whole, kept)


def sizes(num_ops: int, num_kept: int, num_rounds: int) -> list[int]:
    """Returns how many operations each round leaves; the rounds drop about as many each."""
    dropped = max(0, num_ops - num_kept)
    return [num_ops - dropped * (number + 1) // num_rounds for number in range(num_rounds)]


def _pools(whole: architecture_pb2.Architecture) -> dict[str, list[str]]:
    """Returns the operations of each part that has a choice.

    Raises:
      ConfigError: the layers of a part list different ones: no operation then has one score.
    """
    pools: dict[str, list[str]] = {}
    for place in chosen_places(whole):
        ops = list(place.layer.op)
        if pools.setdefault(place.part, ops) != ops:
            raise ConfigError(
                f"{place.path}.op is {ops}, but {pools[place.part]} in another layer of "
                f"{place.part}; screening needs the same operations in all layers of a part"
            )
    return {part: ops for part, ops in pools.items() if len(ops) > 1}


def _round(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    small: architecture_pb2.Architecture,
    part: str,
    ops: Sequence[str],
    size: int,
    folder: Path,
    start: Mapping[str, Any],
) -> dict[str, Any]:
    """Trains a supernet of a part, and returns scores and what is kept.

    Args:
      ops: the operations that are left.
      size: how many of them this round keeps.
      start: the folder of the round before, and its logits by layer and operation.
    """
    settings = pipeline.search_config.differentiable
    screening = settings.screening
    network = _alone(small, part, ops)
    training = alternation.first_half(pipeline)
    training.train_config.CopyFrom(screening.train_config)
    if start["folder"]:
        training.train_config.fine_tune_checkpoint = checkpoints.find(start["folder"])
        training.train_config.fine_tune_checkpoint_type = "full"
        # The branches of operations that are gone, and alpha, which is shorter.
        training.train_config.min_matched_share = 0.0
    places = [place.name for place in chosen_places(network) if place.part == part]

    def initial(choice: str) -> np.ndarray:
        known = start["alphas"].get(chosen_place(choice), {})
        return np.array([known.get(op, 0.0) for op in ops], np.float32)

    def penalty(alphas: Mapping[str, tf.Variable]) -> tf.Tensor:
        return screening.sparsity_weight * penalties.column_sparsity(list(alphas.values()))

    blueprint = supernets.blueprint_of(pipeline, network)
    method = alternation.method(
        folder,
        penalty,
        learning_rate=settings.alpha_learning_rate,
        start_step=screening.alpha_start_step,
        initial=initial,
    )
    trainer.train(
        training, folder, blueprint=blueprint, seed=pipeline.search_config.seed, method=method
    )
    last = records.history(folder / records.HISTORY_FILE)[-1]["probabilities"]
    probabilities = np.array(list(last.values()))
    # The norms of equation 4, by which the paper drops the operations with the lowest.
    scores = np.sqrt(np.sum(probabilities**2, axis=0))
    # With equal scores the first operation of the list stays.
    order = sorted(range(len(ops)), key=lambda place: (-scores[place], place))
    kept = [ops[place] for place in sorted(order[:size])]
    of_places = records.by_place(network, last)
    return {
        "part": part,
        "scores": {op: float(score) for op, score in zip(ops, scores, strict=True)},
        "ranks": {ops[place]: rank for rank, place in enumerate(order, start=1)},
        "dropped": [ops[place] for place in order[size:]],
        "kept": kept,
        # Logits but for a constant, which no probability depends on.
        "alphas": {
            name: {op: float(np.log(max(p, 1e-12))) for op, p in of_places[name].items()}
            for name in places
        },
    }


def _alone(
    small: architecture_pb2.Architecture, part: str, ops: Sequence[str]
) -> architecture_pb2.Architecture:
    """Returns the supernet in which one part alone has a choice."""
    network = _copy(small)
    for place in chosen_places(network):
        place.layer.op[:] = ops if place.part == part else place.layer.op[:1]
    return network


def _choose(
    small: architecture_pb2.Architecture, part: str, alphas: Mapping[str, Mapping[str, float]]
) -> None:
    for place in chosen_places(small):
        if place.part == part:
            of_layer = alphas[place.name]
            place.layer.op[:] = [max(of_layer, key=lambda op: of_layer[op])]


def _with_ops(
    whole: architecture_pb2.Architecture, kept: Mapping[str, Sequence[str]]
) -> architecture_pb2.Architecture:
    shorter = _copy(whole)
    for place in chosen_places(shorter):
        if place.part in kept:
            place.layer.op[:] = kept[place.part]
    return shorter


def _halved(whole: architecture_pb2.Architecture) -> architecture_pb2.Architecture:
    """Returns the supernet with the first half of the layers of each stage of the backbone."""
    halved = _copy(whole)
    layers = halved.backbone.operation_layers.layer
    # The paper screens with 2, 2, 4 and 2 layers in place of 4, 4, 8 and 4.
    stages: list[list[Any]] = []
    for layer in whole.backbone.operation_layers.layer:
        if layer.stride == 2 or not stages:
            stages.append([])
        stages[-1].append(layer)
    del layers[:]
    for stage in stages:
        # The width of the stage's last layer, which the pyramid takes, may be another one.
        layers.extend(stage[: (len(stage) + 1) // 2])
    return halved


def _copy(architecture: architecture_pb2.Architecture) -> architecture_pb2.Architecture:
    copy = architecture_pb2.Architecture()
    copy.CopyFrom(architecture)
    return copy


def _store(folder: Path, rounds: Mapping[str, Mapping[str, Any]]) -> None:
    files.write_json(folder / records.SCREENING_FILE, {"rounds": rounds})
