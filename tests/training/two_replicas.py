"""Trains a small network on two logical CPU devices and on one, and prints what came of it as JSON.
It runs in a process of its own: TensorFlow has to be told of the devices before it does anything.
"""

import json
import sys

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import models
from mnasdet.blueprint import Blueprint
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.detectors.one_stage import Detector, freeze_batch_norm
from mnasdet.detectors.post_processing import PostProcessing
from mnasdet.networks.builder import Builder
from mnasdet.networks.hyperparams import Initializer, Kernel
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2, ssd_pb2, train_pb2
from mnasdet.training import checkpoints, precision, runtime
from mnasdet.training.learner import Learner
from tests.detectors import small_two_stage

BATCH_SIZE, SIDE, CLASSES, STEPS = 16, 16, 3, 20
ANCHORS = np.random.default_rng(0).uniform(size=(64, 4)).astype(np.float32)

SSD = """
  encode_background_as_zeros: true
  loss {
    classification_loss { weighted_sigmoid_focal { alpha: 0.25 } }
    localization_loss { weighted_smooth_l1 {} }
  }
"""
RATE = "learning_rate { constant_learning_rate { learning_rate: %s } }"
TRAIN = f"optimizer {{ momentum_optimizer {{ {RATE % 0.05} }} }}"

# By name: changes of the ssd message and of train_config, and whether batch normalisation takes its
# statistics over all replicas.
CASES = {
    "frozen": ("freeze_batchnorm: true", "", False),
    "synchronized": ("", "", True),
    "sums": (
        "freeze_batchnorm: true normalize_loss_by_num_matches: false",
        f"optimizer {{ momentum_optimizer {{ {RATE % 1e-4} }} }}",
        False,
    ),
    "clipped": ("freeze_batchnorm: true", "gradient_clipping_by_norm: 0.1", False),
    "parts": ("freeze_batchnorm: true", "parallel_parts: 2", False),
    "accumulated": ("freeze_batchnorm: true", "gradient_accumulation_steps: 4", False),
    # Its parts are other images on two replicas than on one, so the images are put in order.
    "accumulated_synchronized": ("", "gradient_accumulation_steps: 2", True),
    "float16": ("freeze_batchnorm: true", "precision: FLOAT16", False),
    "compiled": ("freeze_batchnorm: true", "", False),
    "pruned": (
        "freeze_batchnorm: true",
        "pruning { final_sparsity: 0.5 end_step: 3 frequency: 1 }",
        False,
    ),
    "fine_tuned": (
        "freeze_batchnorm: true",
        f"""
        optimizer {{ momentum_optimizer {{ {RATE % 0.05} weight_decay: 0.5 }} }}
        rate_factors {{ variables: "kernel$" factor: 0.5 }}
        freeze_until {{ variables: "^backbone" step: 5 }}
        """,
        False,
    ),
    # An image's random draws depend on its own seed alone. The steps are slow, so they are few.
    "two_stage": ("", "", False),
    "clustered": ("freeze_batchnorm: true", "weight_clustering { num_clusters: 4 }", False),
}


def detector(ssd, synchronized):
    b = Builder()
    kernel = Kernel(Initializer("normal", 0.2), l2=1e-3)
    x = b.conv2d(b.input((SIDE, SIDE, 3)), 8, 3, strides=2, kernel=kernel, name="backbone/conv")
    x = b.batch_norm(
        x, momentum=0.9, epsilon=1e-3, synchronized=synchronized, name="backbone/batch_norm"
    )
    x = b.activation(x, "relu6", name="backbone/relu6")
    outputs = {}
    for name, values in ((BOX_ENCODINGS, 4), (CLASS_LOGITS, 1 + CLASSES)):
        y = b.conv2d(x, values, 1, use_bias=True, kernel=kernel, name=f"box_predictor/{name}/conv")
        outputs[name] = b.reshape(y, (len(ANCHORS), values), name=f"box_predictor/{name}")
    model = keras_model(outputs)
    settings = text_format.Merge(ssd, text_format.Parse(SSD, ssd_pb2.Ssd()))
    if settings.freeze_batchnorm:
        freeze_batch_norm(model)
    plan = Blueprint(
        "ssd", architecture_pb2.Architecture(), ImageResizer((SIDE, SIDE)), CLASSES, settings
    )
    return Detector(plan, model, ANCHORS, PostProcessing())


