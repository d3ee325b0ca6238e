"""Hit-Detector's pool of operations."""

import pytest

from mnasdet.errors import ConfigError
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams
from mnasdet.networks.operations import operation
from mnasdet.operation_names import POOL, Operation, parse

PLAIN = Hyperparams(normalizer=BatchNorm())


def test_the_pool_has_the_papers_32_operations_and_each_is_read_back_from_its_text():
    assert len(set(POOL)) == 32
    assert [parse(str(op)) for op in POOL] == list(POOL)
    assert parse("ir_k7_e6") == Operation("ir", 7, 1, 6)


@pytest.mark.parametrize("text", ["ir_k3_d2", "sep_k3_e6", "pool_k3", "ir_k3_d1_e6x"])
def test_an_unknown_operation_answers_with_the_known_ones(text):
    with pytest.raises(ConfigError, match=f'no operation "{text}"; one of '):
        parse(text)


@pytest.mark.parametrize(
    ("text", "params", "multiply_adds_a_place"),
    [
        # By hand, 16 channels in and out: kernels, and four values a channel of normalisation.
        ("ir_k5_d2_e3", 16 * 48 * 2 + 25 * 48 + 4 * (48 + 48 + 16), 16 * 48 * 2 + 25 * 48),
        ("ir_k3_d1_e1", 16 * 16 * 2 + 9 * 16 + 4 * 48, 16 * 16 * 2 + 9 * 16),
        ("sep_k3_d3", 9 * 16 + 16 * 16 + 4 * 32, 9 * 16 + 16 * 16),
        ("conv_k3_d2", 9 * 16 * 16 + 4 * 16, 9 * 16 * 16),
    ],
)
def test_costs(text, params, multiply_adds_a_place):
    b = Builder()
    x = b.input((8, 8, 16))
    sheet = cost_sheet([operation(b, x, parse(text), 16, PLAIN)])
    assert sheet.total.params == params
    assert sheet.total.multiply_adds == 64 * multiply_adds_a_place


def test_only_equal_shapes_add_their_input():
    def has_addition(op, channels, strides=1):
        b = Builder()
        y = operation(b, b.input((8, 8, 16)), parse(op), channels, PLAIN, strides=strides)
        return any(node.op == "add" for node in reachable([y]))

    assert has_addition("ir_k3_e3", 16)
    assert has_addition("sep_k3", 16)
    assert not has_addition("conv_k3", 16)
    assert not has_addition("ir_k3_e3", 24)
    assert not has_addition("ir_k3_e3", 16, strides=2)


@pytest.mark.parametrize("text", ["ir_k3_d2_e3", "sep_k5_d3", "conv_k3_d2"])
def test_a_dilated_operation_strides_by_leaving_places_out(text):
    b = Builder()
    y = operation(b, b.input((9, 8, 16)), parse(text), 24, PLAIN, strides=2)
    assert y.shape == (5, 4, 24)
