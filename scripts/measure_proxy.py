"""Measures how good the proxy task of a search is as a judge of architectures.

Random architectures of the config's search space are trained on the proxy task, with several seeds
each, and once for longer: as retrain_config says, or as the proxy task stretched, its schedule with
it. Reports the rank correlations between both accuracies with their 90 % intervals, what the seed
alone does to the proxy's, and what difference it can tell. The long trainings are noisy as well,
which lowers the correlations.

Writes to --model_dir: proxy_quality.json, proxy.db (searches proxy_0, proxy_1, ... and long, for
scripts/trials.py), pipeline.config, run.json, and pretrained/ if the config asks for it.
Interrupted, it goes on with --resume, then also with more architectures or seeds.

  python scripts/measure_proxy.py --pipeline_config_path=configs/quickstart.config \\
    --model_dir=runs/proxy --num_architectures=12 --num_seeds=3
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from mnasdet.errors import UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_pipeline_flags()
command.define_format_flag()
command.define_required("model_dir", "Folder of the measurement; made if missing.")
flags.DEFINE_integer("num_architectures", 12, "Random ones, all different.", lower_bound=2)
flags.DEFINE_integer(
    "num_seeds", 3, "Proxy trainings of each architecture.", lower_bound=1, upper_bound=999
)
flags.DEFINE_integer(
    "seed", None, "Seed of the measurement, in place of search_config.seed.", lower_bound=0
)
flags.DEFINE_integer(
    "long_num_steps", 0, "Steps of the long training, in place of retrain_config.", lower_bound=0
)
flags.DEFINE_float(
    "long_factor", 0.0, "Times the proxy's steps, in place of retrain_config.", lower_bound=0.0
)
flags.DEFINE_bool("resume", False, "Go on with the measurement in --model_dir.")


def main() -> None:
    pipeline = command.load_pipeline(change=apply_flags)

    # Only here: what is wrong with the flags or the config is told before TensorFlow loads.
    from mnasdet.search import run_folder
    from mnasdet.search.proxy import proxy_run

    # The number of architectures and that of seeds may grow.
    long_num_steps = _long_num_steps(pipeline)
    folder = Path(FLAGS.model_dir)
    claim = run_folder.claimed(folder, pipeline, {"long_num_steps": long_num_steps}, FLAGS.resume)
    with claim, command.resumable():
        quality = proxy_run.measure(
            pipeline,
            folder,
            num_architectures=FLAGS.num_architectures,
            num_seeds=FLAGS.num_seeds,
            long_num_steps=long_num_steps,
        )
    if FLAGS.format == "json":
        command.print_json(quality)
    else:
        print_quality(quality)


def apply_flags(pipeline) -> None:
    """Puts the flags in the place of the config's fields."""
    if FLAGS.seed is not None:
        pipeline.search_config.seed = FLAGS.seed


def _long_num_steps(pipeline) -> int:
    """Returns the steps of the stretched proxy task; 0: the config has a longer recipe."""
    if FLAGS.long_num_steps and FLAGS.long_factor:
        raise UserError("give one of --long_num_steps, --long_factor")
    proxy = pipeline.train_config.num_steps
    steps = FLAGS.long_num_steps or round(FLAGS.long_factor * proxy)
    given = FLAGS.long_num_steps or FLAGS.long_factor
    # A correlation with an equally short training would judge nothing.
    if given and steps <= proxy:
        raise UserError(f"the long training has {steps} steps; use more than the proxy's {proxy}")
    if not given and not pipeline.search_config.HasField("retrain_config"):
        raise UserError(
            "the config has no search_config.retrain_config; set --long_factor or --long_num_steps"
        )
    return steps


def print_quality(quality: dict[str, Any]) -> None:
    from mnasdet.evaluation import metric_text

    metric = metric_text.display_name(quality["objective"])
    mean_header, long_header = f"mean proxy {metric}", f"long {metric}"
    print(f"{'architecture':>12} {'MAdds M':>9} {mean_header:>14} {long_header:>8}  proxy {metric}")
    for entry in quality["architectures"]:
        # A seed that failed leaves the mean of the others.
        known = [accuracy for accuracy in entry["proxy_accuracies"] if accuracy is not None]
        mean = sum(known) / len(known) if known else None
        print(
            f"{entry['architecture']:>12} {entry['multiply_adds'] / 1e6:>9.1f} {_text(mean):>14} "
            f"{_text(entry['long_accuracy']):>8}  {' '.join(map(_text, entry['proxy_accuracies']))}"
        )
    for name in ("spearman", "kendall"):
        print(f"{name.capitalize()}'s rank correlation: {_correlation(quality, name)}")
    noise = quality["noise"]
    print(
        f"standard deviation over seeds: {_text(noise['std'])} "
        f"({noise['degrees_of_freedom']} degrees of freedom)"
    )
    print(
        "share of the variance that architectures make: "
        f"{_text(noise['intraclass_correlation'], 2)}"
    )
    for name in ("proxy", "long"):
        print(
            f"{name}: {quality[f'{name}_num_steps']} steps, median "
            f"{_text(quality[f'{name}_seconds'], 1)} s with {quality['num_workers']} at once"
        )
    print(quality["verdict"])


def _correlation(quality: dict[str, Any], name: str) -> str:
    value, low, high, note = (quality[name][key] for key in ("value", "low", "high", "note"))
    interval = f" ({100 * quality['confidence']:.0f} %: {_text(low, 2)} to {_text(high, 2)})"
    return f"{_text(value, 2)}{interval if low is not None else ''}{f'; {note}' * bool(note)}"


def _text(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
