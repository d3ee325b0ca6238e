"""A MnasNet, block by block, as in figure 7 of Tan et al., 2019, and likewise the network of a base
code (Yao et al., "SM-NAS", 2020)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mnasdet import base_codes
from mnasdet.networks.blocks import round_channels
from mnasdet.networks.features import MAX_LEVEL
from mnasdet.protos import architecture_pb2

_MnasNet = architecture_pb2.MnasNet

# Pixels.
_BOX_WIDTH, _BOX_HEIGHT = 104, 100
_GAP, _CARD_STEP, _LINE = 22, 4, 18
_TOP, _BELOW = 56, 44
_MARGIN = 10
_MIDDLE = _TOP + _BOX_HEIGHT // 2

# A layer after the first of its block is a card behind the box; more than these are not shown.
_MOST_CARDS = 5

_OPS = {_MnasNet.MBCONV: "MBConv", _MnasNet.CONV: "Conv", _MnasNet.SEPARABLE: "SepConv"}
_SKIPS = {
    _MnasNet.NONE: "no skip",
    _MnasNet.POOL: "pool skip",
    _MnasNet.AVERAGE_POOL: "average pool skip",
}

_BASE_CODE_TITLES = {
    "basicblock": "Basic block",
    "bottleneck": "Bottleneck",
    "Xbottleneck": "Grouped",
}

_STYLE = Markup("""
.backbone { --ink: #1f2733; --soft: #667085; --edge: #98a2b3; --plain: #f2f4f7;
  --k3: #e3edfd; --k3-line: #3b82f6; --k5: #def3ea; --k5-line: #159a6b;
  --k7: #fdeedb; --k7-line: #d98a1f;
  font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; text-anchor: middle; }
