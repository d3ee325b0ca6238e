import itertools
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from mnasdet import config
from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import architecture_pb2
from mnasdet.search_spaces.cell import Cell, levels_of, pyramid_of
from mnasdet.search_spaces.space import SearchSpace
from tests.search_spaces.architectures import all_tokens


class CellSpace(SearchSpace):
    """The decisions of a cell alone."""

    def __init__(self, cell):
        self.cell = cell
        super().__init__(cell.decisions(0, lambda name: []))

    def _decode(self, values):
        merges = [f"{m.name} {m.inputs} {m.level}" for m in self.cell.merges(values)]
        return architecture_pb2.Architecture(name="; ".join(merges))

    def _encode(self, architecture):
        return {}

    def merges(self, tokens):
        values = {d.name: d.choices[t] for d, t in zip(self.decisions, tokens, strict=True)}
        return list(self.cell.merges(values))


def make(num_levels=2, num_internal=1, max_inputs=2, **arguments):
    levels = tuple(range(3, 3 + num_levels))
    arguments = {"internal_levels": levels, **arguments}
    return Cell("block", levels, num_internal, max_inputs=max_inputs, **arguments)


def subsets(features, max_inputs):
    return sum(math.comb(features, n) for n in range(2, max_inputs + 1))


@pytest.mark.parametrize(
    ("num_levels", "num_internal", "max_inputs"),
    [(2, 1, 2), (2, 1, 3), (2, 1, 4), (2, 2, 3), (3, 0, 3)],
)
def test_every_set_of_inputs_is_one_list_of_tokens(num_levels, num_internal, max_inputs):
    space = CellSpace(make(num_levels, num_internal, max_inputs))
    expected = num_levels**num_internal * math.factorial(num_levels)
    for features in range(num_levels, 2 * num_levels + num_internal):
        expected *= subsets(features, max_inputs)
    tokens = list(all_tokens(space))
    assert space.cardinality() == len(tokens) == expected
    assert len({space.decode(t).name for t in tokens}) == expected
    # Each merge takes every set of features before it, and nothing else.
    for place in range(num_internal + num_levels):
        features = range(num_levels + place)
        sets = {tuple(space.merges(t)[place].inputs) for t in tokens}
        numbers = range(2, max_inputs + 1)
        assert sets == {s for n in numbers for s in itertools.combinations(features, n)}


def test_sets_of_inputs_are_equally_likely():
    space = CellSpace(make(num_levels=4, num_internal=1, max_inputs=4))
    rng = np.random.default_rng(0)
    counts = Counter(tuple(space.merges(space.sample(rng))[0].inputs) for _ in range(11_000))
    # 6 pairs, 4 triples and all four features, 1000 of each; 5 standard deviations.
    assert len(counts) == 11
    assert all(850 < count < 1150 for count in counts.values())


def test_internal_levels_may_be_fewer():
    space = CellSpace(make(num_levels=3, num_internal=1, internal_levels=(4, 5)))
    assert space.decisions[2].choices == (4, 5)
    assert space.cardinality() == 3 * 2 * 6 * (6 * 10 * 15)


def test_levels_of_outputs_are_a_permutation():
    space = CellSpace(make(num_levels=3, num_internal=0))
    orders = {tuple(m.level for m in space.merges(tokens)) for tokens in all_tokens(space)}
    assert orders == set(itertools.permutations((3, 4, 5)))


def merge(level, *inputs, gated=False):
    return SimpleNamespace(input=inputs, level=level, gated=gated)


def read(cell, *merges):
    return [
        (m.name, m.inputs, m.level) for m in cell.read(merges, lambda m: m.gated, "architecture")
    ]


def test_read_orders_inputs():
    merges = read(make(max_inputs=3), merge(4, 1, 0), merge(3, 2, 0, 1), merge(4, 0, 3))
    assert merges == [
        ("block_2", [0, 1], 4),
        ("block_3", [0, 1, 2], 3),
        ("block_4", [0, 3], 4),
    ]


