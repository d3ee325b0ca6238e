"""Architectures as one readable line that can be typed, compared and read back:

    mobilenet_v2/mnasfpn_c48_r4_L4(C4+C5)f256k3.L3(C3+B0)f128k3…/shared_d64_n4/net_i320

The parts, separated by "/", are the backbone; then the feature pyramid, the box predictor and,
where they are not the pyramid's usual ones, the anchors; or a classifier in place of those; and
`net` for what belongs to all parts. A part is its kind and its options, joined by "_": a key and
its numbers, or a key alone. Blocks stand behind the options, separated by ".". Those of a pyramid
are their level and in brackets what they merge: C3, C4, … come in, B0, B1, … are the blocks before.
A MnasFPN's have F and the kernel size behind, and "se" for squeeze and excite; a NAS-FPN's "gp" for
global pooling.

What the string leaves out is not structure: name and source; how layers start, are normalised,
regularised and activated. Those are the published ones of each kind.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NoReturn

from google.protobuf import text_format
from google.protobuf.message import Message

from mnasdet.errors import ConfigError, nearest
from mnasdet.protos import architecture_pb2

_MnasNet = architecture_pb2.MnasNet
_MnasFpn = architecture_pb2.MnasFpn
_NasFpn = architecture_pb2.NasFpn

# A piece of the string and the place where it starts.
Piece = tuple[str, int]


@dataclass(frozen=True)
class _Option:
    """A word behind a kind.

    Attributes:
      key: its letters.
      field: that its number sets; of a repeated field, its numbers.
      value: what the key sets that has no number.
      always: written also where it says what is usual.
    """

    key: str
    field: str
    value: int | None = None
    always: bool = False


@dataclass(frozen=True)
class _Kind:
    """A part or a block.

    Attributes:
      path: of its message in an Architecture; of a block, empty.
      options: in their order.
      usual: text proto of what holds where no option says otherwise.
      needs: a field and the value that it has in messages of this kind.
      blocks: how the blocks behind the options are written and read.
      anchors: text proto of a pyramid's usual anchor generator.
    """

    path: str
    options: tuple[_Option, ...]
    usual: str = ""
    needs: tuple[str, int] | None = None
    blocks: _Blocks | None = None
    anchors: str = ""


@dataclass(frozen=True)
class _Blocks:
    """How blocks are written and read.

    Attributes:
      start: pattern of what a block begins with.
      write: the blocks of a message.
      read: adds one block to a message.
    """

    start: str
    write: Callable[[Any], list[str]]
    read: Callable[[Any, Piece], None]


def live_blocks(proto: architecture_pb2.MnasFpn) -> list[int]:
    """Places in `proto.block` of the blocks that an output needs, ascending."""
    num_inputs = proto.max_level - proto.min_level + 1
    stack = list(range(len(proto.block)))[-num_inputs:]
    live: set[int] = set()
    while stack:
        place = stack.pop()
        if place not in live:
            live.add(place)
            inputs = proto.block[place].input
            stack += [index - num_inputs for index in inputs if index >= num_inputs]
    return sorted(live)


def feature_names(proto: architecture_pb2.MnasFpn) -> dict[int, str]:
    """What a block's `input` indices mean: C3, C4, … come in, B0, B1, … are the live blocks."""
    return _names(proto, live_blocks(proto))


def _names(proto: Any, places: Sequence[int]) -> dict[int, str]:
    num_inputs = proto.max_level - proto.min_level + 1
    names = {index: f"C{proto.min_level + index}" for index in range(num_inputs)}
    return names | {num_inputs + place: f"B{i}" for i, place in enumerate(places)}


def _write_mnasfpn(proto: architecture_pb2.MnasFpn) -> list[str]:
    """The blocks that an output needs; the others are not built."""
    names = feature_names(proto)
    return [
        f"L{block.level}({'+'.join(names[index] for index in block.input)})"
        f"f{block.expanded_channels}k{block.kernel_size}"
        f"{'se' if block.merge == _MnasFpn.SQUEEZE_EXCITE else ''}"
        for block in (proto.block[place] for place in live_blocks(proto))
    ]


def _read_mnasfpn(proto: architecture_pb2.MnasFpn, piece: Piece) -> None:
    match = re.fullmatch(r"L(\d+)\(([^()]*)\)f(\d+)k(\d+)(se)?", piece[0])
    if not match:
        _fail(piece, "a block is written like L4(C4+C5)f256k3 or L4(C4+C5)f256k3se")
    proto.block.add(
        level=int(match[1]),
        input=_inputs(proto, len(proto.block), (match[2], piece[1] + match.start(2))),
        expanded_channels=int(match[3]),
        kernel_size=int(match[4]),
        merge=_MnasFpn.SQUEEZE_EXCITE if match[5] else _MnasFpn.ADD,
    )


