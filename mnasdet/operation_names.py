"""The operations that Hit-Detector chooses from, by name (Guo et al., "Hit-Detector: Hierarchical
Trinity Architecture Search for Object Detection", 2020, section 4.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mnasdet.errors import ConfigError, nearest

_TEXT = re.compile(r"(ir|sep|conv)_k(\d+)(?:_d(\d+))?(?:_e(\d+))?")


@dataclass(frozen=True)
class Operation:
    """One operation, written "ir_k5_d2_e6": from features to features.

    Attributes:
      kind: "ir", an inverted residual whose expansion is kept even for a factor of 1; "sep", a
        depthwise separable convolution; "conv", a full convolution.
      kernel_size, dilation: of the convolution that is no 1x1.
      expansion: expanded channels over incoming ones, of "ir".
    """

    kind: str
    kernel_size: int
    dilation: int = 1
    expansion: int = 1

    def __str__(self) -> str:
        text = f"{self.kind}_k{self.kernel_size}_d{self.dilation}"
        return f"{text}_e{self.expansion}" if self.kind == "ir" else text


def parse(text: str) -> Operation:
    """Returns the operation that a text names; a dilation of 1 may be left out.

    Raises:
      ConfigError: the text names none.
    """
    found = _TEXT.fullmatch(text)
    if not found or (found[1] == "ir") != bool(found[4]):
        raise ConfigError(f'no operation "{text}"; {nearest(text, list(map(str, POOL)))}')
    return Operation(found[1], int(found[2]), int(found[3] or 1), int(found[4] or 1))


# The paper's 32. With kernels of 7, dilations would reach over most of a feature.
POOL = (
    *(Operation("ir", k, d, e) for k in (3, 5) for d in (1, 2, 3) for e in (1, 3, 6)),
    *(Operation("ir", 7, 1, e) for e in (1, 6)),
    *(Operation(kind, k, d) for kind in ("sep", "conv") for k in (3, 5) for d in (1, 2, 3)),
)
