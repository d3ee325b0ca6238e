import numpy as np
import pytest

from mnasdet import config
from mnasdet.evaluation.baseline import BASELINE_MAP
from mnasdet.evaluation.coco import BY_CATEGORY
from mnasdet.evaluation.detection_evaluator import DetectionEvaluator
from mnasdet.reporting import examples
from mnasdet.reporting.pictures import Example


class Detector:
    """Finds a box in the middle, one without height, and then only padding."""

    def __init__(self, pipeline):
        self.blueprint = config.resolve(pipeline)

    def evaluator(self, categories):
        return DetectionEvaluator(categories)

    def predict(self, images):
        boxes = np.zeros((images.shape[0], 3, 4), np.float32)
        boxes[:, 0] = [0.25, 0.25, 0.75, 0.75]
        boxes[:, 1] = [0.5, 0.25, 0.5, 0.75]
        return {
            "detection_boxes": boxes,
            "detection_scores": np.tile(np.float32([0.9, 0.8, 0.0]), (images.shape[0], 1)),
            "detection_classes": np.tile(np.float32([4, 2, 0]), (images.shape[0], 1)),
            "num_detections": np.full(images.shape[0], 2, np.int32),
        }


def test_the_first_pictures_of_the_evaluation_set(tiny_pipeline):
    found = examples.judge(tiny_pipeline, Detector(tiny_pipeline), count=3).examples
    assert len(found) == 3
    first = found[0]
    assert first.image.shape == (64, 64, 3)
    assert first.image.dtype == np.uint8
    assert first.image.std() > 5
    assert first.boxes.tolist() == [[0.25, 0.25, 0.75, 0.75]]
    assert first.classes.tolist() == [4]
    assert first.scores == pytest.approx([0.9])
    assert len(first.truth_boxes) == len(first.truth_classes) > 0
    assert set(first.truth_classes) <= set(first.class_names)
    assert len(examples.judge(tiny_pipeline, Detector(tiny_pipeline), count=99).examples) == 8


def test_padding_is_cut_off(tiny_pipeline):
    resizer = tiny_pipeline.model.ssd.image_resizer
    resizer.keep_aspect_ratio_resizer.min_dimension = 48
    resizer.keep_aspect_ratio_resizer.max_dimension = 64
    resizer.keep_aspect_ratio_resizer.pad_to_max_dimension = True
    first = examples.judge(tiny_pipeline, Detector(tiny_pipeline), count=1).examples[0]
    # 48 of 64 pixels in both directions are the picture.
    assert first.image.shape == (48, 48, 3)
    assert first.boxes[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1.0, 1.0])
    assert first.truth_boxes.max() <= 1.0


def test_a_squeezed_picture_has_its_shape_again():
    batch = {
        "image": np.zeros((1, 60, 60, 3), np.float32),
        "extent": np.ones((1, 2), np.float32),
        "height": np.array([400]),
        "width": np.array([900]),
    }
    nothing = np.zeros((0, 4))
    empty = Example(np.zeros((0, 0, 3)), nothing, [], [], nothing, [], {})
    # 40 x 90 pixels are as many as 60 x 60.
    assert examples._with_image(empty, batch, 0).image.shape == (40, 90, 3)


def test_the_whole_set_is_judged_whatever_is_shown(tiny_pipeline):
    few, all_ = (
        examples.judge(tiny_pipeline, Detector(tiny_pipeline), count=count) for count in (1, 8)
    )
    assert (len(few.examples), len(all_.examples)) == (1, 8)
    assert few.metrics == all_.metrics
    assert few.threshold == all_.threshold
    assert few.threshold.num_pictures == few.num_images == 8
    assert few.num_objects == sum(len(example.truth_boxes) for example in all_.examples)
    assert {BASELINE_MAP, BY_CATEGORY + "3"} <= few.metrics.keys()
    assert few.standard_error is not None
