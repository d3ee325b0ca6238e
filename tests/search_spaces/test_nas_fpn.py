import math

import numpy as np
import pytest

from mnasdet import config
from mnasdet.detectors.network import detection_network
from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces import factory
from mnasdet.search_spaces.composed import ComposedSpace
from mnasdet.search_spaces.nas_fpn import NasFpnPart
from tests.search_spaces.architectures import all_tokens, changed, key


@pytest.fixture(scope="module")
def published():
    return config.load_architecture("resnet50_nas_fpn_7_256")


@pytest.fixture(scope="module")
def mobile():
    return config.load_architecture("mobilenet_v2_mnasfpn")


def from_config(base, name="nas_fpn", **fields):
    search_space = search_pb2.SearchSpaceConfig()
    getattr(search_space, name).CopyFrom(search_pb2.NasFpnSpaceConfig(**fields))
    return factory.from_config(search_space, base)


def cells(architecture):
    return architecture.feature_pyramid.nas_fpn.cell


def test_cardinality(published):
    pairs = math.prod(math.comb(i + 5, 2) for i in range(7))
    assert pairs == 10 * 15 * 21 * 28 * 36 * 45 * 55
    space = from_config(published)
    assert space.cardinality() == 2**7 * math.factorial(5) * 4**2 * pairs == 1_931_334_451_200_000
    assert len(space.decisions) == 1 + 2 * 4 + 4 + 5 * 3


def test_cardinality_of_the_lite_space(mobile):
    pairs = math.prod(math.comb(i + 4, 2) for i in range(9))
    space = from_config(mobile, "nas_fpnlite_s")
    assert space.cardinality() == 2**9 * 4**5 * math.factorial(4) * pairs
    assert float(space.cardinality()) == pytest.approx(3.916e19, rel=1e-3)
    assert len(space.decisions) == 1 + 5 * 4 + 3 + 4 * 3


def test_every_token_list_is_another_architecture(mobile):
    base = changed(mobile, lambda a: setattr(a.feature_pyramid.mnasfpn, "min_level", 5))
    part = NasFpnPart(base, num_internal_cells=1, finest_internal=True)
    space = ComposedSpace(base, [part])
    tokens = list(all_tokens(space))
    # One pair for the internal cell, 3 and 6 for the outputs of levels 5 and 6 in either order.
    assert space.cardinality() == len(tokens) == (1 * 2 * 2) * 2 * (3 * 2) * (6 * 2)
    assert len({space.decode(t).SerializeToString() for t in tokens}) == len(tokens)


def test_internal_cells_do_not_choose_the_finest_level(published, mobile):
    space = from_config(published)
    assert [d.name for d in space.decisions[:6]] == [
        "channels",
        "cell_5/input_0",
        "cell_5/input_1",
        "cell_5/level",
        "cell_5/op",
        "cell_6/input_0",
    ]
    assert space.decisions[3].choices == (4, 5, 6, 7)
    lite = from_config(mobile, "nas_fpnlite_s")
    assert lite.decisions[3].choices == (3, 4, 5, 6)


def test_the_search_of_the_15_cells_leaves_the_finest_level_to_the_outputs(mobile):
    """Ghiasi et al.: intermediate cells have no stride 8 (section 3.1)."""
    space = from_config(mobile, "nas_fpnlite_s", num_internal_cells=11, finest_internal=False)
    pairs = math.prod(math.comb(i + 4, 2) for i in range(15))
    assert space.cardinality() == 2**15 * 3**11 * math.factorial(4) * pairs
    rng = np.random.default_rng(0)
    for _ in range(5):
        levels = [cell.level for cell in cells(space.decode(space.sample(rng)))]
        assert set(levels[:11]) <= {4, 5, 6}
        assert sorted(levels[11:]) == [3, 4, 5, 6]


def test_tokens_of_searches_that_did_not_say_which_levels_mean_what_they_meant(mobile, published):
    for name, base, stated in (
        ("nas_fpnlite_s", mobile, True),
        ("nas_fpn", published, False),
    ):
        spaces = [
            from_config(base, name, num_internal_cells=11),
            from_config(base, name, num_internal_cells=11, finest_internal=stated),
        ]
        assert spaces[0].decisions == spaces[1].decisions


