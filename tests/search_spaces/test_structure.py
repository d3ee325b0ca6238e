import collections
import itertools

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet.errors import ConfigError, UserError
from mnasdet.models import network_of
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces import factory
from tests.search_spaces.architectures import all_tokens, changed


def base(text=""):
    return text_format.Parse(text, architecture_pb2.Architecture())


def make(text="", architecture=""):
    config = text_format.Parse(f"structure {{ {text} }}", search_pb2.SearchSpaceConfig())
    return factory.from_config(config, base(architecture))


def values(space, tokens):
    return {d.name: d.choices[t] for d, t in zip(space.decisions, tokens, strict=True)}


def sampled(space, **wanted):
    """The first sample with these values."""
    rng = np.random.default_rng(0)
    while True:
        tokens = space.sample(rng)
        if wanted.items() <= values(space, tokens).items():
            return space.decode(tokens)


@pytest.fixture(scope="module")
def space():
    return make()


def test_cardinality_is_the_papers(space):
    inputs, backbones, pairs = 4, 7, 1 + 2 * 4
    necks = 1 + sum(len(list(itertools.combinations("123456", n))) for n in range(3, 7))
    assert space.cardinality() == inputs * backbones * necks * pairs == 10_836
    assert f"{space.cardinality():.1e}" == "1.1e+04"


def test_every_combination_is_there_once():
    space = make('backbones: ["resnet18", "resnet34"] necks: ["none", "P2-P4"]')
    found = {tuple(values(space, tokens).values()) for tokens in all_tokens(space)}
    pairs = {("none", "retinanet")} | set(
        itertools.product(("rpn", "ga_rpn"), ("2fc", "cascade_2", "cascade_3", "cascade_4"))
    )
    sizes = ("512x512", "608x800", "736x1088", "800x1344")
    assert found == {
        (backbone, neck, *pair, size)
        for backbone, neck, pair, size in itertools.product(
            ("resnet18", "resnet34"), ("none", "P2-P4"), pairs, sizes
        )
    }
    assert space.cardinality() == len(found)


def test_samples_round_trip(space):
    rng = np.random.default_rng(0)
    samples = [space.sample(rng) for _ in range(200)]
    assert [space.encode(space.decode(tokens)) for tokens in samples] == samples


def test_different_tokens_are_different_architectures(space):
    rng = np.random.default_rng(1)
    samples = {space.sample(rng) for _ in range(300)}
    texts = {str(space.decode(tokens)) for tokens in samples}
    assert len(texts) == len(samples)


def test_sampling_is_uniform():
    space = make('backbones: "resnet18" necks: "none"')
    rng = np.random.default_rng(0)
    counts = collections.Counter(space.sample(rng) for _ in range(3600))
    # 36 networks, 100 expected of each: five standard deviations are 50.
    assert len(counts) == 36
    assert all(50 < count < 150 for count in counts.values())


@pytest.mark.parametrize(
    ("neck", "inputs", "outputs"),
    [
        ("P2-P5", [3, 4, 5], [3, 4, 5, 6]),
        ("P1,P2,P3,P4", [2, 3, 4, 5], [2, 3, 4, 5]),  # Figure 2's examples.
        ("P2,P4,P5", [3, 5], [3, 5, 6]),
        ("P1,P2,P6", [2, 3, 5], [2, 3, 7]),  # P6 is made of P4.
        ("P1-P3", [2, 3, 4], [2, 3, 4]),
    ],
)
def test_necks(neck, inputs, outputs):
    space = make(
        f'backbones: "resnet18" necks: "{neck}" heads: ["retinanet", "2fc"] '
        'region_proposals: ["none", "rpn"]'
    )
    for head in ("retinanet", "2fc"):
        architecture = sampled(space, head=head)
        fpn = architecture.feature_pyramid.fpn
        assert (list(fpn.input_level), list(fpn.output_level)) == (inputs, outputs)
        assert (fpn.channels, fpn.strided_levels) == (256, True)
        anchors = architecture.anchor_generator.multiscale_anchor_generator
        assert (anchors.min_level, anchors.max_level) == (outputs[0], outputs[-1])


