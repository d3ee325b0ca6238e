import itertools
from math import comb

import numpy as np
import pytest

from mnasdet import base_codes, config
from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import architecture_pb2, hyperparams_pb2
from mnasdet.search_spaces.base_code import BaseCodePart, BaseCodeSpace, no_larger
from mnasdet.search_spaces.scale import scale_parts
from tests.search_spaces.architectures import changed, key

# The backbones of SM-NAS's results (table 2), each without its block.
RESULTS = [
    "64_1-21-21-12",
    "56_111-2111-2-111112",
    "48_12-11111-211-1112",
    "56_211-111111111-2111111-11112111",
    "56_21-21-111111111111111-2111111",
    "56_21-21-11111111111111-21111111",
]


def detector(**resnet):
    """A Faster R-CNN with pyramid and widths as published."""
    base = architecture_pb2.Architecture(name="base")
    base.backbone.resnet.MergeFrom(architecture_pb2.ResNet(**(resnet or {"depth": 18})))
    base.feature_pyramid.fpn.channels = 256
    base.region_proposal.channels = 256
    base.region_head.fully_connected.channels = 1024
    return base


def make(base=None, inputs=(), **arguments):
    """A space that holds all of RESULTS; smaller than the default one, which takes a second."""
    base = base or detector()
    arguments = {"max_blocks": (3, 9, 15, 8)} | arguments
    return BaseCodeSpace(
        base, [BaseCodePart(base, **arguments), *scale_parts("base_code", inputs=inputs)]
    )


SMALL = {
    "bases": (8, 16),
    "pyramid_channels": (32,),
    "min_blocks": (1, 1, 1, 1),
    "max_blocks": (2, 2, 2, 1),
    "min_doublings": 1,
    "max_doublings": 2,
}


def strings(bases, min_blocks, max_blocks, min_doublings, max_doublings, **_):
    """Every string that fulfils the rules, spelled out digit by digit."""
    for base in bases:
        for lengths in itertools.product(*map(range, min_blocks, (n + 1 for n in max_blocks))):
            for digits in itertools.product("12", repeat=sum(lengths)):
                if min_doublings <= digits.count("2") <= max_doublings:
                    text = iter(digits)
                    stages = ("".join(itertools.islice(text, n)) for n in lengths)
                    yield f"basicblock_{base}_{'-'.join(stages)}"


def with_code(space, text):
    """The space's first network with another string."""
    return changed(space.example, lambda a: setattr(a.backbone.base_code, "code", text))


def code(space, tokens):
    return space.decode(tokens).backbone.base_code.code


def test_every_string_has_exactly_one_list_of_tokens():
    space = make(**SMALL)
    expected = list(strings(**SMALL))
    assert [code(space, space.encode(with_code(space, text))) for text in expected] == expected
    # As many lists as strings, of which each has one.
    assert space.cardinality() == len(expected) == len(set(expected)) == 292


def test_cardinality_of_the_defaults_is_the_papers():
    lengths = {0: 1}
    for _ in range(4):
        longer = {}
        for total, ways in lengths.items():
            for blocks in range(1, 29):
                longer[total + blocks] = longer.get(total + blocks, 0) + ways
        lengths = longer
    placed = sum(ways * (comb(n, 2) + comb(n, 3) + comb(n, 4)) for n, ways in lengths.items())
    cardinality = BaseCodeSpace(detector(), [BaseCodePart(detector())]).cardinality()
    assert cardinality == 4 * 3 * placed == 5_017_632_849_600
    assert f"{cardinality:.1e}" == "5.0e+12"


@pytest.mark.parametrize(
    ("resnet", "block"),
    [
        ({"depth": 34}, "basicblock"),
        ({"depth": 101}, "bottleneck"),
        ({"depth": 50, "groups": 32, "width_per_group": 4}, "Xbottleneck"),
    ],
)
def test_the_block_is_the_backbones(resnet, block):
    space = make(detector(**resnet))
    for result in RESULTS:
        member = with_code(space, f"{block}_{result}")
        tokens = space.encode(member)
        assert code(space, tokens) == f"{block}_{result}"
        assert space.decode(tokens).backbone == member.backbone


def test_a_base_code_gives_its_block_as_well():
    base = detector()
    base.backbone.base_code.code = "bottleneck_64_1-2-2-2"
    space = make(base)
    assert code(space, (0,) * 3 + space.encode(space.example)[3:]).startswith("bottleneck_48_")
    other = with_code(space, "basicblock_64_1-2-2-2")
    with pytest.raises(UserError, match="the block is basicblock, but bottleneck in the search"):
        space.encode(other)


@pytest.mark.parametrize("number", range(6))
def test_published_detectors_are_members(number):
    published = config.load_architecture(f"sm_nas_e{number}")
    space = make(published)
    assert key(space.decode(space.encode(published))) == key(published)


