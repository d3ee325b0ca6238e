"""The classification head: layers, weights, values."""

import numpy as np
import pytest

from mnasdet.heads.classifier import classifier, from_proto
from mnasdet.networks.builder import Builder, canonical_key, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2


def logits(**arguments):
    b = Builder()
    return classifier(b, b.input((5, 4, 6)), num_classes=3, **arguments)


def test_without_a_hidden_layer():
    node = logits()
    assert node.shape == (3,)
    assert [n.name for n in reachable([node])[1:]] == ["mean", "logits/conv", "logits"]
    assert cost_sheet([node]).total.params == 6 * 3 + 3


def test_hidden_layer_and_dropout():
    node = logits(hidden_channels=8, dropout=0.2)
    assert [n.name for n in reachable([node])[1:]] == [
        "mean",
        "hidden/conv",
        "hidden/hard_swish",
        "dropout",
        "logits/conv",
        "logits",
    ]
    total = cost_sheet([node]).total
    assert total.params == 6 * 8 + 8 + 8 * 3 + 3
    assert total.multiply_adds == 6 * 8 + 8 * 3


def test_values():
    model = keras_model({"logits": logits(hidden_channels=2)})
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=variable.shape) for variable in model.variables]
    model.set_weights(weights)
    images = rng.normal(size=(2, 5, 4, 6)).astype(np.float32)
    kernel, bias, last_kernel, last_bias = weights
    hidden = images.mean(axis=(1, 2)) @ kernel[0, 0] + bias
    hidden *= np.clip(hidden + 3, 0, 6) / 6
    expected = hidden @ last_kernel[0, 0] + last_bias
    np.testing.assert_allclose(model(images)["logits"], expected, rtol=1e-4)


@pytest.mark.parametrize(("num_classes", "bound"), [(100, 1000**-0.5), (1600, 0.025)])
def test_first_weights_are_uniform_within_the_root_of_the_classes(num_classes, bound):
    """The bound counts at least 1000 classes, as many as ImageNet has."""
    b = Builder()
    node = classifier(b, b.input((1, 1, 64)), num_classes=num_classes)
    kernel = keras_model({"logits": node}).variables[0].numpy()
    assert np.abs(kernel).max() == pytest.approx(bound, rel=0.01)
    assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_from_proto():
    b = Builder()
    proto = architecture_pb2.Classifier(hidden_channels=8, dropout=0.5)
    node = from_proto(b, b.input((5, 4, 6)), proto, num_classes=3)
    assert canonical_key([node]) == canonical_key([logits(hidden_channels=8, dropout=0.5)])
