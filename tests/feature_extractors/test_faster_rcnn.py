"""The architectures of the OD API's two-stage feature extractors, and what their configs refuse."""

import pytest
from google.protobuf import text_format

from mnasdet import config, text_proto
from mnasdet.errors import ConfigError
from mnasdet.models import network_of
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import hyperparams_pb2, pipeline_pb2
from tests.config_fragments import merge, nested
from tests.od_api_faster_rcnn_configs import EXTRACTORS, config_text

TF1, KERAS, FPN = (f"faster_rcnn_resnet50{end}" for end in ("", "_keras", "_fpn_keras"))
SETTINGS = "model.faster_rcnn"
PREDICTOR = "model.faster_rcnn.second_stage_box_predictor.mask_rcnn_box_predictor"


def pipeline_of(extractor, changes=""):
    pipeline = text_proto.parse(
        config_text(extractor), pipeline_pb2.TrainEvalPipelineConfig, "od_api.config"
    )
    merge(changes, pipeline)
    return pipeline


def faster_rcnn(text):
    return nested(SETTINGS, text)


# Convolutions and normalisations of ResNets (He et al., 2016), and what comes on top, by hand: 90
# classes, 12 anchors at a place of the one feature, 6 at one of the pyramid.
RESNET = {50: 23_508_032, 101: 42_500_160, 152: 58_143_808}
PROPOSALS = 3 * 3 * 1024 * 512 + 512 + 512 * 12 * 6 + 12 * 6
CLASSES = 2048 * 91 + 91
PYRAMID = (256 + 512 + 1024 + 2048) * 256 + 4 * 256 + 4 * (9 * 256 * 256 + 2 * 256)
# The hidden convolution is the same on all five levels; each has predictions of its own.
PYRAMID_PROPOSALS = 9 * 256 * 512 + 512 + 5 * (512 * 6 * 6 + 6 * 6)
FULLY_CONNECTED = 7 * 7 * 256 * 1024 + 1024 + 1024 * 1024 + 1024
PARAMS = {
    f"faster_rcnn_resnet{depth}{end}": resnet + on_top
    for depth, resnet in RESNET.items()
    for end, on_top in (
        ("", PROPOSALS + CLASSES + 2048 * 360 + 360),
        # One box for all classes.
        ("_keras", PROPOSALS + CLASSES + 2048 * 4 + 4),
        ("_fpn_keras", PYRAMID + PYRAMID_PROPOSALS + FULLY_CONNECTED + 1024 * 451 + 451),
    )
}


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_configs_of_the_od_api_run_unchanged(tmp_path, coco_inputs, extractor):
    path = tmp_path / "od_api.config"
    path.write_text(
        config_text(
            extractor,
            train_input=coco_inputs["train_input"][0],
            eval_input=coco_inputs["eval_input"][0],
            label_map=coco_inputs["label_map"],
        )
    )
    blueprint = config.resolve(config.load(path))
    assert blueprint.kind == "faster_rcnn"
    network = network_of(blueprint.architecture, blueprint.image_size, 90)
    assert cost_sheet(network).total.trainable_params == PARAMS[extractor]


def test_every_extractor_has_a_config_here():
    unknown = faster_rcnn('feature_extractor { type: "faster_rcnn_resnet18" }')
    with pytest.raises(ConfigError) as caught:
        config.resolve(pipeline_of(TF1, unknown))
    supported = str(caught.value).partition("one of ")[2].partition(" is supported")[0]
    assert sorted(supported.split(", ")) == EXTRACTORS
    (problem,) = config.check(pipeline_of(TF1, unknown), readers=())
    assert problem.startswith(
        'model.faster_rcnn.feature_extractor.type is "faster_rcnn_resnet18"; one of faster_rcnn_'
    )


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_with_architecture_is_a_config_of_exactly_that(tmp_path, coco_inputs, extractor):
    path = tmp_path / "od_api.config"
    path.write_text(config_text(extractor))
    pipeline = config.load(path, **coco_inputs)
    resolved = config.resolve(pipeline).architecture
    given = config.with_architecture(pipeline, resolved)
    assert config.check(given) == []
    assert config.resolve(given).architecture == resolved
    # The other settings of the extractor still apply.
    was, now = (p.model.faster_rcnn.feature_extractor for p in (pipeline, given))
    assert now.batch_norm_trainable == was.batch_norm_trainable
    assert given.model.faster_rcnn.HasField("feature_extractor")


