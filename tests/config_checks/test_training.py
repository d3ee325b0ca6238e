"""Every check of the training, by its message."""

import pytest

from mnasdet import config
from tests.config_fragments import AUGMENTATION, OPTIMIZER, RATE, merge, nested, the_problem

# A fragment that spoils the config, and the one problem that it makes.
BAD = [
    ("train_config { batch_size: 0 }", "train_config.batch_size is 0; at least 1 is allowed"),
    (
        "train_config { parallel_parts: 3 }",
        "train_config.parallel_parts is 3; a divisor of batch_size, 1024, is needed",
    ),
    (
        "train_config { gradient_accumulation_steps: 8 parallel_parts: 256 }",
        "train_config.gradient_accumulation_steps is 8; times parallel_parts, 256, a divisor of "
        "batch_size, 1024, is needed",
    ),
    (
        "train_config { gradient_accumulation_steps: 0 }",
        "train_config.gradient_accumulation_steps is 0; at least 1 is allowed",
    ),
    (
        "train_config { use_bfloat16: true precision: FLOAT16 }",
        "train_config.precision is FLOAT16; only BFLOAT16 is supported",
    ),
    (
        "train_config { distribution {} }",
        "train_config.distribution is empty; set one_device or mirrored or multi_worker or tpu",
    ),
    (
        "train_config { distribution { tpu {} } precision: FLOAT16 }",
        "train_config.precision is FLOAT16; a TPU computes in BFLOAT16 or FLOAT32",
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
        nested("train_config.optimizer.momentum_optimizer", "weight_decay: -1"),
        "train_config.optimizer.momentum_optimizer.weight_decay is -1; at least 0 is allowed",
    ),
    (
        'train_config { rate_factors { variables: "^backbone" } }',
        "train_config.rate_factors[0].factor is 0; more than 0 is allowed",
    ),
    (
        "train_config { rate_factors { factor: 0.1 } }",
        'train_config.rate_factors[0].variables is missing; name variables, as in "^backbone"',
    ),
    (
        'train_config { rate_factors { variables: "(" factor: 0.1 } }',
        'train_config.rate_factors[0].variables is "(", no regular expression: missing ), ',
    ),
    (
        'train_config { freeze_until { variables: "^backbone" } }',
        "train_config.freeze_until.step is 0; more than 0 and less than num_steps, 50000, is "
        "allowed; freeze_variables freezes to the end",
    ),
    (
        'train_config { freeze_until { variables: "^backbone" step: 50000 } }',
        "train_config.freeze_until.step is 50000; more than 0 and less than num_steps, 50000, is",
    ),
    (
        "train_config { freeze_until { step: 5 } }",
        'train_config.freeze_until.variables is missing; name variables, as in "^backbone"',
    ),
    (
        "train_config { eval_every_n_steps: 0 early_stopping {} }",
        "train_config.eval_every_n_steps is 0; early_stopping needs at least 1",
    ),
    (
        "train_config { eval_every_n_steps: 9 early_stopping { evaluations_without_gain: 0 } }",
        "train_config.early_stopping.evaluations_without_gain is 0; at least 1 is allowed",
    ),
    (
        "train_config { eval_every_n_steps: 9 early_stopping { min_gain: -1 } }",
        "train_config.early_stopping.min_gain is -1; at least 0 is allowed",
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
        f"{RATE}.cosine_decay_learning_rate.hold_base_rate_steps is 45001; together with "
        "warmup_steps at most total_steps, 50000, is allowed",
    ),
    (
        nested(RATE, "cosine_decay_learning_rate { min_learning_rate: 5 }"),
        f"{RATE}.cosine_decay_learning_rate.min_learning_rate is 5; at most learning_rate_base, "
        "4, is allowed",
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
        f"{RATE}.manual_step_learning_rate.schedule is empty, but warmup needs its first step",
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
        nested(AUGMENTATION, "random_mosaic { min_share: 0.6 }"),
        f"{AUGMENTATION}[0].random_mosaic.min_share is 0.6; 0 to 0.5 is allowed",
    ),
    (
        nested(AUGMENTATION, "random_mosaic { output_size: 1 }"),
        f"{AUGMENTATION}[0].random_mosaic.output_size is 1; at least 2 is allowed",
    ),
    (
        "train_config { data_augmentation_options { random_horizontal_flip {} } "
        "data_augmentation_options { random_mosaic {} } }",
        f"{AUGMENTATION}[1].random_mosaic has to be the first of the steps, and there but once",
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
]


@pytest.mark.parametrize(("fragment", "expected"), BAD)
def test_check_names_field_value_and_what_is_allowed(coco_pipeline, fragment, expected):
    assert the_problem(fragment, coco_pipeline).startswith(expected)


# Fields that have no effect here, and values that are supported.
GOOD = [
    "train_config { sync_replicas: true startup_delay_steps: 0 replicas_to_aggregate: 8 "
    "batch_queue_capacity: 9 num_batch_queue_threads: 9 prefetch_queue_capacity: 9 "
    "max_number_of_boxes: 50 unpad_groundtruth_tensors: false use_bfloat16: true "
    "keep_checkpoint_every_n_hours: 1 retain_original_images: true "
    "load_all_detection_checkpoint_vars: true fine_tune_checkpoint_version: V2 "
    'fine_tune_checkpoint_type: "detection" from_detection_checkpoint: true '
    'bias_grad_multiplier: 2 freeze_variables: ".*/batch_norm/.*" }',
    nested(AUGMENTATION, "random_horizontal_flip { keypoint_flip_permutation: [1, 0] }"),
    nested(AUGMENTATION, "ssd_random_crop_fixed_aspect_ratio {}"),
    nested(AUGMENTATION, "random_distort_color {}"),
]


@pytest.mark.parametrize("fragment", GOOD)
def test_check_lets_pass(coco_pipeline, fragment):
    merge(fragment, coco_pipeline)
    assert config.check(coco_pipeline) == []


def test_every_augmentation_passes_with_what_is_usual(coco_pipeline):
    coco_pipeline.train_config.ClearField("data_augmentation_options")
    step = coco_pipeline.train_config.data_augmentation_options.add()
    for field in step.DESCRIPTOR.oneofs[0].fields:
        getattr(step, field.name).SetInParent()
        assert config.check(coco_pipeline) == [], field.name
