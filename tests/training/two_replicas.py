"""Trains on two logical CPU devices and on one, and prints what came of it as JSON. A process of
its own: TensorFlow has to be told of the devices before it does anything.

  python two_replicas.py NAME of a case
"""

import json
import sys

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config, models
from mnasdet.protos import pipeline_pb2
from mnasdet.training import checkpoints, runtime
from mnasdet.training.learner import Learner

# Logical devices share the cores; a CPU has no other collective.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
BATCH_SIZE, SIDE, CLASSES = 16, 64, 3

PIPELINE = f"""
  model {{
    ssd {{
      num_classes: {CLASSES}
      image_resizer {{ fixed_shape_resizer {{ height: {SIDE} width: {SIDE} }} }}
      encode_background_as_zeros: true
      box_coder {{ faster_rcnn_box_coder {{}} }}
      loss {{
        classification_loss {{ weighted_sigmoid_focal {{ alpha: 0.25 gamma: 2.0 }} }}
        localization_loss {{ weighted_smooth_l1 {{}} }}
      }}
    }}
  }}
  train_config {{ optimizer {{ momentum_optimizer {{ learning_rate {{
    constant_learning_rate {{ learning_rate: 0.02 }}
  }} }} }} }}
"""

MNASFPN = "mobilenet_v2_mnasfpn"

# Name: architecture, changes of the ssd message, changes of train_config, steps.
CASES = {
    "frozen": (MNASFPN, "freeze_batchnorm: true", "", 20),
    "synchronized": (MNASFPN, "synchronized", "", 20),
    "sums": (
        MNASFPN,
        "freeze_batchnorm: true normalize_loss_by_num_matches: false",
        "optimizer { momentum_optimizer { learning_rate { constant_learning_rate { "
        "learning_rate: 0.0002 } } } }",
        3,
    ),
    "parts": (MNASFPN, "freeze_batchnorm: true", "parallel_parts: 2", 3),
    "pruning": (
        MNASFPN,
        "freeze_batchnorm: true",
        "pruning { final_sparsity: 0.5 end_step: 2 frequency: 1 }",
        3,
    ),
    "clustering": (
        MNASFPN,
        "freeze_batchnorm: true",
        "weight_clustering { num_clusters: 8 }",
        3,
    ),
}


def blueprint(name, ssd):
    pipeline = text_format.Parse(PIPELINE, pipeline_pb2.TrainEvalPipelineConfig())
    architecture = config.load_architecture(name)
    architecture.depth_multiplier = 0.35
    if architecture.feature_pyramid.HasField("mnasfpn"):
        architecture.feature_pyramid.mnasfpn.repeats = 1
    if ssd == "synchronized":
        for part in (architecture.backbone, architecture.feature_pyramid):
            text_format.Merge(SYNCHRONIZED, part.conv_hyperparams)
        shared = architecture.box_predictor.weight_shared_convolutional_box_predictor
        shared.conv_hyperparams.ClearField("batch_norm")
        text_format.Merge(SYNCHRONIZED, shared.conv_hyperparams)
    else:
        text_format.Merge(ssd, pipeline.model.ssd)
    return pipeline, config.resolve(pipeline, architecture)


SYNCHRONIZED = """
  initializer { truncated_normal_initializer { stddev: 0.05 } }
  activation: RELU_6 sync_batch_norm { decay: 0.99 epsilon: 0.01 scale: true }
"""


def batch(task, number):
    rng = np.random.default_rng(number)
    anchors = len(task.anchors)
    classes = rng.choice([0, 0, 0, 0, -1, 1, 2, 3], (BATCH_SIZE, anchors))
    # Replicas with very different numbers of matches.
    classes[: BATCH_SIZE // 2][classes[: BATCH_SIZE // 2] > 1] = 0
    return {
        "image": rng.uniform(-1, 1, (BATCH_SIZE, SIDE, SIDE, 3)).astype(np.float32),
        "class_targets": classes.astype(np.int32),
        "box_targets": rng.normal(size=(BATCH_SIZE, anchors, 4)).astype(np.float32),
    }


def train(strategy, case):
    name, ssd, train, steps = CASES[case]
    pipeline, plan = blueprint(name, ssd)
    text_format.Merge(train, pipeline.train_config)
    runtime.seed_everything(0)
    with strategy.scope():
        task = models.build(plan)
        learner = Learner(task, pipeline.train_config, keep_averages=True)
        data = tf.data.Dataset.from_generator(
            lambda: (batch(task, number) for number in range(steps)),
            output_signature={
                key: tf.TensorSpec(value.shape, value.dtype)
                for key, value in batch(task, 0).items()
            },
        )
        data = data.unbatch().batch(BATCH_SIZE, drop_remainder=True)
        batches = iter(strategy.experimental_distribute_dataset(data))
    losses = []
    for step in range(1, steps + 1):
        losses.append(float(learner.update(next(batches))["Loss/total_loss"]))
        learner.average(step)
    assert learner.step == steps
    assert not learner.fault()
    with learner.averaged_weights():
        pass
    weights = checkpoints.variables_by_name(task.model)
    kernel = weights["backbone/layer_17/project/conv/kernel"].numpy()
    return {
        "losses": losses,
        "norm": float(np.linalg.norm(kernel)),
        "zeros": float((kernel == 0).mean()),
        "values": len(np.unique(kernel)),
    }


if __name__ == "__main__":
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    print(json.dumps([train(one, sys.argv[1]), train(two, sys.argv[1])]))
