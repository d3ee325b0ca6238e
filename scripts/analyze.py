"""Counts what a network costs, part by part: weights, multiply-adds, memory traffic; and where its
milliseconds come from, by a table of build_latency_table or a profile of benchmark_tflite.

python scripts/analyze.py --architecture=mobilenet_v2_mnasfpn --image_size=320
python scripts/analyze.py --architecture=sm_nas_e5 --image_size=800,1344 --num_proposals=300
python scripts/analyze.py --architecture='mobilenet_v2_l256/fpn_c64_od_sep/shared_d64_n4/net_i320'
python scripts/analyze.py --pipeline_config_path=configs/mnasfpn_mobilenet_v2_320x320_coco.config
python scripts/analyze.py --architecture=mobilenet_v2_mnasfpn --latency_table=phone.textproto \
    --plot=latency.html
python scripts/analyze.py --op_profile=benchmark.json
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
flags.DEFINE_string("architecture", None, "Published name, text-proto file or architecture string.")
flags.DEFINE_string("pipeline_config_path", None, "Text-proto pipeline config, in place of it.")
flags.DEFINE_bool("list", False, "All published architectures, each at its own image size.")
command.define_image_size_flag("in place of the architecture's or config's")
flags.DEFINE_integer(
    "num_classes",
    None,
    "Without the background; if left out the config's, or COCO's 90 ids, its 80 classes for two "
    "stages, or a classifier's 1000.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "num_proposals",
    None,
    "Regions of an image that a two-stage detector judges; 1000 or the config's if left out.",
    lower_bound=1,
)
flags.DEFINE_integer("repeats", None, "Repeats of the feature pyramid's cell.", lower_bound=1)
flags.DEFINE_bool(
    "size_dependent_ordering", None, "Whether MnasFPN down-samples before its 1x1 convolutions."
)
flags.DEFINE_float("depth_multiplier", None, "Factor on the widths of backbone and pyramid.")
flags.DEFINE_string("latency_table", "", "Table from build_latency_table that has the layers.")
flags.DEFINE_string(
    "op_profile",
    "",
    "What benchmark_tflite --enable_op_profiling --output wrote, in place of an architecture.",
)
flags.DEFINE_integer("num_slowest", 10, "Slowest layers to show.", lower_bound=1)
flags.DEFINE_string("plot", "", "HTML page of the layers' latencies to write.")

_COSTS = {
    "params": 11,
    "trainable_params": 11,
    "multiply_adds": 15,
    "memory_bytes": 13,
}


def main() -> None:
    if FLAGS["list"].value:
        _list()
        return
    subjects = (FLAGS.architecture, FLAGS.pipeline_config_path, FLAGS.op_profile)
    if sum(map(bool, subjects)) != 1:
        raise UserError(
            "give either --architecture, --pipeline_config_path, --op_profile or --list"
        )
    if FLAGS.plot and not (FLAGS.latency_table or FLAGS.op_profile):
        raise UserError("--plot: needs --latency_table or --op_profile")
    if FLAGS.op_profile:
        latency = _profiled_latency()
        if FLAGS.format == "json":
            command.print_json({"latency": latency})
        else:
            _print_latency(latency)
        return
    architecture, image_size, num_classes = _subject()
    _override(architecture)
    image_size = _checked_size(architecture, image_size)
    costs = analyze(architecture, image_size, num_classes)
    if FLAGS.latency_table:
        costs["latency"] = _latency(architecture, image_size, num_classes)
    if FLAGS.format == "json":
        command.print_json(costs)
        return
    title = f"{costs['architecture']} at {image_size[0]}x{image_size[1]}, {num_classes} classes"
    if "num_proposals" in costs:
        title += f", {costs['num_proposals']} proposals"
    print(title)
    print(f"{'':<16} " + " ".join(f"{_heading(cost):>{width}}" for cost, width in _COSTS.items()))
    for part, values in {**costs["parts"], "total": costs}.items():
        figures = " ".join(f"{values[cost]:>{width},}" for cost, width in _COSTS.items())
        print(f"{part:<16} {figures}")
    if "latency" in costs:
        _print_latency(costs["latency"])


def _latency(architecture, image_size, num_classes: int) -> dict[str, Any]:
    """Returns the latencies by a table, and writes the plot if --plot names one."""
    from mnasdet import models
    from mnasdet.networks.cost import cost_sheet
    from mnasdet.tflite.latency import latency_breakdown
    from mnasdet.tflite.latency.latency_table import LatencyTable

    table = LatencyTable.load(FLAGS.latency_table)
    sheet = cost_sheet(models.network_of(architecture, image_size, num_classes))
    size = "x".join(map(str, image_size))
    return {"table": FLAGS.latency_table} | _breakdown(
        f"{architecture.name or 'unnamed'} at {size}",
        latency_breakdown.by_layer(table, sheet),
        table.latency_ms(sheet),
        sheet.runs * table.constant_ms,
    )


def _profiled_latency() -> dict[str, Any]:
    """Returns the latencies of a profile, and writes the plot if --plot names one."""
    from mnasdet import files
    from mnasdet.tflite.latency import latency_breakdown

    remedy = "write it with benchmark_tflite --benchmark_binary=… --enable_op_profiling --output"
    profile = files.read_json(FLAGS.op_profile, "benchmark's result", remedy=remedy)
    try:
        layers = latency_breakdown.by_operator(profile["operators"])
        latency_ms, graph = profile["mean_ms"], profile["provenance"]["graph"]
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{FLAGS.op_profile}: has no times of operators; {remedy}") from None
    constant_ms = latency_ms - sum(layer.latency_ms for layer in layers)
    return {"op_profile": FLAGS.op_profile} | _breakdown(graph, layers, latency_ms, constant_ms)


def _breakdown(title: str, layers, latency_ms: float, constant_ms: float) -> dict[str, Any]:
    from mnasdet import files
    from mnasdet.tflite.latency import latency_breakdown

    if FLAGS.plot:
        from mnasdet.reporting import latency_plot

        files.write(FLAGS.plot, latency_plot.html(title, layers, constant_ms))
    slowest = latency_breakdown.slowest(layers, FLAGS.num_slowest)
    return {
        "latency_ms": latency_ms,
        "constant_ms": constant_ms,
        "parts": latency_breakdown.by_part(layers),
        "slowest_layers": [asdict(layer) for layer in slowest],
    }


def _print_latency(latency: dict[str, Any]) -> None:
    total = latency["latency_ms"]
    source = "operators" if "op_profile" in latency else "table"
    print(f"\n{f'latency by {source}':<20} {'ms':>7} {'share':>11}")
    rows = latency["parts"] | {"beside layers": latency["constant_ms"], "total": total}
    for part, value in rows.items():
        print(f"{part:<16} {value:>11.4f} {value / total:>11.1%}")
    print("\nslowest layers")
    for layer in latency["slowest_layers"]:
        share = layer["latency_ms"] / total
        print(f"{layer['latency_ms']:>11.4f} ms {share:>6.1%}  {layer['layer']}  {layer['name']}")


def _heading(cost: str) -> str:
    headings = {"trainable_params": "trainable", "multiply_adds": "multiply-adds"}
    return headings.get(cost, cost.replace("_", " "))


def _subject():
    """Returns the Architecture, the image size and the number of classes that the flags name.

    The size is (height, width), or None where the architecture has none.
    """
    from mnasdet import config
    from mnasdet.architectures import default_input_size

    if FLAGS.architecture:
        architecture = config.load_architecture(FLAGS.architecture)
        image_size = default_input_size(architecture)
        num_classes = command.default_num_classes(architecture)
    else:
        blueprint = config.resolve(config.load(FLAGS.pipeline_config_path, readers=()))
        architecture, image_size = blueprint.architecture, blueprint.image_size
        num_classes = blueprint.num_classes
    return architecture, command.image_size() or image_size, FLAGS.num_classes or num_classes


def _override(architecture) -> None:
    """Puts in what the flags say."""
    from mnasdet.config_checks.architecture import architecture_problems

    name = architecture.feature_pyramid.WhichOneof("feature_pyramid_oneof")
    for field in ("repeats", "size_dependent_ordering"):
        value = FLAGS[field].value
        if value is None:
            continue
        pyramid = getattr(architecture.feature_pyramid, name) if name else None
        if not hasattr(pyramid, field):
            raise UserError(f"--{field}: {name or 'a classifier'} has none")
        setattr(pyramid, field, value)
    if FLAGS.num_proposals is not None:
        if not architecture.HasField("region_head"):
            raise UserError("--num_proposals: the architecture has no second stage")
        architecture.region_proposal.max_proposals = FLAGS.num_proposals
    if FLAGS.depth_multiplier is not None:
        if not 0 < FLAGS.depth_multiplier < float("inf"):
            raise UserError(f"--depth_multiplier is {FLAGS.depth_multiplier:g}; more than 0")
        architecture.depth_multiplier = FLAGS.depth_multiplier
    if problems := architecture_problems(architecture):
        raise UserError("; ".join(problems))


def _checked_size(architecture, image_size) -> tuple[int, int]:
    """Returns the image size, which an architecture may lack or be too deep for."""
    from mnasdet.architectures import smallest_image_size

    if image_size is None:
        raise UserError("the architecture names no image size; set --image_size")
    smallest = smallest_image_size(architecture)
    if min(image_size) < smallest:
        raise UserError(
            f"image size {image_size[0]}x{image_size[1]}: at least {smallest} is "
            "needed; set --image_size"
        )
    return image_size


def analyze(architecture, image_size, num_classes: int) -> dict[str, Any]:
    """Returns the costs of one image, total and by part; `image_size` is (height, width)."""
    from mnasdet import models
    from mnasdet.architecture_string.conversion import to_string
    from mnasdet.networks.cost import cost_sheet

    # Typed in again, the string stands for what was counted, image size and all.
    architecture.input.height, architecture.input.width = image_size
    sheet = cost_sheet(models.network_of(architecture, image_size, num_classes))
    proposals = {}
    if architecture.HasField("region_head"):
        proposals["num_proposals"] = architecture.region_proposal.max_proposals
    return {
        "architecture": architecture.name or "unnamed",
        "structure": to_string(architecture),
        "image_size": list(image_size),
        "num_classes": num_classes,
        **proposals,
        **sheet.total._asdict(),
        "parts": {part: cost._asdict() for part, cost in sheet.parts.items()},
    }


def _list() -> None:
    from mnasdet import config
    from mnasdet.architectures import default_input_size

    figures = ("trainable_params", "params", "multiply_adds")
    rows: list[dict[str, Any]] = []
    for name in config.architecture_names():
        architecture = config.load_architecture(name)
        image_size = default_input_size(architecture)
        assert image_size  # A test holds that each names one.
        costs = analyze(architecture, image_size, command.default_num_classes(architecture))
        row = {"architecture": name, "image_size": list(image_size)}
        rows.append(row | {key: costs[key] for key in figures} | {"source": architecture.source})
    if FLAGS.format == "json":
        command.print_json({"architectures": rows})
        return
    width = max(len(row["architecture"]) for row in rows)
    print(
        f"{'architecture':<{width}} {'size':>9} {'trainable':>12} {'params':>12} "
        f"{'multiply-adds':>17}  source"
    )
    for row in rows:
        print(
            f"{row['architecture']:<{width}} {'x'.join(map(str, row['image_size'])):>9} "
            f"{row['trainable_params']:>12,} {row['params']:>12,} {row['multiply_adds']:>17,}  "
            f"{row['source']}"
        )


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
