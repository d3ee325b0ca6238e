"""The losses of detectors.

Every loss of single values sums over the last axis: over the classes of an anchor, or over the
numbers that encode its box. `DetectionLoss` weighs the anchors and adds them up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from mnasdet.detectors import box_coder
from mnasdet.detectors.targets import BACKGROUND, IGNORED
from mnasdet.networks import random_draws
from mnasdet.protos import losses_pb2, ssd_pb2
from mnasdet.tasks import Loss

# (predictions, targets), both [..., values], to losses [...].
AnchorLoss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Class targets [batch, anchors] to factors [batch, anchors] on the classification losses.
Sampler = Callable[[tf.Tensor], tf.Tensor]


def sigmoid_cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Computes the cross entropy of independent classes; targets are 0 or 1."""
    # softplus(-x) is -log(sigmoid(x)), and finite for every x.
    return tf.reduce_sum(tf.nn.softplus(logits * (1 - 2 * targets)), axis=-1)


def bootstrapped_sigmoid(
    logits: tf.Tensor, targets: tf.Tensor, alpha: float, hard: bool = False
) -> tf.Tensor:
    """Computes the cross entropy against a mixture of label and prediction.

    Reed et al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping", 2014. Like the
    OD API's, its gradient goes through the target, too.

    Args:
      alpha: share of the label.
      hard: the prediction's decision instead of its probability.
    """
    own = tf.cast(logits > 0, tf.float32) if hard else tf.sigmoid(logits)
    mixture = alpha * targets + (1 - alpha) * own
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(mixture, logits), axis=-1)


def sigmoid_focal_loss(
    logits: tf.Tensor, targets: tf.Tensor, alpha: float | None = 0.25, gamma: float = 2.0
) -> tf.Tensor:
    """Computes the focal loss (Lin et al., "Focal Loss for Dense Object Detection", 2017, equation
    5).

    Args:
      targets: 0 or 1.
      alpha: weight of positive targets, 1 - alpha that of negative ones; None: no weights.
    """
    sign = 1 - 2 * targets
    weight = 1.0 if alpha is None else 1 - alpha + (2 * alpha - 1) * targets

    @tf.custom_gradient
    def loss(logits):
        # With z = -x for positives and x for negatives, the probability of being wrong is
        # sigmoid(z) = exp(z - softplus(z)): finite, and free of powers, however large z is.
        z = logits * sign
        cross_entropy = tf.nn.softplus(z)
        modulator = weight * tf.exp(gamma * (z - cross_entropy))

        def gradient(upstream):
            wrong = tf.exp(z - cross_entropy)
            slope = modulator * (gamma * (1 - wrong) * cross_entropy + wrong)
            return upstream[..., None] * sign * slope

        return tf.reduce_sum(modulator * cross_entropy, axis=-1), gradient

    return loss(logits)


def softmax_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, logit_scale: float = 1.0
) -> tf.Tensor:
    """Computes the cross entropy of classes that exclude one another, the background one of them.

    Args:
      targets: a distribution, or all zeros for no loss.
      logit_scale: what the logits are divided by.
    """
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits / logit_scale)


def smooth_l1(codes: tf.Tensor, targets: tf.Tensor, delta: float = 1.0) -> tf.Tensor:
    """Computes Huber's loss: x^2 / 2 up to delta, then delta * (|x| - delta / 2)."""
    size = tf.abs(codes - targets)
    quadratic = tf.minimum(size, delta)
    return tf.reduce_sum(quadratic * (size - quadratic / 2), axis=-1)