def test_without_a_neck_the_backbones_last_level_detects():
    space = make('necks: "none"')
    for proposal in ("none", "rpn"):
        architecture = sampled(space, region_proposal=proposal)
        assert not architecture.HasField("feature_pyramid")
        # All sizes from 64 to 512 pixels at one stride.
        grid = architecture.anchor_generator.grid_anchor_generator
        assert (grid.height, grid.width, list(grid.scales)) == (256, 256, [0.25, 0.5, 1, 2])
        assert (grid.height_stride, grid.width_stride) == (32, 32)
        assert (grid.height_offset, grid.width_offset) == (16, 16)
        assert list(grid.aspect_ratios) == [0.5, 1, 2]


def test_retinanet_is_as_published(space):
    architecture = sampled(space, head="retinanet")
    assert not architecture.HasField("region_proposal")
    assert not architecture.HasField("region_head")
    predictor = architecture.box_predictor.weight_shared_convolutional_box_predictor
    assert (predictor.depth, predictor.num_layers_before_predictor) == (256, 4)
    assert predictor.conv_hyperparams.WhichOneof("normalizer_oneof") is None
    anchors = architecture.anchor_generator.multiscale_anchor_generator
    assert (anchors.anchor_scale, anchors.scales_per_octave) == (4, 3)
    assert len(anchors.aspect_ratios) == 3


@pytest.mark.parametrize(
    ("head", "stages"),
    [
        ("2fc", [(0.5, 10, 1)]),
        ("cascade_2", [(0.5, 10, 1), (0.6, 20, 0.5)]),
        ("cascade_4", [(0.5, 10, 1), (0.6, 20, 0.5), (0.7, 30, 0.25), (0.75, 40, 0.125)]),
    ],
)
def test_region_heads_are_as_published(space, head, stages):
    architecture = sampled(space, head=head, region_proposal="rpn")
    assert not architecture.HasField("box_predictor")
    assert not architecture.region_proposal.HasField("guided_anchoring")
    assert architecture.region_proposal.channels == 256
    region_head = architecture.region_head
    assert region_head.fully_connected.channels == 1024
    assert region_head.class_agnostic_boxes == (len(stages) > 1)
    found = [(s.iou_threshold, list(s.box_scales), s.loss_weight) for s in region_head.stage]
    assert found == [
        (pytest.approx(overlap), [scale, scale, scale / 2, scale / 2], weight)
        for overlap, scale, weight in stages
    ]
    anchors = architecture.anchor_generator.multiscale_anchor_generator
    assert (anchors.anchor_scale, anchors.scales_per_octave) == (8, 1)


def test_a_single_stage_after_guided_anchors_asks_for_more_overlap(space):
    architecture = sampled(space, head="2fc", region_proposal="ga_rpn")
    assert architecture.region_proposal.guided_anchoring.anchor_scale == 8
    assert not architecture.HasField("anchor_generator")
    (stage,) = architecture.region_head.stage
    assert stage.iou_threshold == pytest.approx(0.6)
    assert list(stage.box_scales) == [20, 20, 10, 10]


def test_backbones_are_names_or_base_codes():
    space = make('backbones: ["resnext101", "mobilenet_v2", "basicblock_48_1-1-1-2"] necks: "none"')
    resnext = sampled(space, backbone="resnext101").backbone.resnet
    assert (resnext.depth, resnext.groups, resnext.width_per_group) == (101, 32, 4)
    assert sampled(space, backbone="mobilenet_v2").backbone.HasField("mobilenet_v2")
    small = sampled(space, backbone="basicblock_48_1-1-1-2").backbone
    assert small.base_code.code == "basicblock_48_1-1-1-2"


