"""The files of a supernet's training. No TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mnasdet import files
from mnasdet.architectures import chosen_place, chosen_places
from mnasdet.protos import architecture_pb2

# The probabilities over time, those at the end, and what each round of a screening found.
HISTORY_FILE = "alpha.json"
PROBABILITIES_FILE = "probabilities.json"
SCREENING_FILE = "screening.json"

# The folder of a screening, in that of its supernet.
SCREENING = "screening"

# For each layer that is chosen, by name: the probability of each operation.
Probabilities: TypeAlias = Mapping[str, Mapping[str, float]]


def history(path: Path) -> list[dict[str, Any]]:
    """Returns what `History` wrote: the step and the probabilities by choice; [] without a file."""
    if not path.exists():
        return []
    return files.read_json(path, "history of alpha", of=list, keys=["step", "probabilities"])


def by_place(
    whole: architecture_pb2.Architecture, of_choices: Mapping[str, Sequence[float]]
) -> Probabilities:
    """Returns the probability of each operation of each layer.

    The stages of a region head share one list of operations: of those it is the product, so that
    the most probable list is that of the most probable network.

    Args:
      of_choices: the probabilities of each choice of the network, by the choice's name.
    """
    found = {}
    for place in chosen_places(whole):
        rows = [row for name, row in of_choices.items() if chosen_place(name) == place.name]
        products = [math.prod(column) for column in zip(*rows, strict=True)] or [1.0]
        total = sum(products)
        found[place.name] = {
            op: product / total for op, product in zip(place.layer.op, products, strict=True)
        }
    return found


def probabilities(folder: str | Path) -> Probabilities:
    """Returns the probabilities that the training of a supernet ended with."""
    path = Path(folder) / PROBABILITIES_FILE
    return files.read_json(path, "probabilities of a supernet", keys=["probabilities"])[
        "probabilities"
    ]


def rounds(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns what the rounds of a screening found, by their folders' names; {} before any."""
    path = folder / SCREENING_FILE
    if not path.exists():
        return {}
    return dict(files.read_json(path, "record of a screening", keys=["rounds"])["rounds"])
