"""A measurement of the proxy task in a folder, from a config to proxy_quality.json."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnasdet import config, files
from mnasdet.protos import pipeline_pb2, search_pb2
from mnasdet.search import attempts, axes, latency, limits, training_queue
from mnasdet.search.axes import Axes
from mnasdet.search.executors import factory as executors
from mnasdet.search.frontier.longer_training import stretched
from mnasdet.search.proxy import proxy_measurement, proxy_quality, proxy_task
from mnasdet.search.proxy.proxy_measurement import Series
from mnasdet.search.trials.trial_store import Trial
from mnasdet.search_spaces import factory
from mnasdet.training import runtime


def measure(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    folder: Path,
    *,
    num_architectures: int,
    num_seeds: int,
    long_num_steps: int = 0,
) -> dict[str, Any]:
    """Trains what is not trained yet and returns the content of proxy_quality.json.

    Args:
      long_num_steps: of the long training, to which the proxy task is stretched; 0: it is as the
        config's retrain_config says.
    """
    runtime.use_threads()
    runtime.log_devices()
    settings, weighed = pipeline.search_config, axes.from_config(pipeline)
    sampled = _sample(pipeline, num_architectures, weighed)
    children = proxy_task.prepare(pipeline, folder / "pretrained")
    tasks = {f"proxy_{index}": children for index in range(num_seeds)}
    tasks[proxy_measurement.LONG] = _long(children, long_num_steps)
    with contextlib.ExitStack() as stack:
        *proxies, long = (
            stack.enter_context(contextlib.closing(Series(folder / "proxy.db", *task, sampled)))
            for task in tasks.items()
        )
        _train([*proxies, long], settings, weighed)
        accuracies = np.array([one.accuracies for one in proxies]).T
        quality = {
            "num_architectures": num_architectures,
            "num_seeds": num_seeds,
            "seed": settings.seed,
            "objective": weighed.objective,
            **proxy_quality.summary(accuracies, np.array(long.accuracies), weighed.accuracy),
            "num_workers": training_queue.num_workers(settings.executor),
        }
        for name, some in (("proxy", proxies), ("long", [long])):
            quality[f"{name}_num_steps"] = some[0].pipeline.train_config.num_steps
            quality[f"{name}_seconds"] = proxy_measurement.median_seconds(some)
        quality["architectures"] = proxy_measurement.by_architecture(proxies, long)
    files.write_json(folder / "proxy_quality.json", quality)
    return quality


def _sample(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, count: int, weighed: Axes
) -> list[Trial]:
    settings = pipeline.search_config
    # A search would never train what is over its limits.
    limited = limits.from_config(settings.limits, weighed.unit)
    return proxy_measurement.sample(
        pipeline,
        factory.from_config(settings.search_space, config.resolve(pipeline).architecture),
        count,
        settings.seed,
        limited,
        latency.from_config(settings.latency) if limited.max_cost else None,
    )


def _long(
    children: pipeline_pb2.TrainEvalPipelineConfig, num_steps: int
) -> pipeline_pb2.TrainEvalPipelineConfig:
    long = pipeline_pb2.TrainEvalPipelineConfig()
    long.CopyFrom(children)
    longer = stretched(children.train_config, num_steps) if num_steps else None
    long.train_config.CopyFrom(longer or children.search_config.retrain_config)
    return long


def _train(series: Sequence[Series], settings: search_pb2.SearchConfig, weighed: Axes) -> None:
    """Trains what is not finished, and tells how far it is."""

    def work(one: Series, number: int) -> float:
        steps = one.pipeline.train_config.num_steps
        # Steps and multiply-adds: a long training of a large network takes many times a short
        # one's.
        return steps * one.trials[number].metrics["multiply_adds"]

    left = proxy_measurement.unfinished(series)
    done = sum(len(one.trials) for one in series) - len(left)
    workers = training_queue.num_workers(settings.executor)
    progress = training_queue.QueueProgress([work(*which) for which in left], done, workers)

    def show(one: Series, trial: Trial) -> None:
        name = f"{one.name} of architecture {trial.number}"
        result = f"{weighed.accuracy} {one.accuracies[trial.number]:.4f}  {trial.seconds:.1f} s"
        if trial.error:
            result = f"{trial.state.name}: {trial.error}"
        progress(work(one, trial.number), f"{name}  {result}")

    executor = executors.from_config(settings.executor)
    try:
        proxy_measurement.run(
            series,
            executor,
            workers,
            settings.limits.max_file_size,
            show,
            attempts.pauses(settings.executor.max_retries),
        )
    finally:
        executor.close()
