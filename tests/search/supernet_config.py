"""The config of a search in a supernet that trains in seconds, on the embedded digits."""

from google.protobuf import text_format

from mnasdet import config
from mnasdet.protos import pipeline_pb2

_TEXT = """
model {
  architecture {
    backbone { operation_layers { stem_channels: 8
      layer { op: "ir_k3_d1_e1" channels: 8 stride: 2 }
      layer { op: "ir_k3_d1_e1" channels: 12 stride: 2 }
      layer { op: "ir_k3_d1_e1" channels: 16 stride: 2 }
      layer { op: "ir_k3_d1_e1" channels: 16 stride: 2 }
    } }
    feature_pyramid { hit { min_level: 3 max_level: 5 channels: 8
      lateral { op: "sep_k3" } lateral { op: "sep_k3" } lateral { op: "sep_k3" }
      output { op: "sep_k3" } output { op: "sep_k3" } output { op: "sep_k3" }
    } }
    box_predictor { weight_shared_convolutional_box_predictor {
      depth: 8 num_layers_before_predictor: 1
      conv_hyperparams {
        activation: RELU_6
        regularizer { l2_regularizer { weight: 1e-4 } }
        initializer { truncated_normal_initializer { stddev: 0.03 } }
        batch_norm { scale: true }
      }
    } }
    anchor_generator { multiscale_anchor_generator {
      min_level: 3 max_level: 5 anchor_scale: 3.0 scales_per_octave: 1 aspect_ratios: [1.0]
    } }
  }
  ssd {
    num_classes: 10
    image_resizer { fixed_shape_resizer { height: 32 width: 32 } }
    box_coder { faster_rcnn_box_coder {} }
    matcher { argmax_matcher { force_match_for_each_row: true } }
    similarity_calculator { iou_similarity {} }
    encode_background_as_zeros: true
    loss {
      classification_loss { weighted_sigmoid_focal { alpha: 0.25 gamma: 2.0 } }
      localization_loss { weighted_smooth_l1 {} }
    }
    post_processing {
      batch_non_max_suppression { max_detections_per_class: 5 max_total_detections: 5 }
      score_converter: SIGMOID
    }
  }
}
train_config { %(training)s }
eval_config { batch_size: 4 }
train_input_reader { digits_input_reader { split: TRAIN num_images: 8 image_size: 32 } }
eval_input_reader {
  digits_input_reader { split: VALIDATION num_images: 4 image_size: 32 } shuffle: false
}
search_config {
  num_trials: 3
  search_space { supernet {
    backbone_ops: ["sep_k3_d1", "conv_k3_d1", "sep_k5_d2"]
    pyramid_ops: ["sep_k3_d1"]
  } }
  reward { accuracy {} }
  latency { multiply_adds {} }
  executor { this_process {} }
  differentiable {
    train_config { %(training)s }
    alpha_learning_rate: 0.05
    alpha_start_step: 1
    %(further)s
  }
}
"""

_TRAINING = """
  batch_size: 4
  num_steps: %d
  checkpoint_every_n_steps: 1
  optimizer {
    momentum_optimizer {
      learning_rate { constant_learning_rate { learning_rate: 0.01 } }
      momentum_optimizer_value: 0.9
    }
    use_moving_average: false
  }
"""


def pipeline(num_steps: int = 4, further: str = "") -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the config, with further fields of `differentiable`."""
    text = _TEXT % {"training": training(num_steps), "further": further}
    parsed = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    assert not config.check(parsed)
    return parsed


def training(num_steps: int) -> str:
    """Returns the fields of a short training."""
    return _TRAINING % num_steps
