"""The result of resolving a pipeline config.

Nothing that reads a blueprint has a default of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mnasdet.data.image_resizer import ImageResizer
from mnasdet.networks.choices import Mixing
from mnasdet.protos import architecture_pb2

# The kinds of models that are deployed as TFLite files; the others are SavedModels. A two-stage
# detector's proposals and crops, between its graphs, are no TFLite operations.
TFLITE_KINDS = ("ssd", "classification")


@dataclass(frozen=True)
class Subnets:
    """Networks that share the weights of a supernet.

    Attributes:
      architectures: first the smallest and the largest.
      sandwich: the chance that a step of the training draws one of those two (Yu et al., "BigNAS",
        2020, train both in every step).
    """

    architectures: tuple[architecture_pb2.Architecture, ...]
    sandwich: float = 0.0


@dataclass(frozen=True)
class Blueprint:
    """The model that a config builds.

    Attributes:
      kind: the member of `model` that the config sets, such as "ssd".
      architecture: the layers, merged from all parts of the config and checked.
      resizer: how images become the network's input; an architecture with an input size of its own
        decides that size.
      num_classes: without the background.
      settings: the message of `kind`.
      quantized: the model rounds as TFLite does in int8.
      subnets: the networks of a supernet, which is then what is built; None: `architecture` alone.
      mixing: how layers that list several operations compute in training.
    """

    kind: str
    architecture: architecture_pb2.Architecture
    resizer: ImageResizer
    num_classes: int
    settings: Any
    quantized: bool = False
    subnets: Subnets | None = None
    mixing: Mixing = field(default_factory=Mixing)

    @property
    def image_size(self) -> tuple[int, int]:
        """Returns (height, width) in pixels of the images that the network takes."""
        return self.resizer.image_size
