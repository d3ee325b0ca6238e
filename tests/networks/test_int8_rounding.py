"""mnasdet/networks/int8_rounding.py: where kernels round, on graphs small enough to see it."""

import pytest

from mnasdet.networks.builder import Builder
from mnasdet.networks.hyperparams import Initializer, Kernel
from mnasdet.networks.int8_rounding import rounding

NORMAL = Initializer("normal", 0.1)


@pytest.fixture
def b():
    return Builder()


@pytest.fixture
def x(b):
    return b.input((8, 8, 4))


def conv(b, x, name, **arguments):
    return b.conv2d(x, 4, 1, kernel=Kernel(NORMAL), name=name, **arguments)


def norm(b, x, name):
    return b.batch_norm(x, momentum=0.9, epsilon=0.001, name=name)


def rounded(*outputs):
    return [node.name for node in rounding(outputs).nodes]


def test_a_convolution_is_rounded_with_what_its_kernel_does_as_well(b, x):
    y = b.activation(norm(b, conv(b, x, "conv"), "norm"), "relu6", name="relu6")
    y = norm(b, conv(b, y, "linear"), "linear_norm")
    assert rounded(y) == ["image", "relu6", "linear_norm"]


def test_activations_that_are_kernels_of_their_own_follow_a_rounded_input(b, x):
    y = b.activation(norm(b, conv(b, x, "conv"), "norm"), "hard_swish", name="hard_swish")
    assert rounded(y) == ["image", "norm", "hard_swish"]


def test_a_sum_that_something_else_reads_is_rounded_before_its_relu(b, x):
    y = b.add(x, conv(b, x, "conv"), name="add")
    relu = b.activation(y, "relu", name="relu")
    assert rounded(relu) == ["image", "conv", "relu"]
    assert rounded(relu, y) == ["image", "conv", "add", "relu"]


def test_every_use_of_a_shared_convolution_has_its_own_normalisation(b, x):
    coarse = b.max_pool(x, 2, strides=2, name="pool")
    levels = [
        norm(b, conv(b, level, "shared", shared=True), f"norm_{place}")
        for place, level in enumerate((x, coarse))
    ]
    plan = rounding(levels)
    assert [node.name for node in plan.nodes] == ["image", "norm_0", "norm_1"]
    assert plan.lone_batch_norms == set()


def test_a_normalisation_beside_another_reader_of_its_convolution_stands_alone(b, x):
    shared = conv(b, x, "conv")
    y, z = norm(b, shared, "norm"), b.activation(shared, "relu", name="relu")
    plan = rounding([y, z])
    assert [node.name for node in plan.nodes] == ["image", "conv", "norm", "relu"]
    assert plan.lone_batch_norms == {y}


def test_what_keeps_values_keeps_their_scale(b, x):
    y = b.upsample(b.max_pool(conv(b, x, "conv"), 2, strides=2, name="pool"), (8, 8), name="up")
    y = b.reshape(b.dropout(y, 0.5, name="dropout"), (64, 4), name="flat")
    assert rounded(y) == ["image", "conv"]


def test_what_is_concatenated_is_rounded_together(b, x):
    parts = [conv(b, x, "shared", shared=True) for _ in range(2)]
    flat = [b.reshape(part, (64, 4), name=f"flat_{i}") for i, part in enumerate(parts)]
    both = b.concat(flat, name="concat")
    assert rounded(both) == ["image", "concat"]
    # One of them has a scale of its own for somebody else.
    alone = b.activation(parts[0], "sigmoid", name="sigmoid")
    assert rounded(both, alone) == ["image", "shared", "concat", "sigmoid"]