def _write_nas_fpn(proto: architecture_pb2.NasFpn) -> list[str]:
    """All cells: what no other uses goes into an output."""
    names = _names(proto, range(len(proto.cell)))
    return [
        f"L{cell.level}({'+'.join(names[index] for index in cell.input)})"
        f"{'gp' if cell.op == _NasFpn.GLOBAL_POOLING else ''}"
        for cell in proto.cell
    ]


def _read_nas_fpn(proto: architecture_pb2.NasFpn, piece: Piece) -> None:
    match = re.fullmatch(r"L(\d+)\(([^()]*)\)(gp)?", piece[0])
    if not match:
        _fail(piece, "a cell is written like L4(C4+C6) or L4(C4+C6)gp")
    proto.cell.add(
        level=int(match[1]),
        input=_inputs(proto, len(proto.cell), (match[2], piece[1] + match.start(2))),
        op=_NasFpn.GLOBAL_POOLING if match[3] else _NasFpn.SUM,
    )


def _inputs(proto: Any, num_blocks: int, piece: Piece) -> list[int]:
    """The indices of the features that "C3+B0" names."""
    num_inputs = proto.max_level - proto.min_level + 1
    indices = []
    for name in _split(piece, r"\+"):
        match = re.fullmatch(r"([CB])(\d+)", name[0])
        number = int(match[2]) if match else -1
        index = number - proto.min_level
        if match and match[1] == "B":
            index = num_inputs + number if number < num_blocks else -1
        elif index >= num_inputs:
            index = -1
        if index < 0:
            earlier = f" or B0 to B{num_blocks - 1}" if num_blocks else ""
            _fail(name, f"C{proto.min_level} to C{proto.max_level}{earlier} is there before it")
        indices.append(index)
    return indices


def _options(numbers: str, **flags: tuple[str, int]) -> tuple[_Option, ...]:
    """Options from "key=field" for those with numbers, "!" behind what is always written; then
    those without, by their keys, with a field and the value that they set."""
    words = [word.partition("=") for word in numbers.split()]
    return (
        *(_Option(key, field.rstrip("!"), always=field.endswith("!")) for key, _, field in words),
        *(_Option(key, field, value) for key, (field, value) in flags.items()),
    )


def _layer_options(expansion: str = "") -> tuple[_Option, ...]:
    return _options(
        f"r=repeats! k=kernel_size! s=stride! {expansion} c=channels! se=se_ratio",
        noskip=("skip", _MnasNet.NONE),
        pool=("skip", _MnasNet.POOL),
    )


# An inverted bottleneck, a depthwise separable and a plain convolution.
_LAYERS = {
    "ir": _Kind("", _layer_options("e=expansion!"), needs=("op", _MnasNet.MBCONV)),
    "ds": _Kind("", _layer_options(), "op: SEPARABLE", ("op", _MnasNet.SEPARABLE)),
    "cn": _Kind("", _layer_options(), "op: CONV", ("op", _MnasNet.CONV)),
}


def _write_mnasnet(proto: architecture_pb2.MnasNet) -> list[str]:
    words = []
    for block in proto.block:
        name = _kind_of(block, _LAYERS)
        usual = _parse(_LAYERS[name].usual, block)
        words.append("_".join([name, *_write_options(block, usual, _LAYERS[name].options)]))
    return words


def _read_mnasnet(proto: architecture_pb2.MnasNet, piece: Piece) -> None:
    name, rest = _kind(piece, _LAYERS)
    block = proto.block.add()
    block.CopyFrom(_parse(_LAYERS[name].usual, block))
    _read_options(block, rest, _LAYERS[name].options)


