"""The graph of guided anchoring: its weights by hand, its values from its parts."""

import numpy as np
import tensorflow as tf

from mnasdet.heads.guided_anchoring import from_proto
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.deformable import deformable_conv2d
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2

SIZES = [(6, 4), (3, 2)]


def network(channels=8, inputs=8, objectness="SIGMOID"):
    proto = architecture_pb2.RegionProposal(channels=channels, guided_anchoring={})
    proto.objectness = proto.Objectness.Value(objectness)
    b = Builder()
    features = [b.input((*size, inputs), f"in_{level}") for level, size in enumerate(SIZES)]
    with b.scope("region_proposal"):
        return from_proto(b, features, proto)


def test_every_place_has_one_anchor():
    outputs = network(objectness="SOFTMAX")
    assert {name: node.shape for name, node in outputs.items()} == {
        "rpn/box_encodings": (30, 4),
        "rpn/objectness": (30, 2),
        "rpn/anchor_shapes": (30, 2),
        "rpn/locations": (30, 1),
    }


def test_the_published_width_weighs_what_its_layers_do():
    cost = cost_sheet(list(network(256, 256).values())).total
    hidden = 9 * 256 * 256 + 256
    # Offsets and the deformable convolution have no bias; its groups have 9 offsets of 2 values.
    adaptation = 2 * 4 * 9 * 2 + 9 * 256 * 256
    predictions = [257 * values for values in (1, 2, 1, 4)]
    assert cost.params == hidden + adaptation + sum(predictions)
    weights = 2 * 9 * 256 * 256 + 2 * 4 * 9 * 2 + 256 * 8
    assert cost.multiply_adds == 30 * weights


def test_a_level_is_computed_from_the_shared_kernels():
    model = keras_model(network())
    weights = {}
    for variable in model.variables:
        variable.assign(tf.random.stateless_normal(variable.shape, (1, len(weights))) * 0.5)
        weights[variable.name.removeprefix("region_proposal/").removesuffix(":0")] = variable
    x = [tf.random.stateless_normal((2, *size, 8), (2, size[0])) for size in SIZES]
    outputs = model(x)

    def predicted(x, name):
        return x @ weights[f"{name}/conv/kernel"][0, 0] + weights[f"{name}/conv/bias"]

    hidden = tf.nn.conv2d(x[1], weights["hidden/conv/kernel"], 1, "SAME")
    hidden = tf.nn.relu(hidden + weights["hidden/conv/bias"])
    shapes = predicted(hidden, "shape")
    offsets = shapes @ weights["adaptation/offset/conv/kernel"][0, 0]
    adapted = deformable_conv2d(hidden, offsets, weights["adaptation/conv/kernel"], 4)
    adapted = tf.nn.relu(adapted)
    for name, maps in (
        ("anchor_shapes", shapes),
        ("locations", predicted(hidden, "location")),
        ("box_encodings", predicted(adapted, "box")),
        ("objectness", predicted(adapted, "objectness")),
    ):
        expected = tf.reshape(maps, (2, 6, -1))
        np.testing.assert_allclose(outputs[f"rpn/{name}"][:, 24:], expected, rtol=1e-4, atol=1e-4)


def test_at_first_one_place_in_a_hundred_is_probable():
    model = keras_model(network())
    outputs = model([tf.zeros((1, *size, 8)) for size in SIZES])
    np.testing.assert_allclose(tf.sigmoid(outputs["rpn/locations"]), 0.01, rtol=1e-5)
    np.testing.assert_array_equal(outputs["rpn/anchor_shapes"], 0)


def test_shapes_learn_nothing_from_boxes_and_objectness():
    model = keras_model(network())
    x = [tf.random.stateless_normal((2, *size, 8), (2, size[0])) for size in SIZES]
    with tf.GradientTape() as tape:
        outputs = model(x)
        loss = tf.reduce_sum(outputs["rpn/box_encodings"] ** 2 + outputs["rpn/objectness"] ** 2)
    names = [variable.name for variable in model.trainable_variables]
    gradients = dict(zip(names, tape.gradient(loss, model.trainable_variables), strict=True))
    without = {name for name, gradient in gradients.items() if gradient is None}
    scope = "region_proposal"
    assert without == {
        f"{scope}/{part}/conv/{kind}:0"
        for part in ("shape", "location")
        for kind in ("kernel", "bias")
    }
