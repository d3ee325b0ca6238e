import numpy as np
import pytest

from mnasdet import config
from mnasdet.backbones import mnasnet as mnasnet_backbone
from mnasdet.backbones import mobilenet_v2 as mobilenet_v2_backbone
from mnasdet.errors import ConfigError, UserError
from mnasdet.networks.blocks import round_channels
from mnasdet.networks.builder import Builder
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces import factory
from mnasdet.search_spaces.composed import ComposedSpace
from mnasdet.search_spaces.mnasnet import MnasNetPart
from tests.search_spaces.architectures import all_tokens, changed, key

MnasNet = architecture_pb2.MnasNet


@pytest.fixture(scope="module")
def mobilenet():
    return config.load_architecture("mobilenet_v2_ssdlite")


@pytest.fixture(scope="module")
def a1():
    return config.load_architecture("mnasnet_a1")


def make(base, **arguments):
    return ComposedSpace(base, [MnasNetPart(base, **arguments)])


def choices(space, field):
    return [d.choices for d in space.decisions if d.name.endswith(f"/{field}")]


def blocks(architecture):
    return architecture.backbone.mnasnet.block


def test_cardinality(mobilenet):
    # Four operations, 2 kernel sizes, with and without SE, 3 skips.
    shared = 4 * 2 * 2 * 3
    widths = 2 * 2 * 3**5
    depths = 2 * 3**5 * 2
    space = make(mobilenet)
    assert space.cardinality() == shared**7 * widths * depths == 554_652_776_685_109_248
    # With three widths and depths everywhere it would be the paper's number.
    assert shared * 3 * 3 == 432


def test_decisions_are_in_the_papers_order(mobilenet):
    space = make(mobilenet)
    assert len(space.decisions) == 7 * 6
    assert [(d.name, d.choices) for d in space.decisions[6:12]] == [
        ("backbone/block_2/op", ("conv", "separable", "mbconv_3", "mbconv_6")),
        ("backbone/block_2/kernel_size", (3, 5)),
        ("backbone/block_2/se_ratio", (0.0, 0.25)),
        ("backbone/block_2/skip", ("pool", "identity", "none")),
        # 18 is closer to 16, but that is less than 90 %.
        ("backbone/block_2/channels", (24, 32)),
        ("backbone/block_2/repeats", (1, 2, 3)),
    ]


def test_widths_and_depths_are_relative_to_mobilenet_v2(mobilenet):
    space = make(mobilenet)
    assert choices(space, "channels") == [
        (16, 24),
        (24, 32),
        (24, 32, 40),
        (48, 64, 80),
        (72, 96, 120),
        (120, 160, 200),
        (240, 320, 400),
    ]
    assert choices(space, "repeats") == [
        (1, 2),
        (1, 2, 3),
        (2, 3, 4),
        (3, 4, 5),
        (2, 3, 4),
        (2, 3, 4),
        (1, 2),
    ]


def test_widths_are_rounded_as_everywhere(mobilenet):
    factors = np.round(np.arange(0.1, 3, 0.05), 2).tolist()
    own = [16, 24, 32, 64, 96, 160, 320]
    expected = [
        tuple(dict.fromkeys(n if f == 1 else round_channels(n * f) for f in factors)) for n in own
    ]
    assert choices(make(mobilenet, width_factors=factors), "channels") == expected


@pytest.mark.parametrize("multiplier", [1.0, 0.5, 1.4])
def test_the_own_blocks_have_the_shapes_of_mobilenet_v2(mobilenet, multiplier):
    base = changed(
        mobilenet, lambda a: setattr(a.backbone.mobilenet_v2, "depth_multiplier", multiplier)
    )
    space = make(
        base,
        ops=["mbconv"],
        expansions=[6],
        kernel_sizes=[3],
        se_ratios=[0],
        skips=["identity"],
        width_factors=[1],
        depth_offsets=[0],
        searched_blocks=[2, 3, 4, 5, 6, 7],
    )
    assert space.cardinality() == 1

    def shapes(backbone, proto):
        b = Builder()
        features = backbone.from_proto(b, b.input((320, 320, 3)), proto, min_depth=16)
        return {level: x.shape for level, x in features.levels.items()}, features.last.shape

    assert shapes(mnasnet_backbone, space.example.backbone.mnasnet) == shapes(
        mobilenet_v2_backbone, base.backbone.mobilenet_v2
    )


