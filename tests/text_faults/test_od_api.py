"""The tables of what the OD API has and mnasdet has not."""

import re

import pytest

from mnasdet.feature_extractors import faster_rcnn, ssd
from mnasdet.protos.pipeline_pb2 import TrainEvalPipelineConfig
from mnasdet.text_faults import od_api
from tests.od_api_configs import EXTRACTORS


def messages(message, found=None):
    """All messages that a config can have."""
    found = {} if found is None else found
    if message.full_name not in found:
        found[message.full_name] = message
        for field in message.fields:
            if field.message_type:
                messages(field.message_type, found)
    return found


MESSAGES = messages(TrainEvalPipelineConfig.DESCRIPTOR)
SUPPORTED = {name for message in MESSAGES.values() for name in message.fields_by_name}


def test_no_field_that_is_supported_is_called_unsupported():
    assert not SUPPORTED & od_api._FIELDS.keys()
    assert od_api.unsupported_field("num_steps", "TrainConfig") == ""
    # Supported, but in another message.
    assert od_api.unsupported_field("use_dropout", "ConvolutionalBoxPredictor") == ""
    assert "drops features" in od_api.unsupported_field(
        "use_dropout", "WeightSharedConvolutionalBoxPredictor"
    )
    for name in od_api._FIELDS:
        message, _, field = name.rpartition(".")
        if message:
            (of_ours,) = [m for m in MESSAGES.values() if m.name == message]
            assert field not in of_ours.fields_by_name


@pytest.mark.parametrize("field", od_api._FIELDS)
def test_a_remedy_names_what_is_there(field):
    does, remedy = od_api._FIELDS[field]
    assert does
    for name in re.findall(r"\w+_\w+", remedy):
        assert name in SUPPORTED, name


@pytest.mark.parametrize(
    ("extractor", "cause"),
    [
        ("ssd_efficientnet-b7_bifpn_keras", "EfficientDet is not here; nearest: "),
        ("ssd_mobilenet_v1", "MobileNetV1 is not here; nearest: ssd_mobilenet_v2 or "),
        ("ssd_mobilenet_v1_fpn_keras", "MobileNetV1 is not here; nearest: ssd_mobilenet_v2_fpn or"),
        ("ssd_mobilenet_v1_ppn", "the pooling pyramid is not here; nearest: ssd_mobilenet_v2 or "),
        ("embedded_ssd_mobilenet_v1", "MobileNetV1 is not here; nearest: "),
        ("ssd_inception_v3", "Inception is not here; nearest: "),
        ("ssd_mobiledet_dsp", "MobileDet is not here; nearest: "),
        ("ssd_mobilenet_edgetpu", "MobileNet-EdgeTPU is not here; nearest: "),
        ("faster_rcnn_inception_resnet_v2", "Faster R-CNN with Inception is not here; nearest: "),
        ("faster_rcnn_nas", "Faster R-CNN with NASNet is not here; nearest: faster_rcnn_resnet101"),
        ("faster_rcnn_pnas", "Faster R-CNN with NASNet is not here; nearest: "),
        ("ssd_mobilenet_v9", ""),
    ],
)
def test_a_whole_extractor_is_the_cause(extractor, cause):
    assert od_api.absent_extractor(extractor).startswith(cause)
    message = od_api.unknown_extractor("model.ssd.feature_extractor.type", extractor, EXTRACTORS)
    assert message.startswith(f'model.ssd.feature_extractor.type is "{extractor}"; {cause}')
    assert "is supported; or give model.architecture_name" in message


def test_what_is_nearest_is_here_and_what_is_here_is_not_absent():
    named = [near for _, near in od_api._MODELS.values()]
    named += [near for _, _, near in od_api._EXTRACTORS]
    known = ssd.BACKBONES | faster_rcnn.BACKBONES
    for extractor in re.findall(r"(?:ssd|faster_rcnn)_\w+", " ".join(named)):
        assert extractor in known
    assert [name for name in known if od_api.absent_extractor(name)] == []
