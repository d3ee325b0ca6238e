"""The rules that a pipeline config has to fulfil where its model is a two-stage detector."""

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
from mnasdet.config_checks.regions import MAX_PROPOSALS
from mnasdet.config_checks.section import Section
from mnasdet.feature_extractors.faster_rcnn import (
    ARCHITECTURE_FIELDS,
    EXTRACTOR_FIELDS,
    has_pyramid,
)
from mnasdet.protos import architecture_pb2

_BOX_CODE_SIZE = 4
# Without a pyramid, regions are proposed at this stride, and the backbone's last stage judges them
# (He et al., "Deep Residual Learning", 2016, appendix A).
_FEATURES_STRIDE = 16

_LOSS_WEIGHTS = (
    "first_stage_localization_loss_weight",
    "first_stage_objectness_loss_weight",
    "second_stage_localization_loss_weight",
    "second_stage_classification_loss_weight",
)


def check_faster_rcnn(root: Section, architecture: architecture_pb2.Architecture | None) -> None:
    """Checks the faster_rcnn message, and what else of a config is the detector's.

    Args:
      root: the whole config.
      architecture: what the model builds, as far as that is known.
    """
    model = root.child("model")
    settings = model.child("faster_rcnn")
    _check_has_stages(settings, architecture)
    # The OD API also has 1, proposals alone, and 3, masks.
    settings.only("number_of_stages", 2)
    settings.counts(MAX_CLASSES, "num_classes")
    if resizer := settings.selected("image_resizer", "image_resizer_oneof"):
        size = check_resizer(resizer, architecture)
        check_num_anchors(resizer, architecture, size)
        check_cuts_no_boxes(resizer)
        extractor = settings.child("feature_extractor")
        if extractor.message.HasField("pad_to_multiple") and has_pyramid(extractor.message):
            check_padding(extractor, size)
    if given := model.message.WhichOneof("architecture_oneof"):
        _check_nothing_beside(settings, given)
    else:
        _check_described(settings)
    _check_first_stage(settings)
    _check_second_stage(settings)
    check_evaluation(root)


def _check_has_stages(
    settings: Section, architecture: architecture_pb2.Architecture | None
) -> None:
    if not architecture or architecture.HasField("region_head"):
        return
    if architecture.HasField("classifier"):
        settings.problems.append("model: the architecture is a classifier; a detector is needed")
    elif not settings.message.HasField("one_stage"):
        settings.problems.append(
            f"{settings.path} is for two stages, and the architecture has one; use model.ssd, or "
            "give region_proposal and region_head"
        )


def _check_nothing_beside(settings: Section, given: str) -> None:
    """Reports what describes an architecture beside another one."""
    extractor = settings.child("feature_extractor")
    for section, names in ((settings, ARCHITECTURE_FIELDS), (extractor, EXTRACTOR_FIELDS)):
        stated = {field.name for field, _ in section.message.ListFields()}
        for name in names:
            if name in stated:
                section.report(name, f"has no effect beside model.{given}; remove it")


def _check_described(settings: Section) -> None:
    """Checks what describes the architecture, as far as that does not show it itself."""
    extractor = settings.child("feature_extractor")
    if not has_pyramid(extractor.message):
        extractor.only("first_stage_features_stride", _FEATURES_STRIDE)
        if extractor.message.HasField("fpn"):
            extractor.report(
                "fpn", "has no effect; an extractor with fpn in its type has a pyramid"
            )
    elif extractor.message.override_base_feature_extractor_hyperparams:
        extractor.needed("conv_hyperparams")
    settings.only("first_stage_atrous_rate", 1)
    if predictor := settings.selected("second_stage_box_predictor", "box_predictor_oneof"):
        _check_predictor(predictor)


def _check_predictor(predictor: Section) -> None:
    message = predictor.message
    if hyperparams := predictor.needed("fc_hyperparams"):
        hyperparams.only("op", type(hyperparams.message).FC)
        if normalizer := hyperparams.message.WhichOneof("normalizer_oneof"):
            hyperparams.report(normalizer, "is not supported in fully connected layers; remove it")
    kept = message.dropout_keep_probability
    predictor.require(
        0 < kept <= 1, "dropout_keep_probability", "more than 0 and at most 1 is allowed"
    )
    # The box coder is (ymin, xmin, ymax, xmax) without keypoints, so a box has four codes.
    predictor.only("box_code_size", _BOX_CODE_SIZE)
    predictor.only("predict_instance_masks", False)
    predictor.only("predict_keypoints", False)


def _check_first_stage(settings: Section) -> None:
    settings.counts(MAX_PROPOSALS, "first_stage_minibatch_size", "first_stage_max_proposals")
    settings.counts(MAX_PROPOSALS, "first_stage_max_candidates", minimum=0)
    settings.within("first_stage_positive_balance_fraction", 0, 1)
    settings.within("first_stage_nms_score_threshold", 0, 1)
    settings.within("first_stage_nms_iou_threshold", 0, 1)
    # Where smooth L1 turns from a square into a line; at 0 or less there is no such place.
    settings.positive("first_stage_localization_delta", "second_stage_localization_delta")
    for name in _LOSS_WEIGHTS:
        settings.at_least(name, 0)


def _check_second_stage(settings: Section) -> None:
    message = settings.message
    settings.counts(MAX_PROPOSALS, "second_stage_batch_size")
    settings.within("second_stage_balance_fraction", 0, 1)
    loss = "weighted_softmax"
    if message.HasField("second_stage_classification_loss"):
        field = "second_stage_classification_loss"
        if classification := settings.selected(field, "classification_loss"):
            check_classification_loss(classification)
        loss = message.second_stage_classification_loss.WhichOneof("classification_loss")
    if post_processing := settings.needed("second_stage_post_processing"):
        check_post_processing(post_processing, loss)