def test_proposals_and_head_without_a_pyramid():
    resolved = config.resolve(pipeline_of(KERAS)).architecture
    proposal, head = resolved.region_proposal, resolved.region_head
    assert not resolved.HasField("feature_pyramid")
    assert (proposal.channels, proposal.kernel_size, proposal.max_proposals) == (512, 3, 300)
    assert proposal.objectness == proposal.SOFTMAX
    # The config does not say it; the OD API has it.
    assert proposal.conv_hyperparams.activation == hyperparams_pb2.Hyperparams.RELU_6
    align = head.region_align
    assert (align.size, align.sampling_ratio, align.from_corner_to_corner) == (14, 1, True)
    assert (align.max_pool_size, align.max_pool_stride) == (2, 2)
    assert head.class_agnostic_boxes
    # keras.applications strides in its last stage for regions as well; slim's is built without.
    assert head.last_backbone_stage.stride == 2
    assert config.resolve(pipeline_of(TF1)).architecture.region_head.last_backbone_stage.stride == 1
    assert head.dropout == 0
    text = "use_dropout: true dropout_keep_probability: 0.75 share_box_across_classes: false"
    changed = config.resolve(pipeline_of(KERAS, nested(PREDICTOR, text))).architecture.region_head
    assert changed.dropout == 0.25
    assert not changed.class_agnostic_boxes


def test_backbones_without_a_pyramid_are_not_regularised():
    slim, keras, fpn = (
        config.resolve(pipeline_of(one)).architecture.backbone.conv_hyperparams
        for one in (TF1, KERAS, FPN)
    )
    for hyperparams, factor in ((slim, 2.0), (keras, 1.0)):
        assert not hyperparams.HasField("regularizer")
        assert hyperparams.initializer.variance_scaling_initializer.factor == factor
        assert f"{hyperparams.batch_norm.decay:g}" == "0.997"
        assert f"{hyperparams.batch_norm.epsilon:g}" == "1e-05"
    # The config has others.
    assert fpn == pipeline_of(FPN).model.faster_rcnn.feature_extractor.conv_hyperparams
    text = "feature_extractor { override_base_feature_extractor_hyperparams: false }"
    own = config.resolve(pipeline_of(FPN, faster_rcnn(text))).architecture.backbone
    # Keras' L2 of 1e-4 in slim's convention.
    assert f"{own.conv_hyperparams.regularizer.l2_regularizer.weight:g}" == "0.0002"


@pytest.mark.parametrize(
    ("fpn", "levels", "finest_scale"),
    [
        (None, (2, 6), 28),
        ("min_level: 2 max_level: 6", (2, 6), 28),
        # The paper's own levels have its own scale.
        ("min_level: 2 max_level: 5", (2, 5), 56),
        ("min_level: 3 max_level: 7", (3, 7), 14),
    ],
)
def test_levels_of_the_pyramid_and_of_regions(fpn, levels, finest_scale):
    """Regions of 224 pixels are cropped from the level before the last."""
    pipeline = pipeline_of(FPN)
    extractor = pipeline.model.faster_rcnn.feature_extractor
    extractor.ClearField("fpn")
    if fpn:
        text_format.Parse(fpn, extractor.fpn)
    resolved = config.resolve(pipeline).architecture
    pyramid = resolved.feature_pyramid.fpn
    assert (pyramid.min_level, pyramid.max_level, pyramid.channels) == (*levels, 256)
    assert pyramid.variant == pyramid.OBJECT_DETECTION_API
    assert resolved.region_head.region_align.finest_scale == finest_scale
    assert resolved.region_head.fully_connected.channels == 1024


def test_the_number_of_proposals_counts_for_any_architecture():
    pipeline = pipeline_of(KERAS, faster_rcnn("first_stage_max_proposals: 77"))
    other = config.load_architecture("faster_rcnn_resnet50_fpn")
    assert other.region_proposal.max_proposals == 1000
    assert config.resolve(pipeline, other).architecture.region_proposal.max_proposals == 77
    assert other.region_proposal.max_proposals == 1000
    pipeline.model.faster_rcnn.ClearField("first_stage_max_proposals")
    assert config.resolve(pipeline, other).architecture.region_proposal.max_proposals == 1000


