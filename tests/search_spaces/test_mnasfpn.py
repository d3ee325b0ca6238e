import math

import numpy as np
import pytest

from mnasdet import config
from mnasdet.detectors.network import detection_network
from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces import factory, mnasfpn
from tests.search_spaces.architectures import changed, key, mnasfpn_space

NUM_SAMPLES = 1000


@pytest.fixture(scope="module")
def published():
    return config.load_architecture("mobilenet_v2_mnasfpn")


@pytest.fixture(scope="module")
def space(published):
    return mnasfpn_space(published)


@pytest.fixture(scope="module")
def samples(space):
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(NUM_SAMPLES)]


def blocks(architecture):
    return architecture.feature_pyramid.mnasfpn.block


def test_cardinality_is_the_papers_formula(space):
    pairs = math.prod(math.comb(i + 4, 2) for i in range(9))
    assert pairs == 3_112_013_520_000
    assert space.cardinality() == 2**9 * 4**5 * math.factorial(4) * pairs * 3**9 * 6 * 7**9
    assert float(space.cardinality()) == pytest.approx(1.866e32, rel=1e-3)


def test_decisions_are_in_the_documented_order(space):
    assert len(space.decisions) == 1 + 5 * 6 + 3 + 4 * 5
    names = [decision.name for decision in space.decisions]
    assert names[:4] == ["channels", "block_4/input_0", "block_4/input_1", "block_4/level"]
    assert names[31:35] == ["block_9/level", "block_10/level", "block_11/level", "block_9/input_0"]
    assert names[-1] == "block_12/kernel_size"


def test_samples_round_trip(space, samples):
    assert len(set(samples)) == NUM_SAMPLES
    for tokens in samples:
        assert space.encode(space.decode(tokens)) == tokens


def test_samples_build(space, samples):
    for tokens in samples:
        network = detection_network(space.decode(tokens), (320, 320), 2)
        assert network.feature_sizes == [(40, 40), (20, 20), (10, 10), (5, 5)]


def test_mutations_are_valid(space, samples):
    rng = np.random.default_rng(0)
    for tokens in samples[:200]:
        mutated = space.mutate(tokens, rng)
        assert mutated != tokens
        space.validate(mutated)


def test_input_pairs_and_orders_are_equally_likely(space):
    rng = np.random.default_rng(1)
    names = [decision.name for decision in space.decisions]
    place = names.index("block_4/input_0")
    counts, orders = {}, {}
    for _ in range(6000):
        tokens = space.sample(rng)
        pair, order = tokens[place : place + 2], tokens[31:34]
        counts[pair] = counts.get(pair, 0) + 1
        orders[order] = orders.get(order, 0) + 1
    # 1000 of each of the 6 pairs, 250 of each of the 24 orders; 5 standard deviations.
    assert len(counts) == 6
    assert len(orders) == 24
    assert all(855 < count < 1145 for count in counts.values())
    assert all(172 < count < 328 for count in orders.values())


def test_decode_by_hand(published):
    space = mnasfpn_space(published, num_internal_blocks=1, repeats=2)
    # C=32; 1+3 -> level 5, squeeze and excite, F=64, k=7; levels 6, 3, 5 and so 4; the outputs.
    tokens = (1, 1, 2, 2, 1, 2, 2, 3, 0, 2)
    tokens += (0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 0, 2, 0, 6, 6, 1, 6, 2)
    architecture = space.decode(tokens)
    pyramid = architecture.feature_pyramid.mnasfpn
    assert (architecture.name, architecture.source) == ("", "")
    assert (pyramid.channels, pyramid.repeats) == (32, 2)
    assert architecture.backbone == published.backbone
    assert architecture.box_predictor == published.box_predictor
    assert [
        (tuple(b.input), b.level, b.merge, b.expanded_channels, b.kernel_size)
        for b in pyramid.block
    ] == [
        ((1, 3), 5, 1, 64, 7),
        ((0, 1), 6, 0, 16, 3),
        ((0, 2), 3, 0, 32, 5),
        ((2, 4), 5, 0, 64, 3),
        ((6, 7), 4, 1, 512, 7),
    ]


def test_the_published_cell_is_in_the_space(published):
    space = mnasfpn_space(published, repeats=4)
    tokens = space.encode(published)
    # Its own block, then four that nothing reads.
    assert tokens[1:7] == (1, 1, 1, 0, 5, 0)
    assert tokens[7:31] == (0,) * 24
    assert key(space.decode(tokens)) == key(published)


def test_the_published_cell_without_room_to_fill(published):
    space = mnasfpn_space(published, repeats=4, num_internal_blocks=1)
    assert key(space.decode(space.encode(published))) == key(published)


def test_encode_orders_inputs_without_changing_the_network(space, samples):
    for tokens in samples[:50]:
        architecture = space.decode(tokens)
        pyramid = architecture.feature_pyramid.mnasfpn
        levels = [3, 4, 5, 6, *(block.level for block in pyramid.block)]
        for block in pyramid.block:
            if block.merge == 0 or levels[block.input[0]] != levels[block.input[1]]:
                block.input[:] = reversed(block.input)
        assert key(architecture) == key(space.decode(tokens))
        assert space.encode(architecture) == tokens


