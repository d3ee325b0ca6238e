import numpy as np
import pytest

from mnasdet import config
from mnasdet.architecture_string.conversion import from_string, to_string
from mnasdet.errors import ConfigError
from mnasdet.models import network_of
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import architecture_pb2
from tests.search_spaces.architectures import mnasfpn_space

CELL = "L4(C4+C5)f256k3.L3(C3+B0)f128k3.L4(B1+B0)f128k3.L5(B0+C6)f128k5.L6(B0+C6)f96k3"
NAS_FPN = "L4(C4+C6)gp.L4(C4+B0).L3(C3+B1).L4(B1+B2).L5(B2+B3)gp.L7(B1+B4)gp.L6(B4+B5)gp"


def values(message):
    """All fields, those too that are not set, as nested dictionaries."""
    return {
        field.name: _value(field, getattr(message, field.name), message)
        for field in message.DESCRIPTOR.fields
    }


def _value(field, value, message):
    if not field.message_type:
        return list(value) if hasattr(value, "append") else value
    if hasattr(value, "append"):
        return [values(item) for item in value]
    return values(value) if message.HasField(field.name) else None


@pytest.mark.parametrize("name", config.architecture_names())
def test_published_architectures_come_back_whole(name):
    """With the hyper-parameters of their predictors: the string's own are the published ones."""
    published = config.load_architecture(name)
    read = from_string(to_string(published))
    read.name, read.source = published.name, published.source
    read.published_at.CopyFrom(published.published_at)
    assert values(read) == values(published)


@pytest.mark.parametrize(
    ("name", "string"),
    [
        ("mobilenet_v2_mnasfpn", f"mobilenet_v2/mnasfpn_c48_r4_{CELL}/shared_d64_n4"),
        ("mobilenet_v2_fpnlite_64", "mobilenet_v2_l256/fpn_c64_od_sep/shared_d64_n4"),
        (
            "resnet50_nas_fpn_7_256",
            f"resnet_50/nas_fpn_c256_r7_{NAS_FPN}/retinanet_d256_n4",
        ),
        (
            "mobilenet_v3_large_halved_ssdlite",
            "mobilenet_v3_large_halved/ssd_layers_c512,256,256,128_sep/ssdlite_k3",
        ),
        (
            "mnasnet_a1",
            "mnasnet_s32_ir_r1_k3_s1_e1_c16_noskip.ir_r2_k3_s2_e6_c24.ir_r3_k5_s2_e3_c40_se0.25."
            "ir_r4_k3_s2_e6_c80.ir_r2_k3_s1_e6_c112_se0.25.ir_r3_k5_s2_e6_c160_se0.25."
            "ir_r1_k3_s1_e6_c320/classifier_d0.2/net_m8",
        ),
    ],
)
def test_strings_of_published_architectures(name, string):
    assert to_string(config.load_architecture(name)) == string


@pytest.mark.parametrize(("word", "size"), [("i320", (320, 320)), ("i256x448", (256, 448))])
def test_an_input_size_is_part_of_the_structure(word, size):
    read = from_string(f"resnet_18/classifier/net_{word}")
    assert (read.input.height, read.input.width) == size
    assert to_string(read) == f"resnet_18/classifier/net_{word}"


def test_random_cells_come_back():
    base = config.load_architecture("mobilenet_v2_mnasfpn")
    space = mnasfpn_space(base)
    random = np.random.default_rng(0)
    for _ in range(20):
        sampled = space.decode(space.sample(random))
        string = to_string(sampled)
        read = from_string(string)
        assert to_string(read) == string
        assert cost(read) == cost(sampled)


def cost(architecture):
    return cost_sheet(network_of(architecture, (64, 64), 10).outputs).total


def changed(field, value):
    """Another value that the field may have."""
    if hasattr(value, "append"):
        return [3, 5]
    if isinstance(value, str):
        return "Xbottleneck_56_21-21-11-2111"
    if field.enum_type:
        return (value + 1) % len(field.enum_type.values)
    if isinstance(value, bool):
        return not value
    return value + 0.3 if isinstance(value, float) else value + 1


