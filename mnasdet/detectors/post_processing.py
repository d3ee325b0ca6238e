"""From raw predictions to detections: scores, boxes, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from mnasdet.detectors import box_coder
from mnasdet.protos import ssd_pb2


@dataclass(frozen=True)
class PostProcessing:
    """Non-maximum suppression, per class or over all of them.

    Attributes:
      score_threshold: lower scores are dropped.
      iou_threshold: a box that overlaps a better one by more is dropped.
      max_detections_per_class: of one image; `max_detections` over all classes.
      class_agnostic: a location counts with its best class only, and boxes of all classes
        suppress one another.
      box_scales: of the box coder.
    """

    score_threshold: float = 1e-8
    iou_threshold: float = 0.6
    max_detections_per_class: int = 100
    max_detections: int = 100
    class_agnostic: bool = False
    box_scales: Sequence[float] = box_coder.DEFAULT_SCALES

    def __call__(
        self, box_encodings: tf.Tensor, class_logits: tf.Tensor, anchors: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Detections, best first, padded with zeros.

        Args:
          box_encodings: [batch, anchors, 4].
          class_logits: [batch, anchors, 1 + classes], slot 0 for the background.
          anchors: [anchors, 4] (ymin, xmin, ymax, xmax), normalised.

        Returns:
          detection_boxes [batch, max_detections, 4] (ymin, xmin, ymax, xmax) in [0, 1];
          detection_scores and detection_classes (from 1) [batch, max_detections], float32;
          num_detections [batch], int32.
        """
        boxes = box_coder.decode(box_encodings, anchors, self.box_scales)
        scores = tf.sigmoid(class_logits[..., 1:])
        classes = None
        if self.class_agnostic:
            classes = tf.cast(tf.argmax(scores, axis=-1), tf.float32)
            scores = tf.reduce_max(scores, axis=-1, keepdims=True)
        kept = self._suppress(boxes, scores, classes)
        return {
            "detection_boxes": kept[0],
            "detection_scores": kept[1],
            "detection_classes": (kept[2] + 1) * tf.cast(kept[1] > 0, tf.float32),
            "num_detections": kept[3],
        }

    def _suppress(self, boxes, scores, classes):
        kept = tf.image.combined_non_max_suppression(
            boxes[:, :, None, :],
            scores,
            max_output_size_per_class=self.max_detections_per_class,
            max_total_size=self.max_detections,
            iou_threshold=self.iou_threshold,
            score_threshold=self.score_threshold,
            clip_boxes=True,
        )
        if classes is None:
            return kept
        # The op saw one class; a kept box is found again by its score.
        best = tf.squeeze(scores, -1)
        index = tf.argmax(kept.nmsed_scores[:, :, None] == best[:, None, :], axis=-1)
        return kept._replace(nmsed_classes=tf.gather(classes, index, batch_dims=1))


def from_config(ssd: ssd_pb2.Ssd) -> PostProcessing:
    """As the `post_processing` and `box_coder` messages say."""
    nms = ssd.post_processing.batch_non_max_suppression
    coder = ssd.box_coder.faster_rcnn_box_coder
    return PostProcessing(
        score_threshold=nms.score_threshold,
        iou_threshold=nms.iou_threshold,
        max_detections_per_class=nms.max_detections_per_class,
        max_detections=nms.max_total_detections,
        class_agnostic=nms.use_class_agnostic_nms,
        box_scales=(coder.y_scale, coder.x_scale, coder.height_scale, coder.width_scale),
    )
