"""A classifier that trains in seconds: a few layers on the digits, with batch normalisation."""

from google.protobuf import text_format

from mnasdet.protos import pipeline_pb2

CONFIG = """
model {
  architecture {
    backbone {
      mnasnet {
        stem_channels: 8
        block { channels: 8 stride: 2 expansion: 2 }
        block { channels: 8 stride: 2 expansion: 2 }
        block { channels: 16 stride: 2 expansion: 2 }
        block { channels: 16 stride: 2 expansion: 2 }
      }
      conv_hyperparams {
        regularizer { l2_regularizer { weight: 1e-4 } }
        initializer { variance_scaling_initializer {} }
        sync_batch_norm { decay: 0.9 epsilon: 0.1 scale: true }
      }
    }
    classifier {}
  }
  classification {
    num_classes: 10
    image_resizer { fixed_shape_resizer { height: 32 width: 32 } }
  }
}
train_config {
  batch_size: 16
  num_steps: 4
  checkpoint_every_n_steps: 2
  data_augmentation_options { random_crop_image { min_object_covered: 0 min_area: 0.6 } }
  optimizer {
    momentum_optimizer {
      learning_rate { constant_learning_rate { learning_rate: 0.002 } }
    }
    use_moving_average: false
  }
}
train_input_reader {
  features: IMAGE_CLASS
  digits_input_reader { split: TRAIN num_images: 40 image_size: 32 }
}
eval_config { batch_size: 20 }
eval_input_reader {
  features: IMAGE_CLASS
  digits_input_reader { split: VALIDATION num_images: 20 image_size: 32 }
}
"""


def pipeline():
    return text_format.Parse(CONFIG, pipeline_pb2.TrainEvalPipelineConfig())
