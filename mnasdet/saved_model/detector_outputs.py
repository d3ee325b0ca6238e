"""The outputs of a detector's SavedModel: those of the OD API's exported models."""

from __future__ import annotations

import tensorflow as tf

from mnasdet.detectors import box_coder
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.detectors.one_stage import Detector
from mnasdet.detectors.two_stage import PROPOSALS, TwoStageDetector
from mnasdet.saved_model.server import Outputs


def detector_outputs(detector: Detector) -> Outputs:
    """Returns a function to the detections of a detector, all float32.

    Boxes are (ymin, xmin, ymax, xmax), normalised to the picture itself, without the padding of the
    network's input. With d for max_total_detections of the config:

      detection_boxes [batch, d, 4], detection_scores [batch, d], detection_classes [batch, d], from
      1: best first, zeros after the last; num_detections [batch].
      detection_multiclass_scores [batch, d, 1 + classes]: all scores of the detection's anchor,
      slot 0 the background's. detection_anchor_indices [batch, d].
      raw_detection_boxes [batch, anchors, 4] and raw_detection_scores
      [batch, anchors, 1 + classes]: before the suppression; the boxes may reach beyond the picture.
    """

    def outputs(images: tf.Tensor, extents: tf.Tensor) -> dict[str, tf.Tensor]:
        raw = detector.model(images, training=False)
        processing = detector.post_processing
        encodings, scores = processing.prepare(raw[BOX_ENCODINGS], raw[CLASS_LOGITS])
        boxes = box_coder.decode(encodings, detector.anchors, processing.box_scales)
        return _outputs(detector.post_process(raw), boxes[:, :, None], scores, extents)

    return outputs


def two_stage_outputs(detector: TwoStageDetector) -> Outputs:
    """Returns a function to the detections of a two-stage detector, named as `detector_outputs`.

    Regions stand in the place of anchors: those that the last stage judged. Of a region with a box
    for each class, raw_detection_boxes has that of its best class.
    """

    def outputs(images: tf.Tensor, extents: tf.Tensor) -> dict[str, tf.Tensor]:
        raw = detector.raw_predictions(images)
        processing = detector.post_processing
        encodings, scores = processing.prepare(raw[BOX_ENCODINGS], raw[CLASS_LOGITS])
        regions = raw[PROPOSALS][:, :, None]
        boxes = box_coder.decode(encodings, regions, processing.box_scales)
        return _outputs(detector.post_process(raw), boxes, scores, extents)

    return outputs


def _outputs(
    found: dict[str, tf.Tensor], boxes: tf.Tensor, scores: tf.Tensor, extents: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns the outputs by name.

    Args:
      found: the detections of `PostProcessing`.
      boxes: [batch, anchors, classes or 1, 4], not clipped; `scores` [batch, anchors, 1 + classes].
      extents: [batch, 2] of the pictures in the network's input.
    """
    found = dict(found)
    count = found.pop("num_detections")
    anchors = _anchor_indices(found, boxes, scores)
    found["detection_anchor_indices"] = tf.cast(anchors, tf.float32)
    found["detection_multiclass_scores"] = tf.gather(scores, anchors, batch_dims=1)
    found["detection_boxes"] = tf.clip_by_value(_unpadded(found["detection_boxes"], extents), 0, 1)
    return {
        **_packed(found, count),
        "raw_detection_boxes": _unpadded(_of_best_class(boxes, scores), extents),
        "raw_detection_scores": scores,
    }


def _of_best_class(boxes: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Returns one box of each anchor, [batch, anchors, 4]."""
    if boxes.shape[2] == 1:
        return boxes[:, :, 0]
    return tf.gather(boxes, tf.argmax(scores[..., 1:], axis=-1), batch_dims=2)


def _unpadded(boxes: tf.Tensor, extents: tf.Tensor) -> tf.Tensor:
    """Returns boxes [batch, n, 4] of the network's input as boxes of the picture in it."""
    return boxes / tf.tile(extents, [1, 2])[:, None]


def _packed(found: dict[str, tf.Tensor], count: tf.Tensor) -> dict[str, tf.Tensor]:
    """Leaves out detections in the padding alone, and sets all after the last to zero.

    Args:
      found: [batch, detections, ...] each, of which the first `count` [batch] are detections.
    """
    boxes = found["detection_boxes"]
    kept = tf.sequence_mask(count, boxes.shape[1])
    kept &= tf.reduce_all(boxes[..., :2] < boxes[..., 2:], axis=-1)
    # Stable: what is kept stays sorted by score.
    order = tf.argsort(tf.cast(~kept, tf.int32), axis=-1, stable=True)
    count = tf.reduce_sum(tf.cast(kept, tf.int32), axis=-1)
    valid = tf.sequence_mask(count, boxes.shape[1], tf.float32)
    packed = {"num_detections": tf.cast(count, tf.float32)}
    for name, values in found.items():
        values = tf.gather(values, order, batch_dims=1)
        packed[name] = values * tf.reshape(valid, [*_sizes(valid), *[1] * (len(values.shape) - 2)])
    return packed


def _sizes(values: tf.Tensor) -> list[tf.Tensor]:
    return tf.unstack(tf.shape(values))


def _anchor_indices(found: dict[str, tf.Tensor], boxes: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Returns the anchor of each detection, int32 [batch, detections].

    TensorFlow's suppression does not tell. It copies scores and boxes, so the anchor is the one
    with just this score and this box: of two, it would have dropped one.

    Args:
      boxes: [batch, anchors, classes or 1, 4], not clipped; `scores` as in `_outputs`.
    """
    classes = tf.cast(found["detection_classes"], tf.int32)
    # [batch, detections, anchors]; slot 0, the background's, of what is no detection. Scores first:
    # of 100 detections and 19,000 anchors, to compare all boxes takes longer than the suppression.
    of_class = tf.gather(tf.transpose(scores, [0, 2, 1]), classes, batch_dims=1)
    places = tf.where(of_class == found["detection_scores"][..., None])
    # The box of the detection's class, where each has its own; of no detection, any.
    slots = tf.cast(tf.maximum(tf.gather_nd(classes, places[:, :2]) - 1, 0), tf.int64)
    if boxes.shape[2] == 1:
        slots = tf.zeros_like(slots)
    of_boxes = tf.concat([tf.gather(places, [0, 2], axis=1), slots[:, None]], axis=1)
    of_anchors = tf.gather_nd(tf.clip_by_value(boxes, 0.0, 1.0), of_boxes)
    of_detections = tf.gather_nd(found["detection_boxes"], places[:, :2])
    same = tf.reduce_all(of_anchors == of_detections, axis=1)
    places = tf.boolean_mask(places, same)
    none = tf.zeros(tf.shape(classes), tf.int64)
    indices = tf.tensor_scatter_nd_max(none, places[:, :2], places[:, 2])
    return tf.cast(indices, tf.int32)
