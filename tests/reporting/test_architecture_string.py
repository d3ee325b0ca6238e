from mnasdet import config
from mnasdet.protos import architecture_pb2
from mnasdet.reporting.architecture_string import cell_string, live_blocks

SE = architecture_pb2.MnasFpn.SQUEEZE_EXCITE


def pyramid_of_two_levels():
    """Block 2 (the first one) is needed by nobody; block 3 is needed by block 4."""
    proto = architecture_pb2.MnasFpn(min_level=4, max_level=5, channels=16, repeats=2)
    proto.block.add(input=[0, 1], level=5, expanded_channels=512)
    proto.block.add(input=[1, 0], level=4, expanded_channels=64, kernel_size=7)
    proto.block.add(input=[0, 3], level=5, expanded_channels=32, merge=SE)
    proto.block.add(input=[3, 4], level=4, expanded_channels=96, kernel_size=5)
    return proto


def test_the_published_cell():
    pyramid = config.load_architecture("mobilenet_v2_mnasfpn").feature_pyramid.mnasfpn
    assert cell_string(pyramid) == (
        "c48 r4 | L4(C4+C5)f256k3 L3(C3+B0)f128k3 L4(B1+B0)f128k3 L5(B0+C6)f128k5 L6(B0+C6)f96k3"
    )


def test_dead_blocks_are_left_out_and_the_others_numbered_anew():
    proto = pyramid_of_two_levels()
    assert live_blocks(proto) == [1, 2, 3]
    assert cell_string(proto) == "c16 r2 | L4(C5+C4)f64k7 L5(C4+B0)f32k3se L4(B0+B1)f96k5"


def test_blocks_that_only_dead_ones_need_are_dead():
    proto = pyramid_of_two_levels()
    proto.block[2].input[:] = [0, 1]
    proto.block[3].input[:] = [0, 1]
    assert live_blocks(proto) == [2, 3]


def test_a_pyramid_without_blocks():
    assert cell_string(architecture_pb2.MnasFpn()) == "c48 r4 | "
