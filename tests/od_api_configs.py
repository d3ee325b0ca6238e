"""Pipeline configs as users of the TF Object Detection API have them: one for every feature
extractor, with the fields, the hints to its runtime and the spelling that are usual there."""

_HYPERPARAMS = """
      conv_hyperparams {{
        activation: RELU_6,
        regularizer {{
          l2_regularizer {{
            weight: {l2}
          }}
        }}
        initializer {{
          {initializer} {{
            stddev: {stddev}
            mean: 0.0
          }}
        }}
        batch_norm {{
          scale: true,
          center: true,
          train: true,
          decay: {decay},
          epsilon: 0.001,
        }}
      }}
"""

_SSD = _HYPERPARAMS.format(
    l2="4e-5", initializer="truncated_normal_initializer", stddev=0.03, decay=0.9997
)
_SSDLITE = _HYPERPARAMS.format(
    l2="4e-5", initializer="random_normal_initializer", stddev=0.03, decay=0.97
)
_FPN = _HYPERPARAMS.format(
    l2="4e-5", initializer="random_normal_initializer", stddev=0.01, decay=0.997
)

_SSD_ANCHORS = """
    anchor_generator {
      ssd_anchor_generator {
        num_layers: 6
        min_scale: 0.2
        max_scale: 0.95
        aspect_ratios: 1.0
        aspect_ratios: 2.0
        aspect_ratios: 0.5
        aspect_ratios: 3.0
        aspect_ratios: 0.3333
        reduce_boxes_in_lowest_layer: true
      }
    }
"""

_MULTISCALE_ANCHORS = """
    anchor_generator {{
      multiscale_anchor_generator {{
        min_level: 3
        max_level: {max_level}
        anchor_scale: {anchor_scale}
        aspect_ratios: [1.0, 2.0, 0.5]
        scales_per_octave: {scales}
      }}
    }}
"""


def _convolutional(kernel_size: int, use_depthwise: bool, bias: float, hyperparams: str) -> str:
    return f"""
    box_predictor {{
      convolutional_box_predictor {{
        min_depth: 0
        max_depth: 0
        num_layers_before_predictor: 0
        use_dropout: false
        dropout_keep_probability: 0.8
        kernel_size: {kernel_size}
        use_depthwise: {str(use_depthwise).lower()}
        box_code_size: 4
        apply_sigmoid_to_scores: false
        class_prediction_bias_init: {bias}
        {hyperparams}
      }}
    }}
"""


def _weight_shared(depth: int, mobile: bool) -> str:
    return f"""
    box_predictor {{
      weight_shared_convolutional_box_predictor {{
        depth: {depth}
        class_prediction_bias_init: -4.6
        {_FPN}
        num_layers_before_predictor: 4
        {"share_prediction_tower: true use_depthwise: true" if mobile else ""}
        kernel_size: 3
      }}
    }}
"""


# With mining, as of 2018: the background is a class of its own.
_MINED_LOSS = """
    loss {
      classification_loss {
        weighted_sigmoid {
          anchorwise_output: true
        }
      }
      localization_loss {
        weighted_smooth_l1 {
          anchorwise_output: true
        }
      }
      hard_example_miner {
        num_hard_examples: 3000
        iou_threshold: 0.99
        loss_type: CLASSIFICATION
        max_negatives_per_positive: 3
        min_negatives_per_image: 3
      }
      classification_weight: 1.0
      localization_weight: 1.0
    }
"""

_FOCAL_LOSS = """
    encode_background_as_zeros: true
    normalize_loc_loss_by_codesize: true
    loss {
      classification_loss {
        weighted_sigmoid_focal {
          alpha: 0.25,
          gamma: 2.0
        }
      }
      localization_loss {
        weighted_smooth_l1 {
          delta: 1.0
        }
      }
      classification_weight: 1.0
      localization_weight: 1.0
    }
"""

_RMS_PROP = """
  optimizer {
    rms_prop_optimizer: {
      learning_rate: {
        exponential_decay_learning_rate {
          initial_learning_rate: 0.004
          decay_steps: 800720
          decay_factor: 0.95
        }
      }
      momentum_optimizer_value: 0.9
      decay: 0.9
      epsilon: 1.0
    }
  }
  from_detection_checkpoint: true
  load_all_detection_checkpoint_vars: true
  keep_checkpoint_every_n_hours: 24
  data_augmentation_options {
    ssd_random_crop {
    }
  }
"""

_MOMENTUM = """
  sync_replicas: true
  startup_delay_steps: 0
  replicas_to_aggregate: 8
  use_bfloat16: true
  fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/resnet.ckpt-1"
  fine_tune_checkpoint_version: V2
  fine_tune_checkpoint_type: "classification"
  data_augmentation_options {
    random_crop_image {
      min_object_covered: 0.0
      min_aspect_ratio: 0.75
      max_aspect_ratio: 3.0
      min_area: 0.75
      max_area: 1.0
      overlap_thresh: 0.0
    }
  }
  optimizer {
    momentum_optimizer: {
      learning_rate: {
        cosine_decay_learning_rate {
          learning_rate_base: .08
          total_steps: 50000
          warmup_learning_rate: .026666
          warmup_steps: 1000
        }
      }
      momentum_optimizer_value: 0.9
    }
    use_moving_average: false
  }
  max_number_of_boxes: 100
  unpad_groundtruth_tensors: false
"""

_MOBILE_FPN = f"""
      use_depthwise: true
      fpn {{
        min_level: 3
        max_level: 7
        additional_layer_depth: 128
      }}
      {_FPN}
"""
_RESNET_FPN = f"""
      fpn {{
        min_level: 3
        max_level: 7
      }}
      {_FPN}
"""
_SSDLITE_PREDICTOR = _convolutional(3, True, -4.6, _SSDLITE)
_SSDLITE_EXTRACTOR = f"use_depthwise: true {_SSDLITE}"
_ANCHORS_6 = _MULTISCALE_ANCHORS.format(max_level=7, anchor_scale=4.0, scales=2)

