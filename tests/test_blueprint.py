"""Tests the image size that a config builds, whoever decides it."""

import pytest
from google.protobuf import text_format

from mnasdet import architectures, config
from mnasdet.errors import ConfigError
from mnasdet.protos import pipeline_pb2
from tests.config_fragments import merge, ssd


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fixed_shape_resizer { height: 300 width: 512 }", (300, 512)),
        (
            "keep_aspect_ratio_resizer { "
            "min_dimension: 512 max_dimension: 640 pad_to_max_dimension: true }",
            (640, 640),
        ),
    ],
)
def test_image_size(text, expected):
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.model.architecture_name = "mobilenet_v2_mnasfpn"
    merge(ssd(f"image_resizer {{ {text} }}"), pipeline)
    assert config.resolve(pipeline).image_size == expected


def test_an_architecture_may_decide_the_image_size(tmp_path):
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    keeping = "keep_aspect_ratio_resizer { min_dimension: 512 max_dimension: 640 }"
    merge(ssd(f"image_resizer {{ {keeping} }}"), pipeline)
    trial = config.load_architecture("mobilenet_v2_mnasfpn")
    trial.input.height, trial.input.width = 192, 320
    resizer = config.resolve(pipeline, trial).resizer
    assert (resizer.image_size, resizer.min_dimension) == ((192, 320), 256)
    # As a trial's file with --architecture, and in a config of its own.
    path = tmp_path / "trial.textproto"
    path.write_text(text_format.MessageToString(trial))
    assert config.load_architecture(str(path)) == trial
    assert config.resolve(config.with_architecture(pipeline, trial)).image_size == (192, 320)


def test_the_image_size_of_version_0_1(tmp_path):
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    merge(ssd("image_resizer { fixed_shape_resizer { height: 320 width: 320 } }"), pipeline)
    old = config.load_architecture("mobilenet_v2_mnasfpn")
    old.ClearField("published_at")
    old.image_size = 64
    # A config's resizer decided, also over what lies beside checkpoints.
    pipeline.model.architecture.CopyFrom(old)
    assert config.resolve(pipeline).image_size == (320, 320)
    path = tmp_path / "architecture.textproto"
    path.write_text(text_format.MessageToString(old))
    trained = config.load_trained_architecture(path)
    assert config.resolve(pipeline, trained).image_size == (320, 320)
    # In a trial it was searched.
    searched = architectures.from_trial(text_format.MessageToString(old))
    assert config.resolve(pipeline, searched).image_size == (64, 64)
    # In another file either may be meant.
    with pytest.raises(ConfigError, match=r"textproto: image_size was replaced: write input \{ "):
        config.load_architecture(str(path))
