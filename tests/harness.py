"""Provides the checks that every whole network has to pass: a published architecture, a sample of
a search space, one of your own.

    network = harness.build(config.load_architecture("mobilenet_v2_mnasfpn"))
    harness.check_shapes(network)
    harness.check_weights(network)
    harness.check_multiply_adds(network)
    harness.check_training_step(network)
    harness.enliven(network)
    harness.check_checkpoint(network)
    harness.check_tflite(network)
"""

import tempfile
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras
from google.protobuf import text_format
from tensorflow.lite.python.schema_py_generated import BuiltinOperator
from tensorflow.python.profiler.model_analyzer import profile
from tensorflow.python.profiler.option_builder import ProfileOptionBuilder

from mnasdet import config, models
from mnasdet.architectures import smallest_image_size
from mnasdet.classifiers.network import LOGITS
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.detectors.one_stage import Detector
from mnasdet.detectors.targets import BACKGROUND, IGNORED
from mnasdet.networks.builder import Node
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.tflite.convert import convert
from mnasdet.tflite.interpreter import TfliteModel, load
from mnasdet.training import checkpoints
from mnasdet.training.learner import Learner
from tests.eagerly import eager

NUM_CLASSES = 3

# More than one, for batch normalisation to have something to normalise where a feature has only one
# location.
BATCH_SIZE = 4

_PIPELINE = """
    model { ssd {
      encode_background_as_zeros: true
      loss {
        classification_loss { weighted_sigmoid_focal { alpha: 0.25 gamma: 2.0 } }
        localization_loss { weighted_smooth_l1 {} }
      }
    } }
    train_config { optimizer { momentum_optimizer { learning_rate {
      constant_learning_rate { learning_rate: 0.01 }
    } } } }
"""

# Operations that both TensorFlow's profiler and the papers count.
_MULTIPLYING = {"Conv2D", "DepthwiseConv2dNative", "MatMul"}

_TFLITE_BUILTINS = set(vars(BuiltinOperator)) - {"CUSTOM"}