def test_stages_and_guided_anchoring_beside_an_extractor():
    text = """
      region_align { size: 7 }
      cascade_stage { iou_threshold: 0.5 }
      cascade_stage { iou_threshold: 0.6 loss_weight: 0.5 }
      guided_anchoring { anchor_scale: 4 }
    """
    pipeline = pipeline_of(FPN, faster_rcnn(text))
    problem = "model.faster_rcnn.first_stage_anchor_generator has no effect beside guided_anchoring"
    assert [problem + "; remove it"] == config.check(pipeline, readers=())
    pipeline.model.faster_rcnn.ClearField("first_stage_anchor_generator")
    assert config.check(pipeline, readers=()) == []
    resolved = config.resolve(pipeline).architecture
    assert resolved.region_proposal.guided_anchoring.anchor_scale == 4
    assert [stage.loss_weight for stage in resolved.region_head.stage] == [1, 0.5]
    align = resolved.region_head.region_align
    assert (align.size, align.sampling_ratio, align.from_corner_to_corner) == (7, 2, False)


# A fragment that spoils a config, and the one problem that it makes.
BAD = [
    (KERAS, "number_of_stages: 1", "number_of_stages is 1; only 2 is supported"),
    (KERAS, "number_of_stages: 3", "number_of_stages is 3; only 2 is supported"),
    (KERAS, "first_stage_atrous_rate: 2", "first_stage_atrous_rate is 2; only 1 is supported"),
    (
        TF1,
        "feature_extractor { first_stage_features_stride: 8 }",
        "feature_extractor.first_stage_features_stride is 8; only 16 is supported",
    ),
    (
        TF1,
        "feature_extractor { fpn {} }",
        "feature_extractor.fpn has no effect; an extractor with fpn in its type has a pyramid",
    ),
    (
        FPN,
        "feature_extractor { pad_to_multiple: 33 }",
        "feature_extractor.pad_to_multiple is 33; images are not padded to it, so 640 and 640 "
        "pixels have to be multiples of it",
    ),
    (
        FPN,
        "feature_extractor { fpn { additional_layer_depth: 0 } }",
        "feature_extractor.fpn.additional_layer_depth is 0; at least 1 is allowed",
    ),
    (
        FPN,
        "first_stage_anchor_generator { multiscale_anchor_generator { max_level: 5 } }",
        "first_stage_anchor_generator.multiscale_anchor_generator.max_level is 5; 6 is needed, as "
        "in the feature pyramid",
    ),
    (
        KERAS,
        "first_stage_anchor_generator { grid_anchor_generator { height_stride: 8 } }",
        "first_stage_anchor_generator.grid_anchor_generator.height_stride is 8; only 16 is "
        "supported",
    ),
    (
        FPN,
        "first_stage_anchor_generator { grid_anchor_generator { scales: 1 aspect_ratios: 1 } }",
        "first_stage_anchor_generator.grid_anchor_generator is for a single feature, and there are "
        "5; use multiscale_anchor_generator",
    ),
    (
        KERAS,
        "first_stage_box_predictor_kernel_size: 2",
        "first_stage_box_predictor_kernel_size is 2; only odd sizes are allowed",
    ),
    (
        KERAS,
        "first_stage_box_predictor_depth: 0",
        "first_stage_box_predictor_depth is 0; at least 1 is allowed",
    ),
    (
        KERAS,
        "first_stage_box_predictor_conv_hyperparams { op: FC }",
        "first_stage_box_predictor_conv_hyperparams.op is FC; only CONV is supported",
    ),
    (
        KERAS,
        "first_stage_max_proposals: 0",
        "first_stage_max_proposals is 0; at least 1 is allowed",
    ),
    (
        KERAS,
        "first_stage_nms_iou_threshold: 7",
        "first_stage_nms_iou_threshold is 7; 0 to 1 is allowed",
    ),
    (
        KERAS,
        "initial_crop_size: 0 maxpool_kernel_size: 1",
        "initial_crop_size is 0; at least 1 is allowed",
    ),
    (
        KERAS,
        "maxpool_kernel_size: 15",
        "maxpool_kernel_size is 15; at most 14 is allowed",
    ),
    (
        KERAS,
        "second_stage_post_processing { score_converter: SIGMOID }",
        "second_stage_post_processing.score_converter is SIGMOID; SOFTMAX is needed beside the "
        "loss weighted_softmax",
    ),
    (
        KERAS,
        "second_stage_classification_loss { weighted_sigmoid_focal {} }",
        "second_stage_post_processing.score_converter is SOFTMAX; SIGMOID is needed beside the "
        "loss weighted_sigmoid_focal",
    ),
    (KERAS, "second_stage_batch_size: 0", "second_stage_batch_size is 0; at least 1 is allowed"),
    (
        KERAS,
        "second_stage_balance_fraction: 2",
        "second_stage_balance_fraction is 2; 0 to 1 is allowed",
    ),
    (
        FPN,
        "cascade_stage { box_scales: [1, 2] }",
        "cascade_stage[0].box_scales is [1.0, 2.0]; 4 numbers above 0 are allowed",
    ),
]


