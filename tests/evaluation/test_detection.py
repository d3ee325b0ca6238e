"""Detections in pictures of any size, in their own pixels."""

import numpy as np
import pytest

from mnasdet.data.image_resizer import ImageResizer
from mnasdet.evaluation import detection
from mnasdet.evaluation.detection import Detections


def fixed(boxes, scores, num_detections):
    """A detector that finds the same in every input, and keeps the inputs that it gets."""
    seen = []

    def detector(images):
        seen.append(np.asarray(images))
        return {
            "detection_boxes": np.array([boxes], np.float32),
            "detection_scores": np.array([scores], np.float32),
            "detection_classes": np.arange(1, len(boxes) + 1, dtype=np.float32)[None],
            "num_detections": np.array([num_detections], np.int32),
        }

    return detector, seen


def test_a_stretched_picture():
    detector, seen = fixed([[0.25, 0.5, 0.75, 1.0]], [0.9], 1)
    image = np.full((40, 100, 3), 255, np.uint8)
    found = detection.detect(image, ImageResizer((8, 8)), detector)
    assert seen[0].shape == (1, 8, 8, 3)
    assert (seen[0] == 1.0).all()
    assert found.boxes.tolist() == [[10, 50, 30, 100]]


def test_padding_is_taken_off():
    # 32 x 64 pixels become 24 x 48: the upper half of the input.
    resizer = ImageResizer((48, 48), min_dimension=24)
    boxes = [[0.25, 0.25, 0.5, 0.75], [0.6, 0.1, 0.9, 0.4], [0.0, 0.0, 1.0, 1.0]]
    detector, _ = fixed(boxes, [0.4, 0.9, 0.8], 3)
    found = detection.detect(np.zeros((32, 64, 3), np.uint8), resizer, detector)
    # The best first; what lies in the padding alone is nothing.
    assert found.classes.tolist() == [3, 1]
    assert found.boxes.tolist() == [[0, 0, 32, 64], [16, 16, 32, 48]]
    assert found.scores == pytest.approx([0.8, 0.4])


def test_only_what_was_found_counts():
    detector, _ = fixed([[0, 0, 0.5, 0.5], [0, 0, 1, 1]], [0.9, 0.8], 1)
    found = detection.detect(np.zeros((10, 10, 3), np.uint8), ImageResizer((8, 8)), detector)
    assert found.classes.tolist() == [1]


def test_cocos_results_with_names():
    found = Detections(
        np.array([[10.0, 20.004, 30.5, 60.0], [0.0, 0.0, 5.0, 5.0]]),
        np.array([2, 7]),
        np.array([0.91234, 0.3]),
    )
    assert detection.describe(found, {2: "cat"}) == [
        {"category_id": 2, "category": "cat", "score": 0.9123, "bbox": [20.0, 10.0, 40.0, 20.5]},
        {"category_id": 7, "category": "class 7", "score": 0.3, "bbox": [0.0, 0.0, 5.0, 5.0]},
    ]
    assert found.above(0.3).classes.tolist() == [2, 7]
    assert found.above(0.31).classes.tolist() == [2]
