"""Every check of a pipeline config, by its message."""

import functools
from pathlib import Path

import pytest

from mnasdet import config
from mnasdet.protos import pipeline_pb2
from tests.config_fragments import (
    AUGMENTATION,
    EXTRACTOR,
    LOSS,
    OPTIMIZER,
    PREDICTOR,
    RATE,
    merge,
    nested,
    ssd,
)

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
        "model.ssd.anchor_generator.multiscale_anchor_generator.max_level is 7; 6 is needed, the "
        "feature pyramid's",
    ),
    (
        ssd("anchor_generator { multiscale_anchor_generator { aspect_ratios: [1, -2] } }"),
        "model.ssd.anchor_generator.multiscale_anchor_generator.aspect_ratios is [1.0, -2.0]; "
        "above 0",
    ),
    ("train_config { batch_size: 0 }", "train_config.batch_size is 0; at least 1 is allowed"),
    (
        "train_config { parallel_parts: 3 }",
        "train_config.parallel_parts is 3; a divisor of batch_size, 1024, is needed",
    ),
    ("train_config { num_steps: 0 }", "train_config.num_steps is 0; at least 1 is allowed"),
    (
        "train_config { gradient_clipping_by_norm: -1 }",
        "train_config.gradient_clipping_by_norm is -1; at least 0 is allowed",
    ),
    (
        'train_config { fine_tune_checkpoint: "/no/model.ckpt" }',
        'train_config.fine_tune_checkpoint is "/no/model.ckpt", which does not exist',
    ),
    (
        'train_config { fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/model.ckpt" }',
        'train_config.fine_tune_checkpoint is "PATH_TO_BE_CONFIGURED/model.ckpt"; name the file or '
        "remove the field",
    ),
    (
        "train_config { optimizer { use_moving_average: true moving_average_decay: 99 } }",
        "train_config.optimizer.moving_average_decay is 99; 0 to 1 is allowed",
    ),
    (
        nested("train_config.optimizer.momentum_optimizer", "momentum_optimizer_value: 9"),
        "train_config.optimizer.momentum_optimizer.momentum_optimizer_value is 9; 0 to 1 is "
        "allowed",
    ),
    (
        nested(RATE, "cosine_decay_learning_rate { total_steps: 40000 }"),
        f"{RATE}.cosine_decay_learning_rate.total_steps is 40000; train_config.num_steps is 50000, "
        "and the rate is 0 from total_steps on",
    ),
    (
        nested(RATE, "cosine_decay_learning_rate { warmup_learning_rate: 5 }"),
        f"{RATE}.cosine_decay_learning_rate.warmup_learning_rate is 5; at most learning_rate_base, "
        "4, is allowed",
    ),
    (
        nested(RATE, "cosine_decay_learning_rate { hold_base_rate_steps: 45001 }"),
        f"{RATE}.cosine_decay_learning_rate.hold_base_rate_steps is 45001; with warmup_steps at "
        "most total_steps, 50000, is allowed",
    ),
    (
        nested(RATE, "constant_learning_rate { learning_rate: 0 }"),
        f"{RATE}.constant_learning_rate.learning_rate is 0; more than 0 is allowed",
    ),
    (
        nested(RATE, "manual_step_learning_rate { schedule { step: 9 } schedule { step: 9 } }"),
        f"{RATE}.manual_step_learning_rate.schedule[1].step is 9; more than 9, the one before",
    ),
    (
        nested(RATE, "manual_step_learning_rate { warmup: true }"),
        f"{RATE}.manual_step_learning_rate.schedule is empty; warmup ends at its first step",
    ),
    (
        nested(RATE, "manual_step_learning_rate { initial_learning_rate: 0 }"),
        f"{RATE}.manual_step_learning_rate.schedule is empty, and the initial rate is 0",
    ),
    (
        "train_config { data_augmentation_options {} }",
        f"{AUGMENTATION}[0] is empty; set random_horizontal_flip or random_pixel_value_scale or ",
    ),
    (
        nested(AUGMENTATION, "random_crop_image { min_object_covered: 2 }"),
        f"{AUGMENTATION}[0].random_crop_image.min_object_covered is 2; 0 to 1 is allowed",
    ),
    (
        nested(
            AUGMENTATION,
            "ssd_random_crop { operations { "
            "min_aspect_ratio: 2 max_aspect_ratio: 1 min_area: 1 max_area: 1 } }",
        ),
        f"{AUGMENTATION}[0].ssd_random_crop.operations[0].min_aspect_ratio is 2; at most "
        "max_aspect_ratio, 1, is allowed",
    ),
    (
        nested(AUGMENTATION, "random_image_scale { min_scale_ratio: 3 }"),
        f"{AUGMENTATION}[0].random_image_scale.min_scale_ratio is 3; at most max_scale_ratio, 2, "
        "is allowed",
    ),
    (
        nested(AUGMENTATION, "random_scale_crop_and_pad_to_square { scale_min: 0 }"),
        f"{AUGMENTATION}[0].random_scale_crop_and_pad_to_square.scale_min is 0; more than 0 is "
        "allowed",
    ),
    (
        'eval_config { metrics_set: "pascal_voc_detection_metrics" }',
        'eval_config.metrics_set has "pascal_voc_detection_metrics"; only "coco_detection_metrics"',
    ),
    ("eval_config { batch_size: 0 }", "eval_config.batch_size is 0; at least 1 is allowed"),
    (
        "eval_config { use_moving_averages: true }",
        "eval_config.use_moving_averages is true; train_config.optimizer.use_moving_average keeps "
        "none",
    ),
    (
        "eval_config { min_score_threshold: 50 }",
        "eval_config.min_score_threshold is 50; 0 to 1 is allowed",
    ),
    (
        "train_input_reader { num_readers: 0 }",
        "train_input_reader.num_readers is 0; at least 1 is allowed",
    ),
    (
        "train_input_reader { shuffle_buffer_size: 0 }",
        "train_input_reader.shuffle_buffer_size is 0; at least 1 is allowed",
    ),
    (
        'train_input_reader { tf_record_input_reader { input_path: "/no/train*" } }',
        'train_input_reader.tf_record_input_reader.input_path is "/no/train*", which does not '
        "exist; --train_input sets it",
    ),
    (
        'train_input_reader { label_map_path: "/no/map" }',
        'train_input_reader.label_map_path is "/no/map", which does not exist; --label_map sets it',
    ),
    (
        'train_input_reader { label_map_path: "" }',
        "train_input_reader.label_map_path is missing; name a label map or give --label_map",
    ),
    (
        "train_input_reader { digits_input_reader {} }",
        "model.ssd.num_classes is 90; train_input_reader.digits_input_reader has 10",
    ),
    (
        "eval_input_reader {} eval_input_reader {}",
        "eval_input_reader is there 2 times; exactly one is needed",
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
        f"{EXTRACTOR}.pad_to_multiple is 33; padding is not supported, so the images' 320x320 "
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
        "model.ssd.post_processing.score_converter is IDENTITY; SIGMOID is needed, what belongs to "
        "weighted_sigmoid_focal",
    ),
    (
        ssd(
            "encode_background_as_zeros: false loss { classification_loss { weighted_softmax {} } }"
        ),
        "model.ssd.post_processing.score_converter is SIGMOID; SOFTMAX is needed, what belongs to "
        "weighted_softmax",
    ),
    (
        ssd("post_processing { logit_scale: 0 }"),
        "model.ssd.post_processing.logit_scale is 0; more than 0 is allowed",
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
        "model.ssd.freeze_batchnorm freezes all",
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
    (
        "train_config { merge_multiple_label_boxes: true }",
        "train_config.merge_multiple_label_boxes is true; only false is supported",
    ),
    (
        "train_config { use_multiclass_scores: true }",
        "train_config.use_multiclass_scores is true; only false is supported",
    ),
    (
        "train_config { bias_grad_multiplier: -2 }",
        "train_config.bias_grad_multiplier is -2; at least 0 is allowed",
    ),
    (
        'train_config { freeze_variables: "(backbone" }',
        'train_config.freeze_variables is "(backbone", no regular expression: missing ), '
        "unterminated subpattern at position 0",
    ),
    (
        'train_config { fine_tune_checkpoint_type: "detect" }',
        'train_config.fine_tune_checkpoint_type is "detect"; one of detection, fine_tune, '
        "classification, full is allowed",
    ),
    (
        'train_config { fine_tune_checkpoint_type: "classification" '
        "from_detection_checkpoint: true }",
        "train_config.from_detection_checkpoint is true beside fine_tune_checkpoint_type "
        '"classification"; remove one of them',
    ),
    (
        nested(
            OPTIMIZER,
            "rms_prop_optimizer { decay: 9 learning_rate { constant_learning_rate {} } }",
        ),
        f"{OPTIMIZER}.rms_prop_optimizer.decay is 9; 0 to 1 is allowed",
    ),
    (
        nested(
            OPTIMIZER,
            "adam_optimizer { epsilon: 0 learning_rate { constant_learning_rate {} } }",
        ),
        f"{OPTIMIZER}.adam_optimizer.epsilon is 0; more than 0 is allowed",
    ),
    (
        nested(RATE, "exponential_decay_learning_rate { decay_steps: 0 }"),
        f"{RATE}.exponential_decay_learning_rate.decay_steps is 0; at least 1 is allowed",
    ),
    (
        nested(RATE, "exponential_decay_learning_rate { min_learning_rate: 1 }"),
        f"{RATE}.exponential_decay_learning_rate.min_learning_rate is 1; at most "
        "initial_learning_rate, 0.002, is allowed",
    ),
    (
        nested(AUGMENTATION, "random_pixel_value_scale { minval: 2 }"),
        f"{AUGMENTATION}[0].random_pixel_value_scale.minval is 2; at most maxval, 1.1, is allowed",
    ),
    (
        nested(AUGMENTATION, "random_rgb_to_gray { probability: 10 }"),
        f"{AUGMENTATION}[0].random_rgb_to_gray.probability is 10; 0 to 1 is allowed",
    ),
    (
        nested(AUGMENTATION, "random_adjust_brightness { max_delta: -1 }"),
        f"{AUGMENTATION}[0].random_adjust_brightness.max_delta is -1; at least 0 is allowed",
    ),
    (
        nested(AUGMENTATION, "random_adjust_hue { max_delta: 0.6 }"),
        f"{AUGMENTATION}[0].random_adjust_hue.max_delta is 0.6; 0 to 0.5 is allowed",
    ),
    (
        nested(AUGMENTATION, "random_adjust_contrast { min_delta: 0 }"),
        f"{AUGMENTATION}[0].random_adjust_contrast.min_delta is 0; more than 0 is allowed",
    ),
    (
        nested(AUGMENTATION, "random_distort_color { color_ordering: 2 }"),
        f"{AUGMENTATION}[0].random_distort_color.color_ordering is 2; 0 to 1 is allowed",
    ),
    (
        nested(AUGMENTATION, "random_jitter_boxes { ratio: -1 }"),
        f"{AUGMENTATION}[0].random_jitter_boxes.ratio is -1; 0 to 1 is allowed",
    ),
    (
        nested(AUGMENTATION, "random_pad_image { min_image_height: 9 max_image_height: 8 }"),
        f"{AUGMENTATION}[0].random_pad_image.min_image_height is 9; at most max_image_height, 8, "
        "is allowed",
    ),
    (
        nested(AUGMENTATION, "random_pad_image { pad_color: 1 }"),
        f"{AUGMENTATION}[0].random_pad_image.pad_color has 1 values; 3 are needed",
    ),
    (
        nested(AUGMENTATION, "random_crop_pad_image { max_padded_size_ratio: 2 }"),
        f"{AUGMENTATION}[0].random_crop_pad_image.max_padded_size_ratio has 1 values; height and "
        "width are needed",
    ),
    (
        nested(
            AUGMENTATION,
            "ssd_random_crop_pad { operations { min_aspect_ratio: 1 max_aspect_ratio: 1 "
            "min_area: 1 max_area: 1 min_padded_size_ratio: [3, 1] } }",
        ),
        f"{AUGMENTATION}[0].ssd_random_crop_pad.operations[0].min_padded_size_ratio is [3.0, 1.0]; "
        "at most [2.0, 2.0] is allowed",
    ),
    (
        nested(AUGMENTATION, "ssd_random_crop_fixed_aspect_ratio { aspect_ratio: 0 }"),
        f"{AUGMENTATION}[0].ssd_random_crop_fixed_aspect_ratio.aspect_ratio is 0; more than 0 is "
        "allowed",
    ),
    (
        nested(AUGMENTATION, "random_crop_to_aspect_ratio { overlap_thresh: 2 }"),
        f"{AUGMENTATION}[0].random_crop_to_aspect_ratio.overlap_thresh is 2; 0 to 1 is allowed",
    ),
    (
        nested(AUGMENTATION, "random_black_patches { max_black_patches: -1 }"),
        f"{AUGMENTATION}[0].random_black_patches.max_black_patches is -1; at least 0 is allowed",
    ),
    (
        nested(AUGMENTATION, "random_jpeg_quality { min_jpeg_quality: 90 max_jpeg_quality: 80 }"),
        f"{AUGMENTATION}[0].random_jpeg_quality.min_jpeg_quality is 90; at most max_jpeg_quality, "
        "80, is allowed",
    ),
    (
        nested(AUGMENTATION, "random_square_crop_by_scale { num_scales: 0 }"),
        f"{AUGMENTATION}[0].random_square_crop_by_scale.num_scales is 0; at least 1 is allowed",
    ),
    (
        "train_input_reader { num_epochs: 1 }",
        "train_input_reader.num_epochs is 1; only 0 is supported",
    ),
    (
        "train_input_reader { load_instance_masks: true }",
        "train_input_reader.load_instance_masks is true; only false is supported",
    ),
    (
        "train_input_reader { num_keypoints: 17 }",
        "train_input_reader.num_keypoints is 17; only 0 is supported",
    ),
]


