"""SavedModels of two-stage detectors: what is served is what the detector finds."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config, deployment, models
from mnasdet.data import input_pipeline
from mnasdet.evaluation import detection
from mnasdet.evaluation.coco import MAP
from mnasdet.evaluation.evaluate import evaluate_pipeline, judged_on
from mnasdet.protos import pipeline_pb2
from mnasdet.training import checkpoints
from tests import two_stage_config
from tests.saved_model.test_saved_model import SIZES, encoded, picture

_RESIZER = "fixed_shape_resizer { height: 64 width: 64 }"
_PADDING = (
    "keep_aspect_ratio_resizer { min_dimension: 48 max_dimension: 64 pad_to_max_dimension: true }"
)


@pytest.fixture(scope="module")
def pipeline():
    text = two_stage_config.text()
    assert _RESIZER in text
    text = text.replace(_RESIZER, _PADDING)
    return text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())


@pytest.fixture(scope="module")
def detector(pipeline):
    """A detector whose regions differ in class and place."""
    tf.keras.utils.set_random_seed(0)
    detector = models.build(config.resolve(pipeline))
    rng = np.random.default_rng(1)
    for name, variable in checkpoints.variables_by_name(detector.model).items():
        if "class/conv" in name or "box/conv" in name or "objectness" in name:
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return detector


@pytest.fixture(scope="module")
def exported(pipeline, detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_stages") / "exported"
    names = input_pipeline.label_map(pipeline.eval_input_reader[0])
    input_type = "encoded_image_string_tensor"
    described = deployment.export_saved_model(
        detector, pipeline, folder, labels=names, input_type=input_type
    )
    assert described["kind"] == "faster_rcnn"
    return folder


@pytest.fixture(scope="module")
def model(exported):
    return tf.saved_model.load(str(exported / "saved_model"))


@pytest.mark.parametrize("number", range(len(SIZES)))
def test_files_and_pixels_give_what_the_detector_finds(model, detector, number):
    pixels = picture(number)
    expected = detection.detect(pixels, detector.blueprint.resizer, detector.predict)
    count = len(expected.scores)
    assert count >= 5
    height, width = SIZES[number]
    for outputs in (
        model.signatures["image_tensor"](input_tensor=pixels[None]),
        model.signatures["serving_default"](input_tensor=tf.constant([encoded(pixels)])),
    ):
        assert outputs["num_detections"].numpy() == count
        boxes = outputs["detection_boxes"][0].numpy() * [height, width, height, width]
        np.testing.assert_allclose(boxes[:count], expected.boxes, atol=1e-3)
        scores = outputs["detection_scores"][0].numpy()
        np.testing.assert_allclose(scores[:count], expected.scores, atol=1e-6)
        assert not scores[count:].any()
        classes = outputs["detection_classes"][0, :count].numpy()
        np.testing.assert_array_equal(classes, expected.classes)


def test_outputs_have_the_od_apis_names_and_shapes(model):
    outputs = model.signatures["image_tensor"](input_tensor=np.stack([picture(2)] * 3))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "detection_boxes": (3, 20, 4),
        "detection_scores": (3, 20),
        "detection_classes": (3, 20),
        "num_detections": (3,),
        "detection_anchor_indices": (3, 20),
        "detection_multiclass_scores": (3, 20, 11),
        "raw_detection_boxes": (3, 12, 4),
        "raw_detection_scores": (3, 12, 11),
    }
    found = {name: value[0].numpy() for name, value in outputs.items()}
    count = int(found["num_detections"])
    regions = found["detection_anchor_indices"][:count].astype(int)
    scores = found["raw_detection_scores"][regions]
    np.testing.assert_array_equal(scores, found["detection_multiclass_scores"][:count])
    classes = found["detection_classes"][:count].astype(int)
    own = scores[np.arange(count), classes]
    np.testing.assert_array_equal(own, found["detection_scores"][:count])
    # The raw box is that of the region's best class.
    best = classes == scores[:, 1:].argmax(axis=1) + 1
    assert best.any()
    np.testing.assert_allclose(
        np.clip(found["raw_detection_boxes"][regions], 0, 1)[best],
        found["detection_boxes"][:count][best],
        atol=1e-6,
    )


def test_its_metrics_are_those_of_the_detector(pipeline, detector, exported):
    expected = evaluate_pipeline(detector, pipeline)
    names = input_pipeline.label_map(pipeline.eval_input_reader[0])
    predict = deployment.saved_model_function("faster_rcnn", exported)
    found = judged_on(pipeline, deployment.evaluator("faster_rcnn", names), predict, None)
    assert found.coco.detections
    metrics = found.metrics()
    assert metrics[MAP] >= 0
    assert {name: metrics[name] for name in metrics} == pytest.approx(
        {name: expected[name] for name in metrics}, abs=1e-6
    )


def test_there_is_no_tflite_file(detector, tmp_path):
    with pytest.raises(deployment.UserError, match="no TFLite file.*use the command export_saved"):
        deployment.export(detector, tmp_path)
    with pytest.raises(deployment.UserError, match="no TFLite file"):
        deployment.predict_function(detector.blueprint, tmp_path / "detect.tflite")
    with pytest.raises(deployment.UserError, match="no TFLite file"):
        deployment.check_tflite("faster_rcnn")
    deployment.check_tflite("ssd")
    assert not list(tmp_path.iterdir())
