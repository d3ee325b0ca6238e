"""Every check of a classifier's config, and of what it must not say of detectors."""

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.protos import pipeline_pb2
from tests.config_fragments import COCO, merge, nested

SOUND = """
  model {
    architecture_name: "mnasnet_a1"
    classification {
      num_classes: 10
      image_resizer { center_crop_resizer { height: 64 width: 64 } }
    }
  }
  train_config {
    num_steps: 10
    data_augmentation_options { rand_augment {} }
    optimizer { adam_optimizer { learning_rate { constant_learning_rate {} } } }
  }
  train_input_reader { features: IMAGE_CLASS digits_input_reader {} }
  eval_input_reader { features: IMAGE_CLASS digits_input_reader { split: VALIDATION } }
"""
MODEL = "model.classification"


@pytest.fixture
def pipeline():
    return text_format.Parse(SOUND, pipeline_pb2.TrainEvalPipelineConfig())


def test_a_sound_config_resolves_to_a_blueprint(pipeline):
    assert config.check(pipeline) == []
    blueprint = config.resolve(pipeline)
    assert blueprint.kind == "classification"
    assert blueprint.num_classes == 10
    assert blueprint.image_size == (64, 64)
    assert blueprint.resizer.crop_fraction == 0.875
    assert blueprint.architecture == config.load_architecture("mnasnet_a1")


@pytest.mark.parametrize(
    ("fragment", "problem"),
    [
        (
            nested(MODEL, "image_resizer { center_crop_resizer { height: 16 } }"),
            f"{MODEL}.image_resizer.center_crop_resizer.height is 16; at least 32 is allowed",
        ),
        (
            nested(MODEL, "image_resizer { center_crop_resizer { crop_fraction: 1.5 } }"),
            f"{MODEL}.image_resizer.center_crop_resizer.crop_fraction is 1.5; at most 1 is allowed",
        ),
        (
            nested(MODEL, "label_smoothing: 1"),
            f"{MODEL}.label_smoothing is 1; 0 to less than 1 is allowed",
        ),
        (nested(MODEL, "mixup_alpha: -1"), f"{MODEL}.mixup_alpha is -1; at least 0 is allowed"),
        (
            'model { architecture_name: "mobilenet_v2_mnasfpn" }',
            "model: the architecture is a detector; one with a classifier is needed, such as "
            "mnasnet_a1",
        ),
        (
            'eval_config { metrics_set: "coco_detection_metrics" }',
            "eval_config.metrics_set is for detectors and has no effect here; remove it",
        ),
        (
            "eval_config { min_score_threshold: 0.3 }",
            "eval_config.min_score_threshold is for detectors and has no effect here; remove it",
        ),
        (
            "train_input_reader { max_number_of_boxes: 10 }",
            "train_input_reader.max_number_of_boxes is for detectors and has no effect here; "
            "remove it",
        ),
        (
            "train_input_reader { features: BOXES }",
            "train_input_reader.features is BOXES; only IMAGE_CLASS is supported",
        ),
        (
            "train_config { data_augmentation_options { random_jitter_boxes {} } }",
            "train_config.data_augmentation_options[0].random_jitter_boxes is for detectors and "
            "has no effect here; remove it",
        ),
        (
            "train_config { data_augmentation_options { random_mosaic {} } }",
            "train_config.data_augmentation_options[0].random_mosaic is for detectors and has no "
            "effect here; remove it",
        ),
        (
            "train_config { data_augmentation_options { rand_augment { magnitude: 11 } } }",
            "train_config.data_augmentation_options[0].rand_augment.magnitude is 11; 0 to 10 is "
            "allowed",
        ),
        (
            "train_config { data_augmentation_options { rand_augment { num_layers: 0 } } }",
            "train_config.data_augmentation_options[0].rand_augment.num_layers is 0; at least 1 is "
            "allowed",
        ),
    ],
)
def test_problems(pipeline, fragment, problem):
    merge(fragment, pipeline)
    assert config.check(pipeline) == [problem]


def test_there_is_a_class(pipeline):
    pipeline.model.classification.num_classes = 0
    assert f"{MODEL}.num_classes is 0; at least 1 is allowed" in config.check(pipeline)


def test_the_digits_have_ten_classes(pipeline):
    pipeline.model.classification.num_classes = 9
    assert config.check(pipeline) == [
        f"{MODEL}.num_classes is 9; {reader}.digits_input_reader has 10"
        for reader in ("train_input_reader", "eval_input_reader[0]")
    ]


def test_a_classifier_needs_a_named_network(pipeline):
    pipeline.model.ClearField("architecture_name")
    assert config.check(pipeline) == [
        "model.architecture_name is missing; name a network, or give model.architecture"
    ]


@pytest.mark.parametrize(
    ("fragment", "problem"),
    [
        (
            "train_input_reader { features: IMAGE_CLASS }",
            "train_input_reader.features is IMAGE_CLASS; only BOXES is supported",
        ),
        (
            "model { ssd { image_resizer { center_crop_resizer { height: 320 width: 320 } } } }",
            "model.ssd.image_resizer.center_crop_resizer cuts off boxes; it is for classifiers",
        ),
    ],
)
def test_what_is_for_classifiers_is_an_error_beside_a_detector(fragment, problem):
    text = COCO.read_text()
    of_detector = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    before = config.check(of_detector)
    if "image_resizer" in fragment:
        of_detector.model.ssd.ClearField("image_resizer")
    merge(fragment, of_detector)
    # A search without anything else has more problems.
    found = [one for one in config.check(of_detector) if one not in before]
    assert problem in found
    assert len(found) == 1 or "search_config" in fragment


def test_a_crop_that_never_cuts_is_an_error(pipeline):
    merge(
        "train_config { data_augmentation_options { random_crop_image { min_area: 0.1 } } }",
        pipeline,
    )
    (problem,) = config.check(pipeline)
    assert problem == (
        "train_config.data_augmentation_options[0].random_crop_image.min_object_covered is 1; at "
        "most min_area, 0.1, is allowed: the whole image is the object"
    )


def test_an_architecture_of_a_whole_training_replaces_the_named_one(pipeline):
    other = config.load_architecture("mnasnet_small")
    replaced = config.with_architecture(pipeline, other)
    assert replaced.model.WhichOneof("model") == "classification"
    assert config.resolve(replaced).architecture == other
