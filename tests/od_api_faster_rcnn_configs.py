"""Pipeline configs of two-stage detectors as users of the TF Object Detection API have them: one
for every feature extractor, with the fields, the hints to its runtime and the spelling usual
there."""

_HYPERPARAMS = """
      conv_hyperparams {
        activation: RELU_6,
        regularizer {
          l2_regularizer {
            weight: 0.0004
          }
        }
        initializer {
          truncated_normal_initializer {
            stddev: 0.03
            mean: 0.0
          }
        }
        batch_norm {
          scale: true,
          decay: 0.997,
          epsilon: 0.001,
        }
      }
"""

_GRID_ANCHORS = """
      grid_anchor_generator {
        scales: [0.25, 0.5, 1.0, 2.0]
        aspect_ratios: [0.5, 1.0, 2.0]
        height_stride: 16
        width_stride: 16
      }
"""

_MULTISCALE_ANCHORS = """
      multiscale_anchor_generator {
        min_level: 2
        max_level: 6
        anchor_scale: 4.0
        aspect_ratios: [1.0, 2.0, 0.5]
        scales_per_octave: 2
        normalize_coordinates: false
      }
"""

# Settings in configs for TPUs.
_STATIC = """
    use_static_shapes: true
    use_matmul_crop_and_resize: true
    clip_anchors_to_image: true
    use_static_balanced_label_sampler: true
    use_matmul_gather_in_matcher: true
    inplace_batchnorm_update: true
"""

_COSINE = """
  sync_replicas: true
  startup_delay_steps: 0
  replicas_to_aggregate: 8
  fine_tune_checkpoint_version: V2
  fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/resnet.ckpt-1"
  fine_tune_checkpoint_type: "classification"
  optimizer {
    momentum_optimizer: {
      learning_rate: {
        cosine_decay_learning_rate {
          learning_rate_base: .04
          total_steps: 25000
          warmup_learning_rate: .013333
          warmup_steps: 2000
        }
      }
      momentum_optimizer_value: 0.9
    }
    use_moving_average: false
  }
  max_number_of_boxes: 100
  unpad_groundtruth_tensors: false
  use_bfloat16: true  # works only on TPUs
"""

_STEPS = """
  optimizer {
    momentum_optimizer: {
      learning_rate: {
        manual_step_learning_rate {
          initial_learning_rate: 0.0003
          schedule {
            step: 900000
            learning_rate: .00003
          }
          schedule {
            step: 1200000
            learning_rate: .000003
          }
        }
      }
      momentum_optimizer_value: 0.9
    }
    use_moving_average: false
  }
  gradient_clipping_by_norm: 10.0
  fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/model.ckpt"
  from_detection_checkpoint: true
  load_all_detection_checkpoint_vars: true
"""

_OF_TPU = "min_dimension: 640 max_dimension: 640 pad_to_max_dimension: true"
_OF_TF1 = "min_dimension: 600 max_dimension: 1024"

# By the type: the image resizer, the rest of the feature extractor, the anchors, the predictor, and
# what of the model and of the training belongs to it.
_KERAS = (
    _OF_TPU,
    "batch_norm_trainable: true",
    _GRID_ANCHORS,
    "share_box_across_classes: true",
    _STATIC,
    _COSINE,
)
_FPN = (
    _OF_TPU,
    f"batch_norm_trainable: true fpn {{ min_level: 2 max_level: 6 }} {_HYPERPARAMS} "
    "override_base_feature_extractor_hyperparams: true",
    _MULTISCALE_ANCHORS,
    "",
    _STATIC,
    _COSINE,
)
_TF1 = (_OF_TF1, "first_stage_features_stride: 16", _GRID_ANCHORS, "", "", _STEPS)

_PARTS = {
    f"faster_rcnn_resnet{depth}{ending}": parts
    for depth in (50, 101, 152)
    for ending, parts in (("", _TF1), ("_keras", _KERAS), ("_fpn_keras", _FPN))
}

EXTRACTORS = sorted(_PARTS)


def config_text(
    extractor: str,
    *,
    train_input: str = "PATH_TO_BE_CONFIGURED/train2017-?????-of-00256.tfrecord",
    eval_input: str = "PATH_TO_BE_CONFIGURED/val2017-?????-of-00032.tfrecord",
    label_map: str = "PATH_TO_BE_CONFIGURED/label_map.txt",
) -> str:
    """The config of a feature extractor's type."""
    resizer, of_extractor, anchors, predictor, model, training = _PARTS[extractor]
    return f"""
# {extractor}, trained on COCO.
model {{
  faster_rcnn {{
    num_classes: 90
    image_resizer {{
      keep_aspect_ratio_resizer {{
        {resizer}
      }}
    }}
    feature_extractor {{
      type: '{extractor}'
      {of_extractor}
    }}
    first_stage_anchor_generator {{
      {anchors}
    }}
    first_stage_box_predictor_conv_hyperparams {{
      op: CONV
      regularizer {{
        l2_regularizer {{
          weight: 0.0
        }}
      }}
      initializer {{
        truncated_normal_initializer {{
          stddev: 0.01
        }}
      }}
    }}
    first_stage_nms_score_threshold: 0.0
    first_stage_nms_iou_threshold: 0.7
    first_stage_max_proposals: 300
    first_stage_localization_loss_weight: 2.0
    first_stage_objectness_loss_weight: 1.0
    initial_crop_size: 14
    maxpool_kernel_size: 2
    maxpool_stride: 2
    second_stage_box_predictor {{
      mask_rcnn_box_predictor {{
        use_dropout: false
        dropout_keep_probability: 1.0
        fc_hyperparams {{
          op: FC
          regularizer {{
            l2_regularizer {{
              weight: 0.0
            }}
          }}
          initializer {{
            variance_scaling_initializer {{
              factor: 1.0
              uniform: true
              mode: FAN_AVG
            }}
          }}
        }}
        {predictor}
      }}
    }}
    second_stage_post_processing {{
      batch_non_max_suppression {{
        score_threshold: 0.0
        iou_threshold: 0.6
        max_detections_per_class: 100
        max_total_detections: 300
      }}
      score_converter: SOFTMAX
    }}
    second_stage_localization_loss_weight: 2.0
    second_stage_classification_loss_weight: 1.0
    {model}
  }}
}}

train_config: {{
  batch_size: 16
  num_steps: 25000
  data_augmentation_options {{
    random_horizontal_flip {{
    }}
  }}
  {training}
}}

train_input_reader: {{
  label_map_path: "{label_map}"
  tf_record_input_reader {{
    input_path: "{train_input}"
  }}
}}

eval_config: {{
  metrics_set: "coco_detection_metrics"
  use_moving_averages: false
  batch_size: 1;
}}

eval_input_reader: {{
  label_map_path: "{label_map}"
  shuffle: false
  num_epochs: 1
  tf_record_input_reader {{
    input_path: "{eval_input}"
  }}
}}
"""
