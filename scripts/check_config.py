"""Checks a pipeline config and the data it names: all problems at once, or "ok" and what it builds.

It looks at all records where they are few, and else at the first ones of each file.

  python scripts/check_config.py \\
    --pipeline_config_path=configs/mnasfpn_mobilenet_v2_320x320_coco.config \\
    --train_input='coco/train.record-*' --eval_input='coco/val.record-*' \\
    --label_map=coco/label_map.pbtxt
"""

from __future__ import annotations

from typing import Any

from absl import flags

from mnasdet.errors import CheckpointError, DataError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_pipeline_flags()
command.define_format_flag()


def main() -> None:
    pipeline = command.load_pipeline()
    check_data(pipeline)
    summary = summarize(pipeline)
    if FLAGS.format == "json":
        command.print_json(summary)
        return
    print("ok")
    for name, value in summary.items():
        if name != "parts":
            print(f"  {name.replace('_', ' ') + ':':<19} {_text(value)}")
            continue
        for part, cost in value.items():
            costs = f"{cost['params']:,} params, {cost['multiply_adds']:,} multiply-adds"
            print(f"    {part + ':':<17} {costs}")


def check_data(pipeline) -> None:
    """Looks at the files that the config names, with the functions that training calls.

    Raises:
      DataError: what is wrong with record files, label maps, records or the checkpoint to start
        from, one a line.
    """
    # Only here, so that a config with an error in it is answered before TensorFlow loads.
    from mnasdet import config
    from mnasdet.data import reader_checks

    resizer = config.resolve(pipeline).resizer
    problems = [
        *reader_checks.problems(pipeline, resizer),
        *_checkpoint_problems(pipeline),
    ]
    if len(problems) == 1:
        raise DataError(f"{FLAGS.pipeline_config_path}: {problems[0]}")
    if problems:
        count = f"{len(problems)} problems in the data of {FLAGS.pipeline_config_path}:"
        raise DataError("\n  ".join([count, *problems]))


def _checkpoint_problems(pipeline) -> list[str]:
    """Loads the weights to start from as training does: only the model shows whether they fit."""
    if not pipeline.train_config.fine_tune_checkpoint:
        return []
    from mnasdet import config, models
    from mnasdet.search.proxy import proxy_task
    from mnasdet.training.warm_start import load

    if pipeline.HasField("search_config"):
        pipeline = proxy_task.from_what_fits(pipeline)
    try:
        # Ahead of the model, which takes seconds.
        load.check_file(pipeline.train_config.fine_tune_checkpoint)
        load.from_config(models.build(config.resolve(pipeline)).model, pipeline.train_config)
    except CheckpointError as error:
        return [f"train_config.fine_tune_checkpoint: {error}"]
    return []


def _text(value: Any) -> str:
    if isinstance(value, int):
        # Cardinalities of search spaces have dozens of digits.
        return f"{value:,}" if value < 1e15 else f"{value:.4g}"
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def summarize(pipeline) -> dict[str, Any]:
    """Returns what the config builds, and how it is trained and searched."""
    from mnasdet import config, models
    from mnasdet.architecture_string.conversion import to_string
    from mnasdet.networks.cost import cost_sheet

    blueprint = config.resolve(pipeline)
    architecture = blueprint.architecture
    train = pipeline.train_config
    optimizer = train.optimizer.WhichOneof("optimizer")
    sheet = cost_sheet(models.network(blueprint))
    summary = {
        "architecture": architecture.name or "unnamed",
        "structure": to_string(architecture),
        "image_size": list(blueprint.image_size),
        "num_classes": blueprint.num_classes,
        **sheet.total._asdict(),
        "parts": {part: cost._asdict() for part, cost in sheet.parts.items()},
        "num_steps": train.num_steps,
        "batch_size": train.batch_size,
        "optimizer": optimizer.removesuffix("_optimizer"),
        "learning_rate": schedule(getattr(train.optimizer, optimizer).learning_rate),
    }
    if pipeline.HasField("search_config"):
        from mnasdet.search_spaces import factory

        search = pipeline.search_config
        space = factory.from_config(search.search_space, architecture)
        summary["search_space"] = search.search_space.WhichOneof("search_space_oneof")
        summary["cardinality"] = space.cardinality()
        summary["num_trials"] = search.num_trials
    return summary


def schedule(learning_rate) -> str:
    """Returns the learning rate's course in one line."""
    rate = getattr(learning_rate, learning_rate.WhichOneof("learning_rate"))
    match rate.DESCRIPTOR.name:
        case "CosineDecayLearningRate":
            return (
                f"from {rate.warmup_learning_rate:g} to {rate.learning_rate_base:g} in "
                f"{rate.warmup_steps} steps, cosine to {rate.min_learning_rate:g} at "
                f"{rate.total_steps}"
            )
        case "ExponentialDecayLearningRate":
            stairs = "every" if rate.staircase else "smoothly by"
            burnin = ""
            if rate.burnin_steps:
                first = rate.burnin_learning_rate or rate.initial_learning_rate
                burnin = f"{first:g} for {rate.burnin_steps} steps, then "
            return (
                f"{burnin}{rate.initial_learning_rate:g}, times {rate.decay_factor:g} {stairs} "
                f"{rate.decay_steps} steps"
            )
        case "ManualStepLearningRate":
            steps = [f"{step.learning_rate:g} from step {step.step}" for step in rate.schedule]
            start = "linearly from" if rate.warmup else "from"
            return ", ".join([f"{start} {rate.initial_learning_rate:g}", *steps])
    return f"{rate.learning_rate:g}"


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
