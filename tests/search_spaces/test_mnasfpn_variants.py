"""MnasFPN's cell without expansion (No-Expand) and with more inputs (Conn-Search)."""

import math

import numpy as np
import pytest

from mnasdet import config
from mnasdet.errors import UserError
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces import factory
from tests.search_spaces.architectures import changed, key, mnasfpn_space


@pytest.fixture(scope="module")
def published():
    return config.load_architecture("mobilenet_v2_mnasfpn")


def blocks(architecture):
    return architecture.feature_pyramid.mnasfpn.block


def test_without_expansion_every_block_is_as_wide_as_the_cell(published):
    space = mnasfpn_space(published, expanded_channels=None)
    pairs = 3_112_013_520_000
    assert space.cardinality() == 2**9 * 4**5 * math.factorial(4) * pairs * 3**9 * 6
    assert float(space.cardinality()) == pytest.approx(4.625e24, rel=1e-3)
    assert len(space.decisions) == 54 - 9
    architecture = space.decode((3, *space.encode(space.example)[1:]))
    assert architecture.feature_pyramid.mnasfpn.channels == 64
    assert {block.expanded_channels for block in blocks(architecture)} == {64}


def test_an_expanded_block_is_not_in_no_expand(published):
    space = mnasfpn_space(published, expanded_channels=None, repeats=4)
    with pytest.raises(UserError, match="block_4/expanded_channels is 256, but the .* has 48"):
        space.encode(published)


def test_unused_blocks_are_discarded_without_expansion_too(published):
    """The paper removes expansion and only that, so that both spaces compare."""
    space = mnasfpn_space(published, expanded_channels=None, repeats=4)
    narrow = changed(published, lambda a: [setattr(b, "expanded_channels", 48) for b in blocks(a)])
    assert key(space.decode(space.encode(narrow))) == key(narrow)


@pytest.fixture(scope="module")
def conn_search(published):
    return mnasfpn_space(published, max_inputs=4)


def test_cardinality_of_connections(conn_search):
    sets = math.prod(sum(math.comb(i + 4, n) for n in (2, 3, 4)) for i in range(9))
    assert conn_search.cardinality() == 4**5 * math.factorial(4) * sets * 3**9 * 6 * 7**9
    assert float(conn_search.cardinality()) == pytest.approx(8.943e35, rel=1e-4)


def test_connections_are_only_added(conn_search):
    names = [decision.name for decision in conn_search.decisions]
    assert names[1:8] == [
        "block_4/input_0",
        "block_4/input_1",
        "block_4/input_2",
        "block_4/input_3",
        "block_4/level",
        "block_4/expanded_channels",
        "block_4/kernel_size",
    ]
    assert len(names) == 1 + 5 * 7 + 3 + 4 * 6
    assert conn_search.decisions[3].choices == ("none", 2, 3)
    assert conn_search.decisions[4].choices == ("none", 3)


def test_connections_decode(conn_search):
    rng = np.random.default_rng(2)
    seen = set()
    for tokens in [conn_search.sample(rng) for _ in range(200)]:
        for block in blocks(conn_search.decode(tokens)):
            assert block.merge == architecture_pb2.MnasFpn.ADD
            assert list(block.input) == sorted(set(block.input))
            seen.add(len(block.input))
    assert seen == {2, 3, 4}


def test_the_published_cell_is_in_the_space_of_connections(published):
    space = mnasfpn_space(published, max_inputs=4, repeats=4)
    tokens = space.encode(published)
    # The first block: 1 and 2, level 4, F 256, k 3.
    assert tokens[1:8] == (1, 1, 0, 0, 1, 5, 0)
    assert key(space.decode(tokens)) == key(published)


def test_a_gate_is_not_in_the_space_of_connections(published):
    space = mnasfpn_space(published, max_inputs=4, repeats=4)
    gated = changed(published, lambda a: setattr(blocks(a)[1], "merge", 1))
    with pytest.raises(UserError, match="block_9/merge is squeeze_excite, but the .* has add"):
        space.encode(gated)


def test_at_most_max_inputs(published):
    space = mnasfpn_space(published, max_inputs=3, repeats=4)
    wide = changed(published, lambda a: blocks(a)[1].input.extend([1, 2]))
    with pytest.raises(UserError, match="block 5: input .0, 4, 1, 2.; use 2 to 3 different ones"):
        space.encode(wide)


def test_max_inputs_of_a_config(published):
    search_space = search_pb2.SearchSpaceConfig()
    search_space.conn_search.max_inputs = 2
    search_space.conn_search.num_internal_blocks = 0
    pairs = 6 * 10 * 15 * 21
    space = factory.from_config(search_space, published)
    assert space.cardinality() == 24 * pairs * 3**4 * 6 * 7**4
