"""Configs and architectures, from their files to what they build."""

import subprocess
import sys

import pytest
from google.protobuf import text_format

from mnasdet import config, text_proto
from mnasdet.errors import ConfigError
from mnasdet.models import network_of
from mnasdet.networks import hyperparams
from mnasdet.networks.builder import reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import Initializer
from mnasdet.protos import pipeline_pb2
from tests.config_fragments import COCO, EXTRACTOR, PREDICTOR, SEARCH, merge, nested
from tests.od_api_configs import EXTRACTORS, config_text

MNASFPN = "ssd_mobilenet_v2_mnasfpn"
FPN_EXTRACTORS = [name for name in EXTRACTORS if "_fpn" in name]
SSD_EXTRACTORS = [name for name in EXTRACTORS if "fpn" not in name]


@pytest.fixture
def architecture():
    return config.load_architecture("mobilenet_v2_mnasfpn")


def od_api_pipeline(extractor, changes=""):
    """The OD API's config of an extractor, with changes to its feature_extractor message."""
    pipeline = text_proto.parse(
        config_text(extractor), pipeline_pb2.TrainEvalPipelineConfig, "od_api.config"
    )
    merge(nested(EXTRACTOR, changes), pipeline)
    return pipeline


def test_load_reports_all_problems_with_their_lines(tmp_path):
    text = COCO.read_text().replace("num_steps: 50000", "num_steps: 0")
    path = tmp_path / "my.config"
    path.write_text(text)
    lines = text.splitlines()
    steps = lines.index("  num_steps: 0") + 1
    train_map, eval_map = (i + 1 for i, line in enumerate(lines) if "label_map_path" in line)
    train_records, eval_records = (i + 1 for i, line in enumerate(lines) if "input_path" in line)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(caught.value).splitlines() == [
        f"5 problems in {path}:",
        f"  line {steps}: train_config.num_steps is 0; at least 1 is allowed",
        f"  line {train_records}: train_input_reader.tf_record_input_reader.input_path is "
        '"PATH_TO_BE_CONFIGURED/train.record-*"; --train_input sets it',
        f"  line {train_map}: train_input_reader.label_map_path is "
        '"PATH_TO_BE_CONFIGURED/label_map.pbtxt"; --label_map sets it',
        f"  line {eval_records}: eval_input_reader[0].tf_record_input_reader.input_path is "
        '"PATH_TO_BE_CONFIGURED/val.record-*"; --eval_input sets it',
        f"  line {eval_map}: eval_input_reader[0].label_map_path is "
        '"PATH_TO_BE_CONFIGURED/label_map.pbtxt"; --label_map sets it',
    ]
    with pytest.raises(ConfigError) as caught:
        config.load(path, readers=())
    expected = f"{path}:{steps}: train_config.num_steps is 0; at least 1 is allowed"
    assert str(caught.value) == expected


def test_load_checks_only_the_readers_in_use(coco_inputs):
    config.load(COCO, readers=())
    del coco_inputs["train_input"]
    config.load(COCO, **coco_inputs, readers=["eval_input_reader"])
    with pytest.raises(ConfigError, match="--train_input sets it"):
        config.load(COCO, **coco_inputs)


def test_load_puts_the_overrides_in(coco_inputs):
    loaded = config.load(COCO, **coco_inputs)
    train, (evaluation,) = loaded.train_input_reader, loaded.eval_input_reader
    assert list(train.tf_record_input_reader.input_path) == coco_inputs["train_input"]
    assert list(evaluation.tf_record_input_reader.input_path) == coco_inputs["eval_input"]
    assert train.label_map_path == evaluation.label_map_path == coco_inputs["label_map"]


