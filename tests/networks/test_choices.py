"""Supernets: what candidates own and cost, and what is derived."""

import random

import pytest

from mnasdet.networks import choices
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.graph import Graph, Network
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams
from mnasdet.networks.operations import chosen
from mnasdet.operation_names import POOL

PLAIN = Hyperparams(normalizer=BatchNorm())
OPS = [POOL[place] for place in (1, 4, 11, 18, 20, 22, 26, 29)]


def supernet(ops_of_layers, times=1):
    """A network of two graphs whose layers list operations; the second runs `times` times."""
    b = Builder()
    x = b.input((16, 16, 8))
    for number, ops in enumerate(ops_of_layers[:-1]):
        with b.scope(f"body/layer_{number}"):
            x = chosen(b, x, ops, 8 if number < 3 else 16, PLAIN, strides=1 + (number == 3))
    region = b.input((7, 7, 16), "region")
    with b.scope("head/layer"):
        region = chosen(b, region, ops_of_layers[-1], 16, PLAIN)
    return Network({"body": Graph({"x": x}), "head": Graph({"y": region}, times)})


def test_a_derived_network_is_the_one_that_is_built_with_the_chosen_operations():
    whole = supernet([OPS] * 5, times=10)
    costs = choices.costs(whole)
    rng = random.Random(0)
    names = [node.name for graph in whole for node in choices.choices(graph.nodes)]
    assert len(names) == 5
    assert choices.cardinality(whole) == 8**5
    for _ in range(50):
        picked = [rng.randrange(8) for _ in names]
        derived = choices.derive(whole, dict(zip(names, picked, strict=True)))
        plain = supernet([[OPS[place]] for place in picked], times=10)
        assert derived.key() == plain.key()
        assert [[n.name for n in g.nodes] for g in cost_sheet(derived).graphs] == [
            [n.name for n in g.nodes] for g in cost_sheet(plain).graphs
        ]
        total = cost_sheet(plain).total
        assert cost_sheet(derived).total == total
        assert costs.of(dict(zip(names, picked, strict=True))) == total.multiply_adds


def test_the_identity_owns_nothing_and_reads_the_feature_that_it_is():
    b = Builder()
    x = b.input((4, 4, 8))
    y = b.activation(x, "relu", name="y")
    choice = b.choice([b.activation(y, "sigmoid", name="own"), y], name="choice")
    own, identity = choices.branches([choice])[choice]
    assert [node.name for node in own.nodes] == ["own"]
    assert own.inputs == (y,)
    assert identity.nodes == ()
    assert identity.inputs == (y,)
    # Both candidates use this layer, so it exists whichever is chosen.
    assert choices.derive(
        Network(
            {"": Graph({"": choice})},
        ),
        {"choice": 1},
    ).outputs == [y]


def test_a_layer_that_two_candidates_read_belongs_to_neither():
    b = Builder()
    x = b.input((4, 4, 8))
    common = b.activation(x, "relu", name="common")
    candidates = [b.activation(common, f, name=f) for f in ("sigmoid", "swish")]
    choice = b.choice(candidates, name="choice")
    first, _ = choices.branches([choice])[choice]
    assert [node.name for node in first.nodes] == ["sigmoid"]
    assert first.inputs == (common,)


def test_a_choice_inside_a_candidate_is_refused():
    b = Builder()
    x = b.input((4, 4, 8))
    inner = b.choice([b.activation(x, "relu", name="a"), x], name="inner")
    outer = b.choice([b.activation(inner, "relu", name="b"), x], name="outer")
    with pytest.raises(ValueError, match="choice inner stands inside a candidate of outer"):
        choices.branches([outer])


def test_candidates_of_other_shapes_are_refused_and_one_candidate_is_no_choice():
    b = Builder()
    x = b.input((4, 4, 8))
    with pytest.raises(ValueError, match="shapes"):
        b.choice([x, b.max_pool(x, 2, strides=2, name="pool")], name="choice")
    assert b.choice([x], name="choice") is x