def test_encode_refuses_a_gate_that_the_order_of_inputs_would_change(space, published):
    def gate(architecture):
        architecture.feature_pyramid.mnasfpn.repeats = 3
        blocks(architecture)[2].input[:] = [4, 1]
        blocks(architecture)[2].merge = architecture_pb2.MnasFpn.SQUEEZE_EXCITE

    architecture = changed(published, gate)
    with pytest.raises(UserError, match="block 6: of two inputs of one level only the lower"):
        space.encode(architecture)
    blocks(architecture)[2].input[:] = [1, 4]
    assert key(space.decode(space.encode(architecture))) == key(architecture)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: setattr(a.feature_pyramid.mnasfpn, "repeats", 5), "mnasfpn.repeats is 5, but 4"),
        (lambda a: setattr(a.feature_pyramid.mnasfpn, "channels", 40), "channels is 40"),
        (lambda a: setattr(a, "depth_multiplier", 0.5), "depth_multiplier is 0.5, but 1.0"),
        (lambda a: a.ClearField("backbone"), "backbone.mobilenet_v2 is not what is"),
        (
            lambda a: setattr(
                a.box_predictor.weight_shared_convolutional_box_predictor, "depth", 128
            ),
            "box_predictor.weight_shared_convolutional_box_predictor.depth is 128, but 64",
        ),
        (lambda a: setattr(blocks(a)[0], "expanded_channels", 48), "block_4/expanded_channels is"),
        # The index among the space's blocks, behind the four that fill up.
        (lambda a: setattr(blocks(a)[1], "kernel_size", 9), "block_9/kernel_size is 9"),
        (lambda a: setattr(blocks(a)[0], "level", 7), "block_4/level is 7"),
        (lambda a: setattr(blocks(a)[4], "level", 5), "levels .3, 4, 5, 5. of the last blocks"),
        (lambda a: blocks(a)[0].input.append(3), "block 4: input .1, 2, 3.; use two different"),
        (lambda a: blocks(a)[0].input.__setitem__(1, 4), "block 4: input .1, 4.; .* 0 to 3"),
        (lambda a: a.feature_pyramid.mnasfpn.block.__delitem__(slice(2)), "3 blocks, but"),
        (
            lambda a: [blocks(a).insert(0, blocks(a)[0]) for _ in range(5)],
            "10 blocks, but the search space has 4 output blocks and at most 5 others",
        ),
    ],
)
def test_encode_names_what_does_not_fit(published, change, message):
    space = mnasfpn_space(published, repeats=4)
    with pytest.raises(UserError, match=message) as error:
        space.encode(changed(published, change))
    assert "architecture 'mobilenet_v2_mnasfpn'" in str(error.value)


def test_unset_and_default_fields_are_the_same_network(published):
    def spell_out(architecture):
        architecture.min_depth = 16
        architecture.feature_pyramid.mnasfpn.min_level = 3
        architecture.anchor_generator.multiscale_anchor_generator.min_level = 3

    space = mnasfpn_space(published, repeats=4)
    assert space.encode(changed(published, spell_out)) == space.encode(published)


def test_levels_are_the_bases(published):
    base = changed(published, lambda a: setattr(a.feature_pyramid.mnasfpn, "max_level", 5))
    space = mnasfpn_space(base, num_internal_blocks=0)
    assert len(space.decisions) == 1 + 2 + 3 * 5
    # C; 3! orders; pairs of 3, 4 and 5; merge, F and k of three blocks.
    assert space.cardinality() == 6 * 6 * (3 * 6 * 10) * (2 * 7 * 3) ** 3


def test_config_defaults_are_the_papers(published, space):
    search_space = search_pb2.SearchSpaceConfig()
    search_space.mnasfpn.SetInParent()
    built = factory.from_config(search_space, published)
    assert built.decisions == space.decisions
    assert built.example.feature_pyramid.mnasfpn.repeats == 3


def test_config_fields(published):
    search_space = search_pb2.SearchSpaceConfig()
    search_space.mnasfpn.channels[:] = [16, 24]
    search_space.mnasfpn.expanded_channels[:] = [32]
    search_space.mnasfpn.kernel_sizes[:] = [3]
    search_space.mnasfpn.repeats[:] = [1]
    search_space.mnasfpn.num_internal_blocks = 0
    space = factory.from_config(search_space, published)
    assert space.cardinality() == 2 * 24 * (6 * 10 * 15 * 21) * 2**4
    assert space.example.feature_pyramid.mnasfpn.repeats == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (16, 16)}, "channels is .16, 16.; use different positive numbers"),
        ({"expanded_channels": (0,)}, "expanded_channels is .0."),
        ({"kernel_sizes": (3, 4)}, "kernel_sizes is .3, 4.; use different positive odd numbers"),
        ({"repeats": 0}, "repeats is 0; use 1 or more"),
        ({"repeats": (3, 3)}, "repeats is .3, 3.; use different positive numbers"),
        ({"num_internal_blocks": -1}, "num_internal_blocks is -1; use 0 or more"),
        ({"max_inputs": 1}, "max_inputs is 1; use 2 or more"),
    ],
)
def test_impossible_choices_are_refused(published, arguments, message):
    with pytest.raises(ConfigError, match=message):
        mnasfpn_space(published, **arguments)


def test_a_single_level_is_refused(published):
    base = changed(published, lambda a: setattr(a.feature_pyramid.mnasfpn, "max_level", 3))
    with pytest.raises(ConfigError, match="levels 3 to 3"):
        mnasfpn.from_config(search_pb2.MnasFpnSpaceConfig(), base)


def test_several_repeats_are_a_decision_behind_the_others(published, space):
    several = mnasfpn_space(published, repeats=(3, 4, 5))
    assert several.decisions[:-1] == space.decisions
    assert several.decisions[-1].choices == (3, 4, 5)
    assert several.cardinality() == 3 * space.cardinality()
    assert several.encode(published)[-1] == 1


def test_a_base_with_another_pyramid_gets_one_of_its_levels():
    space = mnasfpn_space(config.load_architecture("mobilenet_v2_fpnlite_64"))
    pyramid = space.example.feature_pyramid.mnasfpn
    assert (pyramid.min_level, pyramid.max_level) == (3, 7)
    assert [block.level for block in pyramid.block[-5:]] == [3, 4, 5, 6, 7]