def test_what_the_architecture_states_stays():
    space = make(
        'backbones: "resnet18" necks: ["none", "P2-P4"] pyramid_channels: 32',
        """
        min_depth: 8
        backbone { resnet { depth: 50 } conv_hyperparams { group_norm { groups: 4 } } }
        region_proposal { channels: 24 max_proposals: 50 guided_anchoring { deformable_groups: 2 } }
        region_head { fully_connected { channels: 64 } region_align { size: 5 } stage {} stage {} }
        anchor_generator { multiscale_anchor_generator {
          min_level: 2 max_level: 5 anchor_scale: 4 aspect_ratios: 1 scales_per_octave: 2
        } }
        """,
    )
    two = sampled(space, head="2fc", neck="P2-P4", region_proposal="rpn")
    assert (two.min_depth, two.backbone.conv_hyperparams.group_norm.groups) == (8, 4)
    assert (two.region_proposal.channels, two.region_proposal.max_proposals) == (24, 50)
    assert not two.region_proposal.HasField("guided_anchoring")
    assert (two.region_head.fully_connected.channels, two.region_head.region_align.size) == (64, 5)
    assert len(two.region_head.stage) == 1
    anchors = two.anchor_generator.multiscale_anchor_generator
    assert (anchors.anchor_scale, anchors.scales_per_octave) == (4, 2)
    guided = sampled(space, region_proposal="ga_rpn")
    assert guided.region_proposal.guided_anchoring.deformable_groups == 2
    one = sampled(space, head="retinanet", neck="P2-P4")
    anchors = one.anchor_generator.multiscale_anchor_generator
    assert (anchors.anchor_scale, anchors.scales_per_octave) == (2, 3)
    assert list(anchors.aspect_ratios) == [1]
    assert one.box_predictor.weight_shared_convolutional_box_predictor.depth == 32
    stated = sampled(
        make(
            'heads: "retinanet" box_predictor { weight_shared_convolutional_box_predictor {'
            " depth: 9 num_layers_before_predictor: 1 conv_hyperparams {} } }"
        )
    )
    assert stated.box_predictor.weight_shared_convolutional_box_predictor.depth == 9
    # Fields that are not stated follow the pyramid.
    plain = sampled(make('necks: "P2-P4" heads: "2fc" pyramid_channels: 32'))
    assert (plain.region_proposal.channels, plain.region_head.fully_connected.channels) == (
        32,
        1024,
    )


def test_lists_that_are_left_out_fit_the_others():
    only_two = make('backbones: "resnet18" necks: "none" heads: ["2fc", "cascade_2"]')
    assert only_two.decisions[2].choices == ("rpn", "ga_rpn")
    only_one = make('backbones: "resnet18" necks: "none" region_proposals: "none"')
    assert only_one.decisions[3].choices == ("retinanet",)


def test_encode_names_what_does_not_fit(space):
    two = sampled(space, head="cascade_2", neck="P1,P2,P3")
    for change, message in (
        (lambda a: setattr(a.backbone.resnet, "depth", 10), "its backbone is none of the search"),
        (lambda a: a.feature_pyramid.fpn.output_level.append(4), "its neck is none of the search"),
        (lambda a: setattr(a.region_head.stage[0], "loss_weight", 3), "region_head.stage.0..loss_"),
        (lambda a: setattr(a.region_proposal, "channels", 99), "region_proposal.channels is 99, b"),
        (lambda a: a.region_head.stage.add(), "region_head"),
    ):
        with pytest.raises(UserError, match=message):
            space.encode(changed(two, change))


