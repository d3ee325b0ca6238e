"""Makes one training step of a network of every kind, compiled by XLA on the CPU, and prints the
losses as JSON. It runs in a process of its own, for XLA has no deterministic gradient of max
pooling, and determinism cannot be turned off again."""

import json

import numpy as np
import tensorflow as tf
import tf_keras
from google.protobuf import text_format

from mnasdet import config, models
from mnasdet.architectures import smallest_image_size
from mnasdet.protos import pipeline_pb2
from mnasdet.training.learner import Learner

# XLA computes gradients of depthwise convolutions slowly on a CPU: one small image.
SIDE = 64
PIPELINE = f"""
  model {{ ssd {{
    num_classes: 3
    image_resizer {{ fixed_shape_resizer {{ height: {SIDE} width: {SIDE} }} }}
    encode_background_as_zeros: true
    loss {{
      classification_loss {{ weighted_sigmoid_focal {{ alpha: 0.25 gamma: 2.0 }} }}
      localization_loss {{ weighted_smooth_l1 {{}} }}
    }}
  }} }}
  train_config {{ optimizer {{ momentum_optimizer {{ learning_rate {{
    constant_learning_rate {{ learning_rate: 0.01 }}
  }} }} }} }}
"""


# One layer at each stride: XLA compiles it in seconds.
BACKBONE = (
    "mnasnet_s8_l32_ir_r1_k3_s2_e2_c8.ir_r1_k3_s2_e2_c16_se0.25.ir_r1_k5_s2_e2_c16.ir_r1_k3_s2_e2_c16"
    "/classifier"
)


def small(name):
    """The architecture's pyramid and head, narrow and with one repeat, over a short backbone."""
    loaded = config.load_architecture(name)
    loaded.backbone.CopyFrom(config.load_architecture(BACKBONE).backbone)
    if loaded.box_predictor.HasField("weight_shared_convolutional_box_predictor"):
        predictor = loaded.box_predictor.weight_shared_convolutional_box_predictor
        predictor.depth, predictor.num_layers_before_predictor = 16, 1
    kind = loaded.feature_pyramid.WhichOneof("feature_pyramid_oneof")
    if kind in ("mnasfpn", "nas_fpn"):
        pyramid = getattr(loaded.feature_pyramid, kind)
        pyramid.channels, pyramid.repeats = 16, 1
    return loaded


def detector_losses(name):
    pipeline = text_format.Parse(PIPELINE, pipeline_pb2.TrainEvalPipelineConfig())
    architecture = small(name)
    side = max(SIDE, smallest_image_size(architecture))
    architecture.input.height = architecture.input.width = side
    task = models.build(config.resolve(pipeline, architecture))
    rng = np.random.default_rng(0)
    shape = (1, len(task.anchors))
    batch = {
        "image": tf.constant(rng.uniform(-1, 1, (1, side, side, 3)), tf.float32),
        "class_targets": tf.constant(rng.choice([-1, 0, 0, 1, 2, 3], shape), tf.int32),
        "box_targets": tf.constant(rng.normal(size=(*shape, 4)), tf.float32),
    }
    learner = Learner(task, pipeline.train_config, jit_compile=True)
    return {key: float(value) for key, value in learner.update(batch).items()}


if __name__ == "__main__":
    tf_keras.utils.set_random_seed(0)
    names = ["mobilenet_v2_mnasfpn", "resnet10_nas_fpn_3_256", "mobilenet_v2_ssdlite"]
    print(json.dumps({name: detector_losses(name) for name in names}))
