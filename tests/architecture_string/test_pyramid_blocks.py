from mnasdet.architecture_string.conversion import to_string
from mnasdet.architecture_string.pyramid_blocks import feature_names, live_blocks
from mnasdet.protos import architecture_pb2

SE = architecture_pb2.MnasFpn.SQUEEZE_EXCITE


def pyramid_of_two_levels():
    """Block 2 (the first one) is needed by nobody; block 3 is needed by block 4."""
    architecture = architecture_pb2.Architecture()
    architecture.backbone.mobilenet_v2.SetInParent()
    proto = architecture.feature_pyramid.mnasfpn
    proto.min_level, proto.max_level, proto.channels, proto.repeats = 4, 5, 16, 2
    proto.block.add(input=[0, 1], level=5, expanded_channels=512)
    proto.block.add(input=[1, 0], level=4, expanded_channels=64, kernel_size=7)
    proto.block.add(input=[0, 3], level=5, expanded_channels=32, merge=SE)
    proto.block.add(input=[3, 4], level=4, expanded_channels=96, kernel_size=5)
    return architecture


def test_dead_blocks_are_left_out_and_the_others_numbered_anew():
    architecture = pyramid_of_two_levels()
    proto = architecture.feature_pyramid.mnasfpn
    assert live_blocks(proto) == [1, 2, 3]
    assert feature_names(proto) == {0: "C4", 1: "C5", 3: "B0", 4: "B1", 5: "B2"}
    assert to_string(architecture).startswith(
        "mobilenet_v2/mnasfpn_c16_r2_from4_to5_L4(C5+C4)f64k7.L5(C4+B0)f32k3se.L4(B0+B1)f96k5"
    )


def test_blocks_that_only_dead_ones_need_are_dead():
    proto = pyramid_of_two_levels().feature_pyramid.mnasfpn
    proto.block[2].input[:] = [0, 1]
    proto.block[3].input[:] = [0, 1]
    assert live_blocks(proto) == [2, 3]