def batches():
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        classes = rng.choice([0, 0, 0, 0, -1, 1, 2, 3], (BATCH_SIZE, len(ANCHORS)))
        # The replicas have very different numbers of matches.
        classes[: BATCH_SIZE // 2][classes[: BATCH_SIZE // 2] > 1] = 0
        yield {
            "image": rng.uniform(-1, 1, (BATCH_SIZE, SIDE, SIDE, 3)).astype(np.float32),
            "class_targets": classes.astype(np.int32),
            "box_targets": rng.normal(size=(BATCH_SIZE, len(ANCHORS), 4)).astype(np.float32),
        }


def two_stage_detector():
    return models.build(small_two_stage.blueprint(settings="feature_extractor {}"))


def two_stage_batches():
    task = two_stage_detector()
    of_batch = small_two_stage.batch(task, range(BATCH_SIZE))
    return [{name: value.numpy() for name, value in of_batch.items()}] * STEPS


def train(strategy, case):
    ssd, train_config, synchronized = CASES[case]
    runtime.seed_everything(0)
    parsed = text_format.Merge(train_config, text_format.Parse(TRAIN, train_pb2.TrainConfig()))
    with strategy.scope():
        with precision.building(parsed):
            two_stage = case == "two_stage"
            task = two_stage_detector() if two_stage else detector(ssd, synchronized)
        learner = Learner(
            task,
            parsed,
            keep_averages=True,
            jit_compile=case == "compiled",
        )
        data = tf.data.Dataset.from_tensor_slices(
            {
                name: np.concatenate([value[order(strategy, case)] for value in values])
                for name, values in stacked(two_stage_batches() if two_stage else batches())
            }
        ).batch(BATCH_SIZE, drop_remainder=True)
        iterator = iter(strategy.experimental_distribute_dataset(data))
    losses = []
    steps = 6 if two_stage else STEPS
    for step in range(1, steps + 1):
        losses.append(float(learner.update(next(iterator))["Loss/total_loss"]))
        learner.average(step)
    assert learner.step == steps
    assert not learner.fault()
    with learner.averaged_weights():
        pass
    weights = checkpoints.variables_by_name(learner.model)
    kernel = next(v for name, v in weights.items() if name.endswith("conv/kernel")).numpy()
    return {
        **(bad_step(learner, strategy) if case == "frozen" else {}),
        "losses": losses,
        "replicas": strategy.num_replicas_in_sync,
        "zeros": float((kernel == 0).mean()),
        "values": len(np.unique(kernel)),
        "weights": {name: float(np.abs(v.numpy()).sum()) for name, v in weights.items()},
    }


def order(strategy, case):
    """The order of a batch's images: the parts of one replica have those of two replicas' parts."""
    images = np.arange(BATCH_SIZE).reshape(2, 2, -1)
    alone = case == "accumulated_synchronized" and strategy.num_replicas_in_sync == 1
    return (images.swapaxes(0, 1) if alone else images).reshape(-1)


def bad_step(learner, strategy):
    """Makes a step with an image that is not a number, which the last replica gets."""
    examples = next(batches())
    examples["image"][-1] = np.nan
    data = tf.data.Dataset.from_tensor_slices(examples).batch(BATCH_SIZE, drop_remainder=True)
    batch = next(iter(strategy.experimental_distribute_dataset(data)))
    before = [variable.numpy() for variable in learner.model.trainable_variables]
    learner.update(batch)
    after = [variable.numpy() for variable in learner.model.trainable_variables]
    moved = any((one != other).any() for one, other in zip(before, after, strict=True))
    first = learner.first_bad_tensor(batch)
    return {"bad_step": learner.bad_step, "moved": moved, "first_bad_tensor": first}


def stacked(every):
    every = list(every)
    return {name: [batch[name] for batch in every] for name in every[0]}.items()


if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print(
        json.dumps({case: [train(one, case), train(two, case)] for case in sys.argv[1:] or CASES})
    )
