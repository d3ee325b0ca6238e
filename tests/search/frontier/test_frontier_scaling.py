"""From a frontier to the variants that are trained."""

import dataclasses

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.errors import UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search.frontier.frontier_scaling import best_within, spread, variants
from mnasdet.search.latency import MultiplyAdds
from mnasdet.search.trials.trial_store import Trial, TrialState


@pytest.fixture
def published():
    """MnasFPN's own architecture; its image size is the pipeline's."""
    architecture = config.load_architecture("mobilenet_v2_mnasfpn")
    architecture.ClearField("image_size")
    return architecture


@pytest.fixture
def pipeline():
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.model.architecture_name = "mobilenet_v2_mnasfpn"
    pipeline.model.ssd.num_classes = 90
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = 320
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.width = 320
    return pipeline


def trial(number, cost=1.0, accuracy=0.2, architecture=None):
    return Trial(
        number=number,
        tokens=(number,),
        architecture=text_format.MessageToString(architecture or architecture_pb2.Architecture()),
        key=str(number),
        seed=100 + number,
        state=TrialState.COMPLETE,
        metrics={MAP: accuracy},
        accuracy=accuracy,
        cost=cost,
    )


FRONTIER = [trial(n, cost=10.0 * n, accuracy=0.1 * n) for n in (1, 2, 3, 4, 5)]


def numbers(picks):
    return [pick.number for pick in picks]


def test_a_latency_is_a_budget():
    assert numbers(best_within(FRONTIER, [20, 39.9, 1000])) == [2, 3, 5]


def test_a_member_that_is_best_twice_is_picked_once():
    assert numbers(best_within(FRONTIER, [35, 30, 10])) == [3, 1]


def test_a_budget_that_no_member_keeps():
    message = "no member of the frontier takes 9.5 ms or less; the fastest takes 10 ms"
    with pytest.raises(UserError, match=message):
        best_within(FRONTIER, [20, 9.5])


@pytest.mark.parametrize(
    ("max_picks", "expected"),
    [
        (1, [5]),
        (2, [1, 5]),
        (3, [1, 3, 5]),
        (4, [1, 2, 4, 5]),
        (5, [1, 2, 3, 4, 5]),
        (9, [1, 2, 3, 4, 5]),
    ],
)
def test_picks_are_spread_over_the_frontier(max_picks, expected):
    assert numbers(spread(FRONTIER, max_picks)) == expected


def test_a_frontier_of_one():
    assert numbers(spread(FRONTIER[:1], 3)) == [1]


def test_repeats_and_depth_multipliers(pipeline, published):
    pick = trial(7, accuracy=0.25, architecture=published)
    found = variants(pipeline, [pick], [4, 5], [0.7, 1.0], MultiplyAdds())
    assert [variant.name for variant in found] == [
        "trial_00007_r4_d0.7",
        "trial_00007_r4_d1",
        "trial_00007_r5_d0.7",
        "trial_00007_r5_d1",
    ]
    assert [(variant.repeats, variant.depth_multiplier) for variant in found] == [
        (4, 0.7),
        (4, 1.0),
        (5, 0.7),
        (5, 1.0),
    ]
    # The counts of the paper's table 1, and of architectures.md for five repeats.
    assert [round(variant.params / 1e6, 3) for variant in found[1::2]] == [2.503, 2.625]
    assert [round(variant.multiply_adds / 1e9, 3) for variant in found[1::2]] == [0.919, 0.964]
    for variant in found:
        assert (variant.trial, variant.seed, variant.proxy_accuracy) == (7, 107, 0.25)
        assert variant.cost == pytest.approx(variant.multiply_adds / 1e9)
        architecture = text_format.Parse(variant.architecture, architecture_pb2.Architecture())
        assert architecture.name == variant.name
        assert architecture.feature_pyramid.mnasfpn.repeats == variant.repeats
        assert architecture.depth_multiplier == pytest.approx(variant.depth_multiplier)


def test_without_scales_an_architecture_keeps_its_own(pipeline, published):
    published.depth_multiplier = 0.5
    found = variants(pipeline, [trial(3, architecture=published)], [], [], MultiplyAdds())
    assert [variant.name for variant in found] == ["trial_00003_r4_d0.5"]


def test_equal_networks_are_one_variant(pipeline, published):
    # Sampled with other repeats, but the same cell.
    other = architecture_pb2.Architecture()
    other.CopyFrom(published)
    other.feature_pyramid.mnasfpn.repeats = 3
    picks = [trial(1, architecture=published), trial(2, architecture=other)]
    assert len(variants(pipeline, picks, [], [], MultiplyAdds())) == 2
    found = variants(pipeline, picks, [4, 5], [], MultiplyAdds())
    assert [variant.name for variant in found] == ["trial_00001_r4_d1", "trial_00001_r5_d1"]
    # Repeats behind the exit are no part of the network.
    published.exit = 2
    assert len(variants(pipeline, picks[:1], [3, 4, 5], [], MultiplyAdds())) == 3
    exiting = dataclasses.replace(picks[0], architecture=text_format.MessageToString(published))
    assert len(variants(pipeline, [exiting], [3, 4, 5], [], MultiplyAdds())) == 1


def test_a_searched_image_size_is_kept(pipeline, published):
    half = architecture_pb2.Architecture()
    half.CopyFrom(published)
    half.image_size = 160
    picks = [trial(1, architecture=published), trial(2, architecture=half)]
    whole, quarter = variants(pipeline, picks, [], [], MultiplyAdds())
    assert whole.multiply_adds / quarter.multiply_adds == pytest.approx(4, rel=0.1)


def test_a_pyramid_without_repeats(pipeline):
    fpnlite = trial(1, architecture=config.load_architecture("mobilenet_v2_fpnlite_64"))
    with pytest.raises(UserError, match="--repeats: the Fpn pyramid has none"):
        variants(pipeline, [fpnlite], [3], [], MultiplyAdds())
    (found,) = variants(pipeline, [fpnlite], [], [], MultiplyAdds())
    assert (found.name, found.repeats) == ("trial_00001_d1", None)


def test_an_impossible_scale_names_its_variant(pipeline, published):
    published.exit = 4
    with pytest.raises(UserError, match="trial_00001_r3_d1: exit is 4"):
        variants(pipeline, [trial(1, architecture=published)], [3], [], MultiplyAdds())