def test_samples_round_trip():
    space = make(inputs=[(64, 64), (96, 64)])
    rng = np.random.default_rng(0)
    for _ in range(100):
        tokens = space.sample(rng)
        assert space.encode(space.decode(tokens)) == tokens


def test_heads_are_as_wide_as_the_pyramid():
    space = make()
    index = [d.name for d in space.decisions].index("pyramid_channels")
    widths = []
    for choice in range(3):
        one = space.decode(space.change(space.encode(space.example), index, choice, None))
        widths.append(
            (
                one.feature_pyramid.fpn.channels,
                one.region_proposal.channels,
                # Only their input changes.
                one.region_head.fully_connected.channels,
            )
        )
    assert widths == [(128, 128, 1024), (256, 256, 1024), (512, 512, 1024)]
    odd = changed(space.example, lambda a: setattr(a.region_proposal, "channels", 99))
    with pytest.raises(UserError, match="region_proposal.channels is 99, but 128 in the search"):
        space.encode(odd)


def test_one_stage_heads_are_as_wide_as_the_pyramid():
    base = architecture_pb2.Architecture()
    base.backbone.resnet.depth = 18
    base.feature_pyramid.fpn.channels = 64
    base.box_predictor.weight_shared_convolutional_box_predictor.depth = 48
    space = make(base, pyramid_channels=(128,))
    predictor = space.example.box_predictor.weight_shared_convolutional_box_predictor
    assert (space.example.feature_pyramid.fpn.channels, predictor.depth) == (128, 96)
    assert not space.example.HasField("region_head")


def test_without_a_pyramid_there_is_no_width_of_one():
    base = detector()
    base.ClearField("feature_pyramid")
    space = make(base)
    assert "pyramid_channels" not in [d.name for d in space.decisions]
    assert space.cardinality() * 3 == make().cardinality()
    assert space.example.region_proposal.channels == 256
    assert not space.example.HasField("feature_pyramid")


def test_hyperparams_of_the_backbone_are_replaced():
    stated = hyperparams_pb2.Hyperparams(standardize_weights=True)
    stated.group_norm.groups = 4
    space = make(hyperparams=stated)
    assert space.example.backbone.conv_hyperparams == stated


def test_mutation_is_one_step():
    space = make(**SMALL | {"pyramid_channels": (16, 32)})
    rng = np.random.default_rng(0)
    kinds = set()
    for text in strings(**SMALL):
        tokens = space.encode(with_code(space, text))
        mutated = space.mutate(tokens, rng)
        space.validate(mutated)
        before, after = (base_codes.parse(code(space, t)) for t in (tokens, mutated))
        channels = [space.decode(t).feature_pyramid.fpn.channels for t in (tokens, mutated)]
        changes = (
            channels[0] != channels[1],
            before.base != after.base,
            before.num_blocks - after.num_blocks,
            sum(map(sum, before.stages))
            - before.num_blocks
            - sum(map(sum, after.stages))
            + after.num_blocks,
            tuple(map(len, before.stages)) == tuple(map(len, after.stages)),
        )
        kinds.add(changes)
    assert kinds == {
        (True, False, 0, 0, True),  # Another width of the pyramid.
        (False, True, 0, 0, True),  # Another base.
        (False, False, -1, 0, False),  # A block more,
        (False, False, 1, 0, False),  # or less.
        (False, False, 0, -1, True),  # A doubling more,
        (False, False, 0, 1, True),  # or less,
        (False, False, 0, 0, True),  # or elsewhere.
        (False, False, 0, 0, False),  # A block on the other side of a border.
    }


def test_steps_are_those_of_the_string():
    part = BaseCodePart(detector(), **SMALL)
    steps = part.steps(base_codes.parse("basicblock_8_12-1-1-1"))
    assert {kind: sorted(map(str, networks)) for kind, networks in steps.items()} == {
        "base": ["basicblock_16_12-1-1-1"],
        "insert": ["basicblock_8_12-1-11-1", "basicblock_8_12-11-1-1"],
        "delete": ["basicblock_8_2-1-1-1"],
        "move_doubling": [
            "basicblock_8_11-1-1-2",
            "basicblock_8_11-1-2-1",
            "basicblock_8_11-2-1-1",
            "basicblock_8_21-1-1-1",
        ],
        "doubling": [
            "basicblock_8_12-1-1-2",
            "basicblock_8_12-1-2-1",
            "basicblock_8_12-2-1-1",
            "basicblock_8_22-1-1-1",
        ],
        "border": ["basicblock_8_1-21-1-1"],
    }


def test_mutations_reach_every_network():
    space = make(**SMALL)
    part = BaseCodePart(detector(), **SMALL)
    start = base_codes.parse(code(space, space.encode(space.example)))
    reached, ends = {start}, [start]
    while ends:
        steps = part.steps(ends.pop())
        new = {network for networks in steps.values() for network in networks} - reached
        reached |= new
        ends += new
    assert sorted(map(str, reached)) == sorted(strings(**SMALL))