def test_an_architecture_in_place_of_the_configs_keeps_what_ssd_says(coco_inputs):
    named = config.load(COCO, **coco_inputs, architecture="mobilenet_v3_large_mnasfpn")
    resolved = config.resolve(named).architecture
    assert resolved.backbone.HasField("mobilenet_v3")
    own = config.load(COCO, **coco_inputs)
    assert resolved.box_predictor == own.model.ssd.box_predictor
    assert resolved.anchor_generator == own.model.ssd.anchor_generator
    with pytest.raises(ConfigError, match='no architecture "mobilenet_v9"'):
        config.load(COCO, **coco_inputs, architecture="mobilenet_v9")


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_with_architecture_is_a_config_of_exactly_that(tmp_path, coco_inputs, extractor):
    path = tmp_path / "od_api.config"
    path.write_text(config_text(extractor))
    pipeline = config.load(path, **coco_inputs)
    resolved = config.resolve(pipeline).architecture
    given = config.with_architecture(pipeline, resolved)
    assert config.check(given) == []
    assert config.resolve(given).architecture == resolved


def test_a_checkpoint_in_place_of_the_configs_is_checked_as_well(tmp_path, coco_inputs):
    path = tmp_path / "my.config"
    path.write_text(config_text("ssd_resnet50_v1_fpn"))
    checkpoint = tmp_path / "model-1"
    (tmp_path / "model-1.index").touch()
    loaded = config.load(path, **coco_inputs, fine_tune_checkpoint=str(checkpoint))
    assert loaded.train_config.fine_tune_checkpoint == str(checkpoint)
    with pytest.raises(ConfigError, match=r'fine_tune_checkpoint is ".*model-2", which does not'):
        config.load(path, **coco_inputs, fine_tune_checkpoint=str(tmp_path / "model-2"))


def test_a_checkpoint_that_was_never_configured_is_left_out_and_said_so(
    tmp_path, coco_inputs, caplog
):
    path = tmp_path / "sample.config"
    path.write_text(config_text("ssd_resnet50_v1_fpn"))
    with caplog.at_level("WARNING"):
        loaded = config.load(path, **coco_inputs)
    assert not loaded.train_config.HasField("fine_tune_checkpoint")
    assert (
        'fine_tune_checkpoint is "PATH_TO_BE_CONFIGURED/resnet.ckpt-1": training starts from random'
        in caplog.text
    )


def test_placeholders_of_a_search_are_left_out_as_well(coco_inputs, caplog, tmp_path):
    path = tmp_path / "search.config"
    path.write_text(
        f'include: "{SEARCH}"\n'
        'search_config { retrain_config { fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/mine" } }'
    )
    with caplog.at_level("WARNING"):
        loaded = config.load(path, **coco_inputs)
    assert not loaded.search_config.retrain_config.HasField("fine_tune_checkpoint")
    for field in ("train_config", "search_config.retrain_config"):
        assert f'{field}.fine_tune_checkpoint is "PATH_TO_BE_CONFIGURED/' in caplog.text


def test_load_without_a_path():
    with pytest.raises(ConfigError, match="--pipeline_config_path is missing"):
        config.load(None)


def test_remote_paths_are_left_to_who_opens_them(coco_pipeline):
    merge('train_input_reader { label_map_path: "gs://bucket/map" }', coco_pipeline)
    assert config.check(coco_pipeline) == []


# Trainable weights for 90 classes, slot 0 for the background beside them. The published ones are
# those of the papers' tables (tests of the networks); the others differ from them by what is said.
PUBLISHED_MNASFPN = 2_455_655
PUBLISHED_V3_LARGE, PUBLISHED_V3_SMALL = 3_248_255, 1_785_743
# Keras Applications' MobileNetV2 without its top.
MOBILENET_V2 = 2_223_872
# FPNLite @ 128 of NAS-FPN's table 1, whose predictor has 9 anchors instead of 6.
FPNLITE = 2_202_711 - 128 * 3 * (4 + 91) - 3 * (4 + 91)
# TF2's extractor keeps MobileNetV2's last convolution 1280 wide, and so the input of the 1x1
# convolution on it. (The zoo's checkpoint has 2,667,002 weights, moving averages included.)
FPNLITE_OF_TF2 = FPNLITE + (1280 - 256) * (320 + 2 + 128)
# RetinaNet of the same table with 9 anchors instead of 6. In place of five 3x3 convolutions with a
# bias, each normalised, four without one.
RESNET50_FPN = 34_089_111 - (9 * 256 + 1) * 3 * (4 + 91) - (9 * 256 * 256 + 5 * 256 + 2 * 256)


