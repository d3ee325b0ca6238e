"""Layers whose weights several networks share."""

import pytest
import tensorflow as tf

from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Kernel
from mnasdet.supernets.elastic import SeparableConvBn, SpatialConvBn

HYPERPARAMS = Hyperparams(kernel=Kernel(), normalizer=BatchNorm(momentum=0.9))


@pytest.mark.parametrize(("columns", "dtype"), [(1, tf.float32), (2, tf.bfloat16)])
@pytest.mark.parametrize(
    "layer",
    [
        SeparableConvBn("layer", 3, 4, 4, HYPERPARAMS),
        SpatialConvBn("layer", 3, 4, 4, HYPERPARAMS, strides=2, depthwise=True),
        SpatialConvBn("layer", 3, 4, 4, HYPERPARAMS),
    ],
    ids=["separable", "depthwise", "conv"],
)
def test_features_of_a_single_column_compute_in_float32(layer, columns, dtype):
    @tf.function
    def run(x):
        return layer(x, 3, 4, 4, True)

    graph = run.get_concrete_function(tf.TensorSpec((2, 4, columns, 4), tf.bfloat16)).graph
    spatial = next(op for op in graph.get_operations() if "onv2" in op.type)
    assert spatial.inputs[0].dtype == dtype
    assert graph.outputs[0].dtype == tf.bfloat16
