"""The predictor with weights for every feature: shapes, counts, the order of predictions."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format

from mnasdet.heads.convolutional import convolutional_predictor, from_proto
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import box_predictor_pb2

SHAPES = [(4, 3, 8), (2, 2, 5), (1, 1, 6)]
ANCHORS = [2, 3, 1]


def predictor(shapes=SHAPES, anchors=ANCHORS, **arguments):
    b = Builder()
    features = [b.input(shape, f"p{i}") for i, shape in enumerate(shapes)]
    return convolutional_predictor(
        b, features, num_classes=3, anchors_per_location=anchors, **arguments
    )


def test_shapes():
    boxes, classes = predictor()
    assert boxes.shape == classes.shape == (4 * 3 * 2 + 2 * 2 * 3 + 1, 4)


def test_separable_counts_by_hand():
    total = cost_sheet(predictor()).total
    depthwise = [depth * (9 + 2) for _, _, depth in SHAPES]
    # Both predictions have four values an anchor: box sides, or background and three classes.
    pointwise = [
        (depth + 1) * 4 * anchors for (_, _, depth), anchors in zip(SHAPES, ANCHORS, strict=True)
    ]
    assert total.trainable_params == 2 * (sum(depthwise) + sum(pointwise))


def test_full_counts_by_hand_also_with_a_kernel_above_the_features_side():
    total = cost_sheet(predictor(separable=False, kernel_size=3)).total
    expected = [
        (9 * depth + 1) * 4 * anchors
        for (_, _, depth), anchors in zip(SHAPES, ANCHORS, strict=True)
    ]
    assert total.params == 2 * sum(expected)


def test_order_of_a_separable_prediction():
    boxes, classes = predictor(shapes=SHAPES[:1], anchors=[2], dropout=0.2)
    assert [node.name.split("box/")[1] for node in reachable([boxes]) if node.inputs] == [
        "depthwise/depthwise",
        "depthwise/batch_norm",
        "depthwise/relu6",
        "pointwise",
        "reshape",
    ]
    # Dropout is for the classes only.
    assert [node.op for node in reachable([classes])][:3] == [
        "input",
        "dropout",
        "depthwise_conv2d",
    ]


def test_a_depthwise_kernel_of_1_is_an_error():
    with pytest.raises(ValueError, match="kernel_size is 1"):
        predictor(kernel_size=1)


@pytest.mark.parametrize(
    ("limits", "widths"),
    # The feature's width between min_depth and max_depth; 0 leaves the layers out.
    [
        ({"max_depth": 6}, [6, 6, 5, 5, 6, 6]),
        ({"max_depth": 100, "min_depth": 7}, [8, 8, 7, 7, 7, 7]),
        ({}, []),
    ],
)
def test_layers_before_the_predictions(limits, widths):
    nodes = reachable(predictor(num_layers=2, **limits))
    layers = [node for node in nodes if "layer_" in node.name and node.op == "conv2d"]
    assert [node.channels for node in layers] == widths
    assert all(node.attrs["kernel_size"] == 1 for node in layers)


def test_class_bias_and_order_of_anchors():
    tf_keras.utils.set_random_seed(0)
    boxes, classes = predictor(shapes=[(1, 2, 8), (1, 1, 8)], anchors=[2, 1], class_bias=-4.6)
    model = keras_model({"boxes": boxes, "classes": classes})
    bias = {v.name.split("/")[0]: v for v in model.variables if "class/pointwise/bias" in v.name}
    np.testing.assert_allclose(bias["feature_0"], np.full(2 * 4, -4.6), rtol=1e-6)
    bias["feature_0"].assign(np.arange(8))
    bias["feature_1"].assign(np.arange(8, 12))
    for variable in model.variables:
        if "class/pointwise/kernel" in variable.name:
            variable.assign(tf.zeros_like(variable))
    images = {"p0": np.zeros((1, 1, 2, 8), np.float32), "p1": np.zeros((1, 1, 1, 8), np.float32)}
    out = model(images)["classes"][0]
    # Only the biases speak, anchor by anchor at every location, then the next feature's.
    finest = np.tile(np.arange(8).reshape(2, 4), (2, 1))
    np.testing.assert_allclose(out, np.concatenate([finest, [np.arange(8, 12)]]))


def test_from_proto():
    proto = text_format.Parse(
        """
        kernel_size: 3
        use_depthwise: true
        dropout_keep_probability: 0.75
        class_prediction_bias_init: -2
        num_layers_before_predictor: 1
        max_depth: 4
        conv_hyperparams {
          activation: RELU
          regularizer { l2_regularizer { weight: 0.5 } }
          initializer { truncated_normal_initializer { stddev: 0.25 } }
          batch_norm { decay: 0.5 epsilon: 0.125 scale: true }
        }
        """,
        box_predictor_pb2.ConvolutionalBoxPredictor(),
    )
    b = Builder()
    features = [b.input(shape, f"p{i}") for i, shape in enumerate(SHAPES)]
    outputs = from_proto(b, features, proto, num_classes=3, anchors_per_location=ANCHORS)
    nodes = {node.name: node for node in reachable(outputs)}
    assert nodes["feature_0/layer_0/conv"].channels == 4
    assert nodes["feature_0/class/dropout"].attrs["rate"] == 0.25
    assert nodes["feature_0/class/pointwise"].attrs["bias"] == -2
    assert nodes["feature_0/box/pointwise"].attrs["bias"] == 0
    # slim's 0.5 / 2; depthwise kernels only where the config says so.
    assert nodes["feature_0/box/pointwise"].attrs["l2"] == 0.25
    assert nodes["feature_0/box/depthwise/depthwise"].attrs["l2"] == 0
    assert nodes["feature_0/box/depthwise/depthwise"].attrs["initializer"].stddev == 0.25
    assert nodes["feature_0/box/depthwise/batch_norm"].attrs["momentum"] == 0.5
    assert nodes["feature_0/box/depthwise/relu"].attrs["function"] == "relu"


def test_from_proto_without_dropout_and_batch_normalisation():
    proto = box_predictor_pb2.ConvolutionalBoxPredictor(kernel_size=1, use_dropout=False)
    b = Builder()
    features = [b.input(SHAPES[0], "p0")]
    outputs = from_proto(b, features, proto, num_classes=3, anchors_per_location=[2])
    ops = [node.op for node in reachable(outputs)]
    assert ops == ["input", "conv2d", "reshape", "conv2d", "reshape"]