@pytest.mark.parametrize(("fragment", "expected"), BAD)
def test_check_names_field_value_and_what_is_allowed(coco_pipeline, fragment, expected):
    merge(fragment, coco_pipeline)
    problems = [p for p in config.check(coco_pipeline) if "has ids up to" not in p]
    assert len(problems) == 1
    assert problems[0].startswith(expected)


MISSING = {
    "model": "model is missing",
    "model.ssd": "model is empty; set ssd",
    "model.ssd.image_resizer": "model.ssd.image_resizer is missing",
    "model.ssd.box_coder": "model.ssd.box_coder is missing",
    "model.ssd.matcher": "model.ssd.matcher is missing",
    "model.ssd.matcher.argmax_matcher": "model.ssd.matcher is empty; set argmax_matcher",
    "model.ssd.similarity_calculator": "model.ssd.similarity_calculator is missing",
    "model.ssd.box_predictor": "model.ssd.box_predictor is missing",
    "model.ssd.anchor_generator": "model.ssd.anchor_generator is missing",
    "model.ssd.loss": "model.ssd.loss is missing",
    "model.ssd.loss.localization_loss": "model.ssd.loss.localization_loss is missing",
    "model.ssd.loss.classification_loss": "model.ssd.loss.classification_loss is missing",
    "model.ssd.post_processing": "model.ssd.post_processing is missing",
    f"{PREDICTOR}.conv_hyperparams": f"{PREDICTOR}.conv_hyperparams is missing",
    "train_config": "train_config is missing",
    "train_config.optimizer": "train_config.optimizer is missing",
    RATE: f"{RATE} is missing",
    "train_input_reader": "train_input_reader is missing",
    "train_input_reader.tf_record_input_reader": "train_input_reader.tf_record_input_reader."
    "input_path is missing; name record files or give --train_input",
    "eval_input_reader": "eval_input_reader is there 0 times; exactly one is needed",
    "search_config.search_space": "search_config.search_space is missing",
    "search_config.controller": "search_config.controller is missing",
    "search_config.reward": "search_config.reward is missing",
    "search_config.latency": "search_config.latency is missing",
}


