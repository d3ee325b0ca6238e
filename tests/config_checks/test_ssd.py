"""Every check of a detector, by its message."""

import pytest

from mnasdet import config
from tests.config_fragments import EXTRACTOR, LOSS, PREDICTOR, merge, nested, ssd, the_problem

# A fragment that spoils the config, and the one problem that it makes.
BAD = [
    (ssd("num_classes: 0"), "model.ssd.num_classes is 0; at least 1 is allowed"),
    (
        ssd("image_resizer { fixed_shape_resizer { height: 63 } }"),
        "model.ssd.image_resizer.fixed_shape_resizer.height is 63; at least 64 is allowed",
    ),
    (
        ssd("feature_extractor { depth_multiplier: 0 }"),
        "model.ssd.feature_extractor.depth_multiplier is 0; more than 0 is allowed",
    ),
    (
        ssd("feature_extractor { min_depth: 0 }"),
        "model.ssd.feature_extractor.min_depth is 0; at least 1 is allowed",
    ),
    (
        ssd("feature_extractor { override_base_feature_extractor_hyperparams: true }"),
        "model.ssd.feature_extractor.conv_hyperparams is missing",
    ),
    (
        ssd("box_coder { faster_rcnn_box_coder { y_scale: 0 } }"),
        "model.ssd.box_coder.faster_rcnn_box_coder.y_scale is 0; more than 0 is allowed",
    ),
    (
        ssd("matcher { argmax_matcher { matched_threshold: 1.5 } }"),
        "model.ssd.matcher.argmax_matcher.matched_threshold is 1.5; 0 to 1 is allowed",
    ),
    (
        ssd("matcher { argmax_matcher { unmatched_threshold: 0.7 } }"),
        "model.ssd.matcher.argmax_matcher.unmatched_threshold is 0.7; at most matched_threshold, "
        "0.5, is allowed",
    ),
    (
        ssd("loss { localization_loss { weighted_smooth_l1 { delta: nan } } }"),
        "model.ssd.loss.localization_loss.weighted_smooth_l1.delta is nan; more than 0 is allowed",
    ),
    (
        ssd("loss { classification_loss { weighted_sigmoid_focal { gamma: -1 } } }"),
        "model.ssd.loss.classification_loss.weighted_sigmoid_focal.gamma is -1; at least 0 is "
        "allowed",
    ),
    (
        ssd("loss { classification_loss { weighted_sigmoid_focal { alpha: 25 } } }"),
        "model.ssd.loss.classification_loss.weighted_sigmoid_focal.alpha is 25; 0 to 1 is allowed",
    ),
    (
        ssd("loss { localization_weight: inf }"),
        "model.ssd.loss.localization_weight is inf; at least 0 is allowed",
    ),
    (
        ssd("post_processing { batch_non_max_suppression { iou_threshold: 60 } }"),
        "model.ssd.post_processing.batch_non_max_suppression.iou_threshold is 60; 0 to 1 is "
        "allowed",
    ),
    (
        ssd("post_processing { batch_non_max_suppression { max_total_detections: 0 } }"),
        "model.ssd.post_processing.batch_non_max_suppression.max_total_detections is 0; at least 1 "
        "is allowed",
    ),
    (
        ssd("post_processing { batch_non_max_suppression { max_classes_per_detection: 2 } }"),
        "model.ssd.post_processing.batch_non_max_suppression.max_classes_per_detection is 2; only "
        "1 is supported",
    ),
    (
        nested(PREDICTOR, "kernel_size: 4"),
        f"{PREDICTOR}.kernel_size is 4; only odd sizes are allowed",
    ),
    (nested(PREDICTOR, "depth: 0"), f"{PREDICTOR}.depth is 0; at least 1 is allowed"),
    (
        nested(PREDICTOR, "conv_hyperparams { op: FC }"),
        f"{PREDICTOR}.conv_hyperparams.op is FC; only CONV is supported",
    ),
    (
        nested(
            PREDICTOR, "conv_hyperparams { initializer { random_normal_initializer { mean: 1 } } }"
        ),
        f"{PREDICTOR}.conv_hyperparams.initializer.random_normal_initializer.mean is 1; only 0 is "
        "supported",
    ),
    (
        nested(PREDICTOR, "conv_hyperparams { regularizer { l2_regularizer { weight: -1 } } }"),
        f"{PREDICTOR}.conv_hyperparams.regularizer.l2_regularizer.weight is -1; at least 0 is "
        "allowed",
    ),
    (
        ssd("anchor_generator { multiscale_anchor_generator { max_level: 7 } }"),
        "model.ssd.anchor_generator.multiscale_anchor_generator.max_level is 7; 6 is needed, as in "
        "the feature pyramid",
    ),
    (
        ssd("anchor_generator { multiscale_anchor_generator { aspect_ratios: [1, -2] } }"),
        "model.ssd.anchor_generator.multiscale_anchor_generator.aspect_ratios is [1.0, -2.0]; "
        "above 0",
    ),
    (
        ssd(
            "image_resizer { keep_aspect_ratio_resizer { "
            "min_dimension: 700 max_dimension: 640 pad_to_max_dimension: true } }"
        ),
        "model.ssd.image_resizer.keep_aspect_ratio_resizer.min_dimension is 700; at most "
        "max_dimension, 640, is allowed",
    ),
    (
        ssd(
            "image_resizer { keep_aspect_ratio_resizer { "
            "min_dimension: 30 max_dimension: 40 pad_to_max_dimension: true } }"
        ),
        "model.ssd.image_resizer.keep_aspect_ratio_resizer.max_dimension is 40; at least 64 is "
        "allowed",
    ),
    (
        nested(EXTRACTOR, "pad_to_multiple: 33"),
        f"{EXTRACTOR}.pad_to_multiple is 33; images are not padded to it, so 320 and 320 "
        "pixels have to be multiples",
    ),
    (
        nested(EXTRACTOR, "use_explicit_padding: true"),
        f"{EXTRACTOR}.use_explicit_padding is true; only false is supported",
    ),
    (
        nested(EXTRACTOR, "batch_norm_trainable: false"),
        f"{EXTRACTOR}.batch_norm_trainable is false; only true is supported",
    ),
    (
        nested(EXTRACTOR, "replace_preprocessor_with_placeholder: true"),
        f"{EXTRACTOR}.replace_preprocessor_with_placeholder is true; only false is supported",
    ),
    (nested(EXTRACTOR, "num_layers: 7"), f"{EXTRACTOR}.num_layers is 7; 2 to 6 is allowed"),
    (
        ssd("negative_class_weight: 2"),
        "model.ssd.negative_class_weight is 2; 0 to 1 is allowed",
    ),
    (
        ssd("add_background_class: false"),
        "model.ssd.add_background_class is false; only true is supported",
    ),
    (
        ssd("explicit_background_class: true"),
        "model.ssd.explicit_background_class is true; only false is supported",
    ),
    (
        nested(LOSS, "classification_loss { bootstrapped_sigmoid { alpha: 2 } }"),
        f"{LOSS}.classification_loss.bootstrapped_sigmoid.alpha is 2; 0 to 1 is allowed",
    ),
    (
        ssd(
            "encode_background_as_zeros: false post_processing { score_converter: SOFTMAX } "
            "loss { classification_loss { weighted_softmax { logit_scale: 0 } } }"
        ),
        f"{LOSS}.classification_loss.weighted_softmax.logit_scale is 0; more than 0 is allowed",
    ),
    (
        ssd(
            "post_processing { score_converter: SOFTMAX } "
            "loss { classification_loss { weighted_softmax {} } }"
        ),
        "model.ssd.encode_background_as_zeros is true; false is needed by the softmax, for which "
        "the background is a class",
    ),
    (
        ssd("post_processing { score_converter: IDENTITY }"),
        "model.ssd.post_processing.score_converter is IDENTITY; SIGMOID is needed beside the loss "
        "weighted_sigmoid_focal",
    ),
    (
        ssd(
            "encode_background_as_zeros: false loss { classification_loss { weighted_softmax {} } }"
        ),
        "model.ssd.post_processing.score_converter is SIGMOID; SOFTMAX is needed beside the loss "
        "weighted_softmax",
    ),
    (
        ssd("post_processing { logit_scale: 0 }"),
        "model.ssd.post_processing.logit_scale is 0; more than 0 is allowed",
    ),
    (
        ssd("post_processing { batch_non_max_suppression { max_candidates: 5000000 } }"),
        "model.ssd.post_processing.batch_non_max_suppression.max_candidates is 5000000; at most "
        "4000000 is allowed",
    ),
    (
        ssd("num_matches_offset: -1"),
        "model.ssd.num_matches_offset is -1; at least 0 is allowed",
    ),
    (
        ssd("num_matches_offset: 0.5 normalize_loss_by_num_matches: false"),
        "model.ssd.num_matches_offset is 0.5; it has no effect without "
        "normalize_loss_by_num_matches; remove it",
    ),
    (
        nested(PREDICTOR, "prediction_initializer { random_normal_initializer { stddev: 0 } }"),
        f"{PREDICTOR}.prediction_initializer.random_normal_initializer.stddev is 0; more than 0 "
        "is allowed",
    ),
    (
        ssd("post_processing { batch_non_max_suppression { soft_nms_sigma: 0.5 } }"),
        "model.ssd.post_processing.batch_non_max_suppression.soft_nms_sigma is 0.5; only 0 is "
        "supported",
    ),
    (
        nested(LOSS, "hard_example_miner { iou_threshold: 99 }"),
        f"{LOSS}.hard_example_miner.iou_threshold is 99; 0 to 1 is allowed",
    ),
    (
        nested(LOSS, "hard_example_miner { min_negatives_per_image: -1 }"),
        f"{LOSS}.hard_example_miner.min_negatives_per_image is -1; at least 0 is allowed",
    ),
    (
        nested(LOSS, "random_example_sampler { positive_sample_fraction: 0 }"),
        f"{LOSS}.random_example_sampler.positive_sample_fraction is 0; more than 0 is allowed",
    ),
    (
        nested(LOSS, "expected_loss_weights: REWEIGHTING_UNMATCHED_ANCHORS"),
        f"{LOSS}.expected_loss_weights is REWEIGHTING_UNMATCHED_ANCHORS; NONE or "
        "EXPECTED_SAMPLING is supported",
    ),
    (
        nested(LOSS, "desired_negative_sampling_ratio: -3"),
        f"{LOSS}.desired_negative_sampling_ratio is -3; at least 0 is allowed",
    ),
    (
        ssd(
            "use_expected_classification_loss_under_sampling: true "
            "loss { expected_loss_weights: EXPECTED_SAMPLING }"
        ),
        "model.ssd.use_expected_classification_loss_under_sampling is true beside "
        "loss.expected_loss_weights; remove one of them",
    ),
    (
        nested(PREDICTOR, "conv_hyperparams { batch_norm { train: false } }"),
        f"{PREDICTOR}.conv_hyperparams.batch_norm.train is false; only true is supported; "
        "to freeze batch normalisation set model.ssd.freeze_batchnorm",
    ),
    (
        nested(EXTRACTOR, "fpn { max_level: 7 }"),
        f"{EXTRACTOR}.fpn.max_level is 7; 6 is needed by ssd_mobilenet_v2_mnasfpn",
    ),
    (
        nested(EXTRACTOR, "fpn { max_level: 6 additional_layer_depth: 0 }"),
        f"{EXTRACTOR}.fpn.additional_layer_depth is 0; at least 1 is allowed",
    ),
    (
        nested(
            EXTRACTOR,
            'type: "ssd_mobilenet_v2_fpn" fpn { max_level: 6 } '
            "conv_hyperparams { initializer { random_normal_initializer { stddev: 0 } } } "
            "override_base_feature_extractor_hyperparams: true",
        ),
        f"{EXTRACTOR}.conv_hyperparams.initializer.random_normal_initializer.stddev is 0; more "
        "than 0 is allowed",
    ),
    (
        ssd(
            'feature_extractor { type: "ssd_mobilenet_v2_fpn" fpn { min_level: 6 max_level: 6 } } '
            "anchor_generator { multiscale_anchor_generator { min_level: 6 } }"
        ),
        f"{EXTRACTOR}.fpn.min_level is 6; 2 to 5 is allowed",
    ),
]


