"""The first stage's layers: counts that are published, what levels share, order of predictions."""

import numpy as np
import pytest

from mnasdet.heads.region_proposal import from_proto, region_proposal
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2


def outputs(sizes=(4, 2), channels=8, **arguments):
    b = Builder()
    features = [b.input((size, size, channels), f"p{size}") for size in sizes]
    arguments = {"anchors_per_location": 3, "channels": channels, **arguments}
    return region_proposal(b, features, **arguments)


def test_the_published_weights():
    """0.594 M: Hit-Detector (Guo et al., 2020), whose first stage is the usual one."""
    total = cost_sheet(list(outputs((64, 32), 256))).total
    assert total.trainable_params == 256 * 256 * 9 + 256 + 256 * 15 + 15 == 593_935
    places = 64 * 64 + 32 * 32
    assert total.multiply_adds == places * (256 * 256 * 9 + 256 * 15)


@pytest.mark.parametrize("num_logits", [1, 2])
def test_predictions_stand_level_by_level_row_by_row_anchor_by_anchor(num_logits):
    model = keras_model(list(outputs(num_logits=num_logits)))
    boxes, objectness = model.output
    assert (boxes.shape, objectness.shape) == ((None, 60, 4), (None, 60, num_logits))
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(1, size, size, 8)).astype(np.float32) for size in (4, 2)]
    before = model(images)[1].numpy()
    # The last row of the finest feature, with a kernel of 3, is no part of its first two rows.
    images[0][:, 3] += 1
    after = model(images)[1].numpy()
    changed = (before != after).any((0, 2)).nonzero()[0]
    assert changed.tolist() == list(range(2 * 4 * 3, 4 * 4 * 3))
    # The bias of an anchor's box is found at every third place.
    (bias,) = (v for v in model.variables if v.name == "box/conv/bias:0")
    moved = bias.numpy()
    moved[4 * 1 + 2] += 5
    before = model(images)[0].numpy()
    bias.assign(moved)
    differences = model(images)[0].numpy() - before
    np.testing.assert_allclose(differences[0, 1::3, 2], 5, rtol=1e-5)
    assert np.count_nonzero(differences) == 20


def test_what_an_architecture_says():
    b = Builder()
    proto = architecture_pb2.RegionProposal(channels=5, kernel_size=1, objectness="SOFTMAX")
    proto.conv_hyperparams.initializer.random_normal_initializer.stddev = 0.5
    found = from_proto(b, [b.input((4, 4, 8))], proto, anchors_per_location=[2])
    assert {name: node.shape for name, node in found.items()} == {
        "rpn/box_encodings": (32, 4),
        "rpn/objectness": (32, 2),
    }
    hidden = found["rpn/objectness"].inputs[0].inputs[0].inputs[0]
    assert hidden.attrs["kernel_size"] == 1
    assert hidden.channels == 5
    assert hidden.attrs["initializer"].stddev == 0.5
