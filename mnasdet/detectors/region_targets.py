"""Training targets of the second stage: which class and box each region shall predict."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from mnasdet.detectors import box_coder
from mnasdet.detectors.proposals import has_area
from mnasdet.detectors.targets import BACKGROUND, IGNORED, iou


def region_targets(
    regions: tf.Tensor,
    boxes: tf.Tensor,
    classes: tf.Tensor,
    *,
    iou_threshold: float,
    box_scales: Sequence[float],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gives every region the object that overlaps it most.

    Args:
      regions: [batch, regions, 4] (ymin, xmin, ymax, xmax), normalised.
      boxes: [batch, boxes, 4], of the objects; what pads has no area.
      classes: [batch, boxes] int32, from 1.
      iou_threshold: from this overlap on, above 0, a region shows the object.
      box_scales: of the box coder.

    Returns:
      class targets [batch, regions] int32: a class, BACKGROUND, or IGNORED for a region without an
      area; box targets [batch, regions, 4], encoded; of meaning for positive regions only.
    """
    overlap = iou(boxes, regions)
    best = tf.argmax(overlap, axis=1, output_type=tf.int32)
    # No object claims its best region, as it would claim an anchor: in training the objects are
    # among the regions.
    is_object = tf.reduce_max(overlap, axis=1) >= iou_threshold
    # All others are background. Girshick, "Fast R-CNN", 2015, section 2.3, takes overlaps from 0.1
    # on alone; mmdetection takes all of them.
    targets = tf.where(is_object, tf.gather(classes, best, batch_dims=1), BACKGROUND)
    codes = box_coder.encode(tf.gather(boxes, best, batch_dims=1), regions, box_scales)
    return tf.where(has_area(regions), targets, IGNORED), codes
