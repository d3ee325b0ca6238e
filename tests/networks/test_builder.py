"""The graph: shapes, names, reachability, canonical keys."""

import pytest

from mnasdet.errors import ConfigError
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


def key_of(op, *arguments, **named):
    b = Builder()
    return canonical_key([getattr(b, op)(b.input((8, 8, 3)), *arguments, name="layer", **named)])


def test_canonical_keys_of_stored_trials_do_not_change():
    """They are in stored trials and latency tables: a new argument is no part of them while it has
    its default."""
    b = Builder()
    x = conv(b, b.input((8, 8, 3)), 4, 3, strides=2, name="conv")
    x = b.depthwise_conv2d(x, 5, kernel=Kernel(), name="depthwise")
    x = b.batch_norm(x, momentum=0.9, epsilon=0.01, name="batch_norm")
    assert canonical_key([x]) == "5efb7e49a7913382c3cf7e13e4442859"


@pytest.mark.parametrize("op", [("conv2d", 4, 3), ("depthwise_conv2d", 3)])
def test_canonical_key_knows_dilation_and_standardised_kernels(op):
    plain = key_of(*op, kernel=Kernel())
    assert key_of(*op, kernel=Kernel(), dilation=1) == plain
    others = {
        key_of(*op, kernel=Kernel(), dilation=2),
        key_of(*op, kernel=Kernel(), dilation=3),
        key_of(*op, kernel=Kernel(standardized=True)),
    }
    assert len(others | {plain}) == 4


def test_canonical_key_does_not_know_over_how_many_replicas_statistics_are_taken():
    plain, synchronized = (
        key_of("batch_norm", momentum=0.9, epsilon=0.01, synchronized=value)
        for value in (False, True)
    )
    assert plain == synchronized
    assert key_of("group_norm", groups=3, epsilon=0.01) != key_of(
        "group_norm", groups=1, epsilon=0.01
    )


def test_strides_and_dilation_are_not_for_one_convolution():
    b = Builder()
    with pytest.raises(ValueError, match="layer: strides are 2 and dilation is 3; one has to be 1"):
        conv(b, b.input((8, 8, 3)), 4, 3, strides=2, dilation=3, name="layer")


def test_groups_that_do_not_divide_the_channels_are_one_line_for_the_user():
    b = Builder()
    with b.scope("backbone"), pytest.raises(ConfigError) as caught:
        b.group_norm(b.input((8, 8, 24)), groups=32, epsilon=0.1, name="stem/group_norm")
    assert str(caught.value) == (
        "layer backbone/stem/group_norm: its 24 channels are no multiple of the 32 groups of "
        "group_norm; use groups that divide the width of every layer, such as 8"
    )


def test_canonical_key_tells_a_layer_read_twice_from_two_equal_layers():
    def outputs(readers_of_a):
        b = Builder()
        x = b.input((8, 8, 3))
        a, c = conv(b, x, 8, name="a"), conv(b, x, 8, name="c")
        read = [a if i in readers_of_a else c for i in range(3)]
        return [conv(b, node, 4, 1 + 2 * i, name=f"o{i}") for i, node in enumerate(read)]

    assert canonical_key(outputs({0, 1})) != canonical_key(outputs({0}))
    assert canonical_key(outputs({0, 1})) == canonical_key(outputs({2}))  # a and c swapped
