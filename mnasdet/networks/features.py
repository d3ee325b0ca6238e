"""The features of a backbone."""

from __future__ import annotations

from dataclasses import dataclass

from mnasdet.networks.builder import Node

# The coarsest level of a backbone; pyramids make what is coarser.
MAX_LEVEL = 5

# The names of features that are no levels.
LAST, EXPANSION = "last", "expansion"


def level_name(level: int) -> str:
    return f"level_{level}"


def size_of(image_size: tuple[int, int], level: int) -> tuple[int, int]:
    """Returns (height, width) of a level of an image: SAME padding rounds up."""
    height, width = image_size
    return -(-height // 2**level), -(-width // 2**level)


@dataclass(frozen=True)
class BackboneFeatures:
    """The features that heads and pyramids start from; unread ones are never built.

    Attributes:
      levels: the last feature of stride 2^level, by level; with linear bottlenecks it is linear.
      last: what the classifier pools: after the last 1x1 convolution where there is one.
      expansion: SSDLite's first feature: at stride 16, the expanded input of the first bottleneck
        that strides to 32, before its depthwise convolution. None where there is no such layer;
        SSD then takes level 4.
    """

    levels: dict[int, Node]
    last: Node
    expansion: Node | None = None

    def from_level(self, min_level: int) -> list[Node]:
        """Returns the levels from `min_level` on, finest first."""
        return [self.levels[level] for level in sorted(self.levels) if level >= min_level]

    @property
    def by_name(self) -> dict[str, Node]:
        """Returns all features: "level_2" and so on, "last" and "expansion"."""
        named = {level_name(level): node for level, node in self.levels.items()}
        named[LAST] = self.last
        return named | ({EXPANSION: self.expansion} if self.expansion else {})
