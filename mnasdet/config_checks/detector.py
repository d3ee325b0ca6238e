"""The rules that detectors of one stage and of two have in common."""

from __future__ import annotations

from mnasdet.architectures import num_anchors
from mnasdet.config_checks.layers import MAX_IMAGE_SIZE
from mnasdet.config_checks.section import Section
from mnasdet.protos import architecture_pb2

_METRICS = "coco_detection_metrics"

# The OD API's other sets of metrics, by a part of the name, and what COCO's have in their place.
_OTHER_METRICS = {
    "pascal_voc": "its mAP@.50IOU is the figure nearest to Pascal VOC's mAP, which is at IoU 0.5",
    "oid": "its mAP@.50IOU is the figure nearest to Open Images', without groups and hierarchy",
    "open_images": "its mAP@.50IOU is the figure nearest to Open Images', without groups and "
    "hierarchy",
    "mask": "only boxes are detected here",
    "panoptic": "only boxes are detected here",
    "keypoint": "only boxes are detected here",
    "calibration": "how well scores are calibrated is not measured here",
    "lvis": "all classes of an image are taken as verified, which LVIS does not do",
}

# For one image. EfficientDet-D7 has 441,936; every anchor costs a row of scores for all classes.
_MAX_ANCHORS = 4_000_000

# For one image. COCO counts 100, LVIS 300.
_MAX_DETECTIONS = 10_000

# The score converter that belongs to each classification loss.
_CONVERTERS = {
    "weighted_sigmoid": "SIGMOID",
    "weighted_softmax": "SOFTMAX",
    "bootstrapped_sigmoid": "SIGMOID",
    "weighted_sigmoid_focal": "SIGMOID",
}


def check_evaluation(root: Section) -> None:
    """Checks that a whole config evaluates boxes, and reads them."""
    for metrics in root.message.eval_config.metrics_set:
        if metrics != _METRICS:
            root.child("eval_config").report(
                "metrics_set", f'has "{metrics}"; only "{_METRICS}"{_metrics_remedy(metrics)}'
            )
    for reader in (root.child("train_input_reader"), *root.children("eval_input_reader")):
        reader.only("features", type(reader.message).BOXES)


def _metrics_remedy(metrics: str) -> str:
    """Returns the hint which of COCO's metrics answers to another set; empty for an unknown one."""
    remedies = [remedy for part, remedy in _OTHER_METRICS.items() if part in metrics]
    return f" is supported: {remedies[0]}" if remedies else ""


def check_num_anchors(
    resizer: Section,
    architecture: architecture_pb2.Architecture | None,
    image_size: tuple[int, int],
) -> None:
    """Reports more anchors than memory holds, which no single field is to blame for."""
    height, width = image_size
    if architecture and 0 < height <= MAX_IMAGE_SIZE and 0 < width <= MAX_IMAGE_SIZE:
        count = num_anchors(architecture, height, width)
        if count > _MAX_ANCHORS:
            resizer.problems.append(
                f"{resizer.path} gives images of {height} x {width} pixels {count} anchors; at "
                f"most {_MAX_ANCHORS} are allowed: make images smaller, or anchors fewer"
            )


def check_padding(extractor: Section, image_size: tuple[int, int]) -> None:
    """Reports padding to a multiple where there is something to pad: it is not implemented."""
    extractor.at_least("pad_to_multiple", 1)
    height, width = image_size
    multiple = max(extractor.message.pad_to_multiple, 1)
    extractor.require(
        height % multiple == width % multiple == 0,
        "pad_to_multiple",
        f"images are not padded to it, so {height} and {width} pixels have to be multiples of it",
    )


def check_cuts_no_boxes(resizer: Section) -> None:
    if resizer.message.DESCRIPTOR.name == "CenterCropResizer":
        resizer.problems.append(f"{resizer.path} cuts off boxes; it is for classifiers")


def check_classification_loss(classification: Section) -> None:
    """Checks the member that is set of a ClassificationLoss."""
    match classification.message.DESCRIPTOR.name:
        case "SigmoidFocalClassificationLoss":
            classification.at_least("gamma", 0)
            classification.within("alpha", 0, 1)
        case "BootstrappedSigmoidClassificationLoss":
            classification.within("alpha", 0, 1)
        case "WeightedSoftmaxClassificationLoss":
            classification.positive("logit_scale")


def check_post_processing(section: Section, loss: str | None) -> None:
    """Checks what makes detections of the predictions.

    Args:
      loss: the classification loss, as far as that is known.
    """
    section.positive("logit_scale")
    # With another converter scores are no probabilities: training is as it should be, and every
    # threshold and mAP are off.
    if loss:
        needed = _CONVERTERS[loss]
        section.require(
            section.message.ScoreConverter.Name(section.message.score_converter) == needed,
            "score_converter",
            f"{needed} is needed beside the loss {loss}",
        )
    if nms := section.needed("batch_non_max_suppression"):
        nms.within("score_threshold", 0, 1)
        nms.within("iou_threshold", 0, 1)
        nms.counts(_MAX_DETECTIONS, "max_detections_per_class", "max_total_detections")
        nms.counts(_MAX_ANCHORS, "max_candidates", minimum=0)
        # Suppression here gives a detection one class, in Keras as in TFLite's op.
        nms.only("max_classes_per_detection", 1)
        nms.only("soft_nms_sigma", 0)
