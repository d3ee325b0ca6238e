import time

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.errors import ConfigError
from mnasdet.models import network_of
from mnasdet.protos import search_pb2
from mnasdet.search_spaces import factory
from tests.search_spaces.architectures import key, mnasfpn_space

NUM_SAMPLES = 300

# Each over the base that `describe_search_space` takes, and the side of images that is enough.
BASES = {
    "mnasfpn": ("mobilenet_v2_mnasfpn", 64),
    "no_expand": ("mobilenet_v2_mnasfpn", 64),
    "conn_search": ("mobilenet_v2_mnasfpn", 64),
    "nas_fpn": ("resnet50_nas_fpn_7_256", 128),
    "nas_fpnlite_s": ("mobilenet_v2_mnasfpn", 64),
    "mnasnet": ("mobilenet_v2_ssdlite", 64),
    "joint": ("mobilenet_v2_mnasfpn", 64),
    "structure": ("faster_rcnn_resnet50_fpn", 64),
    "base_code": ("sm_nas_e0", 64),
    "supernet": ("hit_detector", 64),
}


def build(text, base="mobilenet_v2_mnasfpn"):
    search_space = text_format.Parse(text, search_pb2.SearchSpaceConfig())
    return factory.from_config(search_space, config.load_architecture(base))


@pytest.fixture(scope="module", params=BASES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def space(name):
    return build(f"{name} {{}}", BASES[name][0])


@pytest.fixture(scope="module")
def samples(space):
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(NUM_SAMPLES)]


def test_all_spaces_are_known(name):
    assert list(BASES) == factory.names()


def test_names_of_decisions_are_unique(space):
    names = [decision.name for decision in space.decisions]
    assert len(set(names)) == len(names)


def test_samples_round_trip(space, samples):
    # A structure is one of 10,836.
    assert len(set(samples)) > 0.95 * NUM_SAMPLES
    for tokens in samples:
        architecture = space.decode(tokens)
        assert space.encode(architecture) == tokens
        # As a trial store keeps it.
        read = text_format.Parse(str(architecture), type(architecture)())
        assert space.encode(read) == tokens


def test_samples_are_valid_and_build(name, space, samples):
    side = BASES[name][1]
    for tokens in samples:
        architecture = space.decode(tokens)
        assert architecture_problems(architecture) == []
        assert network_of(architecture, (side, side), 3).outputs


def test_mutations_and_crossings_are_valid(space, samples):
    rng = np.random.default_rng(0)
    for a, b in zip(samples[:100], samples[100:200], strict=True):
        mutated = space.mutate(a, rng)
        assert mutated != a
        space.validate(mutated)
        space.validate(space.cross(a, b, rng))


def test_spaces_are_quick(name, samples):
    """Also with several scales, which multiply no table."""
    start = time.process_time()
    space = build(
        f"{name} {{}} depth_multipliers: [0.5, 0.75, 1] image_sizes: [512, 640]", BASES[name][0]
    )
    assert time.process_time() - start < 1
    rng = np.random.default_rng(0)
    start = time.process_time()
    for _ in range(100):
        space.decode(space.sample(rng))
    assert (time.process_time() - start) / 100 < 0.005


SAMPLES = {
    "mnasfpn": (
        "3 0 0 0 1 6 1 2 3 3 1 0 2 0 3 0 1 3 0 1 1 0 1 4 1 1 6 3 1 4 2 1 0 3 2 3 0 6 2 1 "
        "5 0 4 1 2 9 0 4 0 6 9 0 6 0"
    ),
    "no_expand": (
        "3 0 0 0 1 2 1 3 2 1 2 0 4 0 1 0 4 5 1 0 0 0 4 2 1 1 3 2 1 3 6 0 0 4 6 0 1 6 9 0 1 2 7 0 1"
    ),
    "conn_search": (
        "3 0 0 0 0 3 4 2 0 3 0 0 3 0 2 0 2 3 0 1 0 0 1 2 4 0 3 6 2 1 3 4 0 2 3 0 1 3 2 0 "
        "2 3 4 2 1 4 4 6 0 5 2 0 5 0 0 1 1 3 3 4 5 1 0"
    ),
    "nas_fpn": "0 0 0 0 1 3 4 2 1 4 3 0 2 0 4 0 4 5 0 2 2 0 4 7 1 2 9 1",
    "nas_fpnlite_s": "0 0 0 0 1 3 3 2 1 4 4 0 1 0 4 0 1 2 3 1 0 0 3 2 3 4 1 8 8 1 4 6 0 5 8 0",
    "mnasnet": (
        "2 0 0 0 1 1 2 1 1 2 1 0 3 0 1 0 2 1 1 0 0 0 2 1 2 0 1 2 2 1 2 0 0 2 1 0 1 1 1 1 1 0"
    ),
    "joint": (
        "2 0 0 0 1 1 2 1 1 2 1 0 3 0 1 0 2 1 1 0 0 0 2 1 2 0 1 2 2 1 2 0 0 2 1 0 1 1 1 1 "
        "1 0 3 0 1 3 0 4 0 2 3 0 1 0 1 0 2 3 0 0 1 0 0 2 0 4 0 5 5 0 1 6 1 3 1 0 3 7 1 3 "
        "2 2 5 1 2 2 4 9 0 5 2 9 9 1 6 2"
    ),
    "structure": "4 11 0 0 3",
    "base_code": "2 0 8 0 0 0 0 0 15 0 0 0 0 9 9 2 0 0 18 13 1 0 0",
    "supernet": "5 2 0 0 6 7 4 5 4 7 6 0 6 0 5 1 6 4 2 3 0 0 5 5 4 3 7 7 5 5 5 3 1",
}


