"""From the predictions of the first stage to regions: decoded, the best kept, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mnasdet.detectors import box_coder


class Proposals(NamedTuple):
    """Regions of each image, the best first, padded with zeros.

    Attributes:
      boxes: [batch, regions, 4] (ymin, xmin, ymax, xmax) in [0, 1]; what pads has no area.
      scores: [batch, regions], probabilities of an object.
    """

    boxes: tf.Tensor
    scores: tf.Tensor


@dataclass(frozen=True)
class ProposalSelection:
    """Non-maximum suppression of the first stage, over all levels at once as in the OD API.

    Attributes:
      max_proposals: the regions of an image.
      max_candidates: of every level, those with the best scores take part; 0: all.
      score_threshold: scores have to be above.
      iou_threshold: a region that overlaps a better one by more is dropped.
      box_scales: of the box coder.
    """

    max_proposals: int
    max_candidates: int = 0
    score_threshold: float = 0.0
    iou_threshold: float = 0.7
    box_scales: Sequence[float] = box_coder.DEFAULT_SCALES

    def __call__(
        self,
        box_encodings: tf.Tensor,
        scores: tf.Tensor,
        anchors: np.ndarray | tf.Tensor,
        anchors_of_levels: Sequence[int],
    ) -> Proposals:
        """Selects regions. All have an area inside the image. No gradient flows through.

        Args:
          box_encodings: [batch, anchors, 4].
          scores: [batch, anchors], probabilities.
          anchors: [anchors, 4] or [batch, anchors, 4] (ymin, xmin, ymax, xmax), normalised.
          anchors_of_levels: how many anchors each level has, in order.
        """
        # Ren et al., 2015, section 3.2: joint training ignores the gradient through the boxes.
        box_encodings, scores = tf.stop_gradient(box_encodings), tf.stop_gradient(scores)
        anchors = tf.convert_to_tensor(anchors)
        candidates = self._candidates(scores, anchors_of_levels)
        codes = tf.gather(box_encodings, candidates, batch_dims=1)
        anchors = tf.gather(anchors, candidates, batch_dims=len(anchors.shape) - 2)
        scores = tf.gather(scores, candidates, batch_dims=1)
        boxes = tf.clip_by_value(box_coder.decode(codes, anchors, self.box_scales), 0.0, 1.0)
        # A box that the clip left without an area is below every threshold.
        return self._suppressed(boxes, tf.where(has_area(boxes), scores, scores.dtype.min))

    def _candidates(self, scores: tf.Tensor, anchors_of_levels: Sequence[int]) -> tf.Tensor:
        """Returns the indices [batch, candidates] of the anchors that take part."""
        start, parts = 0, []
        for count in anchors_of_levels:
            # By level: the finest one has the most anchors, and would crowd out the others.
            kept = min(self.max_candidates or count, count)
            best = tf.math.top_k(scores[:, start : start + count], kept).indices
            parts.append(best + start)
            start += count
        return tf.concat(parts, axis=1)

    def _suppressed(self, boxes: tf.Tensor, scores: tf.Tensor) -> Proposals:
        # XLA's kernel gives out no more than it is given.
        limit = min(self.max_proposals, boxes.shape[1])

        def suppress(image: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            # XLA has a kernel of it, and none of combined_non_max_suppression. What tf.image calls
            # padded suppression is many operations, which take twice as long.
            return tuple(
                tf.raw_ops.NonMaxSuppressionV4(
                    boxes=image[0],
                    scores=image[1],
                    max_output_size=limit,
                    iou_threshold=self.iou_threshold,
                    score_threshold=self.score_threshold,
                    pad_to_max_output_size=True,
                )
            )

        indices, count = tf.map_fn(
            suppress, (boxes, scores), fn_output_signature=(tf.int32, tf.int32)
        )
        indices = tf.ensure_shape(indices, [None, limit])
        valid = tf.sequence_mask(count, limit, tf.float32)
        boxes = tf.gather(boxes, indices, batch_dims=1) * valid[..., None]
        scores = tf.gather(scores, indices, batch_dims=1) * valid
        missing = self.max_proposals - limit
        return Proposals(
            tf.pad(boxes, [[0, 0], [0, missing], [0, 0]]), tf.pad(scores, [[0, 0], [0, missing]])
        )


def has_area(boxes: tf.Tensor) -> tf.Tensor:
    """Tells of each box [..., 4] (ymin, xmin, ymax, xmax) whether it has an area."""
    return tf.reduce_all(boxes[..., :2] < boxes[..., 2:], axis=-1)
