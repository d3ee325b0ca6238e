"""The full trainings of a frontier's variants, and scaled.json, which tells how far they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mnasdet import config, deployment, files
from mnasdet.architectures import from_trial
from mnasdet.protos import pipeline_pb2, search_pb2
from mnasdet.search import winner
from mnasdet.search.attempts import DEFAULT_PAUSES
from mnasdet.search.child import ChildTask
from mnasdet.search.executors.executor import Executor
from mnasdet.search.executors.worker_processes import WorkerProcesses
from mnasdet.search.frontier import pareto
from mnasdet.search.frontier.frontier_scaling import Variant
from mnasdet.search.training_queue import num_workers, outcomes
from mnasdet.training import checkpoints

RESULTS_FILE = "scaled.json"

# Checkpoints of a training whose config asks for none: what a kill can cost is a tenth of it.
_NUM_CHECKPOINTS = 10

Deploy = Callable[[pipeline_pb2.TrainEvalPipelineConfig, Path], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class ScaledModel(Variant):
    """A variant, and what is known of it by now.

    Attributes:
      accuracy: of the full training.
      error: why there is none, one line.
      on_frontier: among the trained models, by `accuracy` and `cost`.
      measured_ms: median latency of the exported model on this machine.
    """

    accuracy: float | None = None
    error: str | None = None
    on_frontier: bool = False
    measured_ms: float | None = None

    @property
    def is_finished(self) -> bool:
        return self.accuracy is not None or self.error is not None


def _deploy(pipeline: pipeline_pb2.TrainEvalPipelineConfig, folder: Path) -> dict[str, Any]:
    """Exports and times the model that was trained into a folder."""
    return deployment.deploy(checkpoints.load_task(pipeline, folder), pipeline, folder)


def executor_from_config(config: search_pb2.ExecutorConfig) -> WorkerProcesses:
    """Starts as many worker processes as the search's own executor has workers; all on this
    machine.

    A limit on the time of a child is none on that of a full training.
    """
    workers = config.worker_processes
    return WorkerProcesses(
        num_workers(config),
        threads_per_worker=workers.threads_per_worker,
        max_memory_mb=workers.max_memory_mb,
        visible_devices=workers.visible_devices,
    )


def with_checkpoints(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> None:
    """Sees to it that a training that is killed has something to go on from."""
    train_config = pipeline.train_config
    if not train_config.checkpoint_every_n_steps and not train_config.eval_every_n_steps:
        train_config.checkpoint_every_n_steps = max(1, train_config.num_steps // _NUM_CHECKPOINTS)


class ScaledModels:
    """The models of a folder; every change is in scaled.json at once.

    Each has its checkpoints, pipeline.config and metrics.json in models/NAME/.
    """

    def __init__(
        self,
        folder: Path,
        pipeline: pipeline_pb2.TrainEvalPipelineConfig,
        models: Sequence[ScaledModel],
    ) -> None:
        """Args:
        pipeline: of the full trainings, but for the architecture.
        """
        self._folder = folder
        self._pipeline = pipeline
        self._models = {model.name: model for model in models}

    @classmethod
    def create(
        cls,
        folder: Path,
        pipeline: pipeline_pb2.TrainEvalPipelineConfig,
        variants: Sequence[Variant],
    ) -> ScaledModels:
        """Writes architectures/ and scaled.json."""
        scaled = cls(folder, pipeline, [ScaledModel(**vars(variant)) for variant in variants])
        for variant in variants:
            files.write(folder / _architecture_file(variant.name), variant.architecture)
        scaled._write()
        return scaled

    @classmethod
    def load(cls, folder: Path, pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> ScaledModels:
        """Loads the models that an earlier run wrote."""
        entries = files.read_json(
            folder / RESULTS_FILE,
            "list of models",
            keys=["models"],
            remedy="choose another --model_dir",
        )["models"]
        return cls(folder, pipeline, [_from_json(folder, entry) for entry in entries])

    @property
    def models(self) -> list[ScaledModel]:
        return list(self._models.values())

    def forget_failures(self) -> None:
        """Makes failed trainings be tried again."""
        for model in self.models:
            if model.error is not None:
                self._change(model.name, error=None)
        self._write()

    def train(
        self,
        executor: Executor,
        max_running: int = 1,
        on_model: Callable[[ScaledModel], None] = lambda model: None,
        pauses: Sequence[float] = DEFAULT_PAUSES,
    ) -> None:
        """Trains what is not finished; a training that fails is recorded, and the next one begins.

        Args:
          on_model: is told of every model that finishes.
          pauses: those of `outcomes`.

        Raises:
          EnvironmentFailedError: as `outcomes`.
        """
        for name, outcome in outcomes(executor, self._tasks(), max_running, pauses):
            if outcome.error:
                self._change(name, error=outcome.error)
            else:
                self._change(name, accuracy=outcome.accuracy)
            self._write()
            on_model(self._models[name])

    def deploy(self, deploy: Deploy = _deploy) -> None:
        """Exports and times those on the frontier of the trained models that are not timed yet."""
        trained = [model for model in self.models if model.accuracy is not None]
        points = [(model.accuracy or 0.0, model.cost) for model in trained]
        frontier = {trained[place].name for place in pareto.frontier(points)}
        for model in self.models:
            self._change(model.name, on_frontier=model.name in frontier)
        self._write()
        for model in self.models:
            if model.on_frontier and model.measured_ms is None:
                folder = self._folder / "models" / model.name
                timing = deploy(self._pipeline_of(model), folder)
                self._change(model.name, measured_ms=timing["median_ms"])
                self._write()

    def _tasks(self) -> Iterator[tuple[str, ChildTask]]:
        for model in self.models:
            if model.is_finished:
                continue
            folder = self._folder / "models" / model.name
            pipeline = self._pipeline_of(model)
            files.write(folder / "pipeline.config", config.to_text(pipeline))
            yield (
                model.name,
                ChildTask(
                    pipeline.SerializeToString(), model.architecture, model.seed, folder=str(folder)
                ),
            )

    def _pipeline_of(self, model: ScaledModel) -> pipeline_pb2.TrainEvalPipelineConfig:
        return winner.retraining(self._pipeline, from_trial(model.architecture))

    def _change(self, name: str, **changes: Any) -> None:
        self._models[name] = dataclasses.replace(self._models[name], **changes)

    def _write(self) -> None:
        content = {"models": [to_json(model) for model in self.models]}
        files.write_json(self._folder / RESULTS_FILE, content)


# The names of fields in the files of version 0.1.
_OLD_NAMES = {"mAP": "accuracy", "proxy_mAP": "proxy_accuracy", "latency_ms": "cost"}


def to_json(model: ScaledModel) -> dict[str, Any]:
    """Returns all fields; in place of the architecture's text its file in the folder."""
    return vars(model) | {"architecture": _architecture_file(model.name)}


def _from_json(folder: Path, entry: dict[str, Any]) -> ScaledModel:
    values = {_OLD_NAMES.get(name, name): value for name, value in entry.items()}
    values["architecture"] = (folder / entry["architecture"]).read_text()
    return ScaledModel(**values)


def _architecture_file(name: str) -> str:
    return f"architectures/{name}.textproto"