def test_sampling_is_permanent(name, samples):
    """If the decisions, their order or the use of random numbers change, searches of old seeds
    change too: say so in the changelog, then take the new tokens over."""
    assert " ".join(map(str, samples[0])) == SAMPLES[name]


def test_joint_is_a_backbone_and_a_cell():
    space = build("joint {}")
    mnasnet, mnasfpn = build("mnasnet {}"), build("mnasfpn {}")
    names = [d.name for part in (mnasnet, mnasfpn) for d in part.decisions]
    assert [d.name for d in space.decisions] == names
    assert (
        space.cardinality() == 554_652_776_685_109_248 * 186_615_424_657_489_896_730_672_496_640_000
    )
    tokens = space.sample(np.random.default_rng(0))
    architecture = space.decode(tokens)
    assert architecture.backbone == mnasnet.decode(tokens[:42]).backbone
    assert architecture.feature_pyramid == mnasfpn.decode(tokens[42:]).feature_pyramid


def test_joint_takes_both_configs():
    space = build(
        """joint {
          mnasnet { searched_blocks: [4] ops: [CONV] kernel_sizes: [3] skips: [NONE] }
          mnasfpn { channels: [16, 32] expanded_channels: [64] repeats: [3, 4]
                    num_internal_blocks: 0 kernel_sizes: [5] }
        }
        image_sizes: [256, 320]"""
    )
    pairs = 6 * 10 * 15 * 21
    assert space.cardinality() == (2 * 3 * 3) * (2 * 24 * pairs * 2**4) * 2 * 2
    assert [d.name for d in space.decisions[-2:]] == ["repeats", "image_size"]


def test_scales_stand_behind_all_other_decisions():
    space = build(
        "mnasfpn { repeats: [3, 4, 5] } depth_multipliers: [0.5, 1.0] image_sizes: [256, 320]"
    )
    names = [decision.name for decision in space.decisions[-3:]]
    assert names == ["repeats", "depth_multiplier", "image_size"]
    plain = mnasfpn_space(config.load_architecture("mobilenet_v2_mnasfpn"))
    assert space.decisions[:-3] == plain.decisions
    assert space.cardinality() == plain.cardinality() * 3 * 2 * 2


def test_single_scales_are_no_decisions():
    space = build("mnasfpn { repeats: 2 } depth_multipliers: 0.5 image_sizes: 256")
    assert len(space.decisions) == 54
    example = space.example
    assert example.feature_pyramid.mnasfpn.repeats == 2
    assert (example.depth_multiplier, example.input.height, example.input.width) == (0.5, 256, 256)


def test_a_classifier_can_be_searched():
    space = build("mnasnet {} image_sizes: [64, 96]", "mnasnet_a1")
    base = config.load_architecture("mnasnet_a1")
    base.input.height = base.input.width = 96
    assert key(space.decode(space.encode(base)), 96) == key(base, 96)


def test_a_config_without_space_is_refused():
    with pytest.raises(ConfigError, match="search_space is empty; use one of mnasfpn, no_expand, "):
        build("")


@pytest.mark.parametrize(
    ("text", "base", "message"),
    [
        ("no_expand { channels: 0 }", "mobilenet_v2_mnasfpn", r"no_expand search space: channels"),
        ("conn_search { max_inputs: 1 }", "mobilenet_v2_mnasfpn", "conn_search .* max_inputs is 1"),
        ("nas_fpn { repeats: 0 }", "resnet50_nas_fpn_7_256", r"nas_fpn search space: repeats"),
        ("joint { mnasnet { skips: [POOL, POOL] } }", "mobilenet_v2_mnasfpn", "joint .* skips is"),
        ("joint { mnasfpn { repeats: -1 } }", "mobilenet_v2_mnasfpn", "joint .* repeats is"),
        ("joint {}", "resnet50_nas_fpn_7_256", "joint .* the backbone is resnet; use mnasnet or"),
        ("mnasfpn {}", "mnasnet_a1", "mnasfpn search space: the architecture has no feature_pyr"),
        (
            "mnasfpn {} image_sizes: [320, 32]",
            "mobilenet_v2_mnasfpn",
            r"image_sizes is \[320, 32\]; use 64 or more",
        ),
        (
            "mnasfpn {} inputs { height: 320 width: 32 }",
            "mobilenet_v2_mnasfpn",
            r"inputs is \[\(320, 32\)\]; use 64 or more",
        ),
        ("mnasnet {} image_sizes: 16", "mobilenet_v2_ssdlite", r"image_sizes is \[16\]; use 32 or"),
        ("mnasnet {} depth_multipliers: 0", "mobilenet_v2_ssdlite", "depth_multipliers is"),
    ],
)
def test_what_cannot_be_is_named(text, base, message):
    with pytest.raises(ConfigError, match=message):
        build(text, base)


def test_a_base_that_does_not_fit_is_refused():
    base = config.load_architecture("mobilenet_v2_mnasfpn")
    base.feature_pyramid.mnasfpn.max_level = 5
    search_space = search_pb2.SearchSpaceConfig()
    search_space.nas_fpnlite_s.SetInParent()
    with pytest.raises(
        ConfigError,
        match="nas_fpnlite_s search space over this architecture: .*max_level is 6; 5 is needed",
    ):
        factory.from_config(search_space, base)