_LEVELS = "from=min_level to=max_level"
_SQUARE_AND_OBLONG = "aspect_ratios: [1.0, 2.0, 0.5]"
_MOBILE = """
  class_prediction_bias_init: -4.6
  conv_hyperparams {
    activation: RELU_6
    regularizer { l2_regularizer { weight: 4e-5 } }
"""
_SHARED = f"""
  use_depthwise: true share_prediction_tower: true {_MOBILE}
    initializer {{ random_normal_initializer {{ stddev: 0.01 }} }}
    batch_norm {{ scale: true decay: 0.997 epsilon: 0.001 }}
  }}
"""
_RETINANET = """
  class_prediction_bias_init: -4.595
  conv_hyperparams {
    activation: RELU
    regularizer { l2_regularizer { weight: 1e-4 } }
    initializer { random_normal_initializer { stddev: 0.01 } }
    batch_norm { scale: true decay: 0.997 epsilon: 1e-4 }
  }
"""
_SSD = f"""
  use_dropout: false {_MOBILE}
    initializer {{ random_normal_initializer {{ stddev: 0.03 }} }}
    batch_norm {{ scale: true decay: 0.97 epsilon: 0.001 }}
  }}
"""


def _octaves(scale: float) -> str:
    return (
        f"multiscale_anchor_generator {{ anchor_scale: {scale} scales_per_octave: 3 "
        f"{_SQUARE_AND_OBLONG} }}"
    )


_WEIGHT_SHARED = "box_predictor.weight_shared_convolutional_box_predictor"
_CONVOLUTIONAL = "box_predictor.convolutional_box_predictor"
_TOWER = "d=depth! n=num_layers_before_predictor! k=kernel_size"
_SINGLE = _options("k=kernel_size! n=num_layers_before_predictor min=min_depth max=max_depth")

_KINDS = {
    "mobilenet_v2": _Kind("backbone.mobilenet_v2", _options("w=depth_multiplier l=last_channels")),
    "mobilenet_v3_large": _Kind(
        "backbone.mobilenet_v3",
        _options("", halved=("halved", True)),
        "size: LARGE",
        ("size", architecture_pb2.MobileNetV3.LARGE),
    ),
    "mobilenet_v3_small": _Kind(
        "backbone.mobilenet_v3",
        _options("", halved=("halved", True)),
        "size: SMALL",
        ("size", architecture_pb2.MobileNetV3.SMALL),
    ),
    "mnasnet": _Kind(
        "backbone.mnasnet",
        _options("s=stem_channels! l=last_channels"),
        blocks=_Blocks("(?:ir|ds|cn)_", _write_mnasnet, _read_mnasnet),
    ),
    "resnet": _Kind("backbone.resnet", _options("=depth! g=groups w=width_per_group")),
    "amoebanet_d": _Kind("backbone.amoebanet_d", _options("n=num_cells! f=filters!")),
    "mnasfpn": _Kind(
        "feature_pyramid.mnasfpn",
        _options(
            f"c=channels! r=repeats! {_LEVELS}",
            nosdo=("size_dependent_ordering", False),
            noresidual=("cell_residual", False),
        ),
        blocks=_Blocks(r"L\d", _write_mnasfpn, _read_mnasfpn),
        anchors=_octaves(3.0),
    ),
    "fpn": _Kind(
        "feature_pyramid.fpn",
        _options(
            f"c=channels! {_LEVELS}",
            od=("variant", architecture_pb2.Fpn.OBJECT_DETECTION_API),
            sep=("separable", True),
        ),
        anchors=_octaves(4.0),
    ),
    "nas_fpn": _Kind(
        "feature_pyramid.nas_fpn",
        _options(f"c=channels! r=repeats! {_LEVELS}", sep=("separable", True)),
        blocks=_Blocks(r"L\d", _write_nas_fpn, _read_nas_fpn),
        anchors=_octaves(4.0),
    ),
    "ssd_layers": _Kind(
        "feature_pyramid.ssd_layers",
        _options("c=channels!", sep=("separable", True)),
        anchors="ssd_anchor_generator { aspect_ratios: [1.0, 2.0, 0.5, 3.0, 0.3333] }",
    ),
    "shared": _Kind(
        _WEIGHT_SHARED,
        _options(_TOWER, two=("share_prediction_tower", False)),
        _SHARED,
        ("use_depthwise", True),
    ),
    "retinanet": _Kind(
        _WEIGHT_SHARED,
        _options(_TOWER, one=("share_prediction_tower", True)),
        _RETINANET,
        ("use_depthwise", False),
    ),
    "ssdlite": _Kind(
        _CONVOLUTIONAL, _SINGLE, f"use_depthwise: true {_SSD}", ("use_depthwise", True)
    ),
    "ssd": _Kind(_CONVOLUTIONAL, _SINGLE, _SSD, ("use_depthwise", False)),
    "multiscale": _Kind(
        "anchor_generator.multiscale_anchor_generator",
        _options(f"a=anchor_scale! o=scales_per_octave! r=aspect_ratios {_LEVELS}"),
        _SQUARE_AND_OBLONG,
    ),
    "ssd_anchors": _Kind(
        "anchor_generator.ssd_anchor_generator",
        _options(
            "n=num_layers! min=min_scale max=max_scale s=scales r=aspect_ratios! "
            "i=interpolated_scale_aspect_ratio hs=height_stride ws=width_stride "
            "ho=height_offset wo=width_offset h=base_anchor_height w=base_anchor_width",
            all=("reduce_boxes_in_lowest_layer", False),
        ),
    ),
    "classifier": _Kind("classifier", _options("h=hidden_channels d=dropout")),
    "net": _Kind(
        "",
        _options(
            "w=depth_multiplier m=min_depth x=exit i=image_size", deep=("deep_supervision", True)
        ),
    ),
}

