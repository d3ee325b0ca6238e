"""Two-stage detectors: Faster R-CNN (Ren et al., 2015) and Cascade R-CNN (Cai and Vasconcelos,
"Cascade R-CNN: Delving into High Quality Object Detection", 2018).

    images -> features -> proposals -> features of regions -> classes and boxes -> the next stage
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf
import tf_keras

from mnasdet import architectures
from mnasdet.blueprint import Blueprint
from mnasdet.detectors import (
    box_coder,
    drawing,
    guided_anchors,
    losses,
    post_processing,
    region_features,
    region_proposals,
    sampling,
)
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.detectors.one_stage import freeze_batch_norm
from mnasdet.detectors.proposals import Proposals
from mnasdet.detectors.region_targets import region_targets
from mnasdet.detectors.targets import BACKGROUND, IGNORED
from mnasdet.detectors.two_stage_network import (
    TwoStageNetwork,
    head_input_name,
    region_features_name,
    two_stage_network,
)
from mnasdet.evaluation import coco
from mnasdet.evaluation.detection_evaluator import DetectionEvaluator
from mnasdet.networks import random_draws
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2, eval_pb2, faster_rcnn_pb2
from mnasdet.tasks import Loss

# The name of the regions that box encodings are relative to.
PROPOSALS = "proposals"

# The objects of an image that the second stage learns from; the OD API's max_number_of_boxes.
# Those that come after them are left out.
MAX_OBJECTS = 100


class FirstStage(Protocol):
    """Finds regions that may show an object."""

    def targets(self, boxes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what `losses` needs of one image beside its objects; called by tf.data.

        Args:
          boxes: [boxes, 4] of the objects, normalised; there may be none.
        """
        ...

    def losses(
        self, features: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> dict[str, Loss]:
        """Returns losses, by name.

        Args:
          features: the outputs of the network's graph "features".
          batch: `targets` of every image; object_boxes [batch, MAX_OBJECTS, 4], padded with zeros.
        """
        ...

    def proposals(self, features: Mapping[str, tf.Tensor], *, training: bool) -> Proposals:
        """Returns regions; no gradient flows through them."""
        ...


@dataclass(frozen=True)
class Stage:
    """One time that regions are judged.

    Attributes:
      head: features of regions [regions, side, side, channels] to raw predictions.
      iou_threshold: from this overlap on a region shows an object.
      box_scales: of the box coder.
      loss: of a sample of regions.
    """

    head: tf_keras.Model
    iou_threshold: float
    box_scales: Sequence[float]
    loss: losses.DetectionLoss


@dataclass(frozen=True)
class TwoStageDetector:
    """A Task: a detector that proposes regions and judges them, once or several times.

    Attributes:
      blueprint: what it was built from.
      model: all weights by name. Its parts are called, it is not.
      features: images [batch, height, width, 3], float32 in [-1, 1], to the outputs of the graph
        "features".
      first_stage: proposes regions.
      region_features: samples the features of regions.
      stages: of the second stage; each but the first judges the boxes of the one before.
      sample_size: the regions of an image that the losses count.
      positive_fraction: the largest share of objects among them.
      post_processing: raw predictions to detections.
    """

    blueprint: Blueprint
    model: tf_keras.Model
    features: tf_keras.Model
    first_stage: FirstStage
    region_features: region_features.RegionFeatures
    stages: Sequence[Stage]
    sample_size: int
    positive_fraction: float
    post_processing: post_processing.PostProcessing

    objective = coco.MAP
    compiles = True

    @property
    def image_size(self) -> tuple[int, int]:
        """Returns (height, width) in pixels."""
        return self.blueprint.image_size

    @property
    def num_classes(self) -> int:
        """Returns the number of classes without the background."""
        return self.blueprint.num_classes

    def targets(self, example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the image, its objects and the targets of the first stage for an example.

        Returns:
          image [height, width, 3]; object_boxes [MAX_OBJECTS, 4] and object_classes [MAX_OBJECTS],
          padded with zeros; and what `first_stage.targets` returns.
        """
        # A crowd is no object that a box could find.
        single = ~example["is_crowd"]
        boxes, classes = example["boxes"][single], example["classes"][single]
        with random_draws.seeded(example.get("seed")):
            of_first_stage = self.first_stage.targets(boxes)
        boxes, classes = boxes[:MAX_OBJECTS], classes[:MAX_OBJECTS]
        # A compiled step needs shapes that are known: every image has as many objects.
        missing = MAX_OBJECTS - tf.shape(boxes)[0]
        boxes = tf.ensure_shape(tf.pad(boxes, [[0, missing], [0, 0]]), [MAX_OBJECTS, 4])
        classes = tf.ensure_shape(tf.pad(classes, [[0, missing]]), [MAX_OBJECTS])
        objects = {"object_boxes": boxes, "object_classes": classes}
        return {"image": example["image"], **objects, **of_first_stage}

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, Loss]:
        """Returns the losses of the first stage, and two of every stage of the second."""
        features = self.features(batch["image"], training=True)
        of_batch = dict(self.first_stage.losses(features, batch))
        # At first no proposal is good: the objects themselves show the second stage what it is to
        # learn.
        objects = batch["object_boxes"]
        proposals = self.first_stage.proposals(features, training=True)
        regions = tf.concat([proposals.boxes, objects], axis=1)
        sheet = self._sheet(features)
        is_object = tf.range(regions.shape[1]) >= regions.shape[1] - objects.shape[1]
        for number, stage in enumerate(self.stages, start=1):
            classes, codes = region_targets(
                regions,
                objects,
                batch["object_classes"],
                iou_threshold=stage.iou_threshold,
                box_scales=stage.box_scales,
            )
            # A later stage refines what this one judged: all stages share one sample.
            if number == 1:
                sample = self._sample(classes, batch)
                regions, codes = (
                    tf.gather(x, sample.indices, batch_dims=1) for x in (regions, codes)
                )
                classes = tf.gather(classes, sample.indices, batch_dims=1)
                classes = tf.where(sample.is_drawn, classes, IGNORED)
                is_object = tf.gather(is_object, sample.indices) | ~sample.is_drawn
            raw = self._judged(stage, sheet, regions, training=True)
            own = raw[BOX_ENCODINGS]
            localization, classification = stage.loss(
                _of_class(own, classes - 1), raw[CLASS_LOGITS], codes, classes
            )
            of_batch[f"stage_{number}_classification"] = classification
            of_batch[f"stage_{number}_localization"] = localization
            # Objects that were added are found already: there is nothing to refine.
            refined = _refined(stage, raw, regions)
            # The next stage's targets are encoded relative to these boxes: without the stop, its
            # loss would train this stage as well.
            regions = tf.where(is_object[..., None], 0.0, tf.stop_gradient(refined))
        return of_batch

    def _sample(self, classes: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> sampling.Sample:
        lots = random_draws.uniform_of_each(batch.get("seed"), tuple(classes.shape))
        return sampling.balanced(
            classes, lots, size=self.sample_size, positive_fraction=self.positive_fraction
        )

    def raw_predictions(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the last stage says of regions.

        Args:
          images: [batch, height, width, 3], float32 in [-1, 1].

        Returns:
          box_encodings [batch, regions, num_classes or 1, 4], of the last stage;
          class_predictions_with_background [batch, regions, num_classes + 1], the mean over all
          stages; proposals [batch, regions, 4], what the encodings are relative to. Regions that
          pad have no area.
        """
        features = self.features(images, training=False)
        sheet = self._sheet(features)
        logits: list[tf.Tensor] = []
        refined = self.first_stage.proposals(features, training=False).boxes
        for stage in self.stages:
            regions = refined
            raw = self._judged(stage, sheet, regions, training=False)
            logits.append(raw[CLASS_LOGITS])
            refined = _refined(stage, raw, regions)
        # As in mmdetection: each head has judged the regions of its own stage, and the mean counts.
        mean = tf.add_n(logits) / len(logits)
        return {BOX_ENCODINGS: raw[BOX_ENCODINGS], CLASS_LOGITS: mean, PROPOSALS: regions}

    def post_process(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns detections from `raw_predictions`."""
        return self.post_processing(raw[BOX_ENCODINGS], raw[CLASS_LOGITS], raw[PROPOSALS])

    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the detections of `PostProcessing` in images.

        Args:
          images: [batch, height, width, 3], float32 in [-1, 1].
        """
        return self.post_process(self.raw_predictions(images))

    def evaluator(self, categories: Mapping[int, str]) -> DetectionEvaluator:
        return DetectionEvaluator(categories)

    def draw(
        self,
        batch: Mapping[str, tf.Tensor],
        predictions: Mapping[str, tf.Tensor],
        settings: eval_pb2.EvalConfig,
    ) -> tf.Tensor:
        return drawing.draw(batch, predictions, settings)

    def _sheet(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the features that regions are cropped from as one tensor."""
        levels = self.region_features.feature_sizes
        return self.region_features.sheet(
            {level: features[region_features_name(level)] for level in levels}
        )

    def _judged(
        self,
        stage: Stage,
        sheet: tf.Tensor,
        regions: tf.Tensor,
        *,
        training: bool,
    ) -> dict[str, tf.Tensor]:
        """Returns the raw predictions of a stage, [batch, regions, ...] each."""
        x = self.region_features(sheet, regions)
        raw = stage.head(tf.reshape(x, [-1, *x.shape[2:]]), training=training)
        return {
            name: tf.reshape(value, [-1, regions.shape[1], *value.shape[1:]])
            for name, value in raw.items()
        }


def _of_class(encodings: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns the box encodings of a class, [batch, regions, 4], where each has its own.

    Args:
      encodings: [batch, regions, num_classes or 1, 4].
      classes: [batch, regions] int32, from 0; what is below stands for none.
    """
    if encodings.shape[2] == 1:
        return encodings[:, :, 0]
    return tf.gather(encodings, tf.maximum(classes, 0), batch_dims=2)


def _refined(stage: Stage, raw: Mapping[str, tf.Tensor], regions: tf.Tensor) -> tf.Tensor:
    """Returns the boxes [batch, regions, 4] of a stage, of each region's best class."""
    # The background has no box: a region that shows nothing moves by its best class as well.
    best = tf.argmax(raw[CLASS_LOGITS][..., BACKGROUND + 1 :], axis=-1, output_type=tf.int32)
    codes = _of_class(raw[BOX_ENCODINGS], best)
    return tf.clip_by_value(box_coder.decode(codes, regions, stage.box_scales), 0.0, 1.0)


def build(blueprint: Blueprint) -> TwoStageDetector:
    """Returns the detector of a blueprint with fresh weights."""
    settings: faster_rcnn_pb2.FasterRcnn = blueprint.settings
    architecture = blueprint.architecture
    network = two_stage_network(architecture, blueprint.image_size, blueprint.num_classes)
    model = keras_model(
        {"features": network.features, "heads": list(network.heads)},
        quantized=blueprint.quantized,
        mixing=blueprint.mixing,
    )
    extractor = settings.feature_extractor
    # The OD API's default freezes; a config with an architecture in the extractor's place does not.
    if settings.HasField("feature_extractor") and not extractor.batch_norm_trainable:
        freeze_batch_norm(model)
    outputs = model.output
    stages = []
    for number, (stage, head) in enumerate(
        zip(architectures.region_stages(architecture), outputs["heads"], strict=True), start=1
    ):
        features_of_region = model.get_layer(head_input_name(number)).output
        stages.append(
            Stage(
                # A view on the layers of `model`: a checkpoint of the whole has its weights.
                head=tf_keras.Model(features_of_region, head, name=f"region_head_{number}"),
                iou_threshold=stage.iou_threshold,
                box_scales=tuple(stage.box_scales),
                loss=_loss(settings, stage),
            )
        )
    image = model.get_layer("image").output
    return TwoStageDetector(
        blueprint=blueprint,
        model=model,
        features=tf_keras.Model(image, outputs["features"], name="features"),
        first_stage=_first_stage(blueprint, network),
        region_features=region_features.from_proto(
            architecture.region_head.region_align,
            blueprint.image_size,
            network.region_levels,
            network.feature_sizes[: len(network.region_levels)],
        ),
        stages=stages,
        sample_size=settings.second_stage_batch_size,
        positive_fraction=settings.second_stage_balance_fraction,
        post_processing=post_processing.from_proto(
            settings.second_stage_post_processing, box_scales=stages[-1].box_scales
        ),
    )


def _first_stage(blueprint: Blueprint, network: TwoStageNetwork) -> FirstStage:
    is_guided = blueprint.architecture.region_proposal.HasField("guided_anchoring")
    return (guided_anchors if is_guided else region_proposals).build(blueprint, network)


def _loss(
    settings: faster_rcnn_pb2.FasterRcnn, stage: architecture_pb2.RegionStage
) -> losses.DetectionLoss:
    """Builds the loss of a stage from the settings of the second stage."""
    stated = settings.second_stage_classification_loss
    is_stated = stated.WhichOneof("classification_loss") is not None
    weight = stage.loss_weight
    return losses.DetectionLoss(
        classification=(
            losses.classification(stated) if is_stated else losses.softmax_cross_entropy
        ),
        localization=functools.partial(
            losses.smooth_l1, delta=settings.second_stage_localization_delta
        ),
        classification_weight=weight * settings.second_stage_classification_loss_weight,
        localization_weight=weight * settings.second_stage_localization_loss_weight,
        background_as_zeros=False,
        normalize_by_samples=True,
        normalize_by_code_size=False,
    )