# Fields outside the structure: hyper-parameters of training, and bounds of the outputs. A field
# with only one supported value is filled in.
NOT_WRITTEN = {
    "name",
    "source",
    "image_size",
    "conv_hyperparams",
    "class_prediction_bias_init",
    "use_dropout",
    "dropout_keep_probability",
    "box_encodings_clip_range",
    "drop_block_keep_probability",
    "drop_block_size",
    "box_code_size",
    "apply_sigmoid_to_scores",
    "normalize_coordinates",
}
PARTS = [
    f"{part}.{field.name}"
    for part in ("backbone", "feature_pyramid", "box_predictor", "anchor_generator")
    for field in architecture_pb2.Architecture.DESCRIPTOR.fields_by_name[part]
    .message_type.oneofs[0]
    .fields
]


def part(architecture, path):
    for name in filter(None, path.split(".")):
        architecture = getattr(architecture, name)
    return architecture


@pytest.mark.parametrize(
    "path",
    [
        "",
        "classifier",
        *PARTS,
        "region_proposal",
        "region_proposal.guided_anchoring",
        "region_head",
        "region_head.region_align",
        "region_head.fully_connected",
        "region_head.last_backbone_stage",
    ],
)
def test_every_field_of_the_structure_comes_back(path):
    message = part(architecture_pb2.Architecture(), path)
    for field in message.DESCRIPTOR.fields:
        if field.message_type or field.name in NOT_WRITTEN:
            continue
        architecture = architecture_pb2.Architecture()
        if not path.startswith("backbone"):
            architecture.backbone.mobilenet_v2.SetInParent()
        message = part(architecture, path)
        value = changed(field, getattr(message, field.name))
        if hasattr(value, "append"):
            getattr(message, field.name)[:] = value
        else:
            setattr(message, field.name, value)
        read = part(from_string(to_string(architecture)), path)
        assert getattr(read, field.name) == pytest.approx(value), field.name


def test_every_field_of_a_layer_comes_back():
    architecture = architecture_pb2.Architecture()
    blocks = architecture.backbone.mnasnet.block
    # The expansion is one of inverted bottlenecks only.
    for block in (
        {"op": "MBCONV", "expansion": 4, "skip": "POOL"},
        {"op": "SEPARABLE", "skip": "NONE", "se_ratio": 0.125},
        {"op": "CONV", "repeats": 2, "kernel_size": 5, "stride": 2, "skip": "AVERAGE_POOL"},
    ):
        blocks.add(channels=24, **block)
    string = to_string(architecture)
    assert string == (
        "mnasnet_s32_ir_r1_k3_s1_e4_c24_pool.ds_r1_k3_s1_c24_se0.125_noskip.cn_r2_k5_s2_c24_avgpool"
    )
    read = from_string(string).backbone.mnasnet.block
    assert [values(block) for block in read] == [values(block) for block in blocks]


def test_a_two_stage_detector_comes_back():
    string = (
        "base_code_basicblock_56_12-11111-211-1112/fpn_c128_in2,4,5_out2,4,6_two_strided/"
        "rpn_c128_k5_n300_softmax_ga_g2_s4/"
        "rcnn_agnostic_align_b14_r1_p2_ps2.fc_n1_c512.stage_i0.5.stage_i0.6_s20,20,10,10_w0.5/"
        "multiscale_a8_o1"
    )
    read = from_string(string)
    assert to_string(read) == string
    assert list(read.feature_pyramid.fpn.output_level) == [2, 4, 6]
    generator = read.anchor_generator.multiscale_anchor_generator
    assert (generator.min_level, generator.max_level) == (2, 6)
    assert read.region_proposal.guided_anchoring.anchor_scale == 4
    assert [stage.loss_weight for stage in read.region_head.stage] == [1, 0.5]
    assert list(read.region_head.stage[1].box_scales) == [20, 20, 10, 10]
    assert not from_string("resnet_50/rpn_c512/rcnn_last").region_head.HasField("fully_connected")