def test_decode_by_hand(mobilenet):
    space = make(mobilenet, searched_blocks=[2, 5])
    # conv k5 SE pool 32 wide 1 deep; mbconv_3 k3 none 96 wide 4 deep.
    architecture = space.decode((0, 1, 1, 0, 1, 0, 2, 0, 0, 2, 1, 2))
    mnasnet = architecture.backbone.mnasnet
    assert (mnasnet.stem_channels, mnasnet.last_channels) == (32, 1280)
    assert [
        (b.op, b.kernel_size, b.se_ratio, b.skip, b.channels, b.repeats, b.stride, b.expansion)
        for b in mnasnet.block
    ] == [
        (MnasNet.MBCONV, 3, 0, MnasNet.IDENTITY, 16, 1, 1, 1),
        (MnasNet.CONV, 5, 0.25, MnasNet.POOL, 32, 1, 2, 6),
        (MnasNet.MBCONV, 3, 0, MnasNet.IDENTITY, 32, 3, 2, 6),
        (MnasNet.MBCONV, 3, 0, MnasNet.IDENTITY, 64, 4, 2, 6),
        (MnasNet.MBCONV, 3, 0, MnasNet.NONE, 96, 4, 1, 3),
        (MnasNet.MBCONV, 3, 0, MnasNet.IDENTITY, 160, 3, 2, 6),
        (MnasNet.MBCONV, 3, 0, MnasNet.IDENTITY, 320, 1, 1, 6),
    ]
    assert not mnasnet.block[1].HasField("expansion")
    assert architecture.feature_pyramid == mobilenet.feature_pyramid


def test_every_token_list_is_another_architecture(a1):
    space = make(a1, searched_blocks=[3], skips=["none"], se_ratios=[0])
    tokens = list(all_tokens(space))
    # Block 3 has 3 layers of 40 channels: 32, 40 and 48 wide.
    assert space.cardinality() == len(tokens) == 4 * 2 * 3 * 3
    assert len({space.decode(t).SerializeToString() for t in tokens}) == len(tokens)


def test_average_pool_is_another_network_than_the_identity_where_pool_is_not(a1):
    """Block 5 of A1 does not stride; here the block before it is as wide."""

    def keys(*skips):
        base = changed(a1, lambda a: setattr(blocks(a)[3], "channels", 112))
        space = make(
            base, searched_blocks=[5], skips=skips, ops=["separable"], kernel_sizes=[3],
            se_ratios=[0], width_factors=[1], depth_offsets=[0],
        )  # fmt: skip
        return {key(space.decode(tokens), 64) for tokens in all_tokens(space)}

    assert len(keys("identity", "none", "pool")) == 2
    assert len(keys("identity", "none", "average_pool")) == 3


@pytest.mark.parametrize("name", ["mnasnet_a1", "mnasnet_b1", "mnasnet_a1_ssdlite"])
def test_a_published_backbone_is_in_the_space_around_it(name):
    base = config.load_architecture(name)
    space = make(base)
    tokens = space.encode(base)
    # The first block does not expand: a separable convolution, without skip.
    assert tokens[:4] == (1, 0, 0, 2)
    assert key(space.decode(tokens), 224) == key(base, 224)


def test_the_searched_backbones_of_mnasfpn_are_in_a_wider_space():
    """D1's widths of 36 and 144 are kept by a factor of 1, which does not round."""
    base = config.load_architecture("mnasnet_d1_320")
    space = make(base, expansions=[3, 6, 9], kernel_sizes=[3, 5, 7])
    assert choices(space, "channels")[1] == (32, 36, 48)
    assert key(space.decode(space.encode(base)), 224) == key(base, 224)


def test_mnasnet_a1_is_not_in_the_space_around_mobilenet_v2(mobilenet):
    """Its 112 channels are none of the printed factors times 96."""
    a1 = config.load_architecture("mnasnet_a1_ssdlite")
    with pytest.raises(
        UserError, match="block_5/channels is 112, but the search space has 72, 96, 120"
    ):
        make(mobilenet).encode(a1)


def test_an_mbconv_that_does_not_expand_is_separable(a1):
    space = make(a1, expansions=[1, 6])
    assert choices(space, "op")[0] == ("conv", "separable", "mbconv_6")
    without = make(a1, ops=["mbconv"], expansions=[1, 6])
    assert choices(without, "op")[0] == ("separable", "mbconv_6")


