"""Helpers for architectures in the tests of search spaces."""

import itertools

from mnasdet.errors import UserError
from mnasdet.models import network_of
from mnasdet.networks.builder import canonical_key
from mnasdet.protos import architecture_pb2
from mnasdet.search_spaces import mnasfpn
from mnasdet.search_spaces.composed import ComposedSpace
from mnasdet.search_spaces.scale import repeats_part


def changed(architecture, change):
    """A copy that `change` was called with."""
    copy = architecture_pb2.Architecture()
    copy.CopyFrom(architecture)
    change(copy)
    return copy


def key(architecture, side=320):
    """Equal keys: one network."""
    return canonical_key(network_of(architecture, (side, side), 90).outputs)


def mnasfpn_space(base, *, repeats=mnasfpn.REPEATS, **choices):
    """MnasFPN's cell and how often it is repeated, with some of the choices of `MnasFpnPart`."""
    cell = mnasfpn.MnasFpnPart(base, **choices)
    return ComposedSpace(base, [cell, repeats_part(base, "mnasfpn", "mnasfpn", repeats)])


def all_tokens(space):
    """Yields every combination of choices that a tiny space accepts."""
    for tokens in itertools.product(*(range(len(d.choices)) for d in space.decisions)):
        try:
            space.validate(tokens)
        except UserError:
            continue
        yield tokens
