"""Shows what a search space chooses from, how many architectures it holds, and a sample.

Example:
  python scripts/describe_search_space.py --search_space=mnasfpn --seed=1
"""

from __future__ import annotations

from typing import Any

from absl import flags

from mnasdet.scripts import command

FLAGS = flags.FLAGS
flags.DEFINE_string("search_space", None, "Search space, such as mnasfpn.")
flags.DEFINE_integer("seed", 0, "Of the sample.", lower_bound=0)
command.define_format_flag()

# Gives the sample what the space does not choose.
_BASE = "mobilenet_v2_mnasfpn"


def main() -> None:
    from mnasdet import config
    from mnasdet.errors import ConfigError, nearest
    from mnasdet.protos import search_pb2
    from mnasdet.search_spaces import factory

    name, names = FLAGS.search_space or "", factory.names()
    if name not in names:
        raise ConfigError(f"--search_space is {name!r}; use {nearest(name, names)}")
    space_config = search_pb2.SearchSpaceConfig()
    getattr(space_config, name).SetInParent()
    space = factory.from_config(space_config, config.load_architecture(_BASE))
    description = _description(name, space)
    if FLAGS.format == "json":
        command.print_json(description)
    else:
        _print_text(description)


def _description(name: str, space: Any) -> dict[str, Any]:
    """JSON; the cardinality also as a string, since many readers know only doubles."""
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
