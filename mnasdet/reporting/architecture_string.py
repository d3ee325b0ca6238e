"""Architectures in one readable line."""

from __future__ import annotations

from mnasdet.protos import architecture_pb2


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
    num_inputs = proto.max_level - proto.min_level + 1
    names = {index: f"C{proto.min_level + index}" for index in range(num_inputs)}
    return names | {num_inputs + p: f"B{i}" for i, p in enumerate(live_blocks(proto))}


def cell_string(proto: architecture_pb2.MnasFpn) -> str:
    """C, the repeats and the live blocks: "c48 r4 | L4(C4+C5)f256k3 L3(C3+B0)f128k3se …".

    A block is its level, what it merges, F, the kernel size, and "se" for squeeze_excite.
    """
    names = feature_names(proto)
    blocks = []
    for block in (proto.block[place] for place in live_blocks(proto)):
        merged = "+".join(names[index] for index in block.input)
        gated = "se" if block.merge == architecture_pb2.MnasFpn.SQUEEZE_EXCITE else ""
        blocks.append(
            f"L{block.level}({merged})f{block.expanded_channels}k{block.kernel_size}{gated}"
        )
    return f"c{proto.channels} r{proto.repeats} | {' '.join(blocks)}"
