"""Counts what a detector costs: weights, multiply-adds and memory traffic, part by part.

python scripts/analyze.py --architecture=mobilenet_v2_mnasfpn --image_size=320
python scripts/analyze.py --pipeline_config_path=configs/mnasfpn_mobilenet_v2_320x320_coco.config
python scripts/analyze.py --list
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from absl import flags

from mnasdet.errors import UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_format_flag()
flags.DEFINE_string("architecture", None, "Published name or text-proto file.")
flags.DEFINE_string("pipeline_config_path", None, "Text-proto pipeline config, in place of it.")
flags.DEFINE_bool("list", False, "All published architectures, each at its own image size.")
flags.DEFINE_integer(
    "image_size", None, "Side in pixels, in place of the architecture's or config's.", lower_bound=1
)
flags.DEFINE_integer(
    "num_classes", None, "Without the background; 90 or the config's if left out.", lower_bound=1
)
flags.DEFINE_integer("repeats", None, "Of the feature pyramid's cell.", lower_bound=1)
flags.DEFINE_bool(
    "size_dependent_ordering", None, "Whether MnasFPN down-samples before its 1x1 convolutions."
)
flags.DEFINE_float("depth_multiplier", None, "Factor on the widths of backbone and pyramid.")

_DEFAULT_NUM_CLASSES = 90  # COCO's ids


def main() -> None:
    if FLAGS["list"].value:
        _list()
        return
    if bool(FLAGS.architecture) == bool(FLAGS.pipeline_config_path):
        raise UserError("give either --architecture, --pipeline_config_path or --list")
    architecture, image_size, num_classes = _subject()
    _override(architecture)
    costs = analyze(architecture, image_size, num_classes)
    if FLAGS.format == "json":
        command.print_json(costs)
        return
    print(f"{costs['architecture']} at {image_size[0]}x{image_size[1]}, {num_classes} classes")
    print(f"{'':<16} {'params':>11} {'trainable':>11} {'multiply-adds':>15} {'memory bytes':>13}")
    for part, cost in {**costs["parts"], "total": costs}.items():
        print(
            f"{part:<16} {cost['params']:>11,} {cost['trainable_params']:>11,} "
            f"{cost['multiply_adds']:>15,} {cost['memory_bytes']:>13,}"
        )


def _subject():
    """The Architecture, (height, width) and number of classes that the flags name."""
    from mnasdet import config

    if FLAGS.architecture:
        architecture = config.load_architecture(FLAGS.architecture)
        image_size = (architecture.image_size, architecture.image_size)
        num_classes = _DEFAULT_NUM_CLASSES
    else:
        pipeline = config.load(FLAGS.pipeline_config_path, readers=())
        architecture = config.architecture(pipeline)
        resizer = pipeline.model.ssd.image_resizer.fixed_shape_resizer
        image_size = (resizer.height, resizer.width)
        num_classes = pipeline.model.ssd.num_classes
    if FLAGS.image_size:
        image_size = (FLAGS.image_size, FLAGS.image_size)
    smallest = 2**architecture.feature_pyramid.mnasfpn.max_level
    if min(image_size) < smallest:
        raise UserError(
            f"image size {image_size[0]}x{image_size[1]}: at least {smallest} is "
            "needed; set --image_size"
        )
    return architecture, image_size, FLAGS.num_classes or num_classes


def _override(architecture) -> None:
    pyramid = architecture.feature_pyramid.mnasfpn
    if FLAGS.repeats:
        pyramid.repeats = FLAGS.repeats
    if FLAGS.size_dependent_ordering is not None:
        pyramid.size_dependent_ordering = FLAGS.size_dependent_ordering
    if FLAGS.depth_multiplier is not None:
        if not 0 < FLAGS.depth_multiplier < float("inf"):
            raise UserError(f"--depth_multiplier is {FLAGS.depth_multiplier:g}; more than 0")
        architecture.depth_multiplier = FLAGS.depth_multiplier


def analyze(architecture, image_size, num_classes: int) -> dict[str, Any]:
    """The costs of one image, total and by part; `image_size` is (height, width)."""
    from mnasdet.detectors.network import detection_network
    from mnasdet.networks.cost import cost_sheet

    sheet = cost_sheet(detection_network(architecture, image_size, num_classes).outputs)
    return {
        "architecture": architecture.name or "unnamed",
        "image_size": list(image_size),
        "num_classes": num_classes,
        **asdict(sheet.total),
        "parts": {part: asdict(cost) for part, cost in sheet.parts.items()},
    }


def _list() -> None:
    from mnasdet import config

    rows = []
    for name in config.architecture_names():
        architecture = config.load_architecture(name)
        image_size = (architecture.image_size, architecture.image_size)
        costs = analyze(architecture, image_size, _DEFAULT_NUM_CLASSES)
        figures = {key: costs[key] for key in ("params", "multiply_adds")}
        rows.append({"architecture": name, **figures, "source": architecture.source})
    if FLAGS.format == "json":
        command.print_json({"architectures": rows})
        return
    print(f"{'architecture':<28} {'params':>11} {'multiply-adds':>15}  source")
    for row in rows:
        print(
            f"{row['architecture']:<28} {row['params']:>11,} {row['multiply_adds']:>15,}  "
            f"{row['source']}"
        )


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
