"""The training of a supernet whose most probable networks are a search's trials."""

from __future__ import annotations

from pathlib import Path

from mnasdet import config, files
from mnasdet.networks import penalties
from mnasdet.protos import pipeline_pb2
from mnasdet.search.differentiable import alternation, records, screening, supernets
from mnasdet.search_spaces import supernet
from mnasdet.training import trainer


def train(pipeline: pipeline_pb2.TrainEvalPipelineConfig, folder: Path) -> None:
    """Screens operations if the config asks for it, then trains the supernet, into `folder`.

    The folder then has what `records.probabilities` reads. Interrupted, it goes on.
    """
    # Written last of all: with it everything is there.
    if (folder / records.PROBABILITIES_FILE).exists():
        return
    search_config = pipeline.search_config
    settings = search_config.differentiable
    whole = supernet.supernet(
        search_config.search_space.supernet, config.resolve(pipeline).architecture
    )
    if settings.HasField("screening"):
        whole = screening.screen(pipeline, whole, folder / records.SCREENING)
    blueprint = supernets.blueprint_of(pipeline, whole)
    cost = supernets.expected_costs(pipeline, blueprint)
    training = alternation.first_half(pipeline)
    training.train_config.CopyFrom(settings.train_config)
    method = alternation.method(
        folder,
        # Equation 7. The paper's weight of 0.01 names no unit of the cost; here it is billions of
        # multiply-adds, or ms by a latency table.
        lambda alphas: settings.cost_weight * penalties.expected_cost(alphas, cost),
        learning_rate=settings.alpha_learning_rate,
        start_step=settings.alpha_start_step,
    )
    trainer.train(training, folder, blueprint=blueprint, seed=search_config.seed, method=method)
    last = records.history(folder / records.HISTORY_FILE)[-1]
    found = records.by_place(whole, last["probabilities"])
    files.write_json(folder / records.PROBABILITIES_FILE, {"probabilities": found})