def bottleneck(width):
    """1x1, 3x3 and 1x1 convolutions, each normalised, from and to four times the width."""
    return 4 * width * width + 9 * width * width + 4 * width * width + 2 * (2 * width + 4 * width)


# 17 bottlenecks more in the stage of stride 16; then 13 more again, and 4 in that of stride 8.
RESNET101_FPN = RESNET50_FPN + 17 * bottleneck(256)
RESNET152_FPN = RESNET101_FPN + 13 * bottleneck(256) + 4 * bottleneck(128)


def ssd_of_mobilenet_v2():
    """Extra layers with full convolutions, and predictors of 1x1 convolutions with a bias."""
    weights, channels = MOBILENET_V2, 1280
    for depth in (512, 256, 256, 128):
        weights += channels * depth // 2 + depth + depth // 2 * 9 * depth + 2 * depth
        channels = depth
    for channels, anchors in ((576, 3), (1280, 6), (512, 6), (256, 6), (256, 6), (128, 6)):
        weights += (channels + 1) * anchors * (4 + 91)
    return weights


@pytest.mark.parametrize(
    ("extractor", "trainable_params"),
    [
        ("ssd_mobilenet_v2", ssd_of_mobilenet_v2()),
        ("ssd_mobilenet_v2_keras", ssd_of_mobilenet_v2()),
        ("ssd_mobilenet_v2_fpn", FPNLITE),
        ("ssd_mobilenet_v2_fpn_keras", FPNLITE_OF_TF2),
        ("ssd_mobilenet_v2_mnasfpn", PUBLISHED_MNASFPN),
        ("ssd_mobilenet_v3_large", PUBLISHED_V3_LARGE),
        ("ssd_mobilenet_v3_small", PUBLISHED_V3_SMALL),
        ("ssd_resnet50_v1_fpn", RESNET50_FPN),
        ("ssd_resnet50_v1_fpn_keras", RESNET50_FPN),
        ("ssd_resnet101_v1_fpn", RESNET101_FPN),
        ("ssd_resnet101_v1_fpn_keras", RESNET101_FPN),
        ("ssd_resnet152_v1_fpn", RESNET152_FPN),
        ("ssd_resnet152_v1_fpn_keras", RESNET152_FPN),
    ],
)
def test_configs_of_the_od_api_run_unchanged(tmp_path, coco_inputs, extractor, trainable_params):
    path = tmp_path / "od_api.config"
    path.write_text(
        config_text(
            extractor,
            train_input=coco_inputs["train_input"][0],
            eval_input=coco_inputs["eval_input"][0],
            label_map=coco_inputs["label_map"],
        )
    )
    pipeline = config.load(path)
    architecture = config.resolve(pipeline).architecture
    outputs = network_of(architecture, config.resolve(pipeline).image_size, 90).outputs
    assert cost_sheet(outputs).total.trainable_params == trainable_params


def test_every_extractor_has_a_config_here():
    with pytest.raises(ConfigError) as caught:
        config.resolve(od_api_pipeline("ssd_mobilenet_v2", 'type: "ssd_mobilenet_v4"'))
    supported = str(caught.value).partition("one of ")[2].partition(" is supported")[0]
    assert sorted(supported.split(", ")) == EXTRACTORS


def test_an_unknown_extractor_answers_with_the_nearest():
    pipeline = od_api_pipeline("ssd_mobilenet_v2", 'type: "ssd_mobilenet_v1_fpn"')
    (problem,) = config.check(pipeline, readers=())
    assert problem.startswith(
        'model.ssd.feature_extractor.type is "ssd_mobilenet_v1_fpn"; MobileNetV1 is not here; '
        "nearest: ssd_mobilenet_v2_fpn or ssd_mobilenet_v2_fpn_keras; one of ssd_mobilenet_v2_fpn, "
    )
    assert problem.endswith(" is supported; or give model.architecture_name")


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_width_of_an_extractor(extractor):
    resolved = config.resolve(
        od_api_pipeline(extractor, "depth_multiplier: 0.75 min_depth: 8")
    ).architecture
    assert resolved.name == extractor
    assert (resolved.depth_multiplier, resolved.min_depth) == (0.75, 8)


