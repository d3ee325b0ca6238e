"""From raw predictions to detections: scores, boxes, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from mnasdet.detectors import box_coder
from mnasdet.protos import box_predictor_pb2, post_processing_pb2, ssd_pb2

_SCORE_CONVERTERS = {"identity": tf.identity, "sigmoid": tf.sigmoid, "softmax": tf.nn.softmax}

# Boxes [batch, detections, 4], their scores and classes (from 0), and how many of each image count.
_Kept = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


@dataclass(frozen=True)
class PostProcessing:
    """Non-maximum suppression, per class or over all of them.

    Attributes:
      score_threshold: scores have to be above.
      iou_threshold: a box that overlaps a better one by more is dropped.
      max_detections_per_class: of one image, without effect with `class_agnostic`;
        `max_detections` over all classes.
      max_candidates: the scores of an image that take part, the best over all anchors and classes
        and those that equal the last of them; 0: all.
      class_agnostic: a location counts with its best class only, and boxes of all classes
        suppress one another.
      score_converter: makes scores of logits: sigmoid, softmax over all slots, the background's
        too, or identity.
      logit_scale: the logits are divided by it first.
      box_scales: of the box coder.
      box_clip_range: limits of the box encodings, (least, largest).
    """

    score_threshold: float = 1e-8
    iou_threshold: float = 0.6
    max_detections_per_class: int = 100
    max_detections: int = 100
    max_candidates: int = 0
    class_agnostic: bool = False
    score_converter: str = "sigmoid"
    logit_scale: float = 1.0
    box_scales: Sequence[float] = box_coder.DEFAULT_SCALES
    box_clip_range: tuple[float, float] | None = None

    def __call__(
        self, box_encodings: tf.Tensor, class_logits: tf.Tensor, anchors: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns detections, best first, padded with zeros. All have an area inside the image.

        Args:
          box_encodings: [batch, anchors, 4], or [batch, anchors, classes or 1, 4] with a box for
            each class or one for all.
          class_logits: [batch, anchors, 1 + classes], slot 0 for the background.
          anchors: [anchors, 4] or [batch, anchors, 4] (ymin, xmin, ymax, xmax), normalised.

        Returns:
          detection_boxes [batch, max_detections, 4] (ymin, xmin, ymax, xmax) in [0, 1];
          detection_scores and detection_classes (from 1) [batch, max_detections], float32;
          num_detections [batch], int32.
        """
        box_encodings, scores = self.prepare(box_encodings, class_logits)
        if len(box_encodings.shape) == 3:
            box_encodings = box_encodings[:, :, None]
        boxes = box_coder.decode(box_encodings, anchors[..., None, :], self.box_scales)
        # No threshold lets this score through. Dropped after the suppression, boxes outside of the
        # image would have taken places among the `max_detections`.
        scores = tf.where(_has_area(boxes), scores[..., 1:], scores.dtype.min)
        scores = self._candidates(scores)
        suppress = self._suppress_all if self.class_agnostic else self._suppress_per_class
        boxes, scores, classes, count = suppress(boxes, scores)
        valid = tf.sequence_mask(count, self.max_detections, tf.float32)
        return {
            "detection_boxes": boxes * valid[..., None],
            "detection_scores": scores * valid,
            "detection_classes": (classes + 1) * valid,
            "num_detections": count,
        }

    def prepare(
        self, box_encodings: tf.Tensor, class_logits: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Prepares raw predictions for the suppression.

        Returns:
          Box encodings within their limits, and scores of all slots, [batch, anchors, 1 + classes].
        """
        if self.box_clip_range:
            box_encodings = tf.clip_by_value(box_encodings, *self.box_clip_range)
        if self.logit_scale != 1.0:
            class_logits = class_logits / self.logit_scale
        return box_encodings, _SCORE_CONVERTERS[self.score_converter](class_logits)

    def _candidates(self, scores: tf.Tensor) -> tf.Tensor:
        """Puts all but the best scores of each image, [batch, anchors, classes], below the
        threshold."""
        count = scores.shape[1] * scores.shape[2]
        if not 0 < self.max_candidates < count:
            return scores
        best, _ = tf.math.top_k(tf.reshape(scores, (-1, count)), self.max_candidates)
        return tf.where(scores >= best[:, -1, None, None], scores, scores.dtype.min)

    def _suppress_per_class(self, boxes: tf.Tensor, scores: tf.Tensor) -> _Kept:
        return tf.image.combined_non_max_suppression(
            boxes,
            scores,
            max_output_size_per_class=self.max_detections_per_class,
            max_total_size=self.max_detections,
            iou_threshold=self.iou_threshold,
            score_threshold=self.score_threshold,
            clip_boxes=True,
        )

    def _suppress_all(self, boxes: tf.Tensor, scores: tf.Tensor) -> _Kept:
        def suppress(image: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.image.non_max_suppression_padded(
                # combined_non_max_suppression has no mode in which classes suppress one another.
                *image,
                max_output_size=self.max_detections,
                iou_threshold=self.iou_threshold,
                score_threshold=self.score_threshold,
                pad_to_max_output_size=True,
            )

        best = tf.reduce_max(scores, axis=-1)
        best_class = tf.argmax(scores, axis=-1, output_type=tf.int32)
        of_best = best_class if boxes.shape[2] > 1 else tf.zeros_like(best_class)
        boxes = tf.gather(boxes, of_best, batch_dims=2)
        indices, count = tf.map_fn(
            suppress, (boxes, best), fn_output_signature=(tf.int32, tf.int32)
        )
        classes = tf.cast(best_class, tf.float32)
        kept = [tf.gather(x, indices, batch_dims=1) for x in (boxes, best, classes)]
        # Clipped after the suppression, as combined_non_max_suppression does.
        return tf.clip_by_value(kept[0], 0.0, 1.0), kept[1], kept[2], count


def _has_area(boxes: tf.Tensor) -> tf.Tensor:
    """Tells of each box [..., 4] whether any of it is left once it is clipped to the image."""
    clipped = tf.clip_by_value(boxes, 0.0, 1.0)
    return tf.reduce_all(clipped[..., :2] < clipped[..., 2:], axis=-1)


def from_config(
    ssd: ssd_pb2.Ssd, box_predictor: box_predictor_pb2.BoxPredictor | None = None
) -> PostProcessing:
    """Builds the post-processing of the `post_processing` and `box_coder` messages.

    Args:
      box_predictor: the architecture's, where `ssd` has none.
    """
    coder = ssd.box_coder.faster_rcnn_box_coder
    return from_proto(
        ssd.post_processing,
        box_scales=(coder.y_scale, coder.x_scale, coder.height_scale, coder.width_scale),
        box_clip_range=_clip_range(box_predictor or ssd.box_predictor),
    )


def from_proto(
    proto: post_processing_pb2.PostProcessing,
    *,
    box_scales: Sequence[float],
    box_clip_range: tuple[float, float] | None = None,
) -> PostProcessing:
    """Builds the post-processing that a message describes.

    Args:
      box_scales, box_clip_range: as in `PostProcessing`.
    """
    nms = proto.batch_non_max_suppression
    converter = proto.ScoreConverter.Name(proto.score_converter)
    return PostProcessing(
        score_threshold=nms.score_threshold,
        iou_threshold=nms.iou_threshold,
        max_detections_per_class=nms.max_detections_per_class,
        max_detections=nms.max_total_detections,
        max_candidates=nms.max_candidates,
        class_agnostic=nms.use_class_agnostic_nms,
        score_converter=converter.lower(),
        logit_scale=proto.logit_scale,
        box_scales=box_scales,
        box_clip_range=box_clip_range,
    )


def _clip_range(box_predictor: box_predictor_pb2.BoxPredictor) -> tuple[float, float] | None:
    predictor = box_predictor.convolutional_box_predictor
    if not predictor.HasField("box_encodings_clip_range"):
        return None
    clip_range = predictor.box_encodings_clip_range
    return clip_range.min, clip_range.max