@pytest.mark.parametrize("path", MISSING)
def test_check_names_what_is_missing(coco_pipeline, path):
    *parents, field = path.split(".")
    functools.reduce(getattr, parents, coco_pipeline).ClearField(field)
    assert MISSING[path] in config.check(coco_pipeline)


def test_check_compares_the_label_map(coco_pipeline, coco_inputs):
    Path(coco_inputs["label_map"]).write_text("item { id: 3 } item { id: 91 }")
    expected = f"model.ssd.num_classes is 90; {coco_inputs['label_map']} has ids up to 91"
    assert config.check(coco_pipeline) == [expected]
    Path(coco_inputs["label_map"]).write_text("item { idd: 3 }")
    assert f'{coco_inputs["label_map"]}:1:8: no field "idd"' in config.check(coco_pipeline)[0]


def test_check_of_an_empty_config():
    assert config.check(pipeline_pb2.TrainEvalPipelineConfig()) == [
        "model is missing",
        "train_config is missing",
        "train_input_reader is missing",
        "eval_input_reader is there 0 times; exactly one is needed",
    ]


def test_digits_have_a_least_size(coco_pipeline):
    merge("model { ssd { num_classes: 10 } }", coco_pipeline)
    merge("train_input_reader { digits_input_reader { image_size: 31 } }", coco_pipeline)
    assert (
        "train_input_reader.digits_input_reader.image_size is 31; at least 32 is allowed"
        in config.check(coco_pipeline)
    )


