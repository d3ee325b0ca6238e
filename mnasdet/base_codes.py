"""The strings by which SM-NAS names a backbone, such as "basicblock_64_1-21-21-12" (Yao et al.,
"SM-NAS: Structural-to-Modular Neural Architecture Search for Object Detection", 2020, section
3.2.2). No TensorFlow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from mnasdet.errors import ConfigError, nearest, shown

# Output channels of a block over its planes, as in ResNet and ResNeXt.
EXPANSIONS = {"basicblock": 1, "bottleneck": 4, "Xbottleneck": 4}

# The level of the first stage that the string describes; level l has stride 2^l. The stem has
# strides 2 and 4.
FIRST_LEVEL = 2
NUM_STAGES = 4

# The digits of the string: a block keeps the width or doubles it.
KEEPS, DOUBLES = 1, 2

# He et al., "Deep Residual Learning for Image Recognition", 2016, table 1: the blocks at strides 4,
# 8, 16 and 32, and the channels at stride 4. From 50 layers on they are bottlenecks.
_RESNET_BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_RESNET_BASE = 64
_BOTTLENECK_DEPTH = 50


@dataclass(frozen=True)
class BaseCodeNetwork:
    """A residual network whose depth and widths a string describes.

    Attributes:
      block: basicblock, bottleneck or Xbottleneck, whose 3x3 convolutions are grouped.
      base: channels after the stem; its first convolution has half of them.
      stages: for each of the levels 2 to 5 its blocks; DOUBLES doubles the planes, KEEPS keeps
        them. The first block of every stage but the first has stride 2, whatever its digit is.
    """

    block: str
    base: int
    stages: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        stages = "-".join("".join(map(str, stage)) for stage in self.stages)
        return f"{self.block}_{self.base}_{stages}"

    @property
    def num_blocks(self) -> int:
        return sum(map(len, self.stages))

    @property
    def planes(self) -> tuple[tuple[int, ...], ...]:
        """Returns the planes of every block: the width that the string counts, before the block's
        expansion."""
        planes, result = self.base, []
        for stage in self.stages:
            blocks = []
            for digit in stage:
                planes *= digit
                blocks.append(planes)
            result.append(tuple(blocks))
        return tuple(result)

    @property
    def widths(self) -> tuple[int, ...]:
        """Returns the channels of levels 2 to 5, which a feature pyramid takes."""
        return tuple(EXPANSIONS[self.block] * stage[-1] for stage in self.planes)

    @property
    def groups(self) -> int:
        """Returns the groups of the 3x3 convolutions.

        The paper names no cardinality. Half the base is ResNeXt's 32 for its base of 64, and gives
        the weights that the paper prints for E4 and E5 (base 56: 28 groups; 32 give 1 % less).
        """
        return self.base // 2 if self.block == "Xbottleneck" else 1


def parse(code: str) -> BaseCodeNetwork:
    """Reads a string; `str` of the result gives it back.

    Raises:
      ConfigError: with the place in the string that cannot be read, and what is allowed there.
    """
    block, _, rest = code.partition("_")
    if block not in EXPANSIONS:
        _fail(code, 0, block, f"{nearest(block, EXPANSIONS)} is allowed")
    base, separator, text = rest.partition("_")
    start = len(block) + 1
    # Bounded digits: Python refuses to read thousands of them. An odd base has no half.
    if not re.fullmatch(r"[1-9][0-9]{0,4}", base) or int(base) % 2:
        _fail(code, start, base, "the base is an even number of channels, such as 64")
    start += len(base) + 1
    stages = text.split("-")
    if len(stages) != NUM_STAGES:
        count = len(stages) if separator else 0
        _fail(code, start, text, f"{NUM_STAGES} stages are needed, joined by -; there are {count}")
    for stage in stages:
        if wrong := re.search("[^12]|^$", stage):
            allowed = "a block is 1, which keeps the width, or 2, which doubles it"
            _fail(code, start + wrong.start(), wrong[0], allowed)
        start += len(stage) + 1
    return BaseCodeNetwork(block, int(base), tuple(tuple(map(int, stage)) for stage in stages))


def _fail(code: str, place: int, text: str, allowed: str) -> NoReturn:
    raise ConfigError(
        f'base code "{shown(code)}", character {place + 1}: "{shown(text)}": {allowed}'
    )


def of_resnet(depth: int, groups: int = 1) -> BaseCodeNetwork:
    """Returns the base code with the blocks and the widths of a ResNet or ResNeXt.

    Its stem is another one: two 3x3 convolutions in place of a 7x7 one and a max pool.
    """
    block = "basicblock"
    if depth >= _BOTTLENECK_DEPTH:
        block = "bottleneck" if groups == 1 else "Xbottleneck"
    first, *others = _RESNET_BLOCKS[depth]
    stages = [(KEEPS,) * first, *((DOUBLES, *(KEEPS,) * (count - 1)) for count in others)]
    return BaseCodeNetwork(block, _RESNET_BASE, tuple(stages))
