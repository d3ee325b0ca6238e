"""Every check of a search whose children share weights, before anything is trained."""

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.errors import ConfigError
from mnasdet.protos import pipeline_pb2
from tests import two_stage_config
from tests.config_fragments import CONFIGS, merge

ONE_SHOT = "search_config.one_shot"
ARCHITECTURE = "model { architecture { %s } }"
HYPERPARAMS = "conv_hyperparams { activation: RELU_6 %s }"


def one_shot(space):
    """The quickstart's search in another space, sharing weights."""
    pipeline = config.load(CONFIGS / "quickstart.config")
    merge("search_config { one_shot {} controller { nsga2 {} } }", pipeline)
    search = pipeline.search_config
    search.reward.multi_objective.SetInParent()
    search.one_shot.train_config.CopyFrom(pipeline.train_config)
    merge(f"search_config {{ search_space {{ {space} {{}} }} }}", pipeline)
    return config.with_architecture(pipeline, config.resolve(pipeline).architecture)


@pytest.mark.parametrize("space", ["mnasfpn", "no_expand", "conn_search", "mnasnet", "joint"])
def test_sound_searches(space):
    assert config.check(one_shot(space)) == []


def test_image_sizes_are_shared_and_shapes_are_not():
    pipeline = one_shot("mnasfpn")
    merge("search_config { search_space { image_sizes: [64, 128] } }", pipeline)
    assert config.check(pipeline) == []
    pipeline.search_config.search_space.ClearField("image_sizes")
    shapes = "inputs { height: 64 width: 64 } inputs { height: 64 width: 128 }"
    merge(f"search_config {{ search_space {{ {shapes} }} }}", pipeline)
    (problem,) = config.check(pipeline)
    assert "search_space.inputs has several values" in problem


@pytest.mark.parametrize(
    ("space", "fragment", "expected"),
    [
        ("nas_fpn", "", "has no supernet for nas_fpn; one of mnasfpn, no_expand, conn_search, mna"),
        ("mnasfpn", "search_config { one_shot { num_networks: 1 } }", ".num_networks is 1; at lea"),
        ("mnasfpn", "search_config { one_shot { sandwich: 2 } }", ".sandwich is 2; 0 to 1 is allo"),
        (
            "mnasnet",
            "model { ssd { freeze_batchnorm: true } }",
            "cannot be combined with model.ssd.freeze_batchnorm; remove one of them",
        ),
        (
            "mnasfpn",
            ARCHITECTURE % "deep_supervision: true",
            "cannot be combined with the architecture's deep_supervision; remove one of them",
        ),
        ("mnasnet", ARCHITECTURE % "exit: 1", "cannot be combined with the architecture's exit;"),
        (
            "mnasnet",
            ARCHITECTURE % "feature_pyramid { nas_fpn { cell { input: 0 input: 1 level: 3 } } }",
            "cannot be combined with the feature pyramid nas_fpn in search_space.mnasnet; mnasfpn,",
        ),
        (
            "mnasfpn",
            ARCHITECTURE % f"feature_pyramid {{ {HYPERPARAMS % 'group_norm {}'} }}",
            "needs batch_norm in feature_pyramid.conv_hyperparams, which has group_norm",
        ),
        (
            "joint",
            ARCHITECTURE % f"backbone {{ {HYPERPARAMS % 'sync_batch_norm {}'} }}",
            "needs batch_norm in backbone.conv_hyperparams, which has sync_batch_norm",
        ),
        (
            "mnasnet",
            ARCHITECTURE
            % f"backbone {{ {HYPERPARAMS % 'batch_norm {} standardize_weights: true'} }}",
            "cannot be combined with backbone.conv_hyperparams.standardize_weights; remove one of",
        ),
        (
            "mnasfpn",
            "model { ssd { box_predictor { convolutional_box_predictor { "
            "num_layers_before_predictor: 1 max_depth: 64 conv_hyperparams { batch_norm {} } } "
            "} } }",
            "cannot be combined with num_layers_before_predictor of convolutional_box_predictor",
        ),
    ],
)
def test_what_no_path_has_is_refused(space, fragment, expected):
    pipeline = one_shot(space)
    merge(fragment, pipeline)
    assert any(
        problem.startswith((f"{ONE_SHOT}{expected}", f"{ONE_SHOT} {expected}"))
        for problem in config.check(pipeline)
    ), config.check(pipeline)


def test_two_stage_detectors_share_no_weights():
    search = """
      search_config {
        search_space { mnasnet {} } controller { random {} } reward { accuracy {} }
        executor { this_process {} } latency { predict {} } one_shot {}
      }
    """
    pipeline = text_format.Parse(
        two_stage_config.text(further=search), pipeline_pb2.TrainEvalPipelineConfig()
    )
    expected = "is for classifiers and detectors of one stage, and not for model.faster_rcnn"
    assert any(problem.startswith(f"{ONE_SHOT} {expected}") for problem in config.check(pipeline))


def test_a_classifier_has_no_pyramid_to_share(tmp_path):
    text = (CONFIGS / "mnasnet_search_digits.config").read_text()
    start = text.index("    mnasnet {\n      # The deeper half")
    text = text[:start] + "    joint {} }" + text[text.index("  controller { ppo") :]
    text = text.replace("search_config {", "search_config { one_shot { train_config {} }")
    (tmp_path / "digits.config").write_text(text)
    with pytest.raises(ConfigError, match="has no supernet for classifiers in search_space.joint"):
        config.load(tmp_path / "digits.config")