def test_values_are_those_of_the_decisions():
    cell = make(num_levels=3, num_internal=0, max_inputs=4)
    merges = list(cell.read([merge(4, 1, 0), merge(3, 3, 0, 2), merge(5, 0, 1)], bool, "a"))
    assert cell.values(merges[0]) == {
        "block_3/input_0": 0,
        "block_3/input_1": 1,
        "block_3/input_2": "none",
        "block_3/level": 4,
    }
    assert cell.values(merges[1]) == {
        "block_4/input_0": 0,
        "block_4/input_1": 2,
        "block_4/input_2": 3,
        "block_4/input_3": "none",
        "block_4/level": 3,
    }


def test_what_nothing_reads_fills_up_behind_the_internal_merges():
    cell = make(num_internal=3, fills=True)
    # The second output reads the first, which is now the sixth feature instead of the fourth.
    assert read(cell, merge(4, 0, 1), merge(3, 1, 2), merge(4, 3, 2)) == [
        ("block_2", [0, 1], 4),
        ("block_5", [1, 2], 3),
        ("block_6", [2, 5], 4),
    ]


def test_without_filling_the_number_of_merges_is_fixed():
    merges = [merge(3, 0, 1), merge(4, 0, 1)]
    assert len(read(make(num_internal=0), *merges)) == 2
    with pytest.raises(UserError, match="2 blocks, but .* 2 output blocks and 1 others"):
        read(make(num_internal=1), *merges)


def test_of_one_level_only_the_lower_index_can_gate():
    cell = make(num_internal=1)
    outputs = [merge(3, 0, 1), merge(4, 0, 1)]
    # Features 0 and 2 have level 3.
    assert read(cell, merge(3, 0, 1), merge(3, 0, 2, gated=True), outputs[1])
    assert read(cell, merge(3, 1, 0, gated=True), *outputs)
    with pytest.raises(UserError, match="block 3: of two inputs of one level only the lower index"):
        read(cell, merge(3, 0, 1), merge(3, 2, 0, gated=True), outputs[1])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((0,), "block 2: input .0.; use 2 to 3 different ones of 0 to 1"),
        ((0, 0), "block 2: input .0, 0."),
        ((0, 2), "block 2: input .0, 2."),
        ((0, 1, 2, 3), "block 2: input .0, 1, 2, 3."),
    ],
)
def test_impossible_inputs_are_named(inputs, message):
    merges = [merge(3, *inputs), merge(3, 0, 1), merge(4, 0, 1)]
    with pytest.raises(UserError, match=message):
        read(make(max_inputs=3), *merges)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("mobilenet_v2_mnasfpn", (3, 4, 5, 6)),
        ("resnet50_nas_fpn_7_256", (3, 4, 5, 6, 7)),
        ("mobilenet_v2_fpnlite_64", (3, 4, 5, 6, 7)),
        ("mobilenet_v2_ssdlite", (4, 5, 6, 7, 8, 9)),
    ],
)
def test_levels_are_those_that_the_base_predicts_from(name, levels):
    assert levels_of(config.load_architecture(name), "toy") == levels


def test_a_classifier_has_no_levels():
    with pytest.raises(ConfigError, match="toy search space: the architecture has no feature_pyra"):
        levels_of(config.load_architecture("mnasnet_a1"), "toy")


def test_a_pyramid_of_another_kind_is_replaced():
    architecture = config.load_architecture("mobilenet_v2_fpnlite_64")
    pyramid = pyramid_of(architecture, "nas_fpn", (3, 4, 5, 6, 7))
    assert architecture.feature_pyramid.WhichOneof("feature_pyramid_oneof") == "nas_fpn"
    assert (pyramid.min_level, pyramid.max_level) == (3, 7)


def test_a_pyramid_of_the_kind_stays():
    architecture = config.load_architecture("mobilenet_v2_mnasfpn")
    before = architecture.SerializeToString()
    assert pyramid_of(architecture, "mnasfpn", (3, 4, 5, 6)).channels == 48
    assert architecture.SerializeToString() == before