@pytest.mark.parametrize("extractor", FPN_EXTRACTORS)
def test_pyramid_of_an_fpn_extractor(extractor):
    text = "fpn { min_level: 2 max_level: 6 additional_layer_depth: 96 } use_depthwise: true"
    pyramid = config.resolve(od_api_pipeline(extractor, text)).architecture.feature_pyramid.fpn
    assert (pyramid.min_level, pyramid.max_level, pyramid.channels) == (2, 6, 96)
    # The OD API's ResNets do not look at use_depthwise.
    assert pyramid.separable == ("mobilenet" in extractor)
    assert pyramid.variant == pyramid.OBJECT_DETECTION_API


def test_fpn_without_its_message_has_the_od_apis_defaults():
    pipeline = od_api_pipeline("ssd_mobilenet_v2_fpn", "use_depthwise: false")
    pipeline.model.ssd.feature_extractor.ClearField("fpn")
    resolved = config.resolve(pipeline).architecture
    pyramid = resolved.feature_pyramid.fpn
    assert (pyramid.min_level, pyramid.max_level, pyramid.channels) == (3, 7, 256)
    assert not pyramid.separable
    # Only FPNLite has a narrower last convolution.
    assert resolved.backbone.mobilenet_v2.last_channels == 1280


def test_pyramid_of_mnasfpn(architecture):
    resolved = config.resolve(od_api_pipeline(MNASFPN)).architecture
    assert resolved.feature_pyramid.mnasfpn.block == architecture.feature_pyramid.mnasfpn.block
    narrower = od_api_pipeline(MNASFPN, "fpn { additional_layer_depth: 32 }")
    assert config.resolve(narrower).architecture.feature_pyramid.mnasfpn.channels == 32
    narrower.model.ssd.feature_extractor.ClearField("fpn")
    assert config.resolve(narrower).architecture.feature_pyramid.mnasfpn.channels == 48


@pytest.mark.parametrize("extractor", SSD_EXTRACTORS)
@pytest.mark.parametrize("use_depthwise", ["true", "false"])
def test_layers_of_an_ssd_extractor(extractor, use_depthwise):
    changes = f"num_layers: 4 use_depthwise: {use_depthwise}"
    layers = config.resolve(
        od_api_pipeline(extractor, changes)
    ).architecture.feature_pyramid.ssd_layers
    assert list(layers.channels) == [512, 256]
    assert layers.separable == (use_depthwise == "true")


@pytest.mark.parametrize("override", [True, False])
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_hyperparams_of_an_extractor(extractor, override):
    """The pyramid has the config's; the backbone only where they override its own. The extractor
    of MnasFPN keeps its own."""
    pipeline = od_api_pipeline(extractor)
    message = pipeline.model.ssd.feature_extractor
    message.override_base_feature_extractor_hyperparams = override
    resolved = config.resolve(pipeline).architecture
    if extractor == MNASFPN:
        assert not resolved.feature_pyramid.HasField("conv_hyperparams")
        assert not resolved.backbone.HasField("conv_hyperparams")
        return
    assert resolved.feature_pyramid.conv_hyperparams == message.conv_hyperparams
    overridden = resolved.backbone.conv_hyperparams == message.conv_hyperparams
    assert overridden == override


