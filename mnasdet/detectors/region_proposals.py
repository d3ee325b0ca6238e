"""The first stage of a two-stage detector with anchors: what it learns, and what it proposes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from mnasdet.blueprint import Blueprint
from mnasdet.detectors import anchors, losses, sampling
from mnasdet.detectors.proposals import Proposals, ProposalSelection
from mnasdet.detectors.targets import IGNORED, TargetAssigner
from mnasdet.detectors.two_stage_network import TwoStageNetwork
from mnasdet.heads.region_proposal import BOX_ENCODINGS, OBJECTNESS
from mnasdet.networks import random_draws
from mnasdet.protos import faster_rcnn_pb2
from mnasdet.tasks import Loss

# Ren et al., "Faster R-CNN", 2015, section 3.1.2: an anchor shows an object from the first overlap
# on, and the background below the second.
MATCHED, UNMATCHED = 0.7, 0.3

# The names of the losses.
OBJECTNESS_LOSS = "rpn_objectness"
LOCALIZATION_LOSS = "rpn_localization"


@dataclass(frozen=True)
class AnchorProposals:
    """Proposes regions by moving anchors (Ren et al., 2015, section 3.1). A `FirstStage`.

    Attributes:
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax), normalised, in the predictions' order.
      is_counted: [anchors] bool: those that the losses may count.
      anchors_of_levels: how many each level has.
      assign: gives anchors their targets; there is one class.
      sample_size: the anchors of an image that the losses count.
      positive_fraction: the largest share of positive anchors among them.
      loss: of the sample.
      select: from predictions to regions.
    """

    anchors: np.ndarray
    is_counted: np.ndarray
    anchors_of_levels: Sequence[int]
    assign: TargetAssigner
    sample_size: int
    positive_fraction: float
    loss: losses.DetectionLoss
    select: ProposalSelection

    def targets(self, boxes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns a sample of anchors and their targets for one image; called by tf.data.

        Args:
          boxes: [boxes, 4] of the objects, normalised; there may be none.

        Returns:
          rpn_anchors [sample] int32, indices; rpn_class_targets [sample] int32: 1, BACKGROUND, or
          IGNORED where fewer were drawn; rpn_box_targets [sample, 4], encoded.
        """
        classes, codes = self.assign(boxes, tf.ones(tf.shape(boxes)[:1], tf.int32))
        classes = tf.where(self.is_counted, classes, IGNORED)
        # Drawn here, so that a batch holds the targets of a sample and not those of all anchors.
        sample = sampling.balanced(
            classes,
            random_draws.uniform(tf.shape(classes)),
            size=self.sample_size,
            positive_fraction=self.positive_fraction,
        )
        return {
            "rpn_anchors": sample.indices,
            "rpn_class_targets": tf.where(
                sample.is_drawn, tf.gather(classes, sample.indices), IGNORED
            ),
            "rpn_box_targets": tf.gather(codes, sample.indices),
        }

    def losses(
        self, features: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> dict[str, Loss]:
        """Returns the losses of a batch of `targets`.

        Args:
          features: the outputs of the network's first graph.
        """
        drawn = batch["rpn_anchors"]
        logits = two_logits(tf.gather(features[OBJECTNESS], drawn, batch_dims=1))
        codes = tf.gather(features[BOX_ENCODINGS], drawn, batch_dims=1)
        localization, objectness = self.loss(
            codes, logits, batch["rpn_box_targets"], batch["rpn_class_targets"]
        )
        return {OBJECTNESS_LOSS: objectness, LOCALIZATION_LOSS: localization}

    def proposals(self, features: Mapping[str, tf.Tensor], *, training: bool) -> Proposals:
        """Returns regions, the same in training; no gradient flows through them."""
        return self.select(
            features[BOX_ENCODINGS],
            probabilities(features[OBJECTNESS]),
            self.anchors,
            self.anchors_of_levels,
        )


def probabilities(logits: tf.Tensor) -> tf.Tensor:
    """Returns the probabilities [...] of an object, from logits [..., 1 or 2]."""
    # The softmax over two logits is the sigmoid of their difference.
    object_logit = logits[..., -1]
    return tf.sigmoid(object_logit - logits[..., 0] if logits.shape[-1] == 2 else object_logit)


def two_logits(logits: tf.Tensor) -> tf.Tensor:
    """Returns logits of background and object; one alone is that of the object, over 0."""
    if logits.shape[-1] == 2:
        return logits
    return tf.concat([tf.zeros_like(logits), logits], axis=-1)


def build(blueprint: Blueprint, network: TwoStageNetwork) -> AnchorProposals:
    """Returns the first stage of a blueprint."""
    settings: faster_rcnn_pb2.FasterRcnn = blueprint.settings
    whole = anchors.from_proto(
        blueprint.architecture.anchor_generator,
        blueprint.image_size,
        network.feature_sizes,
        network.levels,
    )
    # Anchors that cross the image's edge end there at inference, as in the OD API; in training as
    # well, or they are left out (Ren et al., 2015, section 3.3).
    of_network = np.clip(whole, 0.0, 1.0)
    is_inside = np.all(whole == of_network, axis=-1)
    places = [height * width for height, width in network.feature_sizes]
    per_place = len(of_network) // sum(places)
    return AnchorProposals(
        anchors=of_network,
        is_counted=is_inside | settings.clip_anchors_to_image,
        anchors_of_levels=[count * per_place for count in places],
        assign=TargetAssigner(of_network, MATCHED, UNMATCHED),
        sample_size=settings.first_stage_minibatch_size,
        positive_fraction=settings.first_stage_positive_balance_fraction,
        loss=loss(settings),
        select=selection(settings, network.max_proposals),
    )


def loss(settings: faster_rcnn_pb2.FasterRcnn) -> losses.DetectionLoss:
    """Builds the loss of a sample of anchors that the settings describe."""
    return losses.DetectionLoss(
        classification=losses.softmax_cross_entropy,
        localization=functools.partial(
            losses.smooth_l1, delta=settings.first_stage_localization_delta
        ),
        classification_weight=settings.first_stage_objectness_loss_weight,
        localization_weight=settings.first_stage_localization_loss_weight,
        background_as_zeros=False,
        normalize_by_samples=True,
        normalize_by_code_size=False,
    )


def selection(settings: faster_rcnn_pb2.FasterRcnn, max_proposals: int) -> ProposalSelection:
    """Builds the selection that the settings of the first stage describe."""
    return ProposalSelection(
        max_proposals,
        max_candidates=settings.first_stage_max_candidates,
        score_threshold=settings.first_stage_nms_score_threshold,
        iou_threshold=settings.first_stage_nms_iou_threshold,
    )