# In which order the parts stand.
_ORDER = ("backbone", "feature_pyramid", "classifier", "box_predictor", "anchor_generator", "")


def to_string(architecture: architecture_pb2.Architecture) -> str:
    """The line that `from_string` makes the same structure of."""
    parts = [_write_part(architecture, field) for field in _ORDER]
    usual = architecture_pb2.Architecture()
    usual.CopyFrom(architecture)
    _set_usual_anchors(usual)
    place = _ORDER.index("anchor_generator")
    if parts[place] == _write_part(usual, "anchor_generator"):
        parts[place] = ""
    return "/".join(filter(None, parts))


def _write_part(architecture: architecture_pb2.Architecture, field: str) -> str:
    message, kinds = _part(architecture, field)
    if message is None:
        return ""
    name = _kind_of(message, kinds)
    kind = kinds[name]
    words = _write_options(message, _usual(kind, message, architecture), kind.options)
    if kind.blocks:
        words.append(".".join(kind.blocks.write(message)))
    return "_".join([name, *filter(None, words)]) if field or words else ""


def from_string(text: str) -> architecture_pb2.Architecture:
    """The architecture that a line stands for.

    Raises:
      ConfigError: with the place in the line that cannot be read, and what is allowed there.
    """
    architecture = architecture_pb2.Architecture()
    allowed = {name: kind for name, kind in _KINDS.items() if _place(kind) == 0}
    for piece in _split((text, 0), "/"):
        name, rest = _kind(piece, allowed)
        kind = _KINDS[name]
        allowed = {name: other for name, other in _KINDS.items() if _place(other) > _place(kind)}
        message = reduce(getattr, filter(None, kind.path.split(".")), architecture)
        message.SetInParent()
        if kind.path:
            message.CopyFrom(_usual(kind, message, architecture))
        options, blocks = _without_blocks(rest, kind)
        _read_options(message, options, kind.options)
        if kind.blocks:
            _read_blocks(message, kind.blocks, blocks)
        if kind.anchors:
            _set_usual_anchors(architecture)
    return architecture


def _read_blocks(message: Any, blocks: _Blocks, pieces: Sequence[Piece]) -> None:
    for piece in pieces:
        try:
            blocks.read(message, piece)
        except ValueError:
            _fail(piece, "a number in it is too large")


def _place(kind: _Kind) -> int:
    return _ORDER.index(kind.path.split(".")[0])


def _part(architecture: architecture_pb2.Architecture, field: str) -> tuple[Any, dict[str, _Kind]]:
    """A part's message, if there is one, and the kinds that write it."""
    if not field:
        return architecture, {"net": _KINDS["net"]}
    part: Any = getattr(architecture, field)
    path = field
    if oneofs := part.DESCRIPTOR.oneofs:
        member = part.WhichOneof(oneofs[0].name)
        path = f"{field}.{member}"
        part = getattr(part, member) if member else None
    elif not architecture.HasField(field):
        part = None
    return part, {name: kind for name, kind in _KINDS.items() if kind.path == path}


def _kind_of(message: Any, kinds: dict[str, _Kind]) -> str:
    return next(
        name
        for name, kind in kinds.items()
        if not kind.needs or getattr(message, kind.needs[0]) == kind.needs[1]
    )


def _usual(kind: _Kind, message: Message, architecture: architecture_pb2.Architecture) -> Any:
    """What a message of a kind is where no option says otherwise; anchors have the pyramid's
    levels."""
    usual: Any = _parse(kind.usual, message)
    pyramid, _ = _part(architecture, "feature_pyramid")
    if kind is _KINDS["multiscale"] and hasattr(pyramid, "min_level"):
        usual.min_level, usual.max_level = pyramid.min_level, pyramid.max_level
    return usual


