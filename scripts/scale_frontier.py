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
from pathlib import Path
from typing import Any, TypeVar

from absl import flags

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

    # Only here: what is wrong with the flags or the config is told before TensorFlow loads.
    from mnasdet import config
    from mnasdet.search import axes, run_folder
    from mnasdet.search.frontier import scaled_models, scaling_run

    others = {name: FLAGS[name].value for name in ("max_picks", "num_train_steps")}
    folder = Path(FLAGS.model_dir)
    claim = run_folder.claimed(folder, pipeline, scales | others, FLAGS.resume)
    with claim, command.resumable():
        models = scaling_run.run(
            pipeline,
            Path(FLAGS.search_dir),
            folder,
            scaling_run.Scales(
                scales["latencies_ms"],
                FLAGS.max_picks,
                scales["repeats"],
                scales["depth_multipliers"],
            ),
            num_train_steps=FLAGS.num_train_steps,
            retry_failed=FLAGS.retry_failed,
        )
    if FLAGS.format == "json":
        command.print_json({"models": [scaled_models.to_json(model) for model in models]})
    else:
        print_table(models, axes.from_config(config.load(str(own_config), readers=())))
    # After the table, which has the error of every training.
    if not any(model.on_frontier for model in models):
        reason, count = Counter(model.error for model in models).most_common(1)[0]
        raise UserError(f"all {len(models)} trainings failed; {count} of them: {reason}")


def _numbers(flag: str, kind: Callable[[str], _T]) -> list[_T]:
    """Returns the numbers of a list flag, which must be positive and all different."""
    try:
        numbers = [kind(text) for text in FLAGS[flag].value]
    except ValueError:
        # Fails the check below, whose message says what is allowed.
        numbers = [kind("0")]
    if len(set(numbers)) < len(numbers) or not all(0 < n < math.inf for n in numbers):
        what = "whole numbers" if kind is int else "numbers"
        raise UserError(
            f"--{flag}={','.join(FLAGS[flag].value)}: different positive {what} are allowed"
        )
    return numbers


def print_table(models, axes) -> None:
    metric, unit = axes.accuracy, axes.unit
    predicted = f"predicted {unit}" if unit == "ms" else unit
    print(f"* is the frontier of the trained models by {metric} and predicted {axes.cost}")
    width = max(len(model.name) for model in models)
    print(
        f"  {'model':<{width}} {'params M':>9} {'MAdds M':>9} {predicted:>15} "
        f"{f'proxy {metric}':>9} {metric:>7} {'measured ms':>11}"
    )
    # The fastest first, as the frontier is drawn.
    for model in sorted(models, key=lambda model: model.cost):
        accuracy = "failed" if model.accuracy is None else f"{model.accuracy:.4f}"
        measured = "" if model.measured_ms is None else f"{model.measured_ms:.3f}"
        print(
            f"{'*' if model.on_frontier else ' '} {model.name:<{width}} "
            f"{model.params / 1e6:>9.3f} {model.multiply_adds / 1e6:>9.1f} "
            f"{model.cost:>15.3f} {model.proxy_accuracy:>9.4f} {accuracy:>7} {measured:>11}"
            f"{f'  {model.error}' if model.error else ''}".rstrip()
        )


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
