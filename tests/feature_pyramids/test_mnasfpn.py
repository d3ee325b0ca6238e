"""The MnasFPN cell: shapes, the order of operations, what is dead, merges, residuals."""

import numpy as np
import pytest

from mnasdet.feature_pyramids.mnasfpn import PUBLISHED_CELL, Block, mnasfpn
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.keras_builder import keras_model

SHAPES = [(16, 16, 8), (8, 8, 12), (4, 4, 16)]


def pyramid(**arguments):
    b = Builder()
    inputs = [b.input(shape, f"c{level}") for level, shape in enumerate(SHAPES, start=3)]
    with b.scope("feature_pyramid"):
        return mnasfpn(b, inputs, **arguments)


def names(outputs):
    return [node.name for node in reachable(outputs)]


def test_output_shapes_from_finest_to_coarsest():
    outputs = pyramid(channels=24)
    assert [node.shape for node in outputs] == [(16, 16, 24), (8, 8, 24), (4, 4, 24), (2, 2, 24)]


def test_order_of_operations_in_the_first_cell():
    # Block 4 merges C4 (same level: convolution only) and C5 (up: convolution, then upsample).
    found = [name for name in names(pyramid(repeats=1)) if "cell_0/block_4/" in name]
    assert [name.split("block_4/")[1] for name in found] == [
        "input_0/conv",
        "input_0/batch_norm",
        "input_1/conv",
        "input_1/batch_norm",
        "input_1/upsample",
        "merge_0",
        "relu6",
        "separable/depthwise",
        "separable/pointwise",
        "separable/batch_norm",
    ]


@pytest.mark.parametrize("ordering", [True, False])
def test_size_dependent_ordering_pools_before_the_convolution(ordering):
    # Block 8 merges block 4 (level 4) into level 6: down by 4 with a 3x3 pool.
    outputs = pyramid(repeats=1, size_dependent_ordering=ordering)
    nodes = {node.name: node for node in reachable(outputs)}
    pool = nodes["feature_pyramid/cell_0/block_8/input_0/max_pool"]
    conv = nodes["feature_pyramid/cell_0/block_8/input_0/conv"]
    assert (pool.attrs["size"], pool.attrs["strides"]) == (3, 4)
    assert conv.shape[:2] == ((2, 2) if ordering else (8, 8))


def test_ordering_changes_work_and_no_weights():
    with_ordering, without = (
        cost_sheet(pyramid(size_dependent_ordering=ordering)).total for ordering in (True, False)
    )
    assert with_ordering.params == without.params
    assert with_ordering.multiply_adds < without.multiply_adds


def test_residuals_where_shapes_match():
    found = [name for name in names(pyramid(repeats=2)) if "residual" in name]
    # In the first cell only C6 has the cell's width; the second gets and gives all four.
    assert [name.split("pyramid/")[1] for name in sorted(found)] == [
        "cell_0/residual_6",
        "cell_1/residual_3",
        "cell_1/residual_4",
        "cell_1/residual_5",
        "cell_1/residual_6",
    ]
    assert not any("residual" in name for name in names(pyramid(cell_residual=False)))


def test_dead_blocks_are_dropped():
    with_dead_block = (Block((2, 3), 5, 512), *(shifted(block) for block in PUBLISHED_CELL))
    outputs = pyramid(blocks=with_dead_block)
    assert cost_sheet(outputs).total == cost_sheet(pyramid()).total


def shifted(block):
    """The block with references to blocks moved one on."""
    inputs = tuple(i + (i >= 4) for i in block.inputs)
    return Block(inputs, block.level, block.expanded_channels, block.kernel_size)


def test_outputs_may_come_in_any_order_of_levels():
    blocks = (Block((0, 3), 6, 8), Block((0, 1), 4, 8), Block((1, 2), 3, 8), Block((2, 3), 5, 8))
    outputs = pyramid(blocks=blocks, repeats=2)
    assert [node.size for node in outputs] == [(16, 16), (8, 8), (4, 4), (2, 2)]


def test_more_than_two_inputs_are_added_pairwise():
    blocks = (Block((0, 1, 2, 3), 3, 8), *PUBLISHED_CELL[1:])
    added = [name for name in names(pyramid(blocks=blocks, repeats=1)) if "block_4/merge" in name]
    assert len(added) == 3


@pytest.mark.parametrize("inputs", [(2, 1), (1, 2)])
def test_squeeze_excite_gates_the_finer_input_by_the_coarser(inputs):
    b = Builder()
    fine, coarse = b.input((8, 8, 4), "c3"), b.input((4, 4, 4), "c4")
    blocks = (
        Block(tuple(i - 1 for i in inputs), 3, 4, merge="squeeze_excite"),
        Block((0, 1), 4, 4),
    )
    outputs = mnasfpn(
        b, [fine, coarse], blocks=blocks, channels=4, repeats=1, min_level=3, max_level=4
    )
    nodes = {node.name: node for node in reachable(outputs)}
    place = {"input_0": inputs[0], "input_1": inputs[1]}
    of_coarse = next(name for name, index in place.items() if index == 2)
    of_fine = next(name for name, index in place.items() if index == 1)
    model = keras_model(
        {
            "merged": nodes["cell_0/block_2/merge"],
            "coarse": nodes[f"cell_0/block_2/{of_coarse}/upsample"],
            "fine": nodes[f"cell_0/block_2/{of_fine}/batch_norm"],
        }
    )
    rng = np.random.default_rng(0)
    shapes = {"c3": (1, 8, 8, 4), "c4": (1, 4, 4, 4)}
    out = model({n: rng.normal(size=shape).astype(np.float32) for n, shape in shapes.items()})
    gate = 1 / (1 + np.exp(-out["coarse"].numpy().max(axis=(1, 2), keepdims=True)))
    np.testing.assert_allclose(out["merged"], out["coarse"] + out["fine"] * gate, rtol=1e-4)