def test_mutation_is_permanent():
    """If the steps, their order or the use of random numbers change, searches of old seeds change
    too: say so in the changelog, then take the new strings over."""
    space = make(inputs=[(64, 64), (96, 64)])
    tokens = space.encode(with_code(space, "basicblock_64_1-21-21-12"))
    mutated = [space.decode(space.mutate(tokens, np.random.default_rng(n))) for n in (0, 1, 2, 4)]
    assert [
        (a.backbone.base_code.code, a.feature_pyramid.fpn.channels, a.input.height) for a in mutated
    ] == [
        ("basicblock_64_1-21-21-12", 512, 64),
        ("basicblock_64_1-21-12-12", 128, 64),
        ("basicblock_64_1-21-21-12", 256, 64),
        ("basicblock_64_1-21-211-2", 128, 64),
    ]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("64_1-21-21-12", "64_1-21-21-12", True),
        ("56_1-21-21-12", "64_1-21-21-12", True),  # A smaller base.
        ("64_1-21-21-12", "64_1-21-211-12", True),  # A block less.
        ("64_1-21-12-12", "64_1-21-21-12", True),  # A doubling later.
        ("64_1-21-21-11", "64_1-21-21-12", True),  # A doubling less.
        ("64_1-12-21-12", "64_2-11-21-12", True),  # In the stage before.
        ("64_1-2-21-12", "64_1-12-21-12", True),  # The block in front is the one more.
        ("64_1-21-21-12", "64_1-112-21-12", False),  # Deeper, but narrower at the end of a stage.
        ("64_1-21-21-12", "56_1-21-211-12", False),
        ("64_11-21-21-12", "64_1-21-211-12", False),  # Blocks in other stages.
    ],
)
def test_no_larger(a, b, expected):
    a, b = (base_codes.parse(f"bottleneck_{text}") for text in (a, b))
    assert no_larger(a, b) is expected
    assert not no_larger(b, a) or a == b


def test_blocks_of_another_kind_cannot_be_compared():
    small, large = "basicblock_48_1-1-1-1", "bottleneck_72_11-21-21-12"
    assert not no_larger(*map(base_codes.parse, (small, large)))


@pytest.fixture(scope="module")
def ordered():
    """A space in which many networks can be compared, and samples of it."""
    space = make(
        bases=(8, 16),
        pyramid_channels=(16, 32),
        max_blocks=(2, 3, 3, 2),
        inputs=[(64, 64), (96, 64), (64, 96)],
    )
    rng = np.random.default_rng(0)
    samples = [space.sample(rng) for _ in range(30)]
    # Neighbours are comparable more often.
    return space, samples + [space.mutate(t, rng) for t in samples for _ in range(2)]


def test_precedes_is_a_partial_order(ordered):
    space, samples = ordered
    assert space.has_order
    below = np.array([[space.precedes(a, b) for b in samples] for a in samples])
    equal = np.array([[a == b for b in samples] for a in samples])
    assert below.diagonal().all()
    assert ((below & below.T) == equal).all()
    assert not ((below.astype(int) @ below.astype(int) > 0) & ~below).any()
    assert (below & ~equal).sum() > 50


def test_precedes_compares_all_decisions(ordered):
    space, _ = ordered
    names = [d.name for d in space.decisions]
    first = space.encode(space.example)

    def other(name, choice):
        return space.change(first, names.index(name), choice, np.random.default_rng(0))

    for name in ("pyramid_channels", "backbone/base"):
        assert space.precedes(first, other(name, 1))
        assert not space.precedes(other(name, 1), first)
    higher, wider = other("input", 1), other("input", 2)
    assert space.precedes(first, higher)
    assert space.precedes(first, wider)
    assert not space.precedes(higher, wider)
    assert not space.precedes(wider, higher)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bases": (47,)}, r"bases is \[47\]; use different positive even numbers"),
        ({"pyramid_channels": (0,)}, "pyramid_channels is"),
        ({"max_blocks": (1, 1, 1)}, r"max_blocks is \[1, 1, 1\]; use 4 positive numbers, one for"),
        ({"min_blocks": (2, 1, 1, 1), "max_blocks": (1,) * 4}, "use no smaller ones for max_bl"),
        ({"min_doublings": 5}, "max_doublings is 4; use 5 or more"),
        ({"min_doublings": -1}, "min_doublings is -1; use 0 or more"),
        (
            {"min_doublings": 9, "max_doublings": 9, "max_blocks": (2,) * 4},
            "min_doublings is 9; use 8 or less, the sum of max_blocks",
        ),
    ],
)
def test_impossible_choices_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"base_code search space: .*{message}"):
        make(**arguments)


def test_other_backbones_are_refused():
    base = detector()
    base.backbone.mobilenet_v2.SetInParent()
    with pytest.raises(ConfigError, match="the backbone is mobilenet_v2; use base_code or resnet"):
        make(base)
