"""Searches detector architectures for a device, trains the best one and measures it.

Writes to --model_dir: trials.db, search.json, pareto.json, architectures/, report/index.html,
tensorboard/, best/ (pipeline.config, checkpoint, detect.tflite of raw predictions,
detect_nms.tflite for phone apps, or the saved_model/ of a two-stage detector, benchmark.json),
pipeline.config, and if the config asks for them pretrained/ and supernet/, whose weights children
share, and best_start/, the winner's part of those. A search that was interrupted goes on
with --resume; Ctrl-C lets the children in training end first, twice drops them.

A child that fails because data, disk or a worker is lost is tried again. Where that does not help,
the search stops and leaves its trials open: mend the cause, then go on with --resume. A trial that
failed by itself stays failed unless --retry_failed asks to train it once more.

  python scripts/search.py --pipeline_config_path=configs/quickstart.config \\
    --model_dir=runs/quickstart
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from absl import flags

from mnasdet.errors import UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_pipeline_flags()
command.define_format_flag()
command.define_required("model_dir", "Folder of the search; made if missing.")
flags.DEFINE_integer(
    "num_trials", 0, "Trials of the search, in place of search_config.num_trials.", lower_bound=0
)
flags.DEFINE_integer("seed", None, "Seed of the search, in place of search_config.seed.")
flags.DEFINE_bool("resume", False, "Go on with the search in --model_dir.")
flags.DEFINE_bool(
    "accept_changes",
    False,
    "With --resume: go on even if config, data or device are not those that the search began with.",
)
flags.DEFINE_bool(
    "retry_failed",
    False,
    "With --resume: train the trials that failed once more.",
)
flags.DEFINE_enum(
    "executor",
    None,
    ["this_process", "worker_processes", "ray"],
    "Who trains the trials, in place of search_config.executor.",
)


def main() -> None:
    for name in ("accept_changes", "retry_failed"):
        if FLAGS[name].value and not FLAGS.resume:
            raise UserError(f"--{name} needs --resume")
    pipeline = command.load_pipeline(change=apply_flags)

    from mnasdet import files

    model_dir = Path(FLAGS.model_dir)
    with files.locked(model_dir), command.resumable():
        run(pipeline, model_dir)


def apply_flags(pipeline) -> None:
    """Puts the flags in the place of the config's fields."""
    search_config = pipeline.search_config
    if FLAGS.num_trials:
        search_config.num_trials = FLAGS.num_trials
    if FLAGS.seed is not None:
        search_config.seed = FLAGS.seed
    if FLAGS.executor:
        # The fields of an executor that the config has already are kept.
        getattr(search_config.executor, FLAGS.executor).SetInParent()


def run(pipeline, model_dir: Path) -> None:
    from mnasdet import config
    from mnasdet.evaluation import objectives
    from mnasdet.reporting import examples, facts, report
    from mnasdet.search import axes, chain, latency, results, stages, winner
    from mnasdet.search.frontier import frontier_latency
    from mnasdet.search.proxy import proxy_task
    from mnasdet.search.trials import reopening
    from mnasdet.search.trials.trial_store import TrialStore
    from mnasdet.search_spaces import factory as search_spaces
    from mnasdet.training import checkpoints, runtime

    runtime.use_threads()
    runtime.expect_networks()
    runtime.log_devices()
    settings = pipeline.search_config
    space = search_spaces.from_config(settings.search_space, config.resolve(pipeline).architecture)
    with (
        closing(
            TrialStore(
                settings.trial_store.url or model_dir / results.TRIALS_FILE,
                results.search_name(model_dir, settings.trial_store),
            )
        ) as store,
        store.claimed(),
    ):
        results.start(model_dir, pipeline, space, store, FLAGS.resume, FLAGS.accept_changes)
        if FLAGS.retry_failed:
            reopening.reopen(store, reopening.failed(store.trials()))
        children = proxy_task.prepare(pipeline, model_dir / "pretrained")
        trials = search(children, space, store, model_dir)
        # This compares all trials, and names the winner.
        chained = chain.from_description(store.description())
        trials = chained.aligned(trials)
        measured_ms = results.read_measured_ms(model_dir)
        description = results.write(model_dir, trials, measured_ms)
        store.describe(description)
    report_path = model_dir / "report" / "index.html"
    # Before what takes long and may be interrupted.
    device = latency.device_spec(settings.latency)
    asked = facts.of_search(pipeline)
    is_derived = settings.HasField("differentiable")
    supernet = Path(children.search_config.differentiable.folder) if is_derived else None
    report.write(
        report_path, trials, search=description, space=space, facts=asked, supernet=supernet
    )
    frontier, best = results.frontier(trials), results.best(chained.final(trials))
    print(
        f"the trials are done; now {len(frontier)} networks of the frontier are measured, and "
        f"trial {best.number} is retrained, exported and benchmarked",
        file=sys.stderr,
    )
    # After the trials: children in training would disturb it.
    measured_ms = frontier_latency.measure(children, frontier, measured_ms)
    # Written ahead of the retraining, which takes hours: an interrupted search keeps it.
    results.write(model_dir, trials, measured_ms)
    config_of_best = stages.pipelines(children)[chained.stage(best) - 1]
    metrics, benchmark = winner.finish(config_of_best, best, model_dir / "best", device)
    # The retraining's own config: it names the winner's architecture.
    trained = config.load(model_dir / "best" / "pipeline.config")
    task = checkpoints.load_task(trained, model_dir / "best")
    finds_boxes = objectives.finds_boxes(task.blueprint.kind)
    report.write(
        report_path,
        trials,
        search=description,
        space=space,
        retrained=metrics,
        benchmark=benchmark,
        measured_ms=measured_ms,
        measured_note=latency.measured_elsewhere(settings.latency),
        judged=examples.judge(trained, task) if finds_boxes else None,
        facts=asked,
        noise=results.read_noise(model_dir),
        supernet=supernet,
    )
    if FLAGS.format == "json":
        command.print_json(to_json(model_dir, best.number, metrics, benchmark))
        return
    print_frontier(frontier, measured_ms, best, metrics, axes.from_config(pipeline))
    print_order(description.get("order", []))
    print_files(model_dir / "best", task.blueprint.kind, benchmark)
    print(f"report: {report_path}")


