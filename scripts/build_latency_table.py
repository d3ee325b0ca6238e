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

from typing import Any

from absl import flags

from mnasdet.errors import ConfigError, UserError
from mnasdet.scripts import command, device_flags

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


def main() -> None:
    from mnasdet.search import table_building

    spec = device_flags.device_spec()
    for name, least in (("num_fit", 4), ("num_test", 2)):
        # The fit has four numbers; a rank correlation needs two networks.
        if 0 < FLAGS[name].value < least:
            raise ConfigError(f"--{name} is 0 or at least {least}")
    subject = _subject()
    # All networks there are tell more as a test than as the fit of two numbers.
    fits = subject.draw is not None or FLAGS["num_fit"].present
    report = table_building.build(
        subject,
        spec,
        FLAGS.output or None,
        num_fit=FLAGS.num_fit if fits else 0,
        num_test=FLAGS.num_test,
        seed=FLAGS.seed,
    )
    if FLAGS.format == "json":
        command.print_json(report)
    else:
        print_report(report)


def _subject():
    """Returns the networks that the flags name."""
    from mnasdet import config
    from mnasdet.search import table_building

    names = [name for item in FLAGS.architecture for name in item.split(",")]
    given = [config.load_architecture(name) for name in names]
    if FLAGS.pipeline_config_path:
        pipeline = config.load(FLAGS.pipeline_config_path, readers=())
        if not given:
            return table_building.searched(pipeline)
        return table_building.configured(pipeline, given)
    if not given:
        raise UserError("give --pipeline_config_path, --architecture or both")
    return table_building.Subject([_published(one) for one in given])


def _published(architecture):
    """Returns an architecture's network at its own image size."""
    from mnasdet import architectures, models

    size = architectures.default_input_size(architecture)
    if size is None:
        raise UserError("the architecture names no image size; give --pipeline_config_path")
    return models.network_of(architecture, size, command.default_num_classes(architecture))


def print_report(report: dict[str, Any]) -> None:
    for name, value in (report | (report["fidelity"] or {})).items():
        if not isinstance(value, (dict, list)) and value is not None:
            print(f"{name} = {value:.4f}" if isinstance(value, float) else f"{name} = {value}")
    for name, agreement in report["peers"].items():
        shares = [agreement[f"within_{percent}_percent"] for percent in (5, 10)]
        print(
            f"{name} in its place: r2 = {agreement['r2']:.4f}, within 5 and 10 %: "
            f"{shares[0]:.2f} and {shares[1]:.2f}"
        )


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
