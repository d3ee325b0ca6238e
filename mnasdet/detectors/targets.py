"""Training targets: which class and box each anchor shall predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from mnasdet.detectors import box_coder
from mnasdet.protos import ssd_pb2

BACKGROUND = 0
IGNORED = -1


@dataclass(frozen=True)
class TargetAssigner:
    """Gives every anchor the box that overlaps it most (the OD API's argmax matcher).

    Attributes:
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax), normalised.
      matched_threshold: IoU from which an anchor is positive.
      unmatched_threshold: IoU below which it is background; between the two it is ignored.
      negatives_lower: false turns that round: background between the two, ignored below. (An image
        without boxes is all background in either case.)
      force_match: every box also gets the anchor that overlaps it most, however little.
      box_scales: of the box coder.
      least_forced: the overlap from which on `force_match` gives a box its anchor.
    """

    anchors: np.ndarray | tf.Tensor
    matched_threshold: float = 0.5
    unmatched_threshold: float = 0.5
    negatives_lower: bool = True
    force_match: bool = True
    box_scales: Sequence[float] = box_coder.DEFAULT_SCALES
    least_forced: float = 0.0

    def __call__(self, boxes: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the targets of one image.

        Args:
          boxes: [boxes, 4], normalised; there may be none.
          classes: [boxes] int32, from 1.

        Returns:
          class targets [anchors] int32: a class, `BACKGROUND` or `IGNORED`;
          box targets [anchors, 4], encoded; of meaning for positive anchors only.
        """
        # A box of no size stands after the others: no anchor overlaps it, so that an image without
        # boxes needs no case of its own.
        boxes = tf.concat([boxes, tf.zeros([1, 4])], axis=0)
        classes = tf.concat([classes, [BACKGROUND]], axis=0)
        match, ignored = self.match(iou(boxes, self.anchors))
        targets = tf.where(ignored, IGNORED, tf.gather(classes, match))
        codes = box_coder.encode(tf.gather(boxes, match), self.anchors, self.box_scales)
        return targets, codes

    def match(self, overlap: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the box of each anchor and whether it is ignored.

        Args:
          overlap: [boxes, anchors], intersection over union; the last box stands for none.

        Returns:
          indices of boxes [anchors] int32 and [anchors] bool.
        """
        nothing = tf.shape(overlap)[0] - 1
        best = tf.argmax(overlap, axis=0, output_type=tf.int32)
        best_overlap = tf.reduce_max(overlap, axis=0)
        match = tf.where(best_overlap >= self.matched_threshold, best, nothing)
        if self.force_match:
            # Without its last row: the box of no size must not claim an anchor.
            match = self._force(match, overlap[:-1])
        ignored = (best_overlap < self.unmatched_threshold) != self.negatives_lower
        return match, ignored & (match == nothing) & (nothing > 0)

    def _force(self, match: tf.Tensor, overlap: tf.Tensor) -> tf.Tensor:
        """Gives each box its anchor; where two want the same one, the first box has it."""
        anchors = tf.argmax(overlap, axis=1, output_type=tf.int32)
        boxes = tf.range(tf.size(anchors))
        if self.least_forced:
            enough = tf.reduce_max(overlap, axis=1) >= self.least_forced
            boxes = tf.where(enough, boxes, match.dtype.max)
        # A scatter with minimum, because writes of a plain scatter to one place have no order.
        unwanted = tf.fill(tf.shape(match), match.dtype.max)
        wanted_by = tf.tensor_scatter_nd_min(unwanted, anchors[:, None], boxes)
        return tf.where(wanted_by < match.dtype.max, wanted_by, match)


def iou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns the intersection over union, [..., n, m], of boxes [..., n, 4] and [..., m, 4].

    Coordinate by coordinate: with the two of a corner in one tensor it takes four times as long.
    """
    ymin, xmin, ymax, xmax = tf.unstack(tf.convert_to_tensor(boxes)[..., :, None, :], axis=-1)
    top, left, bottom, right = tf.unstack(tf.convert_to_tensor(others)[..., None, :, :], axis=-1)
    height = tf.maximum(tf.minimum(ymax, bottom) - tf.maximum(ymin, top), 0.0)
    width = tf.maximum(tf.minimum(xmax, right) - tf.maximum(xmin, left), 0.0)
    intersection = height * width
    union = (ymax - ymin) * (xmax - xmin) + (bottom - top) * (right - left) - intersection
    return tf.math.divide_no_nan(intersection, union)


def from_config(ssd: ssd_pb2.Ssd, anchors: np.ndarray) -> TargetAssigner:
    """Builds the assigner of the `matcher` and `box_coder` messages."""
    matcher = ssd.matcher.argmax_matcher
    coder = ssd.box_coder.faster_rcnn_box_coder
    # Every overlap reaches 0: each anchor then has its best box.
    thresholds = (matcher.matched_threshold, matcher.unmatched_threshold)
    matched, unmatched = (0.0, 0.0) if matcher.ignore_thresholds else thresholds
    return TargetAssigner(
        anchors,
        matched,
        unmatched,
        matcher.negatives_lower_than_unmatched,
        matcher.force_match_for_each_row,
        (coder.y_scale, coder.x_scale, coder.height_scale, coder.width_scale),
    )
