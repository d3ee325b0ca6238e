"""The graph: shapes, names, reachability, canonical keys."""

import pytest

from mnasdet.networks.builder import Builder, canonical_key, reachable
from mnasdet.networks.hyperparams import Kernel


def conv(b, x, filters, kernel_size=1, **arguments):
    return b.conv2d(x, filters, kernel_size, kernel=Kernel(), **arguments)


def test_shapes_follow_same_padding():
    b = Builder()
    x = b.input((15, 10, 3))
    assert conv(b, x, 8, 3, strides=2, name="a").shape == (8, 5, 8)
    assert b.max_pool(x, 3, strides=4, name="b").shape == (4, 3, 3)
    assert b.upsample(x, (30, 20), name="c").shape == (30, 20, 3)
    assert b.global_max_pool(x, name="d").shape == (1, 1, 3)


def test_scopes_name_layers():
    b = Builder()
    x = b.input((8, 8, 3))
    with b.scope("backbone"), b.scope("layer_1"):
        node = conv(b, x, 8, name="conv")
    assert node.name == "backbone/layer_1/conv"


def test_a_taken_name_is_an_error_unless_the_layer_is_shared():
    b = Builder()
    x = b.input((8, 8, 3))
    conv(b, x, 8, name="a")
    with pytest.raises(ValueError, match="'a' is taken"):
        conv(b, x, 8, name="a")
    conv(b, x, 8, name="shared", shared=True)
    conv(b, b.input((4, 4, 3)), 8, name="shared", shared=True)
    with pytest.raises(ValueError, match="'shared' is taken"):
        conv(b, x, 16, name="shared", shared=True)


def test_adding_different_shapes_is_an_error():
    b = Builder()
    with pytest.raises(ValueError, match="shapes .* differ"):
        b.add(b.input((8, 8, 3)), b.input((4, 4, 3)), name="sum")


def test_reachable_leaves_out_the_dead_and_orders_inputs_first():
    b = Builder()
    x = b.input((8, 8, 3))
    used = conv(b, x, 8, name="used")
    conv(b, x, 8, name="dead")
    y = b.add(used, used, name="sum")
    assert [node.name for node in reachable([y])] == ["image", "used", "sum"]


def network(order=("left", "right"), dead=False, twice=False, filters=8):
    b = Builder()
    x = b.input((8, 8, 3))
    nodes = {"left": conv(b, x, filters, name="l"), "right": conv(b, x, filters, 3, name="r")}
    if dead:
        conv(b, x, 4, name="dead")
    first, second = (nodes[side] for side in order)
    return [b.add(first, first if twice else second, name="sum")]


def test_canonical_key_ignores_names_dead_nodes_and_the_order_of_additions():
    key = canonical_key(network())
    assert canonical_key(network(order=("right", "left"))) == key
    assert canonical_key(network(dead=True)) == key
    assert canonical_key(network(filters=16)) != key
    assert canonical_key(network(twice=True)) != key


def test_canonical_key_tells_a_layer_read_twice_from_two_equal_layers():
    def outputs(readers_of_a):
        b = Builder()
        x = b.input((8, 8, 3))
        a, c = conv(b, x, 8, name="a"), conv(b, x, 8, name="c")
        read = [a if i in readers_of_a else c for i in range(3)]
        return [conv(b, node, 4, 1 + 2 * i, name=f"o{i}") for i, node in enumerate(read)]

    assert canonical_key(outputs({0, 1})) != canonical_key(outputs({0}))
    assert canonical_key(outputs({0, 1})) == canonical_key(outputs({2}))  # a and c swapped
