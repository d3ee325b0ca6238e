"""The first stage of a two-stage detector with guided anchors (Wang et al., "Region Proposal by
Guided Anchoring", 2019).

The network tells the places in which objects are centred, and the height and width of the one
anchor that a place has. Objectness and boxes are then learned relative to these anchors, as with
any others. What the paper leaves open is as in mmdetection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import tensorflow as tf

from mnasdet.blueprint import Blueprint
from mnasdet.detectors import anchors, box_coder, losses, region_proposals, sampling
from mnasdet.detectors.proposals import Proposals, ProposalSelection
from mnasdet.detectors.region_proposals import (
    LOCALIZATION_LOSS,
    MATCHED,
    OBJECTNESS_LOSS,
    UNMATCHED,
)
from mnasdet.detectors.targets import BACKGROUND, IGNORED, TargetAssigner, iou
from mnasdet.detectors.two_stage_network import TwoStageNetwork
from mnasdet.heads.guided_anchoring import ANCHOR_SHAPES, LOCATIONS
from mnasdet.heads.region_proposal import BOX_ENCODINGS, OBJECTNESS
from mnasdet.networks import random_draws
from mnasdet.tasks import Loss

# The names of the losses that other first stages do not have.
LOCATION_LOSS = "rpn_location"
SHAPE_LOSS = "rpn_shape"

# The scales of the box coder: 0.14 times a shape (mmdetection's deviation) is the logarithm of the
# anchor's sides over those of the square, and the centre stays (section 3.2).
_SHAPE_SCALES = (1.0, 1.0, 1 / 0.14, 1 / 0.14)
# Deviations of 0.07, 0.07, 0.11 and 0.11: guided anchors are closer to objects than others.
_BOX_SCALES = (1 / 0.07, 1 / 0.07, 1 / 0.11, 1 / 0.11)

# No anchor is larger or smaller than its square by more (mmdetection's). The exponential stays
# finite.
_LARGEST_SHAPE = math.log(1e6) / 0.14

# Section 3.4: the shapes that stand for all when objects are assigned to places.
_SAMPLED_RATIOS = (0.5, 1.0, 2.0)
_SAMPLED_SCALES_PER_OCTAVE = 3
# An object below MATCHED with all places is given the best, from this overlap on.
_LEAST_OVERLAP = 0.3

# Section 3.4: the sides of an object's centre region over its own, within which places are
# positive, and of the region within which they are ignored.
_CENTER, _IGNORED_REGION = 0.2, 0.5

# Factors of the location loss: on negative places, and on the mean over all places.
_NEGATIVE_WEIGHT = 0.1
_LOCATION_WEIGHT = 200.0

# Where the shape loss goes over from a square to a line.
_SHAPE_DELTA = 0.2


@dataclass(frozen=True)
class GuidedProposals:
    """Proposes regions by anchors that the network describes. A `FirstStage`.

    Attributes:
      image_size: (height, width) in pixels.
      levels: those that propose, finest first; level l has stride 2^l.
      feature_sizes: (height, width) of each.
      anchor_scale: side of a level's squares over its stride.
      location_threshold: at inference, less probable places propose nothing.
      sample_size: the anchors of an image that the losses count.
      positive_fraction: the largest share of positive anchors among them.
      loss: of the sample.
      select: from predictions to regions.
    """

    image_size: tuple[int, int]
    levels: Sequence[int]
    feature_sizes: Sequence[tuple[int, int]]
    anchor_scale: float
    location_threshold: float
    sample_size: int
    positive_fraction: float
    loss: losses.DetectionLoss
    select: ProposalSelection

    @cached_property
    def squares(self) -> np.ndarray:
        """Returns the anchors of shape (0, 0): [places, 4], normalised."""
        return self._grid([1.0], 1)

    @cached_property
    def sampled_anchors(self) -> np.ndarray:
        """Returns anchors of all sampled shapes: [shapes, places, 4], normalised."""
        of_places = self._grid(_SAMPLED_RATIOS, _SAMPLED_SCALES_PER_OCTAVE)
        return of_places.reshape(len(self.squares), -1, 4).swapaxes(0, 1)

    def _grid(self, aspect_ratios: Sequence[float], scales_per_octave: int) -> np.ndarray:
        return anchors.multiscale_anchors(
            self.image_size,
            self.feature_sizes,
            levels=self.levels,
            anchor_scale=self.anchor_scale,
            aspect_ratios=aspect_ratios,
            scales_per_octave=scales_per_octave,
        )

    def targets(self, boxes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the targets of locations and shapes for one image; called by tf.data.

        Args:
          boxes: [boxes, 4] of the objects, normalised; there may be none.

        Returns:
          rpn_location_targets [places] int32: 1, BACKGROUND or IGNORED; a sample of places:
          rpn_places [sample] int32, indices; rpn_is_shape [sample] int32: 1 where an object is,
          BACKGROUND, or IGNORED where fewer were drawn; rpn_shape_targets [sample, 2], encoded.
        """
        classes, shapes = self.shape_targets(boxes)
        sample = self._sample(classes, random_draws.uniform(tf.shape(classes)))
        return {
            "rpn_location_targets": self.location_targets(boxes),
            "rpn_places": sample.indices,
            "rpn_is_shape": _drawn(classes, sample),
            "rpn_shape_targets": tf.gather(shapes, sample.indices),
        }

    def location_targets(self, boxes: tf.Tensor) -> tf.Tensor:
        """Returns whether objects are centred in the places of one image (section 3.4).

        An object has the level that its scale is closest to. There the places in its centre region
        are positive, also within the ignored region of others; those around the centre and those of
        the neighbouring levels are ignored.

        Args:
          boxes: [boxes, 4], normalised.

        Returns:
          [places] int32: 1, BACKGROUND or IGNORED.
        """
        height, width = self.image_size
        boxes *= tf.constant([height, width, height, width], tf.float32)
        sizes = boxes[:, 2:] - boxes[:, :2]
        area = sizes[:, 0] * sizes[:, 1]
        smallest = self.anchor_scale * 2.0 ** self.levels[0]
        octave = tf.floor(tf.math.log(tf.sqrt(area) / smallest) / math.log(2.0) + 0.5)
        distance = tf.abs(octave[:, None] + self.levels[0] - np.array(self.levels, np.float32))
        own = tf.argmin(distance, axis=1, output_type=tf.int32)
        targets = []
        for index in range(len(self.levels)):
            on_level = own == index
            near = on_level | (own == index - 1) | (own == index + 1)
            center = self._covered(index, boxes, on_level & (area > 0), _CENTER)
            ignored = self._covered(index, boxes, near & (area > 0), _IGNORED_REGION)
            of_level = tf.where(center, 1, tf.where(ignored, IGNORED, BACKGROUND))
            targets.append(tf.reshape(of_level, [-1]))
        return tf.ensure_shape(tf.concat(targets, axis=0), [len(self.squares)])

    def _covered(self, index: int, boxes: tf.Tensor, counted: tf.Tensor, share: float) -> tf.Tensor:
        """Tells which places of a level are in the middle of a box: [height, width].

        A region covers at least the place that is closest to its centre.

        Args:
          index: of the level.
          boxes: [boxes, 4] in pixels.
          counted: [boxes], whether a box counts.
          share: the sides of the middle over those of the box.
        """
        stride = 2.0 ** self.levels[index]
        # The centre of the place in the first row and column, as the squares have it.
        first = [stride / 2 if side % stride == 0 else 0.0 for side in self.image_size]
        inside = []
        for axis, count in enumerate(self.feature_sizes[index]):
            low, high = boxes[:, axis], boxes[:, axis + 2]
            middle, half = (low + high) / 2, (high - low) * share / 2
            place = tf.range(count, dtype=tf.float32)
            start, end = (
                # A place in an object at the border is still one of the picture.
                tf.clip_by_value(tf.floor((x - first[axis]) / stride + 0.5), 0.0, count - 1.0)
                for x in (middle - half, middle + half)
            )
            inside.append((place >= start[:, None]) & (place <= end[:, None]) & counted[:, None])
        rows, columns = (tf.cast(x, tf.float32) for x in inside)
        return tf.matmul(rows, columns, transpose_a=True) > 0

    def shape_targets(self, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Gives places an object by the best of the sampled shapes (section 3.4).

        Args:
          boxes: [boxes, 4], normalised.

        Returns:
          [places] int32: 1, BACKGROUND or IGNORED; the shapes of the objects [places, 2], encoded;
          of meaning for positive places only.
        """
        # As in TargetAssigner, a box of no size stands for none.
        boxes = tf.concat([boxes, tf.zeros([1, 4])], axis=0)
        # One after the other: all overlaps together would take nine times the memory.
        overlap = iou(boxes, self.sampled_anchors[0])
        for sampled in self.sampled_anchors[1:]:
            overlap = tf.maximum(overlap, iou(boxes, sampled))
        match, is_ignored = _assigner(self.squares).match(overlap)
        classes = tf.where(match < tf.shape(boxes)[0] - 1, 1, BACKGROUND)
        shapes = box_coder.encode(tf.gather(boxes, match), self.squares, _SHAPE_SCALES)[:, 2:]
        return tf.where(is_ignored, IGNORED, classes), shapes

    def _sample(self, classes: tf.Tensor, lots: tf.Tensor) -> sampling.Sample:
        classes = tf.ensure_shape(classes, [*classes.shape[:-1], len(self.squares)])
        return sampling.balanced(
            classes, lots, size=self.sample_size, positive_fraction=self.positive_fraction
        )

    def losses(
        self, features: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> dict[str, Loss]:
        """Returns the losses of a batch: of locations, shapes, objectness and boxes.

        Args:
          features: the outputs of the network's first graph.
          batch: `targets` of every image, and object_boxes [batch, boxes, 4], padded with zeros.
        """
        shapes = tf.gather(features[ANCHOR_SHAPES], batch["rpn_places"], batch_dims=1)
        is_shape = batch["rpn_is_shape"]
        of_shapes = shape_loss(shapes, batch["rpn_shape_targets"])
        classes, codes = self.anchor_targets(features[ANCHOR_SHAPES], batch["object_boxes"])
        lots = random_draws.uniform_of_each(batch.get("seed"), tuple(classes.shape))
        sample = self._sample(classes, lots)

        def drawn(x: tf.Tensor) -> tf.Tensor:
            return tf.gather(x, sample.indices, batch_dims=1)

        localization, objectness = self.loss(
            drawn(features[BOX_ENCODINGS]),
            region_proposals.two_logits(drawn(features[OBJECTNESS])),
            drawn(codes),
            _drawn(classes, sample),
        )
        return {
            LOCATION_LOSS: location_loss(features[LOCATIONS], batch["rpn_location_targets"]),
            SHAPE_LOSS: Loss(
                tf.reduce_sum(tf.where(is_shape > BACKGROUND, of_shapes, 0.0)),
                tf.reduce_sum(tf.cast(is_shape != IGNORED, tf.float32)),
            ),
            OBJECTNESS_LOSS: objectness,
            LOCALIZATION_LOSS: localization,
        }

    def anchor_targets(self, shapes: tf.Tensor, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what each guided anchor shall predict, as `TargetAssigner` with one class.

        Args:
          shapes: [batch, places, 2], predicted.
          boxes: [batch, boxes, 4], of the objects; what pads has no area.

        Returns:
          class targets [batch, places] int32; box targets [batch, places, 4].
        """

        def assign(image: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            guided, objects = image
            return _assigner(guided)(objects, tf.ones(objects.shape[0], tf.int32))

        places = len(self.squares)
        classes, codes = tf.map_fn(
            assign,
            (self.anchors(shapes), boxes),
            fn_output_signature=(
                tf.TensorSpec([places], tf.int32),
                tf.TensorSpec([places, 4], tf.float32),
            ),
        )
        return classes, codes

    def anchors(self, shapes: tf.Tensor) -> tf.Tensor:
        """Returns the guided anchors [batch, places, 4], through which no gradient flows.

        Args:
          shapes: [batch, places, 2], predicted.
        """
        shapes = tf.stop_gradient(tf.clip_by_value(shapes, -_LARGEST_SHAPE, _LARGEST_SHAPE))
        codes = tf.concat([tf.zeros_like(shapes), shapes], axis=-1)
        return box_coder.decode(codes, self.squares, _SHAPE_SCALES)

    def proposals(self, features: Mapping[str, tf.Tensor], *, training: bool) -> Proposals:
        """Returns regions; no gradient flows through them.

        In training improbable places propose, too: at first all are improbable.
        """
        scores = region_proposals.probabilities(features[OBJECTNESS])
        if not training:
            likely = tf.sigmoid(features[LOCATIONS][..., 0]) >= self.location_threshold
            # No threshold lets this score through.
            scores = tf.where(likely, scores, scores.dtype.min)
        return self.select(
            features[BOX_ENCODINGS],
            scores,
            self.anchors(features[ANCHOR_SHAPES]),
            [height * width for height, width in self.feature_sizes],
        )


def _assigner(guided: np.ndarray | tf.Tensor) -> TargetAssigner:
    return TargetAssigner(
        guided, MATCHED, UNMATCHED, box_scales=_BOX_SCALES, least_forced=_LEAST_OVERLAP
    )


def _drawn(classes: tf.Tensor, sample: sampling.Sample) -> tf.Tensor:
    """Returns the class targets of a sample; IGNORED for what only fills it up."""
    drawn = tf.gather(classes, sample.indices, batch_dims=len(classes.shape) - 1)
    return tf.where(sample.is_drawn, drawn, IGNORED)


def location_loss(logits: tf.Tensor, targets: tf.Tensor) -> Loss:
    """Computes the focal loss of locations.

    Args:
      logits: [batch, places, 1].
      targets: [batch, places] int32: 1, BACKGROUND or IGNORED.
    """
    positive = tf.cast(targets > BACKGROUND, tf.float32)
    weights = tf.where(targets == BACKGROUND, _NEGATIVE_WEIGHT, positive)
    total = tf.reduce_sum(losses.sigmoid_focal_loss(logits, positive[..., None]) * weights)
    # A part of the places would be no normalizer: in a small image it is below 1.
    return Loss(_LOCATION_WEIGHT * total, tf.cast(tf.size(targets), tf.float32))


def shape_loss(shapes: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Computes the bounded IoU loss of shapes (section 3.4); the centres have no part in it.

    Args:
      shapes: [..., 2], encoded, and `targets` the same.

    Returns:
      [...].
    """
    # The smaller over the larger of two sides is the exponential of their logarithms' distance.
    distance = tf.abs(shapes - targets) / _SHAPE_SCALES[2]
    missing = 1 - tf.exp(-distance)
    # The line of mmdetection's smooth L1 has slope 1; that of the OD API's, delta.
    return losses.smooth_l1(missing, tf.zeros_like(missing), _SHAPE_DELTA) / _SHAPE_DELTA


def build(blueprint: Blueprint, network: TwoStageNetwork) -> GuidedProposals:
    """Returns the first stage of a blueprint."""
    settings = blueprint.settings
    guided = blueprint.architecture.region_proposal.guided_anchoring
    return GuidedProposals(
        image_size=blueprint.image_size,
        levels=network.levels,
        feature_sizes=network.feature_sizes,
        anchor_scale=guided.anchor_scale,
        location_threshold=guided.location_threshold,
        sample_size=settings.first_stage_minibatch_size,
        positive_fraction=settings.first_stage_positive_balance_fraction,
        loss=region_proposals.loss(settings),
        select=replace(
            region_proposals.selection(settings, network.max_proposals), box_scales=_BOX_SCALES
        ),
    )
