"""Trains a family of detectors from a search's frontier (MnasFPN, section 4.2).

Picks frontier members, by latency budgets or evenly spread, gives each several repeats of the
pyramid and depth multipliers, trains every variant in full, and exports and benchmarks those that
no other beats in mAP and latency. The training is the config's retrain_config, or train_config;
--pipeline_config_path may name another config than the search's, for another recipe or other data.

Writes to --model_dir: scaled.json, architectures/, models/NAME/ (checkpoints, and on the frontier
detect.tflite and benchmark.json), pipeline.config and run.json. Trains in as many processes as the
config's executor has workers, all on this machine. Interrupted, it goes on with --resume, from the
last checkpoints; the picks stay those of its start, however far the search is by then.

  python scripts/scale_frontier.py --search_dir=runs/search --model_dir=runs/scaled \\
    --latencies_ms=166,173,180 --repeats=3,4,5 --depth_multipliers=0.7,1.0
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from absl import flags, logging

from mnasdet.errors import UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS
_T = TypeVar("_T", int, float)

command.define_pipeline_flags(required=False)
command.define_format_flag()
command.define_required("search_dir", "--model_dir of a search, done or running.")
command.define_required("model_dir", "Folder of the models; made if missing.")
flags.DEFINE_list(
    "latencies_ms",
    [],
    "For each the most accurate frontier member that takes no longer, by the search's latency "
    "source. Left out: the whole frontier, or --max_picks of it.",
)
flags.DEFINE_integer(
    "max_picks", 3, "Frontier members without --latencies_ms, evenly spread.", lower_bound=1
)
flags.DEFINE_list("repeats", [], "Repeats of the pyramid, in place of the sampled ones.")
flags.DEFINE_list("depth_multipliers", [], "Of backbone and pyramid, in place of the sampled ones.")
flags.DEFINE_integer("num_train_steps", 0, "In place of the config's num_steps.", lower_bound=0)
flags.DEFINE_bool("resume", False, "Go on with the run in --model_dir.")
flags.DEFINE_bool("retry_failed", False, "With --resume, train what has failed again.")


def main() -> None:
    scales: dict[str, Any] = {
        "latencies_ms": _numbers("latencies_ms", float),
        "repeats": _numbers("repeats", int),
        "depth_multipliers": _numbers("depth_multipliers", float),
    }
    own_config = Path(FLAGS.search_dir) / "pipeline.config"
    if not own_config.is_file():
        raise UserError(f"{FLAGS.search_dir}: holds no search, there is no pipeline.config")
    FLAGS.pipeline_config_path = FLAGS.pipeline_config_path or str(own_config)
    pipeline = command.load_pipeline()

    from mnasdet.search import run_folder

    others = {name: FLAGS[name].value for name in ("max_picks", "num_train_steps")}
    folder = Path(FLAGS.model_dir)
    claim = run_folder.claimed(folder, pipeline, scales | others, FLAGS.resume)
    with claim, command.resumable():
        models = run(pipeline, str(own_config), folder, scales)
    if FLAGS.format == "json":
        from mnasdet.search.frontier.scaled_models import to_json

        command.print_json({"models": [to_json(model) for model in models]})
    else:
        print_table(models, _unit(str(own_config)))
    if not any(model.on_frontier for model in models):
        reason, count = Counter(model.error for model in models).most_common(1)[0]
        raise UserError(f"all {len(models)} trainings failed; {count} of them: {reason}")


def _numbers(flag: str, kind: Callable[[str], _T]) -> list[_T]:
    """Returns the numbers of a list flag, which must be positive and all different."""
    try:
        numbers = [kind(text) for text in FLAGS[flag].value]
    except ValueError:
        numbers = [kind("0")]
    if len(set(numbers)) < len(numbers) or not all(0 < n < math.inf for n in numbers):
        what = "whole numbers" if kind is int else "numbers"
        raise UserError(
            f"--{flag}={','.join(FLAGS[flag].value)}: different positive {what} are allowed"
        )
    return numbers


def run(pipeline, own_config: str, folder: Path, scales: dict[str, Any]) -> list[Any]:
    """All models, as far as they can be brought."""
    from mnasdet.search.frontier import scaled_models
    from mnasdet.training import runtime

    runtime.use_threads()
    runtime.log_devices()
    full = _full_training(pipeline)
    if (folder / scaled_models.RESULTS_FILE).exists():
        scaled = scaled_models.ScaledModels.load(folder, full)
    else:
        variants = _variants(full, own_config, **scales)
        scaled = scaled_models.ScaledModels.create(folder, full, variants)
    if FLAGS.retry_failed:
        scaled.forget_failures()
    train(scaled, pipeline.search_config.executor, _unit(own_config))
    scaled.deploy()
    return scaled.models


def _full_training(pipeline):
    """The pipeline whose train_config is that of the full trainings."""
    from mnasdet import config
    from mnasdet.protos import pipeline_pb2
    from mnasdet.search.frontier.scaled_models import with_checkpoints
    from mnasdet.training import checkpoints

    full = pipeline_pb2.TrainEvalPipelineConfig()
    full.CopyFrom(pipeline)
    search_config = full.search_config
    if search_config.HasField("retrain_config"):
        full.train_config.CopyFrom(search_config.retrain_config)
        search_config.ClearField("retrain_config")
    if FLAGS.num_train_steps:
        full.train_config.num_steps = FLAGS.num_train_steps
    if search_config.HasField("pretrain_config") and not full.train_config.fine_tune_checkpoint:
        # As the search's own winner.
        pretrained = checkpoints.find(Path(FLAGS.search_dir) / "pretrained")
        full.train_config.fine_tune_checkpoint = pretrained
    with_checkpoints(full)
    if problems := config.check(full):
        raise UserError("; ".join(problems))
    return full


def _variants(pipeline, own_config: str, latencies_ms, repeats, depth_multipliers):
    """Returns the variants to train, from the search as it is now."""
    from mnasdet import config
    from mnasdet.search import latency, results
    from mnasdet.search.frontier import frontier_scaling

    # Which may be another than the pipeline of the full trainings.
    searched = config.load(own_config, readers=()).search_config
    with _open_store(searched.trial_store) as store:
        trials = store.trials()
    frontier = results.frontier(trials)
    if not frontier:
        raise UserError(f"{FLAGS.search_dir}: none of its {len(trials)} trials is complete yet")
    if latencies_ms:
        picks = frontier_scaling.best_within(frontier, latencies_ms)
    else:
        picks = frontier_scaling.spread(frontier, FLAGS.max_picks)
    logging.info(
        "picked trials %s of the %d on the frontier",
        ", ".join(str(trial.number) for trial in picks),
        len(frontier),
    )
    source = latency.from_config(searched.latency)
    return frontier_scaling.variants(pipeline, picks, repeats, depth_multipliers, source)


def _open_store(trial_store) -> closing[Any]:
    from mnasdet.search import results
    from mnasdet.search.trials.trial_store import TrialStore

    folder = Path(FLAGS.search_dir)
    location = trial_store.url or folder / results.TRIALS_FILE
    return closing(TrialStore(location, results.search_name(folder, trial_store), create=False))


def _unit(own_config: str) -> str:
    """Returns the unit of the predicted latencies."""
    from mnasdet import config
    from mnasdet.search import latency

    return latency.unit(config.load(own_config, readers=()).search_config.latency)


def train(scaled, executor_config, unit: str) -> None:
    from mnasdet.search import attempts
    from mnasdet.search.frontier import scaled_models
    from mnasdet.search.training_queue import QueueProgress, num_workers

    left = [model for model in scaled.models if not model.is_finished]
    # All train for equally many steps on equally many images.
    workers = num_workers(executor_config)
    progress = QueueProgress(
        [model.multiply_adds for model in left], len(scaled.models) - len(left), workers
    )

    def show(model) -> None:
        result = f"FAILED: {model.error}"
        if model.error is None:
            result = f"mAP {model.mean_ap:.4f} (proxy {model.proxy_mean_ap:.4f})"
        progress(model.multiply_adds, f"{model.name}  {result}  {model.latency_ms:.3f} {unit}")

    executor = scaled_models.executor_from_config(executor_config)
    try:
        scaled.train(executor, workers, show, attempts.pauses(executor_config.max_retries))
    finally:
        executor.close()


def print_table(models, unit: str) -> None:
    predicted = f"predicted {unit}" if unit == "ms" else unit
    print("* is the frontier of the trained models by mAP and predicted latency")
    width = max(len(model.name) for model in models)
    print(
        f"  {'model':<{width}} {'params M':>9} {'MAdds M':>9} {predicted:>15} "
        f"{'proxy mAP':>9} {'mAP':>7} {'measured ms':>11}"
    )
    for model in sorted(models, key=lambda model: model.latency_ms):
        accuracy = "failed" if model.mean_ap is None else f"{model.mean_ap:.4f}"
        measured = "" if model.measured_ms is None else f"{model.measured_ms:.3f}"
        print(
            f"{'*' if model.on_frontier else ' '} {model.name:<{width}} "
            f"{model.params / 1e6:>9.3f} {model.multiply_adds / 1e6:>9.1f} "
            f"{model.latency_ms:>15.3f} {model.proxy_mean_ap:>9.4f} {accuracy:>7} {measured:>11}"
            f"{f'  {model.error}' if model.error else ''}".rstrip()
        )


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
