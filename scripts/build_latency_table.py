"""Measures the single layers of a search space and how well they predict whole networks.

All layers that the config's architecture and its search space can have go into the table; what it
has already stays. Random networks of the space give the table its scale and constants, and
others, held out, the fidelity that is printed; they stay in the table as well, so that a run that
was interrupted goes on where it was.

  python scripts/build_latency_table.py \\
    --pipeline_config_path=configs/mnasfpn_search_coco.config --output=host.textproto

On a phone, and of architectures in place of a search space:

  python scripts/build_latency_table.py --architecture=mobilenet_v2_mnasfpn,mobilenet_v2_ssdlite \\
    --device=adb --benchmark_binary=android_aarch64_benchmark_model --taskset=f0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from mnasdet.errors import ConfigError, UserError
from mnasdet.scripts import command, device_flags

if TYPE_CHECKING:
    from mnasdet.networks.builder import Node
    from mnasdet.networks.cost import CostSheet
    from mnasdet.tflite.latency.latency_table import LatencyTable

FLAGS = flags.FLAGS

command.define_format_flag()
device_flags.define()
flags.DEFINE_string("pipeline_config_path", None, "Text-proto pipeline config.")
flags.DEFINE_multi_string(
    "architecture",
    [],
    "Published name, text-proto file or architecture string, several with commas or repeated: in "
    "place of a search space. Without a pipeline config at its own image size, with 90 classes, a "
    "classifier's 1000.",
)
flags.DEFINE_string("output", "", "The table; the device's own in the cache folder if left out.")
flags.DEFINE_integer(
    "num_fit",
    50,
    "Networks that give the scale; 0: leave it. Of --architecture none if left out.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "num_test",
    50,
    "Networks held out for the fidelity. Of --architecture all the others if left out.",
    lower_bound=0,
)
flags.DEFINE_integer("seed", 0, "Seed of the random networks.", lower_bound=0)

# The space has been seen when so many random networks in a row bring no new layer.
_FRUITLESS_SAMPLES = 300


# Outputs of networks, from a seed.
Draw = Callable[[int], Iterator[list["Node"]]]


def main() -> None:
    from mnasdet.networks.cost import cost_sheet
    from mnasdet.tflite.latency import latency_table, table_measurement

    spec = device_flags.device_spec()
    for name, least in (("num_fit", 4), ("num_test", 2)):
        if 0 < FLAGS[name].value < least:
            raise ConfigError(f"--{name} is 0 or at least {least}")
    pipeline = _pipeline()
    given, draw = _networks(pipeline)
    sheets = _covering_sheets(given, draw)
    fitted, held_out = _whole_networks(given, draw)

    networks = [*fitted, *held_out]
    sheets += [cost_sheet(outputs) for outputs in networks]
    with spec.open() as device:
        path = Path(FLAGS.output or latency_table.default_path(device.provenance()))
        table_measurement.ensure(path, sheets, device, networks, progress=True)
    table = latency_table.LatencyTable.load(path)  # what it tells is what is written
    if pipeline is not None:
        _sign(table, pipeline)
    report = _calibrate(table, fitted, held_out)
    if FLAGS.format == "json":
        command.print_json(report)
        return
    for name, value in (report | (report["fidelity"] or {})).items():
        if not isinstance(value, (dict, list)) and value is not None:
            print(f"{name} = {value:.4f}" if isinstance(value, float) else f"{name} = {value}")
    for name, agreement in report["peers"].items():
        shares = [agreement[f"within_{percent}_percent"] for percent in (5, 10)]
        print(
            f"{name} in its place: r2 = {agreement['r2']:.4f}, within 5 and 10 %: "
            f"{shares[0]:.2f} and {shares[1]:.2f}"
        )


def _pipeline():
    from mnasdet import config

    if FLAGS.pipeline_config_path:
        return config.load(FLAGS.pipeline_config_path, readers=())
    if FLAGS.architecture:
        return None
    raise UserError("give --pipeline_config_path, --architecture or both")


def _networks(pipeline) -> tuple[list[list[Node]], Draw | None]:
    """The outputs of the given architectures, the config's own without any, and what draws from
    its search space."""
    import numpy as np

    from mnasdet import config
    from mnasdet.search_spaces import factory

    names = [name for item in FLAGS.architecture for name in item.split(",")]
    if names:
        return [_outputs(pipeline, config.load_architecture(name)) for name in names], None
    base = config.architecture(pipeline)
    if not pipeline.search_config.HasField("search_space"):
        return [_outputs(pipeline, base)], None
    space = factory.from_config(pipeline.search_config.search_space, base)

    def draw(seed: int) -> Iterator[list[Node]]:
        rng = np.random.default_rng(seed)
        while True:
            yield _outputs(pipeline, space.decode(space.sample(rng)))

    return [_outputs(pipeline, base)], draw


def _outputs(pipeline, architecture) -> list[Node]:
    from mnasdet import config
    from mnasdet.detectors.network import network_outputs

    if pipeline is not None:
        return network_outputs(
            architecture, config.image_size(pipeline), pipeline.model.ssd.num_classes
        )
    if not architecture.image_size:
        raise UserError("the architecture names no image size; give --pipeline_config_path")
    size = (architecture.image_size, architecture.image_size)
    return network_outputs(architecture, size, command.default_num_classes(architecture))


def _covering_sheets(given: Sequence[list[Node]], draw: Draw | None) -> list[CostSheet]:
    """Cost sheets that have every layer of the given networks and of the space."""
    from mnasdet.networks.cost import cost_sheet
    from mnasdet.tflite.latency.layers import layers

    sheets = [cost_sheet(outputs) for outputs in given]
    known = {layer.key for sheet in sheets for layer in layers(sheet)}
    fruitless = 0
    for outputs in draw(FLAGS.seed) if draw else []:
        sheet = cost_sheet(outputs)
        keys = {layer.key for layer in layers(sheet)}
        fruitless = fruitless + 1 if keys <= known else 0
        if fruitless == _FRUITLESS_SAMPLES:
            break
        if not fruitless:
            sheets.append(sheet)
            known |= keys
    logging.info("%d layers in all", len(known))
    return sheets


def _whole_networks(
    given: Sequence[list[Node]], draw: Draw | None
) -> tuple[list[list[Node]], list[list[Node]]]:
    """Different networks to fit to, and others to test on."""
    from mnasdet.networks.builder import canonical_key

    num_fit, num_test = FLAGS.num_fit, FLAGS.num_test
    if draw is None:
        # All there is tells more as a test than as the fit of two numbers.
        num_fit = num_fit if FLAGS["num_fit"].present else 0
        return list(given[:num_fit]), list(given[num_fit : num_fit + num_test])
    found: dict[str, list[Node]] = {}
    # A seed of its own: other networks than those that the layers were found in.
    for outputs in islice(draw(FLAGS.seed + 1), 10 * (num_fit + num_test)):
        if len(found) == num_fit + num_test:
            break
        found.setdefault(canonical_key(outputs), outputs)
    networks = list(found.values())
    return networks[:num_fit], networks[num_fit:]


def _sign(table: LatencyTable, pipeline) -> None:
    """Writes into the table which config it was last extended for."""
    from mnasdet.search.results import config_digest

    digest = config_digest(pipeline)
    if table.provenance.get("config_sha256") != digest:
        table.provenance["config_sha256"] = digest
        table.save(table.path)


def _calibrate(
    table: LatencyTable,
    fitted: Sequence[list[Node]],
    held_out: Sequence[list[Node]],
) -> dict[str, Any]:
    """Fits the table to the first of its whole networks and compares it with the others."""
    from mnasdet.networks.builder import canonical_key
    from mnasdet.networks.cost import cost_sheet
    from mnasdet.tflite.latency import calibration

    networks = [*fitted, *held_out]
    sheets = [cost_sheet(outputs) for outputs in networks]
    keys = [canonical_key(outputs) for outputs in networks]
    measured_ms = [table.networks[key] for key in keys]
    if fitted:
        calibration.calibrate(table, sheets[: len(fitted)], measured_ms[: len(fitted)])
    rows = [
        {
            "predicted_ms": table.latency_ms(sheet),
            "latency_ms": table.networks[key],
            "noisy": key in table.noisy,
        }
        for sheet, key in list(zip(sheets, keys, strict=True))[len(fitted) :]
    ]
    return {
        "table": table.path,
        "num_layers": len(table.entries),
        "provenance": table.provenance,
        "scale": table.scale,
        "small_scale": table.small_scale,
        "ms_per_megabyte": table.ms_per_megabyte,
        "constant_ms": table.constant_ms,
        "num_fit": len(fitted),
        "num_noisy": len(table.noisy),
        "fidelity": calibration.fidelity(
            [row["predicted_ms"] for row in rows], [row["latency_ms"] for row in rows]
        )
        if len(rows) > 1
        else None,
        "peers": _peers(sheets, measured_ms, len(fitted)) if fitted and len(rows) > 1 else {},
        "networks": rows,
    }


def _peers(
    sheets: Sequence[CostSheet], measured_ms: Sequence[float], num_fit: int
) -> dict[str, dict[str, float]]:
    """The fidelity, to the networks behind the first `num_fit`, of what tells nothing of the
    device: scaled by those first ones as the table is."""
    from mnasdet.tflite.latency import calibration

    peers = {}
    for name in ("multiply_adds", "params"):
        counts = [[getattr(sheet.total, name)] for sheet in sheets]
        scale, constant_ms = calibration.fit(counts[:num_fit], measured_ms[:num_fit])
        predicted_ms = [scale * count + constant_ms for (count,) in counts[num_fit:]]
        peers[name] = calibration.fidelity(predicted_ms, measured_ms[num_fit:])
    return peers


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
