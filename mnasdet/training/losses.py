"""The losses of one-stage detectors."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from mnasdet.protos import ssd_pb2
from mnasdet.training.targets import BACKGROUND, IGNORED


def sigmoid_focal_loss(
    logits: tf.Tensor, targets: tf.Tensor, alpha: float | None, gamma: float
) -> tf.Tensor:
    """Focal loss, element by element (Lin et al., "Focal Loss for Dense Object Detection", 2017,
    equation 5).

    Args:
      logits: any shape; `targets` the same, 0 or 1.
      alpha: weight of positive targets, 1 - alpha that of negative ones; None: no weights.
    """
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    # 1 - p for positives and p for negatives, as one sigmoid.
    miss = tf.sigmoid(logits * (1 - 2 * targets))
    loss = miss**gamma * cross_entropy
    if alpha is None:
        return loss
    return loss * (1 - alpha + (2 * alpha - 1) * targets)


def smooth_l1(difference: tf.Tensor, delta: float) -> tf.Tensor:
    """Huber's loss: x^2 / 2 up to delta, then delta * (|x| - delta / 2)."""
    size = tf.abs(difference)
    quadratic = tf.minimum(size, delta)
    return quadratic * (size - quadratic / 2)


@dataclass(frozen=True)
class DetectionLoss:
    """Classification and localization loss of a batch.

    Attributes:
      alpha, gamma: of the focal loss.
      delta: of the smooth L1 loss.
      classification_weight, localization_weight: factors.
      normalize_by_matches: divide both by the number of positive anchors in the batch.
      normalize_by_code_size: divide the localization loss by 4.
    """

    alpha: float | None = 0.25
    gamma: float = 2.0
    delta: float = 1.0
    classification_weight: float = 1.0
    localization_weight: float = 1.0
    normalize_by_matches: bool = True
    normalize_by_code_size: bool = True

    def __call__(
        self,
        box_encodings: tf.Tensor,
        class_logits: tf.Tensor,
        box_targets: tf.Tensor,
        class_targets: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(localization loss, classification loss).

        Args:
          box_encodings: [batch, anchors, 4]; `box_targets` the same.
          class_logits: [batch, anchors, 1 + classes].
          class_targets: [batch, anchors] int32: a class from 1, BACKGROUND or IGNORED.
        """
        positive = tf.cast(class_targets > BACKGROUND, tf.float32)
        counted = tf.cast(class_targets != IGNORED, tf.float32)
        # The background is a vector of zeros, slot 0 included.
        one_hot = tf.one_hot(class_targets, class_logits.shape[-1]) * positive[..., None]
        classification = tf.reduce_sum(
            sigmoid_focal_loss(class_logits, one_hot, self.alpha, self.gamma) * counted[..., None]
        )
        localization = tf.reduce_sum(
            smooth_l1(box_encodings - box_targets, self.delta) * positive[..., None]
        )
        normalizer = 1.0
        if self.normalize_by_matches:
            normalizer = tf.maximum(tf.reduce_sum(positive), 1.0)
        if self.normalize_by_code_size:
            localization /= box_encodings.shape[-1]
        return (
            self.localization_weight * localization / normalizer,
            self.classification_weight * classification / normalizer,
        )


def from_config(ssd: ssd_pb2.Ssd) -> DetectionLoss:
    """As the `loss` message and the ssd message's normalisations say."""
    focal = ssd.loss.classification_loss.weighted_sigmoid_focal
    return DetectionLoss(
        alpha=focal.alpha if focal.HasField("alpha") else None,
        gamma=focal.gamma,
        delta=ssd.loss.localization_loss.weighted_smooth_l1.delta,
        classification_weight=ssd.loss.classification_weight,
        localization_weight=ssd.loss.localization_weight,
        normalize_by_matches=ssd.normalize_loss_by_num_matches,
        normalize_by_code_size=ssd.normalize_loc_loss_by_codesize,
    )