def l1(codes: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Sums absolute differences."""
    return tf.reduce_sum(tf.abs(codes - targets), axis=-1)


def l2(codes: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Sums half the squares of the differences."""
    return tf.reduce_sum(tf.square(codes - targets), axis=-1) / 2


def random_negatives(class_targets: tf.Tensor, positive_fraction: float) -> tf.Tensor:
    """Keeps all positive anchors and some random negative ones of the same image.

    The negatives are as many as make `positive_fraction` of positives. An image without objects
    keeps none.

    Args:
      class_targets: [batch, anchors] int32.

    Returns:
      [batch, anchors], 0 or 1.
    """
    positive, negative = class_targets > BACKGROUND, class_targets == BACKGROUND
    ratio = (1 - positive_fraction) / positive_fraction
    wanted = tf.floor(ratio * _count(positive, keepdims=True))
    # Other anchors draw lots above 1, so that negatives alone have the first ranks.
    lots = random_draws.uniform(tf.shape(class_targets)) + tf.cast(~negative, tf.float32)
    rank = tf.cast(tf.argsort(tf.argsort(lots)), tf.float32)
    return tf.cast(positive | (negative & (rank < wanted)), tf.float32)


def expected_sampling(
    class_targets: tf.Tensor, negatives_per_positive: float, min_negatives: float
) -> tf.Tensor:
    """Returns factors that stand for a random sample of the negative anchors: its expectation.

    The background of an image with P positives of N anchors weighs ratio * P / (N - P), without
    positives `min_negatives` / N (the OD API's expected_classification_loss_under_sampling).

    Args:
      class_targets: [batch, anchors] int32.
      negatives_per_positive: the ratio.
    """
    positive = class_targets > BACKGROUND
    anchors = float(class_targets.shape[-1])
    positives = _count(positive, keepdims=True)
    sampled = tf.math.divide_no_nan(negatives_per_positive * positives, anchors - positives)
    return tf.where(positive, 1.0, tf.where(positives > 0, sampled, min_negatives / anchors))


def _count(mask: tf.Tensor, keepdims: bool = False) -> tf.Tensor:
    """Counts true values along the last axis, as float32."""
    return tf.reduce_sum(tf.cast(mask, tf.float32), axis=-1, keepdims=keepdims)


@dataclass(frozen=True)
class HardExampleMiner:
    """Picks the anchors with the largest losses, image by image (the OD API's HardExampleMiner;
    Liu et al., "SSD: Single Shot MultiBox Detector", 2016, section 2.2).

    Anchors in the order of their losses are left out where their predicted box overlaps one that
    was picked before. Of the negative ones only the first stay, as many as the positive ones among
    the picked allow. Ignored anchors take no part.

    Attributes:
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax), normalised.
      num_hard_examples: picked anchors of an image before negatives are counted; 0: no limit.
      iou_threshold: an overlap above it leaves out; from 1 on nothing does, and only the sorting
        is left to be paid for.
      localization_weight, classification_weight: of the two losses in the order.
      max_negatives_per_positive: 0: no limit.
      min_negatives: the negatives that every image may have.
      box_scales: of the box coder.
    """

    anchors: np.ndarray
    num_hard_examples: int = 64
    iou_threshold: float = 0.7
    localization_weight: float = 1.0
    classification_weight: float = 1.0
    max_negatives_per_positive: int = 0
    min_negatives: int = 0
    box_scales: Sequence[float] = box_coder.DEFAULT_SCALES

    def __call__(
        self,
        localization: tf.Tensor,
        classification: tf.Tensor,
        box_encodings: tf.Tensor,
        class_targets: tf.Tensor,
    ) -> tf.Tensor:
        """Returns which anchors are picked: [batch, anchors], 0 or 1.

        Args:
          localization, classification: losses, [batch, anchors].
          box_encodings: [batch, anchors, 4].
          class_targets: [batch, anchors] int32.
        """
        losses = (
            self.localization_weight * localization + self.classification_weight * classification
        )
        boxes = box_coder.decode(box_encodings, self.anchors, self.box_scales)
        picked = tf.map_fn(
            lambda image: self._pick(*image),
            (tf.stop_gradient(losses), tf.stop_gradient(boxes), class_targets),
            fn_output_signature=tf.TensorSpec([len(self.anchors)], tf.float32),
        )
        return tf.stop_gradient(picked)

    def _pick(self, losses: tf.Tensor, boxes: tf.Tensor, class_targets: tf.Tensor) -> tf.Tensor:
        """Returns the picks of one image: [anchors], 0 or 1."""
        # Losses are at least 0: -1 is below the threshold of -0.5 that suppression has.
        losses = tf.where(class_targets == IGNORED, -1.0, losses)
        positive = class_targets > BACKGROUND
        order = self._hardest(losses, boxes, self._limit(losses, positive))
        picked = tf.gather(positive, order)
        if self.max_negatives_per_positive:
            negatives = tf.cumsum(tf.cast(~picked, tf.float32))
            picked |= negatives <= self._allowed(_count(picked))
        else:
            picked = tf.ones_like(picked)
        return tf.scatter_nd(order[:, None], tf.cast(picked, tf.float32), tf.shape(losses))

    def _hardest(self, losses: tf.Tensor, boxes: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
        """Returns at most `limit` anchors, largest loss first, without those that overlap."""
        if self.iou_threshold < 1:
            return tf.image.non_max_suppression(
                boxes, losses, limit, self.iou_threshold, score_threshold=-0.5
            )
        taking_part = tf.cast(_count(losses >= 0), tf.int32)
        return tf.argsort(losses, direction="DESCENDING", stable=True)[
            : tf.minimum(limit, taking_part)
        ]

    def _limit(self, losses: tf.Tensor, positive: tf.Tensor) -> tf.Tensor:
        """Returns the number of picks that decide everything.

        Suppression costs the square of the picks. After the last positive anchor come negatives
        alone, and no more of them count than all positives allow: once the network has learned to
        tell the background, those are few.
        """
        limit = _count(losses >= 0)
        if self.max_negatives_per_positive:
            last = tf.reduce_min(tf.where(positive, losses, np.inf))
            limit = tf.minimum(limit, _count(losses >= last) + self._allowed(_count(positive)))
        if self.num_hard_examples:
            limit = tf.minimum(limit, float(self.num_hard_examples))
        return tf.cast(limit, tf.int32)

    def _allowed(self, positives: tf.Tensor) -> tf.Tensor:
        """Returns the negatives that are allowed beside a number of positives."""
        return tf.maximum(self.max_negatives_per_positive * positives, float(self.min_negatives))


@dataclass(frozen=True)
class DetectionLoss:
    """Classification and localization loss of a batch.

    Attributes:
      classification: of class logits and one-hot targets.
      localization: of box encodings and their targets.
      classification_weight, localization_weight: factors.
      negative_weight: factor on the classification loss of negative anchors.
      background_as_zeros: the background's target is a vector of zeros; otherwise slot 0 is 1, as
        the softmax needs it.
      samplers: further factors on the anchors' classification losses; localization has losses of
        positive anchors only, and they are kept.
      miner: picks the anchors that count, if any does.
      normalize_by_matches: divide both by the number of positive anchors in the batch.
      normalize_by_samples: or by that of all anchors but the ignored ones, where a sample of them
        was drawn before.
      match_offset: added to that number for every image. An offset for the batch would count once
        for each part that a batch is split into.
      normalize_by_code_size: divide the localization loss by 4.
    """

    classification: AnchorLoss = sigmoid_focal_loss
    localization: AnchorLoss = smooth_l1
    classification_weight: float = 1.0
    localization_weight: float = 1.0
    negative_weight: float = 1.0
    background_as_zeros: bool = True
    samplers: Sequence[Sampler] = ()
    miner: HardExampleMiner | None = None
    normalize_by_matches: bool = True
    normalize_by_samples: bool = False
    match_offset: float = 0.0
    normalize_by_code_size: bool = True

    def __call__(
        self,
        box_encodings: tf.Tensor,
        class_logits: tf.Tensor,
        box_targets: tf.Tensor,
        class_targets: tf.Tensor,
    ) -> tuple[Loss, Loss]:
        """Returns the localization loss and the classification loss.

        Args:
          box_encodings: [batch, anchors, 4]; `box_targets` the same.
          class_logits: [batch, anchors, 1 + classes].
          class_targets: [batch, anchors] int32: a class from 1, BACKGROUND or IGNORED.
        """
        positive = tf.cast(class_targets > BACKGROUND, tf.float32)
        localization = self.localization(box_encodings, box_targets) * positive
        one_hot = tf.one_hot(self._slots(class_targets), class_logits.shape[-1])
        classification = self.classification(class_logits, one_hot) * self._weights(class_targets)
        if self.miner:
            picked = self.miner(localization, classification, box_encodings, class_targets)
            localization, classification = localization * picked, classification * picked
        normalizer = tf.constant(0.0)
        if self.normalize_by_samples:
            normalizer = tf.reduce_sum(tf.cast(class_targets != IGNORED, tf.float32))
        elif self.normalize_by_matches:
            normalizer = self._matches(positive)
        code_size = box_encodings.shape[-1] if self.normalize_by_code_size else 1
        return (
            Loss(self.localization_weight * tf.reduce_sum(localization) / code_size, normalizer),
            Loss(self.classification_weight * tf.reduce_sum(classification), normalizer),
        )

    def _matches(self, positive: tf.Tensor) -> tf.Tensor:
        """Returns what the losses are divided by."""
        # The anchors of the whole batch, and not image by image: so does the OD API.
        matches = tf.reduce_sum(positive)
        if self.match_offset:
            matches += self.match_offset * tf.cast(tf.shape(positive)[0], matches.dtype)
        return matches

    def _slots(self, class_targets: tf.Tensor) -> tf.Tensor:
        """Returns the slot of each target's one; -1 for a vector of zeros."""
        if self.background_as_zeros:
            return tf.where(class_targets > BACKGROUND, class_targets, -1)
        return class_targets

    def _weights(self, class_targets: tf.Tensor) -> tf.Tensor:
        """Returns factors [batch, anchors] on the classification losses."""
        weights = tf.where(class_targets > BACKGROUND, 1.0, self.negative_weight)
        weights = tf.where(class_targets == IGNORED, 0.0, weights)
        for sampler in self.samplers:
            weights *= sampler(class_targets)
        return weights


def from_config(ssd: ssd_pb2.Ssd, anchors: np.ndarray) -> DetectionLoss:
    """Builds the loss that the `loss` message and the ssd message's weights describe.

    Args:
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax), normalised.
    """
    return DetectionLoss(
        classification=classification(ssd.loss.classification_loss),
        localization=_localization(ssd.loss.localization_loss),
        classification_weight=ssd.loss.classification_weight,
        localization_weight=ssd.loss.localization_weight,
        negative_weight=ssd.negative_class_weight,
        background_as_zeros=ssd.encode_background_as_zeros,
        samplers=_samplers(ssd),
        miner=_miner(ssd, anchors) if ssd.loss.HasField("hard_example_miner") else None,
        normalize_by_matches=ssd.normalize_loss_by_num_matches,
        match_offset=ssd.num_matches_offset,
        normalize_by_code_size=ssd.normalize_loc_loss_by_codesize,
    )


def classification(proto: losses_pb2.ClassificationLoss) -> AnchorLoss:
    """Returns the loss that a message describes."""
    match proto.WhichOneof("classification_loss"):
        case "weighted_sigmoid":
            return sigmoid_cross_entropy
        case "weighted_softmax":
            scale = proto.weighted_softmax.logit_scale
            return functools.partial(softmax_cross_entropy, logit_scale=scale)
        case "bootstrapped_sigmoid":
            bootstrapped = proto.bootstrapped_sigmoid
            return functools.partial(
                bootstrapped_sigmoid, alpha=bootstrapped.alpha, hard=bootstrapped.hard_bootstrap
            )
    focal = proto.weighted_sigmoid_focal
    alpha = focal.alpha if focal.HasField("alpha") else None
    return functools.partial(sigmoid_focal_loss, alpha=alpha, gamma=focal.gamma)


def _localization(proto: losses_pb2.LocalizationLoss) -> AnchorLoss:
    match proto.WhichOneof("localization_loss"):
        case "weighted_l2":
            return l2
        case "l1_localization_loss":
            return l1
    return functools.partial(smooth_l1, delta=proto.weighted_smooth_l1.delta)


def _samplers(ssd: ssd_pb2.Ssd) -> list[Sampler]:
    samplers: list[Sampler] = []
    loss = ssd.loss
    if loss.HasField("random_example_sampler"):
        fraction = loss.random_example_sampler.positive_sample_fraction
        samplers.append(functools.partial(random_negatives, positive_fraction=fraction))
    # The numbers of the expectation stand in the message that asks for it.
    asking: ssd_pb2.Ssd | losses_pb2.Loss | None = None
    if loss.expected_loss_weights == losses_pb2.Loss.EXPECTED_SAMPLING:
        asking = loss
    elif ssd.use_expected_classification_loss_under_sampling:
        asking = ssd
    if asking:
        samplers.append(
            functools.partial(
                expected_sampling,
                negatives_per_positive=asking.desired_negative_sampling_ratio,
                min_negatives=asking.min_num_negative_samples,
            )
        )
    return samplers


def _miner(ssd: ssd_pb2.Ssd, anchors: np.ndarray) -> HardExampleMiner:
    proto = ssd.loss.hard_example_miner
    coder = ssd.box_coder.faster_rcnn_box_coder
    # One loss alone ranks without its factor.
    localization_weight, classification_weight = {
        proto.BOTH: (ssd.loss.localization_weight, ssd.loss.classification_weight),
        proto.CLASSIFICATION: (0.0, 1.0),
        proto.LOCALIZATION: (1.0, 0.0),
    }[proto.loss_type]
    return HardExampleMiner(
        anchors,
        num_hard_examples=proto.num_hard_examples,
        iou_threshold=proto.iou_threshold,
        localization_weight=localization_weight,
        classification_weight=classification_weight,
        max_negatives_per_positive=proto.max_negatives_per_positive,
        min_negatives=proto.min_negatives_per_image,
        box_scales=(coder.y_scale, coder.x_scale, coder.height_scale, coder.width_scale),
    )