def test_anchors_are_written_where_they_are_not_the_usual():
    string = f"mobilenet_v2/mnasfpn_c48_r4_{CELL}/shared_d64_n4"
    usual = from_string(string)
    generator = usual.anchor_generator.multiscale_anchor_generator
    assert (generator.min_level, generator.max_level) == (3, 6)
    generator.anchor_scale = 2.5
    assert to_string(usual) == f"{string}/multiscale_a2.5_o3"
    usual.anchor_generator.multiscale_anchor_generator.aspect_ratios[:] = [1, 1 / 3]
    assert to_string(usual) == f"{string}/multiscale_a2.5_o3_r1,0.33333334"
    assert from_string(to_string(usual)) == usual


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "mobilnet_v2/fpn_c64",
            'character 1: "mobilnet_v2": one of mobilenet_v2, ',
        ),
        ("mobilenet_v2/fpnlite_c64", 'character 14: "fpnlite_c64": one of '),
        ("mobilenet_v2/shared_d64_n4/fpn_c64", 'character 28: "fpn_c64": one of '),
        (
            "mobilenet_v2/fpn_c64_q4",
            'character 22: "q4": the options here are cNUMBER, fromNUMBER, toNUMBER, ',
        ),
        ("mobilenet_v2/fpn_c", 'character 18: "c": the options here are cNUMBER, '),
        ("mobilenet_v2/fpn_sep3", 'character 18: "sep3": the options here are cNUMBER, '),
        ("mobilenet_v2/fpn_c1.5", 'character 19: "1.5": a whole number is needed'),
        ("mobilenet_v2_w1.2.3/fpn", 'character 15: "1.2.3": a number is needed'),
        ("mobilenet_v2/fpn_c1,2", 'character 19: "1,2": a whole number is needed'),
        ("mobilenet_v2/fpn_c99999999999", 'character 19: "99999999999": a whole number is needed'),
        ("mobilenet_v2/fpn_c64_c64", 'character 22: "c64": is given a second time'),
        (
            "mobilenet_v2/mnasfpn_c48_r4_L4(C4+C5)f256",
            'character 29: "L4(C4+C5)f256": a block is written like L4(C4+C5)f256k3 or '
            "L4(C4+C5)f256k3se",
        ),
        (
            "mobilenet_v2/mnasfpn_c48_r4_L4(C4+C5)f256k3.L3(C3+B1)f128k3",
            'character 51: "B1": C3 to C6 or B0 to B0 is there before it',
        ),
        (
            "mobilenet_v2/mnasfpn_c48_r4_L4(C4+C7)f256k3",
            'character 35: "C7": C3 to C6 is there before it',
        ),
        (
            "mobilenet_v2/mnasfpn_c48_r4_L4(C4+C5)f99999999999k3",
            'character 29: "L4(C4+C5)f99999999999k3": a number in it is too large',
        ),
        (
            "mobilenet_v2/nas_fpn_c48_r4_L4(C4+C5)se",
            'character 29: "L4(C4+C5)se": a cell is written like L4(C4+C6) or L4(C4+C6)gp',
        ),
        (
            "mnasnet_s32_ir_r1_k3.xx_r1/classifier",
            'character 22: "xx_r1": one of ir, ds, cn is allowed',
        ),
        ("mobilenet_v2/net_i320/", 'character 23: "": nothing is allowed'),
        (
            "base_code_basicblock_64_1-21-31-12/classifier",
            'character 11: "basicblock_64_1-21-31-12": base code "basicblock_64_1-21-31-12", '
            'character 20: "3": a block is ',
        ),
        ("base_code/classifier", 'character 11: "": base code "", character 1: "": one of '),
        ("resnet_50/rpn_c256/rcnn_fc_n2.mask", 'character 31: "mask": one of '),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(text, message):
    with pytest.raises(ConfigError) as caught:
        from_string(text)
    assert str(caught.value).startswith(f"architecture string, {message}")
