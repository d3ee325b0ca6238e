"""All that is wrong with the fields of a text proto, at once."""

import time

import pytest

from mnasdet import text_proto
from mnasdet.errors import ConfigError
from mnasdet.protos.pipeline_pb2 import TrainEvalPipelineConfig


def message_of(text):
    with pytest.raises(ConfigError) as caught:
        text_proto.parse(text, TrainEvalPipelineConfig, "a")
    return str(caught.value)


def test_all_unknown_fields_and_values_have_a_line_each():
    text = """train_config: {
      num_stepz: 5, batch: { size: 3 }
      data_augmentation_options: [ { random_horizontal_flip {} }, { random_flip {} } ]
    }
    model { ssd {
      num_class: 3 image_resizer { fixed_shape_resizer { resize_method: BILINEARR hight: 3 } }
      loss { hard_example_miner { loss_type: [CLASS] } }
    } }"""
    lines = message_of(text).splitlines()
    assert lines[0] == "7 problems in a:"
    assert [line.split(" (allowed")[0] for line in lines[1:]] == [
        '  line 2: no field "num_stepz" in TrainConfig; did you mean "num_steps"?',
        '  line 2: no field "batch" in TrainConfig; did you mean "batch_size"?',
        '  line 3: no field "random_flip" in PreprocessingStep; did you mean '
        '"random_vertical_flip"?',
        '  line 6: no field "num_class" in Ssd; did you mean "num_classes"?',
        '  line 6: no value "BILINEARR" in ResizeType; did you mean "BILINEAR"?',
        '  line 6: no field "hight" in FixedShapeResizer; did you mean "height"?',
        '  line 7: no value "CLASS" in LossType',
    ]
    assert "(allowed: num_steps, " in lines[1]


def test_a_missing_brace_is_the_fault_and_not_the_fields_after_it():
    text = (
        "model {\n ssd {\n  num_classes: 3\n}\ntrain_config {\n num_steps: 3\n}\neval_config {}\n"
    )
    assert message_of(text).startswith(
        'a:5:1: a "}" is missing above; DetectionModel has no field "train_config"  in'
    )


def test_a_brace_too_many():
    assert message_of("model {} }\ntrain_config { x: 1 }").startswith('a:1:10: a "}" too many')


def test_a_field_in_the_wrong_message_belongs_around_it():
    text = "model { ssd { feature_extractor { num_classes: 3 } } }"
    assert message_of(text).startswith(
        'a:1:35: "num_classes" is no field of SsdFeatureExtractor but of Ssd around it; move it '
        "there"
    )


# A whole model that is not here, and the one line that says so.
ABSENT = {
    "model { center_net { num_classes: 3 second_stage: 0 } } train_config { x: 1 }": (
        "a:1:9: CenterNet is not here, only SSD, Faster R-CNN and what is built like them; "
        "nearest: ssd_resnet50_v1_fpn_keras"
    ),
    "model { detr { num_classes: 90 } }": "a:1:9: DETR is not here",
    "model { faster_rcnn { feature_extractor { type: 'faster_rcnn_nas' } masks {} } }": (
        "a:1:49: Faster R-CNN with NASNet is not here; nearest: faster_rcnn_resnet101; "
        '"faster_rcnn_nas" is not supported'
    ),
    "model {\n ssd { image_resizer { identity_resizer {} } mask_head_config { x: 1 }\n"
    " feature_extractor { type: 'ssd_efficientnet-b0_bifpn_keras'\n bifpn { min_level: 3 } } } }": (
        "a:3:28: EfficientDet is not here; nearest: ssd_mobilenet_v2_fpn_keras or "
        'ssd_mobilenet_v2_mnasfpn; "ssd_efficientnet-b0_bifpn_keras" is not supported'
    ),
}


@pytest.mark.parametrize("text", ABSENT)
def test_a_model_that_is_not_here_is_the_cause(text):
    message = message_of(text)
    assert message.startswith(ABSENT[text])
    assert "\n" not in message
    assert "remove" not in message


def test_fields_of_the_od_api_say_what_they_do_there_and_what_to_do():
    message = message_of(
        "train_config { summarize_gradients: true }\n"
        "model { ssd { feature_extractor { conv_hyperparams { force_use_bias: true } } } }\n"
        "eval_config { eval_instance_masks: true }"
    )
    assert message.splitlines()[1:] == [
        '  line 1: "summarize_gradients" of the TF Object Detection API (gradients for '
        "TensorBoard) is not supported in TrainConfig: it has no effect on the result; remove it",
        '  line 2: "force_use_bias" of the TF Object Detection API (a bias before batch '
        "normalisation) is not supported in Hyperparams: remove it: batch normalisation takes such "
        "a bias out again",
        '  line 3: "eval_instance_masks" of the TF Object Detection API (masks) is not supported '
        "in EvalConfig: only boxes are detected here; remove it, unless masks or keypoints are the "
        "purpose",
    ]


def test_many_problems_are_counted_and_the_first_are_told_quickly():
    text = "train_config {\n" + "".join(f"  num_stepz_{i}: 3\n" for i in range(1000)) + "}"
    start = time.process_time()
    lines = message_of(text).splitlines()
    assert time.process_time() - start < 2
    assert lines[0] == "1000 problems in a:"
    assert len(lines) == 52
    assert lines[-1] == "  and 950 more"


@pytest.mark.parametrize(
    "text",
    [
        "model {" * 20_000,
        "a {" * 20_000 + "}" * 20_000,
        "[" * 20_000,
        "model { ssd { x" + "<" * 9999,
    ],
)
def test_deep_nesting_ends_in_a_line(text):
    start = time.process_time()
    assert message_of(text)
    assert time.process_time() - start < 5