def test_ratios_of_a_config_are_those_that_were_written(mobilenet):
    search_space = search_pb2.SearchSpaceConfig()
    search_space.mnasnet.se_ratios[:] = [0.1, 0.3]
    search_space.mnasnet.width_factors[:] = [0.7]
    space = factory.from_config(search_space, mobilenet)
    assert choices(space, "se_ratio")[0] == (0.1, 0.3)
    tokens = space.sample(np.random.default_rng(0))
    assert space.encode(space.decode(tokens)) == tokens


def test_config_fields(mobilenet):
    search_space = search_pb2.SearchSpaceConfig()
    search_space.mnasnet.CopyFrom(
        search_pb2.MnasNetSpaceConfig(
            ops=[MnasNet.MBCONV, MnasNet.SEPARABLE],
            expansions=[2, 4, 6],
            kernel_sizes=[3, 5, 7],
            se_ratios=[0.25],
            skips=[MnasNet.NONE],
            width_factors=[1, 2],
            depth_offsets=[0],
            searched_blocks=[6, 2],
        )
    )
    space = factory.from_config(search_space, mobilenet)
    assert space.cardinality() == (4 * 3 * 2) ** 2
    assert space.decisions[0].name == "backbone/block_2/op"
    assert space.decisions[0].choices == ("mbconv_2", "mbconv_4", "mbconv_6", "separable")
    assert choices(space, "channels") == [(24, 48), (160, 320)]


def test_blocks_that_are_not_searched_stay(a1):
    space = make(a1, searched_blocks=[3])
    assert len(space.decisions) == 6
    assert space.encode(a1) == (2, 1, 1, 1, 1, 1)
    other = changed(a1, lambda a: setattr(blocks(a)[1], "kernel_size", 7))
    with pytest.raises(UserError, match="block 2: kernel_size is 7, but 3 in the search space"):
        space.encode(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: setattr(blocks(a)[1], "stride", 1), "block 2: stride is 1, but 2"),
        (lambda a: blocks(a).__delitem__(6), "mnasnet.block: 6, but 7"),
        (lambda a: setattr(a.backbone.mnasnet, "stem_channels", 16), "stem_channels is 16, but 32"),
        (lambda a: setattr(blocks(a)[2], "expansion", 4), "block_3/op is mbconv_4, but .*mbconv_6"),
        (lambda a: setattr(blocks(a)[2], "repeats", 9), "block_3/repeats is 9, but .* has 2, 3, 4"),
        (lambda a: a.backbone.mobilenet_v2.SetInParent(), "backbone.mobilenet_v2 is not what is"),
    ],
)
def test_encode_names_what_does_not_fit(a1, change, message):
    with pytest.raises(UserError, match=message) as error:
        make(a1).encode(changed(a1, change))
    assert "architecture 'mnasnet_a1'" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ops": ["mbconf"]}, "ops is .'mbconf'.; use different ones of conv, separable, mbconv"),
        ({"ops": []}, "ops is "),
        ({"expansions": [0]}, "expansions is .0.; use different positive numbers"),
        ({"kernel_sizes": [4]}, "kernel_sizes is .4.; use different positive odd numbers"),
        ({"se_ratios": [1.5]}, "se_ratios is .1.5.; use different numbers of 0 to 1"),
        ({"skips": ["pool", "pool"]}, "skips is .'pool', 'pool'.; use different ones of pool, id"),
        ({"width_factors": [-1.0]}, "width_factors is .-1.0.; use different positive numbers"),
        ({"depth_offsets": [1, 1]}, "depth_offsets is .1, 1.; use different numbers"),
        (
            {"depth_offsets": [-3, -1]},
            "depth_offsets is .-3, -1.; use one of 0 or more, as block 1",
        ),
        ({"searched_blocks": [0]}, "searched_blocks is .0.; use different numbers of 1 to 7"),
        ({"searched_blocks": [8]}, "searched_blocks is .8."),
        ({"searched_blocks": [2, 2]}, "searched_blocks is .2, 2."),
    ],
)
def test_impossible_choices_are_refused(mobilenet, arguments, message):
    with pytest.raises(ConfigError, match=f"mnasnet search space: {message}"):
        MnasNetPart(mobilenet, **arguments)


def test_another_backbone_is_refused():
    with pytest.raises(ConfigError, match="the backbone is resnet; use mnasnet or mobilenet_v2"):
        MnasNetPart(config.load_architecture("resnet50_fpn_256"))
