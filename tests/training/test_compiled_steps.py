"""XLA compiles the losses of every task and their gradients, with deterministic operations."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config, models
from mnasdet.architectures import smallest_image_size
from mnasdet.protos import pipeline_pb2
from mnasdet.training import runtime
from tests.training import small_classifier

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


# Operations that run on the host, or give a tensor whose shape its values decide. XLA compiles
# none of them; it leaves out the last ones.
ON_THE_HOST = (
    "PyFunc",
    "EagerPyFunc",
    "PyFuncStateless",
    "Print",
    "Where",
    "Unique",
    "DynamicPartition",
    "NonMaxSuppression",
    "Assert",
)


def detector(name):
    """A detector of one image, and a batch for it."""
    pipeline = text_format.Parse(PIPELINE, pipeline_pb2.TrainEvalPipelineConfig())
    architecture = small(name)
    side = max(SIDE, smallest_image_size(architecture))
    architecture.input.height = architecture.input.width = side
    task = models.build(config.resolve(pipeline, architecture))
    rng = np.random.default_rng(0)
    shape = (1, len(task.anchors))
    return task, {
        "image": tf.constant(rng.uniform(-1, 1, (1, side, side, 3)), tf.float32),
        "class_targets": tf.constant(rng.choice([-1, 0, 0, 1, 2, 3], shape), tf.int32),
        "box_targets": tf.constant(rng.normal(size=(*shape, 4)), tf.float32),
    }


def classifier():
    """A classifier with mixup, and a batch for it."""
    pipeline = small_classifier.pipeline()
    pipeline.model.classification.mixup_alpha = 0.2
    task = models.build(config.resolve(pipeline))
    return task, {
        "image": tf.random.uniform((2, 32, 32, 3), -1, 1, seed=0),
        "class": tf.constant([3, 10]),
        "share": tf.constant([0.5, 1.0]),
    }


@pytest.mark.parametrize(
    "name", ["mobilenet_v2_mnasfpn", "resnet10_nas_fpn_3_256", "mobilenet_v2_ssdlite", ""]
)
def test_a_step_compiles_and_has_fixed_shapes_and_nothing_on_the_host(name):
    runtime.seed_everything(0)
    task, batch = detector(name) if name else classifier()
    graphs, forward = [], []

    @tf.function(jit_compile=True, autograph=False)
    def step(batch):
        graphs.append(tf.compat.v1.get_default_graph())
        with tf.GradientTape() as tape:
            losses = {name: loss.total for name, loss in task.losses(batch).items()}
            total = tf.add_n(list(losses.values()))
        forward.extend(graphs[0].get_operations())
        return losses, tape.gradient(total, task.model.trainable_variables)

    losses, gradients = step(batch)
    assert all(float(loss) > 0 for loss in losses.values())
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    graph = graphs[0].as_graph_def()
    nodes = [
        *graph.node,
        *(node for function in graph.library.function for node in function.node_def),
    ]
    assert not [node.op for node in nodes if node.op.startswith(ON_THE_HOST)]
    # The last output of a batch normalisation is for its own gradient.
    outputs = [o for one in forward for o in one.outputs if one.type != "FusedBatchNormV3"]
    assert not [output for output in outputs if not output.shape.is_fully_defined()]
