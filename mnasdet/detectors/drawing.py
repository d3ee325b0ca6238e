"""Pictures of detections for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from mnasdet.protos import eval_pb2

# The colours of boxes: red, green, blue, opacity.
_FOUND, _TRUTH = (0.1, 0.9, 0.2, 1.0), (1.0, 0.3, 0.1, 1.0)


def draw(
    batch: Mapping[str, tf.Tensor],
    predictions: Mapping[str, tf.Tensor],
    settings: eval_pb2.EvalConfig,
) -> tf.Tensor:
    """Draws the boxes that were found (green) and those that are there (red)."""
    shown = predictions["detection_scores"][..., None] >= settings.min_score_threshold
    # A box of no size is not drawn; TensorFlow's op takes no mask.
    found = tf.where(shown, predictions["detection_boxes"], 0.0)
    found = found[:, : settings.max_num_boxes_to_visualize]
    # The drawing operation takes images in [0, 1].
    images = (batch["image"] + 1) / 2
    images = tf.image.draw_bounding_boxes(images, batch["boxes"], np.array([_TRUTH]))
    return tf.image.draw_bounding_boxes(images, found, np.array([_FOUND]))