# Decay and epsilon of the normalisation, Keras' L2 of kernels and of depthwise kernels, and the
# initializer, as slim's and Keras' backbones have them in the OD API's code.
MOBILENET_INITIALIZER = Initializer("truncated_normal", pytest.approx(0.09))
BACKBONES_OWN = {
    "ssd_mobilenet_v2": (0.9997, 1e-3, 2e-5, 0.0, MOBILENET_INITIALIZER),
    "ssd_mobilenet_v2_fpn": (0.9997, 1e-3, 2e-5, 0.0, MOBILENET_INITIALIZER),
    "ssd_mobilenet_v2_keras": (0.9997, 1e-3, 2e-5, 2e-5, MOBILENET_INITIALIZER),
    "ssd_mobilenet_v2_fpn_keras": (0.9997, 1e-3, 2e-5, 2e-5, MOBILENET_INITIALIZER),
    "ssd_mobilenet_v3_large": (0.9997, 1e-3, 2e-5, 0.0, MOBILENET_INITIALIZER),
    "ssd_resnet50_v1_fpn": (0.997, 1e-5, 5e-5, 0.0, Initializer("truncated_normal", scale=2.0)),
    "ssd_resnet50_v1_fpn_keras": (
        0.997, 1e-5, 1e-4, 0.0, Initializer("truncated_normal", scale=1.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("extractor", BACKBONES_OWN)
def test_a_backbone_that_is_not_overridden_has_the_od_apis_hyperparams(extractor):
    pipeline = od_api_pipeline(extractor, "override_base_feature_extractor_hyperparams: false")
    backbone = config.resolve(pipeline).architecture.backbone
    found = hyperparams.from_proto(backbone.conv_hyperparams)
    assert (
        found.normalizer.momentum,
        found.normalizer.epsilon,
        found.kernel.l2,
        found.depthwise_kernel.l2,
    ) == pytest.approx(BACKBONES_OWN[extractor][:4])
    for kernel in (found.kernel, found.depthwise_kernel):
        assert kernel.initializer == BACKBONES_OWN[extractor][4]
    assert found.normalizer.scale


def test_the_hyperparams_of_a_backbone_reach_its_layers():
    pipeline = od_api_pipeline(
        "ssd_mobilenet_v2", "override_base_feature_extractor_hyperparams: false"
    )
    outputs = network_of(config.resolve(pipeline).architecture, (300, 300), 90).outputs
    layers = {node.name: node for node in reachable(outputs)}
    assert layers["backbone/layer_2/depthwise/batch_norm"].attrs["momentum"] == pytest.approx(
        0.9997
    )
    assert layers["backbone/layer_2/depthwise/depthwise"].attrs["l2"] == 0


def test_predictor_and_anchors_are_the_configs(coco_pipeline):
    resolved = config.resolve(coco_pipeline).architecture
    assert resolved.box_predictor == coco_pipeline.model.ssd.box_predictor
    assert resolved.anchor_generator == coco_pipeline.model.ssd.anchor_generator


@pytest.mark.parametrize("field", ["architecture", "architecture_name"])
def test_architecture_given_with_the_predictor_of_the_config(coco_pipeline, architecture, field):
    model = coco_pipeline.model
    model.ssd.ClearField("feature_extractor")
    model.ssd.ClearField("anchor_generator")
    merge(nested(PREDICTOR, "depth: 32"), coco_pipeline)
    if field == "architecture":
        model.architecture.CopyFrom(architecture)
    else:
        model.architecture_name = "mobilenet_v2_mnasfpn"
    resolved = config.resolve(coco_pipeline).architecture
    assert resolved.box_predictor.weight_shared_convolutional_box_predictor.depth == 32
    assert resolved.anchor_generator == architecture.anchor_generator
    assert not resolved.backbone.HasField("conv_hyperparams")
    assert config.check(coco_pipeline) == []


def test_hyperparams_beside_a_given_architecture(coco_pipeline):
    coco_pipeline.model.ssd.ClearField("feature_extractor")
    coco_pipeline.model.architecture_name = "mobilenet_v2_mnasfpn"
    merge(
        nested(
            EXTRACTOR,
            "conv_hyperparams { batch_norm { decay: 0.9 } } "
            "override_base_feature_extractor_hyperparams: true",
        ),
        coco_pipeline,
    )
    resolved = config.resolve(coco_pipeline).architecture
    for part in (resolved.backbone, resolved.feature_pyramid):
        assert part.conv_hyperparams.batch_norm.decay == pytest.approx(0.9)
    merge(nested(EXTRACTOR, "conv_hyperparams { batch_norm { decay: 9 } }"), coco_pipeline)
    # Once, though two parts have them.
    assert config.check(coco_pipeline) == [
        f"{EXTRACTOR}.conv_hyperparams.batch_norm.decay is 9; 0 to 1 is allowed"
    ]


def test_an_extractor_has_no_effect_beside_a_given_architecture(coco_pipeline):
    merge(nested("model", 'architecture_name: "mobilenet_v2_mnasfpn"'), coco_pipeline)
    merge(nested(EXTRACTOR, "use_depthwise: true fpn {} num_layers: 6"), coco_pipeline)
    assert config.check(coco_pipeline) == [
        f"{EXTRACTOR}.{name} has no effect beside model.architecture_name; remove it"
        for name in ("type", "depth_multiplier", "min_depth", "use_depthwise", "fpn", "num_layers")
    ]


def test_check_of_a_given_architecture(coco_pipeline, architecture):
    coco_pipeline.model.ssd.ClearField("feature_extractor")
    coco_pipeline.model.ssd.ClearField("anchor_generator")
    architecture.min_depth = 0
    architecture.anchor_generator.multiscale_anchor_generator.max_level = 7
    coco_pipeline.model.architecture.CopyFrom(architecture)
    assert config.check(coco_pipeline) == [
        "model.architecture.min_depth is 0; at least 1 is allowed",
        "model.architecture.anchor_generator.multiscale_anchor_generator.max_level is 7; 6 is "
        "needed, as in the feature pyramid",
    ]


def test_check_of_an_unknown_architecture_name(coco_pipeline):
    coco_pipeline.model.ssd.ClearField("feature_extractor")
    coco_pipeline.model.architecture_name = "mnasfpn"
    (problem,) = config.check(coco_pipeline)
    assert problem.startswith('model.architecture_name: no architecture "mnasfpn"; one of ')


@pytest.mark.parametrize("name", config.architecture_names())
def test_published_architectures_are_sound(name):
    assert config.load_architecture(name).name == name


def test_load_architecture_from_a_file(tmp_path, architecture):
    path = tmp_path / "mine.textproto"
    path.write_text(text_format.MessageToString(architecture))
    assert config.load_architecture(str(path)) == architecture
    architecture.feature_pyramid.mnasfpn.repeats = 0
    architecture.min_depth = 0
    path.write_text(text_format.MessageToString(architecture))
    with pytest.raises(ConfigError) as caught:
        config.load_architecture(str(path))
    assert str(caught.value) == (
        f"{path}: min_depth is 0; at least 1 is allowed; feature_pyramid.mnasfpn.repeats is 0; at "
        "least 1 is allowed"
    )


def test_load_architecture_from_a_string():
    loaded = config.load_architecture("resnet_18/fpn_c64/retinanet_d64_n2/net_i256")
    assert loaded.backbone.resnet.depth == 18
    assert loaded.feature_pyramid.fpn.channels == 64
    assert (loaded.input.height, loaded.input.width) == (256, 256)
    wide = config.load_architecture("resnet_18/fpn_c64/retinanet_d64_n2/net_i256x448")
    assert (wide.input.height, wide.input.width) == (256, 448)
    # Longer than the name of a file may be.
    cells = ".".join(["L4(C4+C5)"] * 40 + ["L3(C3+C4)", "L4(C4+C5)", "L5(C5+C6)", "L6(C6+C5)"])
    loaded = config.load_architecture(f"resnet_18/nas_fpn_c64_r1_to6_{cells}/retinanet_d64_n2")
    assert len(loaded.feature_pyramid.nas_fpn.cell) == 44
    with pytest.raises(ConfigError) as caught:
        config.load_architecture("resnet_19/fpn_c64/retinanet_d64_n2")
    assert str(caught.value) == (
        "architecture string: backbone.resnet.depth is 19; one of [10, 18, 34, 50, 101, 152] is "
        "allowed"
    )


def test_load_architecture_of_an_unknown_name():
    with pytest.raises(ConfigError, match=r'"mobilenet_v2_mnasfp"; one of mobilenet_v2_mnasfpn'):
        config.load_architecture("mobilenet_v2_mnasfp")
    with pytest.raises(ConfigError, match=r"no/a\.textproto: no such file"):
        config.load_architecture("no/a.textproto")


def test_config_loads_without_tensorflow():
    code = "import sys, mnasdet.config; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