def _set_usual_anchors(architecture: architecture_pb2.Architecture) -> None:
    """The anchors that are usual for the pyramid; none without one."""
    architecture.ClearField("anchor_generator")
    pyramid, kinds = _part(architecture, "feature_pyramid")
    if pyramid is None:
        return
    anchors = _parse(kinds[_kind_of(pyramid, kinds)].anchors, architecture.anchor_generator)
    if anchors.HasField("multiscale_anchor_generator"):
        generator = anchors.multiscale_anchor_generator
        generator.min_level, generator.max_level = pyramid.min_level, pyramid.max_level
    else:
        anchors.ssd_anchor_generator.num_layers = len(pyramid.channels) + 2
    architecture.anchor_generator.CopyFrom(anchors)


def _parse(text: str, like: Message) -> Any:
    return text_format.Parse(text, type(like)())


def _write_options(message: Any, usual: Any, options: Sequence[_Option]) -> list[str]:
    words = []
    for option in options:
        value = getattr(message, option.field)
        if not option.always and value == getattr(usual, option.field):
            continue
        if option.value is None:
            values = value if hasattr(value, "append") else [value]
            if values:
                words.append(option.key + ",".join(map(_number, values)))
        elif value == option.value:
            words.append(option.key)
    return words


def _number(value: float) -> str:
    """The shortest decimal of a float32."""
    if isinstance(value, int):
        return str(value)
    for digits in range(1, 9):
        text = f"{value:.{digits}g}"
        if struct.pack("f", float(text)) == struct.pack("f", value):
            return text
    return f"{value:.9g}"


def _without_blocks(piece: Piece, kind: _Kind) -> tuple[Piece, list[Piece]]:
    """The options before the blocks, and the blocks."""
    text, start = piece
    match = re.search(f"(?:^|_)(?={kind.blocks.start})", text) if kind.blocks else None
    if not match:
        return piece, []
    # A "." in a number has a digit behind it.
    blocks = _split((text[match.end() :], start + match.end()), r"\.(?=\D|$)")
    return (text[: match.start()], start), list(blocks)


def _read_options(message: Any, piece: Piece, options: Sequence[_Option]) -> None:
    by_key = {option.key: option for option in options}
    seen = set()
    for word in _split(piece, "_") if piece[0] else ():
        match = re.fullmatch(r"([a-z]*)((?:[\d.,-]|e[-+])*)", word[0])
        option = by_key.get(match[1]) if match else None
        if match is None or option is None or (option.value is None) != bool(match[2]):
            _fail(word, f"the options here are {', '.join(_shown(o) for o in options)}")
        if option.field in seen:
            _fail(word, "is given a second time")
        seen.add(option.field)
        _set(message, option, (match[2], word[1] + match.start(2)))


def _shown(option: _Option) -> str:
    return f"{option.key}NUMBER" if option.value is None else option.key


def _set(message: Any, option: _Option, numbers: Piece) -> None:
    field = message.DESCRIPTOR.fields_by_name[option.field]
    whole = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    try:
        values = [(int if whole else float)(text) for text in numbers[0].split(",") if text]
        if option.value is not None:
            setattr(message, option.field, option.value)
        elif hasattr(getattr(message, option.field), "append"):
            getattr(message, option.field)[:] = values
        else:
            (value,) = values
            setattr(message, option.field, value)
    except ValueError:
        _fail(numbers, f"{'a whole number' if whole else 'a number'} is needed")


def _kind(piece: Piece, kinds: dict[str, _Kind]) -> tuple[str, Piece]:
    """The kind that a piece starts with, and what follows it."""
    text, start = piece
    for name in sorted(kinds, key=len, reverse=True):
        if text == name or text.startswith(f"{name}_"):
            return name, (text[len(name) + 1 :], start + len(name) + 1)
    _fail(piece, f"{nearest(text, kinds) if kinds else 'nothing'} is allowed")


def _split(piece: Piece, separator: str) -> Iterator[Piece]:
    text, start = piece
    end = 0
    for match in re.finditer(separator, text):
        yield text[end : match.start()], start + end
        end = match.end()
    yield text[end:], start + end


def _fail(piece: Piece, allowed: str) -> NoReturn:
    text, start = piece
    raise ConfigError(f'architecture string, character {start + 1}: "{text}": {allowed}')
