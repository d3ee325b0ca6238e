"""SM-NAS's base codes, which stand in a string as they are."""

from __future__ import annotations

from mnasdet import base_codes
from mnasdet.architecture_string.grammar import Piece, fail
from mnasdet.errors import ConfigError
from mnasdet.protos import architecture_pb2


def write_base_code(proto: architecture_pb2.BaseCode) -> list[str]:
    return [proto.code]


def read_base_code(proto: architecture_pb2.BaseCode, piece: Piece) -> None:
    try:
        proto.code = str(base_codes.parse(piece[0]))
    except ConfigError as error:
        fail(piece, str(error))
