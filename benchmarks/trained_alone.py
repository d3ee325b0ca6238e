"""Trains architectures by themselves, as a search trains its children."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2
from mnasdet.search.child import ChildTask, Outcome
from mnasdet.search.executors import factory as executors

# No training of a search has it: their seeds are the search's and the trials' numbers.
SEED = 1_000_003

Accuracies = list[float]


def accuracy(outcome: Outcome) -> float:
    """Returns the accuracy of a child; raises UserError if it failed."""
    if outcome.error:
        raise UserError(f"a child failed: {outcome.error}")
    return outcome.accuracy


class Trainer:
    """Trains architectures with the processes and the training of a search's children."""

    def __init__(self, children: pipeline_pb2.TrainEvalPipelineConfig):
        self._pipeline = pipeline_pb2.TrainEvalPipelineConfig()
        self._pipeline.CopyFrom(children)
        self._pipeline.search_config.ClearField("one_shot")

    def accuracies(
        self,
        architectures: Sequence[str],
        name: str,
        start: Callable[[int, str], Path] | None = None,
    ) -> Accuracies:
        """Returns the accuracies of `trained`."""
        return [accuracy(outcome) for outcome in self.trained(architectures, name, start)]

    def trained(
        self,
        architectures: Sequence[str],
        name: str,
        start: Callable[[int, str], Path] | None = None,
    ) -> list[Outcome]:
        """Trains architectures, each with a seed that no child of the search had.

        Args:
          name: of the trainings, for the progress bar.
          start: gives the checkpoint of an architecture by its place; None: the config's.
        """
        executor = executors.from_config(self._pipeline.search_config.executor)
        try:
            futures = []
            for place, text in enumerate(architectures):
                pipeline = pipeline_pb2.TrainEvalPipelineConfig()
                pipeline.CopyFrom(self._pipeline)
                if start:
                    pipeline.train_config.fine_tune_checkpoint = str(start(place, text))
                futures.append(
                    executor.submit(ChildTask(pipeline.SerializeToString(), text, SEED + place))
                )
            return [future.result() for future in tqdm(futures, desc=name, unit="training")]
        finally:
            executor.close()