def problems_of(pipeline):
    return list(dict.fromkeys(config.check(pipeline, readers=())))


@pytest.mark.parametrize(("extractor", "change", "problem"), BAD)
def test_a_bad_value_is_named(extractor, change, problem):
    assert problems_of(pipeline_of(extractor)) == []
    assert problems_of(pipeline_of(extractor, faster_rcnn(change))) == [f"{SETTINGS}.{problem}"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("fc_hyperparams { op: CONV }", "fc_hyperparams.op is CONV; only FC is supported"),
        (
            "fc_hyperparams { batch_norm {} }",
            "fc_hyperparams.batch_norm is not supported in fully connected layers; remove it",
        ),
        ("box_code_size: 5", "box_code_size is 5; only 4 is supported"),
        (
            "predict_instance_masks: true",
            "predict_instance_masks is true; only false is supported",
        ),
        ("predict_keypoints: true", "predict_keypoints is true; only false is supported"),
        (
            "dropout_keep_probability: 0",
            "dropout_keep_probability is 0; more than 0 and at most 1 is allowed",
        ),
    ],
)
def test_a_bad_value_of_the_predictor_is_named(change, problem):
    pipeline = pipeline_of(KERAS, nested(PREDICTOR, change))
    assert problems_of(pipeline) == [f"{PREDICTOR}.{problem}"]


@pytest.mark.parametrize(
    "field", ["second_stage_box_predictor", "second_stage_post_processing", "image_resizer"]
)
def test_what_is_missing_is_named(field):
    pipeline = pipeline_of(KERAS)
    pipeline.model.faster_rcnn.ClearField(field)
    assert f"{SETTINGS}.{field} is missing" in problems_of(pipeline)


def test_an_architecture_leaves_no_other_beside_it():
    pipeline = pipeline_of(FPN)
    pipeline.model.architecture_name = "faster_rcnn_resnet50_fpn"
    told = problems_of(pipeline)
    names = [
        "first_stage_anchor_generator",
        "first_stage_box_predictor_conv_hyperparams",
        "initial_crop_size",
        "maxpool_kernel_size",
        "maxpool_stride",
        "second_stage_box_predictor",
        "feature_extractor.type",
        "feature_extractor.conv_hyperparams",
        "feature_extractor.override_base_feature_extractor_hyperparams",
        "feature_extractor.fpn",
    ]
    assert told == [
        f"{SETTINGS}.{name} has no effect beside model.architecture_name; remove it"
        for name in names
    ]


def test_an_architecture_of_one_stage_needs_settings_of_its_own():
    pipeline = pipeline_of(FPN)
    one_stage = config.load_architecture("mobilenet_v2_mnasfpn")
    told = problems_of(config.with_architecture(pipeline, one_stage))
    assert told[0] == (
        "model.faster_rcnn is for two stages, and the architecture has one; use model.ssd, or give "
        "region_proposal and region_head"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hard_example_miner {}", '"hard_example_miner" of the TF Object Detection API'),
        ("context_config {}", '"context_config" of the TF Object Detection API'),
        (
            "second_stage_box_predictor { rfcn_box_predictor {} }",
            '"rfcn_box_predictor" of the TF Object Detection API (the predictor of R-FCN) is not '
            "supported in SecondStageBoxPredictor: use mask_rcnn_box_predictor",
        ),
        (
            "second_stage_box_predictor { convolutional_box_predictor {} }",
            "is not supported in SecondStageBoxPredictor: use mask_rcnn_box_predictor",
        ),
    ],
)
def test_a_field_that_is_not_here_has_a_remedy(text, told):
    with pytest.raises(ConfigError) as caught:
        text_proto.parse(faster_rcnn(text), pipeline_pb2.TrainEvalPipelineConfig, "my.config")
    assert told in str(caught.value)
