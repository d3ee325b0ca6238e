"""Measures the single layers of a search space and how well they predict whole networks.

All layers that the config's architecture and its search space can have go into the table; what it
has already stays. Random networks of the space then give the table its scale and constant, and
others, held out, the fidelity that is printed.

  python scripts/build_latency_table.py \\
    --pipeline_config_path=configs/mnasfpn_search_coco.config --output=host.textproto
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from absl import flags, logging

from mnasdet.errors import ConfigError, UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_format_flag()
flags.DEFINE_string("pipeline_config_path", None, "Text-proto pipeline config.", required=True)
flags.DEFINE_string("device", "host", "Where to measure: host is this machine.")
flags.DEFINE_integer("num_threads", 1, "Of the runtime.", lower_bound=1)
flags.DEFINE_string("output", "", "The table; this machine's own in the cache folder if left out.")
flags.DEFINE_integer("num_fit", 10, "Networks that give the scale; 0: leave it.", lower_bound=0)
flags.DEFINE_integer("num_test", 10, "Networks held out for the fidelity.", lower_bound=0)
flags.DEFINE_integer("seed", 0, "Of the random networks.", lower_bound=0)

# The space has been seen when so many random networks in a row bring no new layer.
_FRUITLESS_SAMPLES = 300


def main() -> None:
    from mnasdet import config
    from mnasdet.search_spaces import factory
    from mnasdet.tflite.benchmark import check_host
    from mnasdet.tflite.latency_table import host_table_path

    check_host(FLAGS.device)
    if FLAGS.num_fit == 1 or FLAGS.num_test == 1:
        raise ConfigError("--num_fit and --num_test are 0 or at least 2")
    pipeline = config.load(FLAGS.pipeline_config_path, readers=())
    base = config.architecture(pipeline)
    space = None
    if pipeline.search_config.HasField("search_space"):
        space = factory.from_config(pipeline.search_config.search_space, base)
    path = FLAGS.output or host_table_path(FLAGS.num_threads)
    sheets = _covering_sheets(pipeline, base, space)

    from mnasdet.tflite import layer_latency

    table = layer_latency.ensure(path, sheets, FLAGS.num_threads, progress=True)
    report: dict[str, Any] = {
        "table": str(path),
        "num_layers": len(table.entries),
        "provenance": table.provenance,
        "scale": table.scale,
        "constant_ms": table.constant_ms,
    }
    if space is None:
        logging.info("no search_space in the config: no networks to fit the scale to")
    elif FLAGS.num_fit or FLAGS.num_test:
        report |= _calibrate(path, pipeline, space)
    if FLAGS.format == "json":
        command.print_json(report)
        return
    for name, value in (report | report.get("fidelity", {})).items():
        if not isinstance(value, dict):
            print(f"{name} = {value:.4f}" if isinstance(value, float) else f"{name} = {value}")


def _outputs(pipeline, architecture):
    from mnasdet import config
    from mnasdet.detectors.network import network_outputs

    return network_outputs(
        architecture, config.image_size(pipeline), pipeline.model.ssd.num_classes
    )


def _random_networks(pipeline, space, seed: int) -> Iterator[Any]:
    import numpy as np

    rng = np.random.default_rng(seed)
    while True:
        yield _outputs(pipeline, space.decode(space.sample(rng)))


def _covering_sheets(pipeline, base, space) -> list:
    """Cost sheets that have every layer of the config's architecture and of its space."""
    from mnasdet.networks.cost import cost_sheet
    from mnasdet.tflite.latency_table import layers

    sheets = [cost_sheet(_outputs(pipeline, base))]
    known = {layer.key for layer in layers(sheets[0])}
    if space is None:
        return sheets
    fruitless = 0
    for outputs in _random_networks(pipeline, space, FLAGS.seed):
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


def _calibrate(path, pipeline, space) -> dict[str, Any]:
    """Measures random networks, fits the table to the first and compares it with the others."""
    from tqdm import tqdm

    from mnasdet.networks.cost import cost_sheet
    from mnasdet.tflite import calibration, layer_latency

    # A seed of its own: other networks than those that the layers were found in.
    networks = _random_networks(pipeline, space, FLAGS.seed + 1)
    sheets, measured = [], []
    for _ in tqdm(range(FLAGS.num_fit + FLAGS.num_test), unit="network"):
        outputs = next(networks)
        sheets.append(cost_sheet(outputs))
        measured.append(calibration.network_latency_ms(outputs, FLAGS.num_threads))
    fitted, held_out = slice(FLAGS.num_fit), slice(FLAGS.num_fit, None)
    table = layer_latency.ensure(path, sheets, FLAGS.num_threads)
    if FLAGS.num_fit:
        sums = [table.layer_sum_ms(sheet) for sheet in sheets[fitted]]
        scale, constant_ms = calibration.fit(sums, measured[fitted])
        if scale <= 0:
            raise UserError(
                f"{path}: the networks' latencies do not grow with those of their layers; measure "
                "again while nothing else runs, with more --num_fit"
            )
        table = layer_latency.set_scale(path, scale, constant_ms)
    report: dict[str, Any] = {"scale": table.scale, "constant_ms": table.constant_ms}
    if FLAGS.num_test:
        predicted = [table.latency_ms(sheet) for sheet in sheets[held_out]]
        report["fidelity"] = calibration.fidelity(predicted, measured[held_out])
    return report


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
