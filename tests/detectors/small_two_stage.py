"""Two-stage detectors that are small enough to be trained in a test."""

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.blueprint import Blueprint
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.protos import architecture_pb2, faster_rcnn_pb2

SIDE, CLASSES = 64, 3

ARCHITECTURE = """
  depth_multiplier: 0.125
  min_depth: 8
  backbone { resnet { depth: 10 } }
  feature_pyramid { fpn { min_level: 2 max_level: 6 channels: 64 } }
  anchor_generator { multiscale_anchor_generator {
    min_level: 2 max_level: 6 anchor_scale: 4 aspect_ratios: [0.5, 1, 2] scales_per_octave: 1
  } }
  region_proposal { channels: 8 max_proposals: 20 }
  region_head {
    region_align { size: 3 finest_scale: 16 }
    fully_connected { channels: 16 }
  }
"""

CASCADE = """
  region_head {
    class_agnostic_boxes: true
    stage { iou_threshold: 0.5 }
    stage { iou_threshold: 0.6 box_scales: [20, 20, 10, 10] loss_weight: 0.5 }
    stage { iou_threshold: 0.7 box_scales: [30, 30, 15, 15] loss_weight: 0.25 }
  }
"""

SETTINGS = """
  first_stage_minibatch_size: 32
  first_stage_max_candidates: 50
  second_stage_batch_size: 16
  second_stage_post_processing {
    batch_non_max_suppression { score_threshold: 0.05 iou_threshold: 0.5 }
    score_converter: SOFTMAX
  }
"""


def blueprint(architecture="", settings="", side=SIDE, num_classes=CLASSES):
    """A plan of the small detector; the texts are merged into its messages."""
    parsed = text_format.Parse(ARCHITECTURE, architecture_pb2.Architecture())
    text_format.Merge(architecture, parsed)
    own = text_format.Parse(SETTINGS, faster_rcnn_pb2.FasterRcnn())
    text_format.Merge(settings, own)
    return Blueprint("faster_rcnn", parsed, ImageResizer((side, side)), num_classes, own)


def example(number, side=SIDE, num_classes=CLASSES):
    """An image with three coloured squares, each of the class that its colour says."""
    rng = np.random.default_rng(number)
    image = rng.uniform(-0.1, 0.1, (side, side, 3)).astype(np.float32)
    boxes = []
    for place in rng.permutation(4)[:3]:
        y, x = (place // 2) * side // 2, (place % 2) * side // 2
        size = int(rng.integers(side // 4, side // 2))
        boxes.append((y, x, y + size, x + size))
        image[y : y + size, x : x + size, len(boxes) % num_classes] = 1
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(boxes, tf.float32) / side,
        "classes": tf.constant([1 + (i + 1) % num_classes for i in range(3)], tf.int32),
        "is_crowd": tf.constant([False] * 3),
        "seed": tf.constant([0, number], tf.int64),
    }


def batch(task, numbers):
    """A batch of `Task.targets`, as training has it."""
    examples = [example(number) for number in numbers]
    targets = [{**task.targets(one), "seed": one["seed"]} for one in examples]
    return {name: tf.stack([one[name] for one in targets]) for name in targets[0]}
