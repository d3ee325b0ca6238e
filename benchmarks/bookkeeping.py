"""The cost of a search beside its children: proposing, storing, learning and telling.

One search of the MnasFPN space whose children answer at once, with trials in an SQLite file and the
progress line and TensorBoard events of the search command. Beside it Optuna: random proposals of
the same decisions, kept in an SQLite file of its own.

  python benchmarks/bookkeeping.py --num_trials=10000 --controllers=random,regularized_evolution,ppo
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from google.protobuf import text_format

from mnasdet import config
from mnasdet.evaluation.coco import MAP
from mnasdet.networks.memory import keep_loaded
from mnasdet.protos import pipeline_pb2, search_pb2
from mnasdet.reporting.progress import TrialProgress
from mnasdet.scripts import command
from mnasdet.search import reward
from mnasdet.search.child import ChildTask, Outcome, trained
from mnasdet.search.controllers import factory
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.latency import MultiplyAdds
from mnasdet.search.search import Search
from mnasdet.search.trials.trial_store import TrialStore
from mnasdet.search_spaces import factory as search_spaces

FLAGS = flags.FLAGS

command.define_format_flag()
flags.DEFINE_integer("num_trials", 10_000, "Of each search.", lower_bound=200)
flags.DEFINE_list("controllers", ["random", "regularized_evolution", "ppo"], "One search each.")
flags.DEFINE_integer("optuna_trials", 1_000, "Of the search beside them; 0: none.", lower_bound=0)

# Trials that a look takes the mean over: PPO learns at every twentieth.
WINDOW = 100


def answer(task: ChildTask) -> Outcome:
    """Returns an accuracy that depends on the architecture alone."""
    # Not hash(), which Python salts anew in every process.
    digest = hashlib.sha256(task.architecture.encode()).digest()
    return trained({MAP: digest[0] / 255}, MAP)


def pipeline() -> pipeline_pb2.TrainEvalPipelineConfig:
    proxy = pipeline_pb2.TrainEvalPipelineConfig()
    proxy.model.architecture_name = "mobilenet_v2_mnasfpn"
    proxy.model.ssd.num_classes = 90
    resizer = proxy.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height = resizer.width = 320
    return proxy


def search_seconds(controller_name: str, num_trials: int) -> list[float]:
    """Returns when each trial was finished."""
    proxy = pipeline()
    space = search_spaces.from_config(
        search_pb2.SearchSpaceConfig(mnasfpn={}), config.resolve(proxy).architecture
    )
    settings = text_format.Parse(f"{controller_name} {{}}", search_pb2.ControllerConfig())
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        progress = TrialProgress(
            num_trials, stream=io.StringIO(), space=space, summary_dir=Path(folder)
        )

        def on_trial(trial) -> None:
            progress(trial)
            seconds.append(time.perf_counter())

        # The search command does the same, and this measures what the command takes.
        keep_loaded()
        Search(
            pipeline=proxy,
            store=TrialStore(Path(folder) / "trials.db"),
            space=space,
            controller=factory.from_config(settings, space, seed=0),
            reward=reward.mnasfpn,
            latency=MultiplyAdds(),
            executor=ThisProcess(answer),
            on_trial=on_trial,
        ).run(num_trials)
    return seconds


def optuna_seconds(num_trials: int) -> list[float]:
    """Returns the same for Optuna."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = search_spaces.from_config(
        search_pb2.SearchSpaceConfig(mnasfpn={}), config.resolve(pipeline()).architecture
    )
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        study = optuna.create_study(
            storage=f"sqlite:///{folder}/study.db", sampler=optuna.samplers.RandomSampler(seed=0)
        )
        for _ in range(num_trials):
            trial = study.ask()
            for decision in space.decisions:
                trial.suggest_categorical(decision.name, decision.choices)
            study.tell(trial, 0.0)
            seconds.append(time.perf_counter())
    return seconds


def looks(seconds: list[float]) -> dict[str, float]:
    """Returns the mean milliseconds a trial over `WINDOW` trials, up to the 1 000th and so on."""
    spent = 1e3 * np.diff(seconds)
    ends = [end for end in (200, 1_000, 2_000, 5_000, 10_000, 50_000) if end <= len(seconds)]
    return {str(end): float(np.mean(spent[end - WINDOW - 1 : end - 1])) for end in ends}


def main() -> None:
    results: dict[str, Any] = {
        name: looks(search_seconds(name, FLAGS.num_trials)) for name in FLAGS.controllers
    }
    if FLAGS.optuna_trials:
        results["Optuna, random"] = looks(optuna_seconds(FLAGS.optuna_trials))
    if FLAGS.format == "json":
        command.print_json({"milliseconds_a_trial": results})
        return
    print("milliseconds a trial after so many trials in the store")
    for name, figures in results.items():
        row = "".join(f"{int(end):>10,}: {ms:6.2f}" for end, ms in figures.items())
        print(f"{name:<22}{row}")


if __name__ == "__main__":
    command.run(main)
