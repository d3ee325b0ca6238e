"""Cost sheets against hand counts, Keras and TensorFlow's profiler."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.profiler.model_analyzer import profile
from tensorflow.python.profiler.option_builder import ProfileOptionBuilder

from mnasdet import config
from mnasdet.detectors.network import detection_network
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import HE_NORMAL
from mnasdet.networks.keras_builder import keras_model
from mnasdet.search_spaces.mnasfpn import MnasFpnSpace


def test_one_separable_block_by_hand():
    b = Builder()
    x = b.input((8, 6, 3))
    with b.scope("backbone"):
        y = b.conv2d(x, 16, 3, strides=2, initializer=HE_NORMAL, name="conv")
        y = b.batch_norm(y, momentum=0.9, epsilon=1e-3, name="batch_norm")
    with b.scope("box_predictor"):
        z = b.depthwise_conv2d(y, 5, initializer=HE_NORMAL, name="depthwise")
        z = b.conv2d(z, 4, 1, use_bias=True, initializer=HE_NORMAL, name="pointwise")
    sheet = cost_sheet([z])
    assert sheet.parts["backbone"].params == 3 * 3 * 3 * 16 + 4 * 16
    assert sheet.parts["backbone"].trainable_params == 3 * 3 * 3 * 16 + 2 * 16
    assert sheet.parts["backbone"].multiply_adds == 4 * 3 * 16 * 27
    assert sheet.parts["box_predictor"].params == 25 * 16 + 16 * 4 + 4
    assert sheet.parts["box_predictor"].multiply_adds == 12 * (16 * 25 + 16 * 4)
    # conv: 48 weights x 9, reads 8*6*3, writes 4*3*16, four bytes each.
    assert sheet.costs[0].memory_bytes == 4 * (432 + 144 + 192)


def test_a_shared_layer_weighs_once_and_works_twice():
    b = Builder()
    sizes = [8, 4]
    outputs = [
        b.conv2d(
            b.input((size, size, 3), f"in_{size}"),
            2,
            1,
            initializer=HE_NORMAL,
            name="conv",
            shared=True,
        )
        for size in sizes
    ]
    total = cost_sheet(outputs).total
    assert total.params == 6
    assert total.multiply_adds == 6 * (64 + 16)


def test_the_published_figures():
    """architectures of the paper: 2.50 M weights, 0.92 B multiply-adds (MnasFPN, table 1)."""
    published = config.load_architecture("mobilenet_v2_mnasfpn")
    total = cost_sheet(detection_network(published, (320, 320), 90).outputs).total
    assert total.params == 2_503_047
    assert total.multiply_adds == pytest.approx(0.92e9, rel=0.005)


def profiler_multiply_adds(model) -> int:
    """Convolutions as TensorFlow's own profiler counts them: two operations a multiply-add."""
    spec = tf.TensorSpec((1, *model.input_shape[1:]))
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    graph = convert_variables_to_constants_v2(function).graph
    options = ProfileOptionBuilder(ProfileOptionBuilder.float_operation())
    options = options.with_empty_output().build()
    counted = profile(graph, options=options)
    total = 0
    pending = [counted]
    while pending:
        node = pending.pop()
        pending.extend(node.children)
        operation = next((op for op in graph.get_operations() if op.name == node.name), None)
        if operation is not None and "Conv2d" in operation.type.replace("Conv2D", "Conv2d"):
            total += node.float_ops
    return total // 2


def architectures():
    published = config.load_architecture("mobilenet_v2_mnasfpn")
    space = MnasFpnSpace(published)
    rng = np.random.default_rng(0)
    yield published
    for _ in range(3):
        yield space.decode(space.sample(rng))


@pytest.mark.parametrize("architecture", architectures())
def test_keras_and_the_profiler_agree(architecture):
    network = detection_network(architecture, (128, 128), 10)
    sheet = cost_sheet(network.outputs)
    model = keras_model({"boxes": network.box_encodings, "classes": network.class_logits})
    assert sheet.total.params == model.count_params()
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert sheet.total.trainable_params == trainable
    assert sheet.total.multiply_adds == profiler_multiply_adds(model)