@pytest.mark.parametrize(("fragment", "expected"), BAD)
def test_check_names_field_value_and_what_is_allowed(coco_pipeline, fragment, expected):
    assert the_problem(fragment, coco_pipeline).startswith(expected)


# Fields that have no effect here, and values that are supported.
GOOD = [
    ssd("inplace_batchnorm_update: true freeze_batchnorm: true"),
    ssd("encode_background_as_zeros: false negative_class_weight: 0.5"),
    ssd("matcher { argmax_matcher { ignore_thresholds: true use_matmul_gather: true } }"),
    ssd("matcher { argmax_matcher { negatives_lower_than_unmatched: false } }"),
    ssd(
        "image_resizer { keep_aspect_ratio_resizer { "
        "min_dimension: 640 max_dimension: 640 pad_to_max_dimension: true } }"
    ),
    nested(EXTRACTOR, "pad_to_multiple: 32"),
    nested(LOSS, "classification_loss { weighted_sigmoid { anchorwise_output: true } }"),
    nested(LOSS, "localization_loss { weighted_l2 {} }"),
    nested(LOSS, "localization_loss { l1_localization_loss {} }"),
    nested(LOSS, "hard_example_miner {} random_example_sampler {}"),
    nested(LOSS, "expected_loss_weights: EXPECTED_SAMPLING min_num_negative_samples: 10"),
    nested(
        "model.ssd.post_processing.batch_non_max_suppression",
        "use_static_shapes: true use_class_agnostic_nms: true use_combined_nms: true "
        "use_partitioned_nms: true change_coordinate_frame: false",
    ),
    nested(PREDICTOR, "conv_hyperparams { activation: SWISH batch_norm { scale: false } }"),
]


@pytest.mark.parametrize("fragment", GOOD)
def test_check_lets_pass(coco_pipeline, fragment):
    merge(fragment, coco_pipeline)
    assert config.check(coco_pipeline) == []


def test_a_classifier_is_no_detector(coco_pipeline):
    coco_pipeline.model.ssd.ClearField("feature_extractor")
    coco_pipeline.model.architecture_name = "mnasnet_a1"
    assert "model: the architecture is a classifier; a detector is needed" in config.check(
        coco_pipeline
    )