# By the type: side of the images, the rest of the feature extractor, the predictor, the anchors,
# the loss, and what of the training belongs to it.
_PARTS = {
    "ssd_mobilenet_v2": (
        300,
        f"pad_to_multiple: 1 batch_norm_trainable: true {_SSD}",
        _convolutional(1, False, 0.0, _SSD),
        _SSD_ANCHORS,
        _MINED_LOSS,
        _RMS_PROP,
    ),
    "ssd_mobilenet_v2_keras": (
        300,
        f"override_base_feature_extractor_hyperparams: true {_SSD}",
        _convolutional(1, False, -4.6, _SSD),
        _SSD_ANCHORS,
        _FOCAL_LOSS,
        _MOMENTUM,
    ),
    "ssd_mobilenet_v2_fpn": (
        320,
        f"override_base_feature_extractor_hyperparams: true {_MOBILE_FPN}",
        _weight_shared(128, True),
        _ANCHORS_6,
        _FOCAL_LOSS,
        _MOMENTUM,
    ),
    "ssd_mobilenet_v2_mnasfpn": (
        320,
        f"fpn {{ max_level: 6 additional_layer_depth: 48 }} {_FPN} "
        "override_base_feature_extractor_hyperparams: true",
        _weight_shared(64, True),
        _MULTISCALE_ANCHORS.format(max_level=6, anchor_scale=3.0, scales=3),
        _FOCAL_LOSS,
        _MOMENTUM,
    ),
    "ssd_mobilenet_v3_large": (
        320,
        f"override_base_feature_extractor_hyperparams: true {_SSDLITE_EXTRACTOR}",
        _SSDLITE_PREDICTOR,
        _SSD_ANCHORS,
        _FOCAL_LOSS,
        _MOMENTUM,
    ),
    "ssd_resnet50_v1_fpn": (
        640,
        f"override_base_feature_extractor_hyperparams: true {_RESNET_FPN}",
        _weight_shared(256, False),
        _ANCHORS_6,
        _FOCAL_LOSS,
        _MOMENTUM,
    ),
}
_PARTS |= {
    "ssd_mobilenet_v2_fpn_keras": _PARTS["ssd_mobilenet_v2_fpn"],
    "ssd_mobilenet_v3_small": _PARTS["ssd_mobilenet_v3_large"],
    "ssd_resnet50_v1_fpn_keras": _PARTS["ssd_resnet50_v1_fpn"],
    "ssd_resnet101_v1_fpn": _PARTS["ssd_resnet50_v1_fpn"],
    "ssd_resnet101_v1_fpn_keras": _PARTS["ssd_resnet50_v1_fpn"],
    "ssd_resnet152_v1_fpn": _PARTS["ssd_resnet50_v1_fpn"],
    "ssd_resnet152_v1_fpn_keras": _PARTS["ssd_resnet50_v1_fpn"],
}

EXTRACTORS = sorted(_PARTS)


def config_text(
    extractor: str,
    *,
    train_input: str = "PATH_TO_BE_CONFIGURED/train.record-?????-of-00100",
    eval_input: str = "PATH_TO_BE_CONFIGURED/val.record-?????-of-00010",
    label_map: str = "PATH_TO_BE_CONFIGURED/label_map.pbtxt",
) -> str:
    """The config of a feature extractor's type."""
    size, of_extractor, predictor, anchors, loss, training = _PARTS[extractor]
    return f"""
# {extractor}, trained on COCO.
model {{
  ssd {{
    inplace_batchnorm_update: true
    freeze_batchnorm: false
    num_classes: 90
    box_coder {{
      faster_rcnn_box_coder {{
        y_scale: 10.0
        x_scale: 10.0
        height_scale: 5.0
        width_scale: 5.0
      }}
    }}
    matcher {{
      argmax_matcher {{
        matched_threshold: 0.5
        unmatched_threshold: 0.5
        ignore_thresholds: false
        negatives_lower_than_unmatched: true
        force_match_for_each_row: true
        use_matmul_gather: true
      }}
    }}
    similarity_calculator {{
      iou_similarity {{
      }}
    }}
    {anchors}
    image_resizer {{
      fixed_shape_resizer {{
        height: {size}
        width: {size}
      }}
    }}
    {predictor}
    feature_extractor {{
      type: '{extractor}'
      min_depth: 16
      depth_multiplier: 1.0
      {of_extractor}
    }}
    {loss}
    normalize_loss_by_num_matches: true
    post_processing {{
      batch_non_max_suppression {{
        score_threshold: 1e-8
        iou_threshold: 0.6
        max_detections_per_class: 100
        max_total_detections: 100
        use_static_shapes: true
      }}
      score_converter: SIGMOID
    }}
  }}
}}

train_config: {{
  batch_size: 24
  num_steps: 50000
  batch_queue_capacity: 150
  num_batch_queue_threads: 8
  prefetch_queue_capacity: 5
  data_augmentation_options {{
    random_horizontal_flip {{
    }}
  }}
  {training}
}}

train_input_reader: {{
  tf_record_input_reader {{
    input_path: "{train_input}"
  }}
  label_map_path: "{label_map}"
}}

eval_config: {{
  metrics_set: "coco_detection_metrics"
  num_examples: 8000
  max_evals: 10
  batch_size: 1;
}}

eval_input_reader: {{
  tf_record_input_reader {{
    input_path: "{eval_input}"
  }}
  label_map_path: "{label_map}"
  shuffle: false
  num_epochs: 1
  num_readers: 1
}}
"""