@media (prefers-color-scheme: dark) {
  .backbone { --ink: #e6e9ef; --soft: #98a2b3; --edge: #667085; --plain: #232a36;
    --k3: #1c2f52; --k5: #17382d; --k7: #3d2d18; } }
.backbone rect { fill: var(--plain); stroke: var(--edge); stroke-width: 1.25; }
.backbone .k3 rect { fill: var(--k3); stroke: var(--k3-line); }
.backbone .k5 rect { fill: var(--k5); stroke: var(--k5-line); }
.backbone .k7 rect { fill: var(--k7); stroke: var(--k7-line); }
.backbone text { fill: var(--soft); }
.backbone text.strong { fill: var(--ink); font-weight: 600; font-size: 13px; }
.backbone path { fill: none; stroke: var(--edge); stroke-width: 1.5; }
.backbone path.arrow { fill: var(--edge); stroke: none; }
""")


@dataclass(frozen=True)
class _Layers:
    """One box.

    Attributes:
      stride: of its output in the image.
      feature: the level that the pyramid takes from it.
    """

    title: str
    lines: tuple[str, ...]
    stride: int
    kernel_size: int = 0
    repeats: int = 1
    feature: int | None = None

    @property
    def cards(self) -> int:
        """Returns the number of cards behind the box."""
        return min(self.repeats, _MOST_CARDS) - 1

    @property
    def width(self) -> int:
        return _BOX_WIDTH + _CARD_STEP * self.cards


def svg(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int] | None = None
) -> Markup:
    """Returns the backbone as an SVG element, which stands alone or in a page, light or dark;
    nothing if it is neither a MnasNet nor a base code.

    Args:
      image_size: (height, width) in pixels; without it only strides are shown.
    """
    boxes = _boxes(architecture)
    if not boxes:
        return Markup()
    lefts = [_MARGIN]
    for box in boxes:
        lefts.append(lefts[-1] + box.width + _GAP)
    width = lefts.pop() - _GAP + _MARGIN
    features = any(box.feature is not None for box in boxes)
    height = _TOP + _BOX_HEIGHT + (_BELOW if features else _MARGIN)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="backbone" role="img" width="{width}" '
        'height="{height}" viewBox="0 0 {width} {height}" '
        'style="max-width:100%;min-width:{least:g}px">'
        "<title>The backbone</title><style>{css}</style>{stages}{arrows}{boxes}</svg>"
    ).format(
        width=width,
        height=height,
        least=0.75 * width,
        css=_STYLE,
        stages=Markup().join(_stages(boxes, lefts, image_size)),
        arrows=Markup().join(_arrow(left - _GAP, _MIDDLE, _GAP - 3) for left in lefts[1:]),
        boxes=Markup().join(_drawn(box, left) for box, left in zip(boxes, lefts, strict=True)),
    )


def caption(architecture: architecture_pb2.Architecture) -> str:
    """Describes the drawing in words."""
    if architecture.backbone.HasField("base_code"):
        return (
            f"{architecture.backbone.base_code.code}: ×3 are three blocks of one width, of which "
            "the first of a size strides. Levels C2 to C5 are what the last blocks of a size give."
        )
    if not architecture.backbone.mnasnet.block:
        return ""
    return (
        "Colours are kernel sizes: blue 3×3, green 5×5, amber 7×7. MBConv6 expands its channels 6 "
        "times. ×3: three equal layers, of which the first strides. SE: squeezed channels over "
        "those that come in."
    )


def _boxes(architecture: architecture_pb2.Architecture) -> list[_Layers]:
    if architecture.backbone.HasField("base_code"):
        return _base_code_boxes(architecture)
    if architecture.backbone.mnasnet.block:
        return _mnasnet_boxes(architecture)
    return []


def _width(architecture: architecture_pb2.Architecture, channels: int) -> int:
    if architecture.depth_multiplier == 1.0:
        return channels
    return round_channels(channels * architecture.depth_multiplier, architecture.min_depth)


def _base_code_boxes(architecture: architecture_pb2.Architecture) -> list[_Layers]:
    """Returns the stem and, of every stage, a box for all blocks of one width."""
    network = base_codes.parse(architecture.backbone.base_code.code)
    title, expansion = _BASE_CODE_TITLES[network.block], base_codes.EXPANSIONS[network.block]

    def channels(count: int) -> str:
        return f"{_width(architecture, count)} channels"

    boxes = [
        _Layers("Conv", ("3×3", channels(network.base // 2)), 2),
        _Layers("Conv", ("3×3", channels(network.base)), 4),
    ]
    takes = architecture.HasField("feature_pyramid") or architecture.HasField("region_head")
    for level, stage in enumerate(network.planes, start=base_codes.FIRST_LEVEL):
        runs = [(planes, len(list(blocks))) for planes, blocks in itertools.groupby(stage)]
        for place, (planes, repeats) in enumerate(runs, start=1):
            boxes.append(
                _Layers(
                    title,
                    (f"3×3  ×{repeats}", channels(expansion * planes)),
                    2**level,
                    3,
                    repeats,
                    level if takes and place == len(runs) else None,
                )
            )
    return boxes


def _mnasnet_boxes(architecture: architecture_pb2.Architecture) -> list[_Layers]:
    proto = architecture.backbone.mnasnet

    def width(channels: int) -> int:
        return _width(architecture, channels)

    boxes = [_Layers("Conv", ("3×3", f"{width(proto.stem_channels)} channels"), 2)]
    taken = _levels_taken(architecture)
    # A level's feature is its last output: that of the block before one that strides, or of the
    # last.
    following = [*(block.stride for block in proto.block[1:]), 2]
    for block, next_stride in zip(proto.block, following, strict=True):
        stride = boxes[-1].stride * block.stride
        level = stride.bit_length() - 1
        boxes.append(
            _Layers(
                _title(block),
                _lines(block, width(block.channels)),
                stride,
                block.kernel_size,
                block.repeats,
                level if next_stride == 2 and level in taken else None,
            )
        )
    if not taken:
        last = f"{proto.last_channels} channels"
        boxes.append(_Layers("Conv", ("1×1", last), boxes[-1].stride))
    return boxes


def _levels_taken(architecture: architecture_pb2.Architecture) -> Sequence[int]:
    """Returns the levels that the pyramid takes from linear outputs of blocks.

    The layer after those is then not built.
    """
    pyramid = architecture.feature_pyramid
    name = pyramid.WhichOneof("feature_pyramid_oneof")
    if name == "fpn" and pyramid.fpn.input_level:
        return pyramid.fpn.input_level
    if name in ("mnasfpn", "nas_fpn") or (
        name == "fpn" and pyramid.fpn.variant != architecture_pb2.Fpn.OBJECT_DETECTION_API
    ):
        return range(getattr(pyramid, name).min_level, MAX_LEVEL + 1)
    return range(0)


def _title(block: architecture_pb2.MnasNet.Block) -> str:
    expansion = str(block.expansion) if block.op == _MnasNet.MBCONV else ""
    return f"{_OPS[block.op]}{expansion}"


def _lines(block: architecture_pb2.MnasNet.Block, channels: int) -> tuple[str, ...]:
    size = block.kernel_size
    lines = [f"{size}×{size}  ×{block.repeats}", f"{channels} channels"]
    if block.se_ratio:
        lines.append(f"SE {block.se_ratio:g}")
    if block.skip in _SKIPS:
        lines.append(_SKIPS[block.skip])
    return tuple(lines)


def _stages(
    boxes: Sequence[_Layers], lefts: Sequence[int], image_size: Sequence[int] | None
) -> Iterator[Markup]:
    """Yields a line above the boxes of one size, and the size."""
    for stride in sorted({box.stride for box in boxes}):
        members = [i for i, box in enumerate(boxes) if box.stride == stride]
        left, right = lefts[members[0]], lefts[members[-1]] + _BOX_WIDTH
        size = f"1/{stride}"
        if image_size:
            size += " · " + "×".join(str(-(-side // stride)) for side in image_size)
        yield Markup('<text x="{:g}" y="18">{}</text><path d="M{left} 31V26H{right}V31"/>').format(
            (left + right) / 2, size, left=left, right=right
        )


def _arrow(x: float, y: float, length: float, down: bool = False) -> Markup:
    turn = Markup(' transform="rotate(90 {:g} {:g})"').format(x, y) if down else ""
    tip = x + length
    return Markup(
        '<g{turn}><path d="M{x:g} {y:g}H{end:g}"/>'
        '<path class="arrow" d="M{tip:g} {y:g}l-8 -4v8Z"/></g>'
    ).format(turn=turn, x=x, y=y, end=tip - 6, tip=tip)


def _drawn(box: _Layers, left: int) -> Markup:
    parts = []
    # From the back to the front: SVG draws in order.
    for card in range(box.cards, -1, -1):
        x, y = left + _CARD_STEP * card, _TOP - _CARD_STEP * card
        rect = Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="4"/>')
        parts.append(rect.format(x, y, _BOX_WIDTH, _BOX_HEIGHT))
    middle = left + _BOX_WIDTH / 2
    first = _TOP + (_BOX_HEIGHT - _LINE * len(box.lines)) / 2 + 4
    title = Markup('<text class="strong" x="{:g}" y="{:g}">{}</text>')
    parts.append(title.format(middle, first, box.title))
    for row, line in enumerate(box.lines, start=1):
        text = Markup('<text x="{:g}" y="{:g}">{}</text>')
        parts.append(text.format(middle, first + _LINE * row, line))
    if box.feature is not None:
        bottom = _TOP + _BOX_HEIGHT
        parts.append(_arrow(middle, bottom, 20, down=True))
        parts.append(title.format(middle, bottom + 36, f"C{box.feature}"))
    kind = Markup(' class="k{}"').format(box.kernel_size) if box.kernel_size else ""
    return Markup("<g{}>{}</g>").format(kind, Markup().join(parts))
