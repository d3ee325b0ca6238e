"""The config of a two-stage detector that trains in seconds, on the embedded digits."""

ARCHITECTURE = """
    name: "tiny_cascade"
    backbone { base_code { code: "basicblock_16_1-1-1-1" } }
    feature_pyramid { fpn { min_level: 3 max_level: 5 channels: 16 } }
    anchor_generator { multiscale_anchor_generator {
      min_level: 3 max_level: 5 anchor_scale: 3.0 scales_per_octave: 1 aspect_ratios: [1.0]
    } }
    region_proposal { channels: 16 max_proposals: 12 }
    region_head {
      region_align { size: 3 sampling_ratio: 1 }
      fully_connected { channels: 24 }
      stage { iou_threshold: 0.5 }
      stage { iou_threshold: 0.6 loss_weight: 0.5 }
    }
"""

_TEXT = """
model {
  architecture { %(architecture)s }
  faster_rcnn {
    num_classes: 10
    image_resizer { fixed_shape_resizer { height: 64 width: 64 } }
    first_stage_minibatch_size: 32
    first_stage_max_proposals: 12
    second_stage_batch_size: 16
    second_stage_post_processing {
      batch_non_max_suppression {
        score_threshold: 0.0
        iou_threshold: 0.5
        max_detections_per_class: 20
        max_total_detections: 20
      }
      score_converter: SOFTMAX
    }
  }
}
train_config {
  batch_size: 4
  num_steps: 4
  optimizer { momentum_optimizer {
    learning_rate { constant_learning_rate { learning_rate: 0.01 } }
    momentum_optimizer_value: 0.9
  } }
}
eval_config { batch_size: 4 use_moving_averages: true }
train_input_reader { digits_input_reader { split: TRAIN num_images: 8 image_size: 64 } }
eval_input_reader { digits_input_reader { split: VALIDATION num_images: 8 image_size: 64 } }
"""


def text(architecture: str = ARCHITECTURE, further: str = "") -> str:
    """Returns the text of the config, with further messages."""
    return _TEXT % {"architecture": architecture} + further