def test_the_published_cells_are_in_the_space(published):
    space = from_config(published, repeats=[7])
    tokens = space.encode(published)
    # C; 1+3 -> level 4, gated; 1+5 -> level 4; levels 3, 4, 5, 7 and so 6; the outputs.
    assert tokens == (
        *(0, 1, 2, 0, 1, 1, 4, 0, 0),
        *(0, 1, 2, 4),
        *(0, 5, 0, 6, 6, 0, 7, 7, 1, 6, 8, 1, 9, 9, 1),
    )
    assert key(space.decode(tokens), 512) == key(published, 512)


def test_the_published_stacks_are_choices_of_repeats():
    base = config.load_architecture("resnet50_nas_fpn_7_256")
    space = from_config(base, repeats=[3, 5, 7], channels=[256, 384])
    for repeats in (3, 5, 7):
        architecture = config.load_architecture(f"resnet50_nas_fpn_{repeats}_256")
        assert space.encode(architecture)[-1] == (3, 5, 7).index(repeats)


def test_of_one_level_the_lower_index_gates(published):
    """Global pooling lets the first of two equals gate, so that an ascending pair is one network
    and the other order another, which the space leaves out."""
    space = from_config(published, repeats=[7])

    def gate(inputs):
        # Features 1 and 5 have level 4.
        cell = architecture_pb2.NasFpn.MergingCell(input=inputs, level=4, op="GLOBAL_POOLING")
        return changed(published, lambda a: cells(a)[1].CopyFrom(cell))

    ascending, descending = gate([1, 5]), gate([5, 1])
    assert key(ascending, 512) != key(descending, 512)
    assert key(space.decode(space.encode(ascending)), 512) == key(ascending, 512)
    with pytest.raises(UserError, match="cell 6: of two inputs of one level only the lower"):
        space.encode(descending)


def test_otherwise_the_order_of_inputs_does_not_matter(published):
    space = from_config(published)
    rng = np.random.default_rng(0)
    for tokens in [space.sample(rng) for _ in range(30)]:
        architecture = space.decode(tokens)
        levels = [3, 4, 5, 6, 7, *(cell.level for cell in cells(architecture))]
        for cell in cells(architecture):
            if cell.op == 0 or levels[cell.input[0]] != levels[cell.input[1]]:
                cell.input[:] = reversed(cell.input)
        assert key(architecture, 512) == key(space.decode(tokens), 512)
        assert space.encode(architecture) == tokens


def test_the_lite_space_replaces_the_bases_pyramid(mobile):
    space = from_config(mobile, "nas_fpnlite_s")
    rng = np.random.default_rng(0)
    architecture = space.decode(space.sample(rng))
    pyramid = architecture.feature_pyramid.nas_fpn
    assert (pyramid.min_level, pyramid.max_level) == (3, 6)
    assert (pyramid.channels, pyramid.repeats, pyramid.separable) == (64, 3, True)
    assert architecture.box_predictor == mobile.box_predictor
    network = detection_network(architecture, (320, 320), 90)
    assert network.feature_sizes == [(40, 40), (20, 20), (10, 10), (5, 5)]


def test_the_rest_of_the_bases_pyramid_stays(published):
    def regularize(architecture):
        architecture.feature_pyramid.nas_fpn.drop_block_keep_probability = 0.5
        architecture.feature_pyramid.nas_fpn.separable = True

    space = from_config(changed(published, regularize), repeats=[7])
    pyramid = space.example.feature_pyramid.nas_fpn
    assert (pyramid.drop_block_keep_probability, pyramid.separable) == (0.5, True)
    with pytest.raises(UserError, match="nas_fpn.separable is False, but True"):
        space.encode(published)


def test_config_fields(published):
    space = from_config(published, channels=[64, 128], repeats=[2, 3, 4], num_internal_cells=0)
    pairs = 10 * 15 * 21 * 28 * 36
    assert space.cardinality() == 2 * 2**5 * math.factorial(5) * pairs * 3
    assert space.decisions[-1].name == "repeats"


def test_encode_needs_all_internal_cells(published):
    """One more would not be dead: the output of its level adds what nothing has read."""
    space = from_config(published, num_internal_cells=3, repeats=[7])
    with pytest.raises(UserError, match="7 cells, but the search space has 5 output cells and 3 "):
        space.encode(published)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (64, 64)}, "channels is .64, 64.; use different positive numbers"),
        ({"channels": ()}, "channels is ..; use different positive numbers"),
        ({"num_internal_cells": -1}, "num_internal_cells is -1; use 0 or more"),
    ],
)
def test_impossible_choices_are_refused(published, arguments, message):
    with pytest.raises(ConfigError, match=f"nas_fpn search space: {message}"):
        NasFpnPart(published, **arguments)
