"""MnasNet's layers, written and read."""

from __future__ import annotations

from mnasdet.architecture_string.grammar import Kind, Option, Piece, options
from mnasdet.architecture_string.words import (
    kind_of,
    parse,
    read_kind,
    read_options,
    write_options,
)
from mnasdet.protos import architecture_pb2

_MnasNet = architecture_pb2.MnasNet


def _layer_options(expansion: str = "") -> tuple[Option, ...]:
    return options(
        f"r=repeats! k=kernel_size! s=stride! {expansion} c=channels! se=se_ratio",
        noskip=("skip", _MnasNet.NONE),
        pool=("skip", _MnasNet.POOL),
        avgpool=("skip", _MnasNet.AVERAGE_POOL),
    )


# An inverted bottleneck, a depthwise separable and a plain convolution.
LAYERS = {
    "ir": Kind("", _layer_options("e=expansion!"), needs=("op", _MnasNet.MBCONV)),
    "ds": Kind("", _layer_options(), "op: SEPARABLE", ("op", _MnasNet.SEPARABLE)),
    "cn": Kind("", _layer_options(), "op: CONV", ("op", _MnasNet.CONV)),
}


def write_mnasnet(proto: architecture_pb2.MnasNet) -> list[str]:
    words = []
    for block in proto.block:
        name = kind_of(block, LAYERS)
        usual = parse(LAYERS[name].usual, block)
        words.append("_".join([name, *write_options(block, usual, LAYERS[name].options)]))
    return words


def read_mnasnet(proto: architecture_pb2.MnasNet, piece: Piece) -> None:
    name, rest = read_kind(piece, LAYERS)
    block = proto.block.add()
    block.CopyFrom(parse(LAYERS[name].usual, block))
    read_options(block, rest, LAYERS[name].options)
