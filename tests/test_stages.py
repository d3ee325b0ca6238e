"""One-stage and two-stage detectors in one config."""

import numpy as np
import pytest

from mnasdet import config, models
from mnasdet.errors import ConfigError
from mnasdet.protos import pipeline_pb2, search_pb2
from mnasdet.search_spaces import factory
from tests.config_fragments import CONFIGS

NEEDS_ONE_STAGE = (
    "search_config.search_space.structure: detectors of one stage need "
    "model.faster_rcnn.one_stage, which is missing; write their box_coder, matcher, loss and "
    "post_processing there"
)


@pytest.fixture(scope="module")
def digits():
    """A search of detectors of both kinds."""
    return config.load(CONFIGS / "sm_nas_search_digits.config")


@pytest.fixture(scope="module")
def architectures(digits):
    """A detector of one stage and one of two, whose pyramids leave level 3 out."""
    space = search_pb2.SearchSpaceConfig()
    space.CopyFrom(digits.search_config.search_space)
    space.structure.necks[:] = ["P1,P3,P4"]
    space.structure.heads[:] = ["retinanet", "2fc"]
    space.structure.region_proposals[:] = ["none", "rpn"]
    del space.structure.backbones[1:], space.inputs[1:]
    made = factory.from_config(space, config.resolve(digits).architecture)
    rng = np.random.default_rng(0)
    found = {}
    while len(found) < 2:
        architecture = made.decode(made.sample(rng))
        found[architecture.HasField("region_head")] = architecture
    return found[False], found[True]


def pipeline_of(digits, change):
    copy = pipeline_pb2.TrainEvalPipelineConfig()
    copy.CopyFrom(digits)
    change(copy)
    return copy


def test_both_kinds_are_built_of_one_config(digits, architectures):
    one, two = (config.resolve(digits, architecture) for architecture in architectures)
    assert (one.kind, two.kind) == ("ssd", "faster_rcnn")
    assert one.num_classes == two.num_classes == one.settings.num_classes == 10
    assert one.settings.image_resizer == digits.model.faster_rcnn.image_resizer
    assert one.settings.loss == digits.model.faster_rcnn.one_stage.loss
    assert two.settings == digits.model.faster_rcnn
    # The config's own message stays as it was.
    assert not digits.model.faster_rcnn.one_stage.num_classes


def test_both_kinds_detect_on_levels_that_are_not_neighbours(digits, architectures):
    for architecture in architectures:
        detector = models.build(config.resolve(digits, architecture))
        height, width = detector.image_size
        found = detector.predict(np.zeros([1, height, width, 3], np.float32))
        assert found["detection_boxes"].shape == (1, 20, 4)


def test_without_settings_nothing_is_built(digits, architectures):
    plain = pipeline_of(digits, lambda p: p.model.faster_rcnn.ClearField("one_stage"))
    with pytest.raises(ConfigError, match="model.faster_rcnn.one_stage is missing, but the arch"):
        config.resolve(plain, architectures[0])
    assert config.resolve(plain, architectures[1]).kind == "faster_rcnn"
    ssd = config.load(CONFIGS / "quickstart.config")
    with pytest.raises(ConfigError, match="model.ssd builds detectors of one stage, but the archi"):
        config.resolve(ssd, architectures[1])


def clear_one_stage(p):
    p.model.faster_rcnn.ClearField("one_stage")


def clear_and(heads):
    def change(p):
        clear_one_stage(p)
        p.search_config.search_space.structure.heads[:] = heads

    return change


def second_stage(p):
    clear_and(["2fc"])(p)
    p.search_config.second_stage.search_space.structure.SetInParent()


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (lambda p: None, []),
        (clear_one_stage, [NEEDS_ONE_STAGE]),
        (clear_and(["2fc", "retinanet"]), [NEEDS_ONE_STAGE]),
        (clear_and(["2fc"]), []),
        (
            second_stage,
            [NEEDS_ONE_STAGE.replace("search_config", "search_config.second_stage", 1)],
        ),
        (
            lambda p: setattr(p.model.faster_rcnn.one_stage, "num_classes", 10),
            [
                "model.faster_rcnn.one_stage.num_classes has no effect; "
                "model.faster_rcnn.num_classes counts: remove it"
            ],
        ),
        (
            lambda p: p.model.faster_rcnn.one_stage.ClearField("loss"),
            ["model.faster_rcnn.one_stage.loss is missing"],
        ),
    ],
)
def test_a_config_is_told_what_it_lacks(digits, change, problems):
    assert config.check(pipeline_of(digits, change)) == problems


def test_a_one_stage_config_searches_no_detectors_of_two(architectures):
    ssd = config.load(CONFIGS / "quickstart.config")
    ssd.search_config.search_space.structure.heads.append("cascade_2")
    assert config.check(ssd) == [
        "search_config.search_space.structure: model.ssd builds no detectors of two stages; write "
        "model { faster_rcnn { ... } } in its place"
    ]
    ssd.search_config.search_space.structure.heads[:] = ["retinanet"]
    assert config.check(ssd) == []
    ssd.model.ssd.ClearField("box_predictor")
    ssd.model.ssd.ClearField("anchor_generator")
    ssd.model.ssd.ClearField("feature_extractor")
    ssd.model.architecture.CopyFrom(architectures[1])
    assert (
        "model.architecture: model.ssd builds no detectors of two stages; write model { "
        "faster_rcnn { ... } } in its place"
    ) in config.check(ssd)