def test_order_is_that_of_depth_and_size(space):
    assert space.has_order
    by_name = {d.name: d for d in space.decisions}

    def pairs(name):
        decision = by_name[name]
        return {
            (a, b)
            for a, b in itertools.permutations(decision.choices, 2)
            if decision.order and decision.order(a, b)
        }

    assert pairs("backbone") == {
        ("resnet18", "resnet34"),
        ("resnet50", "resnet101"),
        ("resnext50", "resnext101"),
    }
    cascades = ("cascade_2", "cascade_3", "cascade_4")
    assert pairs("head") == set(itertools.combinations(cascades, 2))
    sizes = ("512x512", "608x800", "736x1088", "800x1344")
    assert pairs("input") == set(itertools.combinations(sizes, 2))
    assert pairs("neck") == pairs("region_proposal") == set()


def test_base_codes_are_ordered_as_in_their_own_space():
    space = make(
        'backbones: ["basicblock_48_1-1-1-2", "basicblock_56_1-1-1-2", "resnet18"] necks: "none"'
    )
    order = space.decisions[0].order
    assert order("basicblock_48_1-1-1-2", "basicblock_56_1-1-1-2")
    assert not order("basicblock_56_1-1-1-2", "basicblock_48_1-1-1-2")
    assert not order("basicblock_48_1-1-1-2", "resnet18")


def test_precedes_is_a_partial_order(space):
    rng = np.random.default_rng(0)
    samples = [space.sample(rng) for _ in range(40)]
    samples += [space.mutate(tokens, rng) for tokens in samples for _ in range(2)]
    below = np.array([[space.precedes(a, b) for b in samples] for a in samples])
    equal = np.array([[a == b for b in samples] for a in samples])
    assert ((below & below.T) == equal).all()
    assert not ((below.astype(int) @ below.astype(int) > 0) & ~below).any()
    assert (below & ~equal).sum() > 10


def test_every_pair_builds_a_network():
    space = make(
        """
        backbones: ["resnet10", "basicblock_16_1-1-1-2"] necks: ["none", "P1-P5", "P2,P4,P6"]
        pyramid_channels: 16
        """,
        "region_head { fully_connected { channels: 32 } }",
    )
    tokens = list(all_tokens(space))[::4]  # Every fourth has another input.
    assert len(tokens) == 2 * 3 * 9
    keys = set()
    for architecture in map(space.decode, tokens):
        network = network_of(architecture, (64, 96), 3)
        heads = len(architecture.region_head.stage)
        names = [f"region_head_{stage}" for stage in range(1, heads + 1)]
        assert list(network.graphs) == (["features", *names] if heads else ["detector"])
        keys.add(network.key())
    assert len(keys) == len(tokens)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('backbones: "resnet19"', "backbones has 'resnet19'; use one of resnet1.*or a base code"),
        ('backbones: "basicblock_48_1-1-3-1"', "backbones: base code .*character 19"),
        ('backbones: ["resnet18", "resnet18"]', "backbones is"),
        ('necks: "P1-P2"', "necks has 'P1-P2'; use none, or 3 or more of P1 to P6 in this order"),
        ('necks: "P5-P2"', "necks has 'P5-P2'"),
        ('necks: "P4,P2,P3"', "necks has 'P4,P2,P3'"),
        ('necks: "P2,P3,P4,P7"', "necks has"),
        ('necks: ["P2-P4", "P2,P3,P4"]', "necks is .* use different necks"),
        ('heads: "3fc"', "heads is .*; use different ones of retinanet, 2fc, cascade_2"),
        ('region_proposals: "RPN"', "region_proposals is .* use different ones of none, rpn"),
        (
            'region_proposals: "rpn" heads: ["retinanet", "2fc"]',
            "retinanet is without a partner; retinanet goes with none, and all other heads with",
        ),
        ('region_proposals: ["none", "rpn"] heads: "2fc"', "none is without a partner"),
        ("pyramid_channels: 0", "pyramid_channels is 0; use 1 or more"),
    ],
)
def test_impossible_choices_are_refused(text, message):
    with pytest.raises(ConfigError, match=f"structure search space: .*{message}"):
        make(text)