@dataclass(frozen=True)
class Network:
    """A network, as a graph and as a Keras model with fresh weights.

    Attributes:
      outputs: what is deployed.
      detector: what `model` belongs to; None for a classifier's.
      pipeline: the config that the detector is trained with.
    """

    outputs: list[Node]
    model: tf_keras.Model
    detector: Detector | None
    pipeline: pipeline_pb2.TrainEvalPipelineConfig

    def images(self) -> np.ndarray:
        """[BATCH_SIZE, height, width, 3], in [-1, 1]."""
        shape = (BATCH_SIZE, *self.model.input_shape[1:])
        return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def build(architecture: architecture_pb2.Architecture, quantized: bool = False) -> Network:
    """The network for small images, wider than high."""
    side = max(64, smallest_image_size(architecture))
    size = (side, side * 3 // 2)
    outputs = models.network_of(architecture, size, NUM_CLASSES).outputs
    pipeline = text_format.Parse(_PIPELINE, pipeline_pb2.TrainEvalPipelineConfig())
    pipeline.model.ssd.num_classes = NUM_CLASSES
    if quantized:
        pipeline.graph_rewriter.quantization.delay = 0
    resizer = pipeline.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height, resizer.width = size
    tf_keras.utils.set_random_seed(0)
    if architecture.HasField("classifier"):
        (logits,) = outputs
        return Network(outputs, keras_model({LOGITS: logits}), None, pipeline)
    detector = models.build(config.resolve(pipeline, architecture))
    return Network(outputs, detector.model, detector, pipeline)


def check_shapes(network: Network) -> None:
    """A classifier gives a logit for each class, a detector predictions for each anchor."""
    shapes = network.model.output_shape
    expected: dict[str, tuple] = {LOGITS: (None, NUM_CLASSES)}
    if network.detector:
        anchors = len(network.detector.anchors)
        expected = {
            BOX_ENCODINGS: (None, anchors, 4),
            CLASS_LOGITS: (None, anchors, NUM_CLASSES + 1),
        }
    assert shapes == expected, f"{shapes} instead of {expected}"


def check_weights(network: Network) -> None:
    """The cost sheet has the weights of the Keras model."""
    total = cost_sheet(network.outputs).total
    params = network.model.count_params()
    assert total.params == params, f"{total.params}; Keras has {params}"
    trainable = sum(v.shape.num_elements() for v in network.model.trainable_variables)
    assert total.trainable_params == trainable, f"{total.trainable_params}; Keras has {trainable}"


def check_multiply_adds(network: Network) -> None:
    """The cost sheet has the multiply-adds that TensorFlow's profiler counts."""
    multiply_adds = cost_sheet(network.outputs).total.multiply_adds
    counted = profiler_multiply_adds(network.model)
    assert multiply_adds == counted, f"{multiply_adds}; the profiler counts {counted}"


def profiler_multiply_adds(model: tf_keras.Model) -> int:
    """Returns the multiply-adds for one image; the profiler counts two operations each."""
    spec = tf.TensorSpec((1, *model.input_shape[1:]))
    traced = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    operations = {operation.name: operation.type for operation in traced.graph.get_operations()}
    options = ProfileOptionBuilder(ProfileOptionBuilder.float_operation())
    pending = [profile(traced.graph, options=options.with_empty_output().build())]
    total = 0
    while pending:
        node = pending.pop()
        pending.extend(node.children)
        if operations.get(node.name) in _MULTIPLYING:
            total += node.float_ops
    return total // 2


def check_training_step(network: Network) -> None:
    """The loss depends on every trainable variable, and one step keeps all weights finite."""
    gradients = train_detector(network) if network.detector else train_classifier(network)
    missing = [name for name, gradient in gradients.items() if gradient is None]
    assert not missing, f"no gradient: {missing}"
    values = {name: np.asarray(gradient) for name, gradient in gradients.items()}
    wrong = [name for name, value in values.items() if not np.isfinite(value).all()]
    assert not wrong, f"gradients that are not finite: {wrong}"
    dead = [name for name, value in values.items() if not value.any()]
    assert not dead, f"gradients of zero: {dead}"
    weights = checkpoints.variables_by_name(network.model)
    wrong = [name for name, weight in weights.items() if not np.isfinite(weight).all()]
    assert not wrong, f"weights that are not finite behind the step: {wrong}"


def train_detector(network: Network) -> dict[str, tf.Tensor | None]:
    """Makes one step; the gradients of all losses, by variable.

    Both run eagerly.
    """
    assert network.detector
    model, batch = network.model, detection_batch(network.detector, network.images())
    learner = Learner(network.detector, network.pipeline.train_config)
    with tf.GradientTape() as tape:
        loss = sum(loss.total for loss in network.detector.losses(batch).values())
    gradients = tape.gradient(loss, model.trainable_variables)
    with eager():
        losses = learner.update(batch)
    assert np.isfinite([float(value) for value in losses.values()]).all(), losses
    return _by_name(model, gradients)


def detection_batch(detector: Detector, images: np.ndarray) -> dict[str, tf.Tensor]:
    """Returns a learner's batch with random targets: a few boxes would leave levels without any."""
    rng = np.random.default_rng(0)
    shape = (len(images), len(detector.anchors))
    classes = [BACKGROUND, IGNORED, *range(1, NUM_CLASSES + 1)]
    return {
        "image": tf.constant(images),
        "class_targets": tf.constant(rng.choice(classes, shape), tf.int32),
        "box_targets": tf.constant(rng.normal(size=(*shape, 4)), tf.float32),
    }


def train_classifier(network: Network) -> dict[str, tf.Tensor | None]:
    """Makes one step down the cross entropy's gradients, and gives these by variable."""
    model = network.model
    labels = np.arange(BATCH_SIZE) % NUM_CLASSES
    with tf.GradientTape() as tape:
        logits = model(network.images(), training=True)[LOGITS]
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        if gradient is not None:
            variable.assign_sub(0.01 * gradient)
    return _by_name(model, gradients)


def _by_name(model: tf_keras.Model, gradients: list[tf.Tensor | None]):
    names = [variable.name for variable in model.trainable_variables]
    return dict(zip(names, gradients, strict=True))


def enliven(network: Network) -> None:
    """Gives the model weights with which every layer has a say, as after training.

    Fresh predictors give out next to nothing, and with fresh moving averages features grow or die
    from layer to layer. An offset of one keeps most units alive; around zero, deep random networks
    are chaotic: rounding errors grow a hundred thousand times through seven pyramids.
    """
    model, rng = network.model, np.random.default_rng(0)
    for variable in model.trainable_variables:
        mean = 1.0 if variable.name.endswith("/beta:0") else 0.0
        variable.assign_add(rng.normal(mean, 0.1, variable.shape).astype(np.float32))
    norms = [x for x in model.layers if isinstance(x, tf_keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(network.images(), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def check_checkpoint(network: Network) -> None:
    """Weights that were saved and loaded are the same to the bit, and so are the outputs."""
    model, images = network.model, network.images()
    expected = model(images, training=False)
    weights = checkpoints.variables_by_name(model)
    values = {name: variable.numpy() for name, variable in weights.items()}
    with tempfile.TemporaryDirectory() as folder:
        tf.train.Checkpoint(**{checkpoints.WEIGHTS: weights}).save(f"{folder}/ckpt")
        for variable in model.variables:
            variable.assign(tf.zeros_like(variable))
        checkpoints.load_weights(model, folder)
    for name, value in values.items():
        np.testing.assert_array_equal(weights[name], value, err_msg=name)
    for name, output in model(images, training=False).items():
        np.testing.assert_array_equal(output, expected[name], err_msg=name)


def check_tflite(network: Network) -> None:
    """The model converts to TFLite's own operations alone, and these give what Keras gives.

    The model has to be lively, or there is little to compare.
    """
    graph = convert(network.model)
    operations = {op["op_name"] for op in load(graph, 1, "graph")._get_ops_details()}
    foreign = operations - _TFLITE_BUILTINS - {"DELEGATE"}
    assert not foreign, f"no operations of TFLite: {foreign}"
    images = network.images()
    raw = TfliteModel(graph).predict(images)
    expected = network.model(images, training=False)
    assert set(raw) == set(expected), f"{set(raw)} instead of {set(expected)}"
    for name in expected:
        assert np.std(expected[name][0] - expected[name][1]) > 0.1, f"{name}: next to nothing"
        np.testing.assert_allclose(raw[name], expected[name], atol=1e-3, err_msg=name)


def operations_with_types(graph: bytes) -> list[tuple[str, set[str]]]:
    """Returns the operations that TFLite executes, in order: their names and output types."""
    interpreter = load(graph, 1, "graph")
    types = {d["index"]: np.dtype(d["dtype"]).name for d in interpreter.get_tensor_details()}
    return [
        (op["op_name"], {types[index] for index in op["outputs"]})
        for op in interpreter._get_ops_details()
        if op["op_name"] != "DELEGATE"
    ]
