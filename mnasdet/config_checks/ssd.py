"""The rules that a pipeline config has to fulfil where its model is a one-stage detector."""

from __future__ import annotations

from mnasdet.config_checks.architecture import MAX_CLASSES
from mnasdet.config_checks.detector import (
    check_classification_loss,
    check_cuts_no_boxes,
    check_evaluation,
    check_num_anchors,
    check_padding,
    check_post_processing,
)
from mnasdet.config_checks.image_resizer import check_resizer
from mnasdet.config_checks.section import Section
from mnasdet.feature_extractors.ssd import ARCHITECTURE_FIELDS
from mnasdet.protos import architecture_pb2

# SSD has two features of the backbone and at most four extra layers.
_SSD_LAYERS = (2, 6)


def check_ssd(root: Section, architecture: architecture_pb2.Architecture | None) -> None:
    """Checks the ssd message, and what else of a config is the detector's.

    Args:
      root: the whole config.
      architecture: what the model builds, as far as that is known.
    """
    model = root.child("model")
    if architecture and architecture.HasField("classifier"):
        root.problems.append("model: the architecture is a classifier; a detector is needed")
    _check_ssd(model.child("ssd"), model.message.WhichOneof("architecture_oneof"), architecture)
    check_evaluation(root)


def _check_ssd(
    ssd: Section,
    architecture_field: str | None,
    architecture: architecture_pb2.Architecture | None,
) -> None:
    ssd.counts(MAX_CLASSES, "num_classes")
    if resizer := ssd.selected("image_resizer", "image_resizer_oneof"):
        size = check_resizer(resizer, architecture)
        check_num_anchors(resizer, architecture, size)
        check_padding(ssd.child("feature_extractor"), size)
        check_cuts_no_boxes(resizer)
    _check_extractor(ssd.child("feature_extractor"), architecture_field)
    check_settings(ssd)


def check_settings(ssd: Section) -> None:
    """Checks targets, losses and post-processing: all but classes, images and the network."""
    if coder := ssd.selected("box_coder", "box_coder_oneof"):
        # The coder multiplies by these scales: 0 would lose the box, less than 0 turn it inside
        # out.
        coder.positive("y_scale", "x_scale", "height_scale", "width_scale")
    if matcher := ssd.selected("matcher", "matcher_oneof"):
        matcher.within("matched_threshold", 0, 1)
        matcher.within("unmatched_threshold", 0, 1)
        # Between the two thresholds an anchor is ignored: it is neither an object nor background.
        matcher.ordered("unmatched_threshold", "matched_threshold")
    ssd.selected("similarity_calculator", "region_similarity")
    ssd.within("negative_class_weight", 0, 1)
    ssd.at_least("num_matches_offset", 0)
    ssd.require(
        ssd.message.normalize_loss_by_num_matches or not ssd.message.num_matches_offset,
        "num_matches_offset",
        "it has no effect without normalize_loss_by_num_matches; remove it",
    )
    # Class 0 of the predictor is always the background's: losses, metadata and suppression count
    # from there.
    ssd.only("add_background_class", True)
    ssd.only("explicit_background_class", False)
    if loss := ssd.needed("loss"):
        _check_loss(loss)
        _check_expected_sampling(ssd)
    if post_processing := ssd.needed("post_processing"):
        check_post_processing(post_processing, _chosen_classification(ssd))
    _check_softmax(ssd)


def _check_extractor(extractor: Section, architecture_field: str | None) -> None:
    message = extractor.message
    if architecture_field:
        for name in ARCHITECTURE_FIELDS:
            if message.HasField(name):
                extractor.report(
                    name, f"has no effect beside model.{architecture_field}; remove it"
                )
    else:
        extractor.within("num_layers", *_SSD_LAYERS)
    # Freezing the batch normalisation of a part is not built; freeze_batchnorm freezes all.
    extractor.only("batch_norm_trainable", True)
    extractor.require(
        not message.use_explicit_padding,
        "use_explicit_padding",
        "only false is supported: TensorFlow pads by itself here, and a network trained with "
        "true sees its images a pixel further on; set false to train a new one",
    )
    # A network whose input is not what `preprocessing.preprocess` makes would be wrong in silence.
    extractor.only("replace_preprocessor_with_placeholder", False)
    # The OD API's flag means "take conv_hyperparams in place of the backbone's own".
    if message.override_base_feature_extractor_hyperparams:
        extractor.needed("conv_hyperparams")


def _check_loss(loss: Section) -> None:
    localization = loss.selected("localization_loss", "localization_loss")
    if localization and localization.message.DESCRIPTOR.name == "WeightedSmoothL1LocalizationLoss":
        # At delta the loss turns from a square into a line; at 0 or less there is no such place.
        localization.positive("delta")
    if classification := loss.selected("classification_loss", "classification_loss"):
        check_classification_loss(classification)
    loss.at_least("classification_weight", 0)
    loss.at_least("localization_weight", 0)
    if loss.message.HasField("hard_example_miner"):
        miner = loss.child("hard_example_miner")
        # 0 means no limit in each of these fields.
        for name in (
            "num_hard_examples",
            "max_negatives_per_positive",
            "min_negatives_per_image",
        ):
            miner.at_least(name, 0)
        miner.within("iou_threshold", 0, 1)
    if loss.message.HasField("random_example_sampler"):
        fraction = loss.child("random_example_sampler")
        fraction.positive("positive_sample_fraction")
        fraction.within("positive_sample_fraction", 0, 1)


def _check_expected_sampling(ssd: Section) -> None:
    """Checks expected sampling in its new place, in the loss, and in its old one."""
    loss = ssd.child("loss")
    message = loss.message
    loss.require(
        message.expected_loss_weights != type(message).REWEIGHTING_UNMATCHED_ANCHORS,
        "expected_loss_weights",
        "NONE or EXPECTED_SAMPLING is supported",
    )
    for section in (ssd, loss):
        section.at_least("min_num_negative_samples", 0)
        section.at_least("desired_negative_sampling_ratio", 0)
    old = "use_expected_classification_loss_under_sampling"
    # Beside one another, they would leave open whose numbers count.
    if message.expected_loss_weights and getattr(ssd.message, old):
        ssd.report(old, "is true beside loss.expected_loss_weights; remove one of them")


def _chosen_classification(ssd: Section) -> str | None:
    return ssd.message.loss.classification_loss.WhichOneof("classification_loss")


def _check_softmax(ssd: Section) -> None:
    # With zeros as the background's target its cross entropy would be 0 whatever is predicted: a
    # softmax would never learn to find nothing.
    if _chosen_classification(ssd) == "weighted_softmax":
        ssd.require(
            not ssd.message.encode_background_as_zeros,
            "encode_background_as_zeros",
            "false is needed by the softmax, for which the background is a class",
        )