# What changes nothing here, and what is supported as it is.
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
    "train_config { sync_replicas: true startup_delay_steps: 0 replicas_to_aggregate: 8 "
    "batch_queue_capacity: 9 num_batch_queue_threads: 9 prefetch_queue_capacity: 9 "
    "max_number_of_boxes: 50 unpad_groundtruth_tensors: false use_bfloat16: true "
    "keep_checkpoint_every_n_hours: 1 retain_original_images: true "
    "load_all_detection_checkpoint_vars: true fine_tune_checkpoint_version: V2 "
    'fine_tune_checkpoint_type: "detection" from_detection_checkpoint: true '
    'bias_grad_multiplier: 2 freeze_variables: ".*/batch_norm/.*" }',
    "eval_config { num_examples: 8000 max_evals: 10 eval_interval_secs: 60 save_graph: true "
    "retain_original_images: false }",
    "train_input_reader { queue_capacity: 9 min_after_dequeue: 9 prefetch_size: 9 "
    "num_parallel_map_calls: 9 read_block_length: 9 num_parallel_batches: 9 "
    "num_prefetch_batches: -1 use_display_name: true }",
    nested(AUGMENTATION, "random_horizontal_flip { keypoint_flip_permutation: [1, 0] }"),
    nested(AUGMENTATION, "ssd_random_crop_fixed_aspect_ratio {}"),
    nested(AUGMENTATION, "random_distort_color {}"),
]


@pytest.mark.parametrize("fragment", GOOD)
def test_check_lets_pass(coco_pipeline, fragment):
    merge(fragment, coco_pipeline)
    assert config.check(coco_pipeline) == []


def test_every_augmentation_passes_with_what_is_usual(coco_pipeline):
    step = coco_pipeline.train_config.data_augmentation_options.add()
    for field in step.DESCRIPTOR.oneofs[0].fields:
        getattr(step, field.name).SetInParent()
        assert config.check(coco_pipeline) == [], field.name


def test_a_classifier_is_no_detector(coco_pipeline):
    coco_pipeline.model.ssd.ClearField("feature_extractor")
    coco_pipeline.model.architecture_name = "mnasnet_a1"
    assert "model: the architecture is a classifier; a detector is needed" in config.check(
        coco_pipeline
    )