def to_json(model_dir: Path, best: int, metrics, benchmark) -> dict[str, Any]:
    """Returns what search.json, pareto.json and best/ hold.

    Args:
      best: the number of the trial that was retrained.
    """
    from mnasdet.search import results

    return {
        "search": results.read_description(model_dir),
        "frontier": results.read_frontier(model_dir),
        "best": {
            "trial": best,
            "folder": str(model_dir / "best"),
            "metrics": metrics,
            "benchmark": benchmark,
        },
        "report": str(model_dir / "report" / "index.html"),
    }


def search(pipeline, space, store, model_dir: Path):
    """Runs all stages of the search and returns their trials, finished."""
    from mnasdet.data import input_pipeline
    from mnasdet.networks.memory import keep_loaded
    from mnasdet.search import order, results, stages
    from mnasdet.search.executors import factory as executors

    # Ahead of the workers, whose first children would all wait for it.
    input_pipeline.check_large_files(pipeline.train_input_reader, *pipeline.eval_input_reader)
    executor = executors.from_config(pipeline.search_config.executor)
    keep_loaded()
    violations: list[dict[str, Any]] = []

    def search_stage(config, stage, first):
        if stage.groups:
            results.describe_more(model_dir, store, groups=list(stage.groups))
            picked = ", ".join(map(str, stage.groups))
            print(f"the second stage starts from trials {picked}", file=sys.stderr)
        is_last = bool(stage.groups) or not pipeline.search_config.HasField("second_stage")
        trials = run_stage(config, stage, first, store, executor, model_dir, is_last)
        compared = order.violations(stage.space, trials)
        if compared:
            violations.append(order.to_json(2 if stage.groups else 1, compared))
        return trials

    try:
        trials = stages.run(pipeline, space, search_stage)
    finally:
        executor.close()
    if violations:
        results.describe_more(model_dir, store, order=violations)
    return trials


def run_stage(pipeline, stage, first: int, store, executor, model_dir: Path, is_last: bool = True):
    """Runs one stage of the search and returns its trials, finished.

    Args:
      pipeline: the config of this stage.
      first: the number of its first trial.
      is_last: the winner's training follows, and is part of the time that is left.
    """
    from mnasdet.reporting.progress import TrialProgress, last_training
    from mnasdet.search import attempts, axes, latency, limits, reward
    from mnasdet.search.search import Search
    from mnasdet.search.training_queue import num_workers

    settings = pipeline.search_config
    weighed = axes.from_config(pipeline)
    progress = TrialProgress(
        settings.num_trials,
        space=None if stage.groups else stage.space,
        summary_dir=model_dir / "tensorboard",
        axes=weighed,
        num_workers=num_workers(settings.executor),
        last_training=last_training(pipeline) if is_last else 0.0,
    )
    numbers = range(first, first + settings.num_trials)
    for trial in store.trials():
        if trial.is_finished and trial.number in numbers:
            progress.replay(trial)
    return Search(
        pipeline=pipeline,
        store=store,
        space=stage.space,
        controller=stage.controller,
        reward=reward.from_config(settings.reward),
        latency=latency.from_config(settings.latency),
        executor=executor,
        limits=limits.from_config(settings.limits, weighed.unit),
        max_pending=settings.max_pending_trials,
        first=first,
        seed=settings.seed,
        on_trial=progress,
        pauses=attempts.pauses(settings.executor.max_retries),
    ).run(settings.num_trials)


def print_order(entries) -> None:
    """Prints how far smaller networks were the worse and the cheaper ones, stage by stage."""
    from mnasdet.search import order

    for entry in entries:
        stage = f"stage {entry['stage']}: " if len(entries) > 1 else ""
        print(stage + order.from_json(entry).text)


def print_frontier(frontier, measured_ms, best, metrics, axes) -> None:
    metric = axes.accuracy
    print(
        f"frontier ({metric} on the proxy task; {axes.cost} as the search had it, and measured "
        "latency):"
    )
    for trial in frontier:
        mark = "*" if trial.number == best.number else " "
        print(
            f"{mark} trial {trial.number:4d}  {metric} {trial.accuracy:.4f}  "
            f"{trial.cost:8.3f} {axes.unit}, {measured_ms[trial.number]:8.3f} ms  "
            f"{trial.metrics['multiply_adds'] / 1e6:8.1f} M multiply-adds  "
            f"{trial.metrics['params'] / 1e6:6.3f} M params"
        )
    print(f"trial {best.number}, retrained: {metric} {metrics[axes.objective]:.4f}")


def print_files(folder: Path, kind: str, benchmark) -> None:
    """Prints where the files of the best trial are, and what each took when measured."""
    from mnasdet import deployment
    from mnasdet.tflite.devices.repeats import typical_ms

    for form, result in deployment.timings(kind, benchmark):
        noisy = ", noisy" if result["noisy"] else ""
        path = folder / form.graph_name
        print(f"{path}: {form.content}; {typical_ms(result):.3f} ms measured{noisy}")


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
