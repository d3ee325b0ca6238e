"""Published architectures, narrow, quantised: one training step, then an int8 TFLite graph.

Between them they have all of the backbones' kinds of layers and both predictors; that all layers of
all others convert is in tests/networks/test_fake_quantization.py, MnasFPN as a whole in
tests/integration/test_quantized_training.py.
"""

import numpy as np
import pytest

from mnasdet import config
from mnasdet.tflite.convert import convert
from tests import harness


@pytest.mark.parametrize("name", ["mobilenet_v3_small_halved_ssdlite", "resnet10_nas_fpn_3_256"])
def test_a_step_and_a_graph(name):
    architecture = config.load_architecture(name)
    architecture.depth_multiplier = 0.25
    if architecture.box_predictor.HasField("weight_shared_convolutional_box_predictor"):
        architecture.box_predictor.weight_shared_convolutional_box_predictor.depth //= 4
    plain = harness.build(architecture)
    network = harness.build(architecture, quantized=True)
    assert network.model.count_params() > plain.model.count_params()
    harness.check_training_step(network)
    graph = convert(network.model, "int8")
    operations = harness.operations_with_types(graph)
    assert operations[0] == ("QUANTIZE", {"int8"})
    assert [op for op in operations if op[1] != {"int8"}] == [("DEQUANTIZE", {"float32"})] * 2
    assert len(graph) < 0.6 * len(convert(plain.model))
    assert np.isfinite(network.model(network.images(), training=False)["box_encodings"]).all()
