"""Shows what a search space chooses from, how many architectures it holds, and a sample.

Examples:
  python scripts/describe_search_space.py --search_space=mnasfpn --seed=1
  python scripts/describe_search_space.py --search_space=nas_fpn --architecture=resnet50_fpn_256
  python scripts/describe_search_space.py --pipeline_config_path=configs/quickstart.config
"""

from __future__ import annotations

from typing import Any

from absl import flags

from mnasdet.scripts import command

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "search_space", None, "Search space with the paper's choices, in place of the config's own."
)
flags.DEFINE_string(
    "architecture",
    None,
    "What the space does not choose: published name, text-proto file or architecture string, in "
    "place of the config's own or of the space's usual one.",
)
flags.DEFINE_string("pipeline_config_path", None, "Text-proto pipeline config to take both from.")
flags.DEFINE_integer("seed", 0, "Seed of the sample.", lower_bound=0)
command.define_format_flag()

# The papers searched over these, as near as they are published.
_USUAL_BASES = {
    "nas_fpn": "resnet50_nas_fpn_7_256",
    "mnasnet": "mobilenet_v2_ssdlite",
    "structure": "faster_rcnn_resnet50_fpn",
    "base_code": "sm_nas_e0",
    "supernet": "hit_detector",
}
_USUAL_BASE = "mobilenet_v2_mnasfpn"


def main() -> None:
    from mnasdet.search_spaces import factory

    space_config, base = _subject()
    name = space_config.WhichOneof("search_space_oneof")
    description = _description(name, factory.from_config(space_config, base))
    if FLAGS.format == "json":
        command.print_json(description)
    else:
        _print_text(description)


def _subject() -> tuple[Any, Any]:
    """Returns the SearchSpaceConfig and the base Architecture that the flags name."""
    from mnasdet import config
    from mnasdet.errors import ConfigError, nearest
    from mnasdet.protos import search_pb2
    from mnasdet.search_spaces import factory

    name, names = FLAGS.search_space or "", factory.names()
    path = FLAGS.pipeline_config_path
    pipeline = config.load(path, readers=()) if path else None
    space_config = search_pb2.SearchSpaceConfig()
    if name in names:
        getattr(space_config, name).SetInParent()
    elif name or pipeline is None:
        raise ConfigError(f"--search_space is {name!r}; use {nearest(name, names)}")
    elif not pipeline.search_config.HasField("search_space"):
        raise ConfigError(
            f"{path} has no search_config.search_space; give --search_space, one of "
            f"{', '.join(names)}"
        )
    else:
        space_config.CopyFrom(pipeline.search_config.search_space)
    if FLAGS.architecture:
        base = config.load_architecture(FLAGS.architecture)
    elif pipeline is not None:
        base = config.resolve(pipeline).architecture
    else:
        base = config.load_architecture(_USUAL_BASES.get(name, _USUAL_BASE))
    return space_config, base


def _description(name: str, space: Any) -> dict[str, Any]:
    """Returns JSON; the cardinality also as a string: many readers know doubles alone."""
    import numpy as np

    tokens = space.sample(np.random.default_rng(FLAGS.seed))
    return {
        "search_space": name,
        "num_decisions": len(space.decisions),
        "cardinality": str(space.cardinality()),
        "cardinality_float": float(space.cardinality()),
        "decisions": [
            {
                "name": decision.name,
                "choices": list(decision.choices),
                "narrowed_by": [space.decisions[i].name for i, _ in decision.narrowed_by],
            }
            for decision in space.decisions
        ],
        "sample": {
            "seed": FLAGS.seed,
            "tokens": list(tokens),
            "architecture": str(space.decode(tokens)),
        },
    }


def _print_text(description: dict[str, Any]) -> None:
    print(f"{description['search_space']}: {description['num_decisions']} decisions")
    print(f"{description['cardinality']} ({description['cardinality_float']:.3e}) architectures\n")
    for decision in description["decisions"]:
        narrowed = ", ".join(decision["narrowed_by"])
        choices = ", ".join(map(str, decision["choices"]))
        print(f"  {decision['name']:28} {choices}{f'  (narrowed by {narrowed})' * bool(narrowed)}")
    sample = description["sample"]
    print(f"\nA sample (seed {sample['seed']}):")
    print(f"  {' '.join(map(str, sample['tokens']))}\n\n{sample['architecture']}", end="")


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
