"""No field of a config takes a value that fills the memory or never ends."""

import functools
import math

import pytest
from google.protobuf.descriptor import FieldDescriptor

from mnasdet import config, text_proto
from mnasdet.architectures import num_anchors
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.errors import ConfigError
from mnasdet.models import network_of
from mnasdet.protos import pipeline_pb2
from tests import od_api_faster_rcnn_configs
from tests.config_fragments import CONFIGS, merge
from tests.od_api_configs import config_text

# The largest values that the types hold.
LARGEST = {
    FieldDescriptor.CPPTYPE_INT32: 2**31 - 1,
    FieldDescriptor.CPPTYPE_UINT32: 2**32 - 1,
    FieldDescriptor.CPPTYPE_INT64: 2**63 - 1,
}

# Fields whose largest value costs nothing.
UNREAD = {
    # Fields of other readers and trainers; they have no effect here.
    "keypoint_flip_permutation", "keypoint_rot_permutation", "replicas_to_aggregate",
    "batch_queue_capacity", "num_batch_queue_threads", "prefetch_queue_capacity",
    "queue_capacity", "min_after_dequeue", "prefetch_size", "num_parallel_map_calls",
    "read_block_length", "num_parallel_batches", "num_prefetch_batches", "num_examples",
    "eval_interval_secs", "max_evals", "startup_delay_steps", "keep_checkpoint_every_n_hours",
    "train_config.max_number_of_boxes", "retrain_config.max_number_of_boxes",
    "pretrain_config.max_number_of_boxes",
    "mask_prediction_conv_depth", "mask_height", "mask_width", "mask_prediction_num_conv_layers",
    # Used only by extractors without a pyramid.
    "first_stage_features_stride",
    # Version 0.1 wrote it for information; it is cleared.
    "model.architecture.image_size",
}  # fmt: skip
LIMITS = {
    # Something is smaller where it is larger than all there is: files, records, boxes, anchors.
    # More GPUs than there are end a training before it begins.
    "shuffle_buffer_size", "filenames_shuffle_buffer_size", "sample_1_of_n_examples",
    "num_readers", "max_num_boxes_to_visualize", "max_target_pixels", "num_hard_examples",
    "max_negatives_per_positive", "min_negatives_per_image", "max_memory_mb",
    "limits.max_params", "limits.max_multiply_adds", "limits.max_file_size", "num_gpus",
}  # fmt: skip
STEPS = {
    # Steps and trials are counted one by one.
    "num_trials", "eval_every_n_steps", "checkpoint_every_n_steps", "decay_steps", "burnin_steps",
    "step", "total_steps", "frequency", "num_steps", "warmup_steps", "evaluations_without_gain",
}  # fmt: skip

# Read in place of these: of model.ssd, and model.architecture.
OVERRIDDEN = (
    "model.architecture.box_predictor",
    "model.architecture.anchor_generator",
    "model.ssd.feature_extractor.fpn",
    "model.faster_rcnn.one_stage",
    # Belongs to the prediction of masks.
    "model.faster_rcnn.second_stage_box_predictor.mask_rcnn_box_predictor.conv_hyperparams",
)


def paths(message, above=(), around=()):
    """Yields the fields from the root to every number of a message and the messages inside."""
    for field in message.fields:
        inside = field.message_type
        if inside is None:
            yield (*above, field)
        elif inside.full_name not in around:
            yield from paths(inside, (*above, field), (*around, inside.full_name))


def numbers(*types):
    for path in paths(pipeline_pb2.TrainEvalPipelineConfig.DESCRIPTOR):
        name = ".".join(field.name for field in path)
        if path[-1].cpp_type in types and not name.startswith(OVERRIDDEN):
            yield name, path


def put(message, path, value):
    """Sets a field in messages that are made where they are missing."""
    *around, field = path
    for outer in around:
        message = getattr(message, outer.name)
        if outer.is_repeated:
            message = message[0] if message else message.add()
        message.SetInParent()
    if field.is_repeated:
        getattr(message, field.name)[:] = [value]
    else:
        setattr(message, field.name, value)


@functools.cache
def two_stages(is_given):
    """A config of a two-stage detector, of an extractor or with an architecture beside it."""
    pipeline = text_proto.parse(
        od_api_faster_rcnn_configs.config_text("faster_rcnn_resnet50_fpn_keras"),
        pipeline_pb2.TrainEvalPipelineConfig,
        "od_api.config",
    )
    if is_given:
        return config.with_architecture(pipeline, config.resolve(pipeline).architecture)
    return pipeline


def named(path, value, base):
    """Returns whether a problem names the field when it has the value."""
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.CopyFrom(base)
    names = [field.name for field in path]
    if names[1:2] == ["faster_rcnn"] or names[2:3] in (["region_proposal"], ["region_head"]):
        pipeline.CopyFrom(two_stages(is_given=names[1] == "architecture"))
    put(pipeline, path, value)
    return any(path[-1].name in problem for problem in config.check(pipeline))


@pytest.fixture
def base():
    return config.load(CONFIGS / "quickstart.config")


def test_the_largest_number_is_refused_where_it_costs_anything(base):
    # Hyper-parameters of the extractor are in place of the architecture's own.
    base.model.ssd.feature_extractor.ClearField("conv_hyperparams")
    harmless = UNREAD | LIMITS | STEPS
    accepted = [
        name
        for name, path in numbers(*LARGEST)
        if not named(path, LARGEST[path[-1].cpp_type], base)
        and not any(f".{name}".endswith(f".{end}") for end in harmless)
    ]
    assert accepted == []


def test_what_costs_nothing_is_a_field(base):
    names = [name for name, _ in numbers(*LARGEST, FieldDescriptor.CPPTYPE_FLOAT)]
    for end in UNREAD | LIMITS | STEPS:
        assert any(f".{name}".endswith(f".{end}") for name in names), end


def test_no_float_is_not_a_number(base):
    # Hyper-parameters of the extractor are in place of the architecture's own.
    base.model.ssd.feature_extractor.ClearField("conv_hyperparams")
    accepted = [
        name
        for name, path in numbers(FieldDescriptor.CPPTYPE_FLOAT)
        if not named(path, math.nan, base)
        and not any(f".{name}".endswith(f".{end}") for end in UNREAD)
    ]
    assert accepted == []


@pytest.mark.parametrize("name", ["min_level", "max_level", "additional_layer_depth"])
@pytest.mark.parametrize("value", [2**31 - 1, -(2**31)])
def test_the_pyramid_of_an_extractor_is_bounded(tmp_path, name, value):
    path = tmp_path / "od_api.config"
    path.write_text(config_text("ssd_mobilenet_v2_fpn_keras"))
    pipeline = config.load(path, readers=())
    setattr(pipeline.model.ssd.feature_extractor.fpn, name, value)
    problems = config.check(pipeline, readers=())
    assert any(f"feature_extractor.fpn.{name} is {value}; " in problem for problem in problems)


def changed(name, change):
    """The problems of a published architecture after a change."""
    architecture = config.load_architecture(name)
    change(architecture)
    problems = architecture_problems(architecture)
    # A problem that occurs a hundred thousand times is reported once.
    assert sum(map(len, problems)) < 50_000
    return problems


@pytest.mark.parametrize("name", ["mobilenet_v2_mnasfpn", "resnet10_nas_fpn_3_256"])
def test_levels_far_below_0_are_not_counted(name):
    def change(architecture):
        pyramid = architecture.feature_pyramid
        getattr(pyramid, pyramid.WhichOneof("feature_pyramid_oneof")).min_level = -(2**31)

    assert "min_level is -2147483648; 2 to 5 is allowed" in changed(name, change)[0]


def test_layers_of_ssd_are_bounded():
    def change(architecture):
        architecture.feature_pyramid.ssd_layers.channels[:] = [8] * 100_000
        architecture.anchor_generator.ssd_anchor_generator.num_layers = 100_002

    told = changed("mobilenet_v2_ssdlite", change)
    assert "feature_pyramid.ssd_layers.channels has 100000 values; at most 7 are allowed" in told


def test_blocks_and_their_inputs_are_bounded():
    def many_inputs(architecture):
        architecture.feature_pyramid.mnasfpn.block[0].input[:] = range(20_000)

    def many_blocks(architecture):
        blocks = architecture.feature_pyramid.mnasfpn.block
        blocks.extend([blocks[0]] * 20_000)

    def many_merged(architecture):
        mnasfpn = architecture.feature_pyramid.mnasfpn
        outputs = list(mnasfpn.block)
        del mnasfpn.block[:]
        for index in range(200):
            mnasfpn.block.add(input=range(4 + index), level=4, expanded_channels=8)
        mnasfpn.block.extend(outputs)

    assert len(changed("mobilenet_v2_mnasfpn", many_inputs)) < 10
    assert (
        "block is there 20005 times; at most 256" in changed("mobilenet_v2_mnasfpn", many_blocks)[0]
    )
    # 4 + 5 + ... + 203 and the 10 of the published blocks, each four times.
    told = changed("mobilenet_v2_mnasfpn", many_merged)
    assert told == [
        "feature_pyramid.mnasfpn.block merges 82840 features in all repeats; at most 4096 are "
        "allowed"
    ]


def test_layers_of_mnasnet_are_bounded_together():
    def change(architecture):
        for block in architecture.backbone.mnasnet.block:
            block.repeats = 64
        architecture.backbone.mnasnet.block.extend([architecture.backbone.mnasnet.block[0]] * 200)

    told = changed("mnasnet_b1", change)
    assert "backbone.mnasnet.block has 13248 layers with all repeats; at most 1024" in told[0]


def test_anchors_are_bounded_together(base):
    # A million places at level 3, and fewer on the coarser ones, with 63 anchors each.
    changes = """model { ssd {
      image_resizer { fixed_shape_resizer { height: 8192 width: 8192 } }
      anchor_generator { multiscale_anchor_generator { scales_per_octave: 21 } }
    } }"""
    merge(changes, base)
    (problem,) = config.check(base)
    places = sum((8192 // 2**level) ** 2 for level in range(3, 7))
    assert problem == (
        "model.ssd.image_resizer.fixed_shape_resizer gives images of 8192 x 8192 pixels "
        f"{places * 63} anchors; at most 4000000 are allowed: make images smaller, or anchors "
        "fewer"
    )


DETECTORS = [
    name
    for name in config.architecture_names()
    if not config.load_architecture(name).HasField("classifier")
]


@pytest.mark.parametrize("name", DETECTORS)
def test_anchors_are_counted_as_they_are_made(name):
    architecture = config.load_architecture(name)
    size = (416, 352)
    outputs = next(iter(network_of(architecture, size, 1).graphs.values())).outputs
    boxes = outputs.get("rpn/box_encodings") or outputs["box_encodings"]
    # SSD's finest feature has three, and is counted with all.
    least = boxes.shape[0]
    assert least <= num_anchors(architecture, *size) <= 2 * least


def test_lists_are_bounded(base):
    channels = base.search_config.search_space.mnasfpn.channels
    channels[:] = range(1, 258)
    base.train_config.data_augmentation_options.add().random_horizontal_flip.SetInParent()
    base.train_config.data_augmentation_options.extend(
        [base.train_config.data_augmentation_options[0]] * 20_000
    )
    options, choices = config.check(base)
    assert "data_augmentation_options is there" in options
    assert options.endswith("times; at most 64 are allowed")
    assert choices.endswith("channels has 257 values; at most 256 are allowed")


@pytest.mark.parametrize(
    "pattern", ["a{99999999999999999999}", "(" * 100_000, "(?P<a>" * 50_000, "["]
)
def test_patterns_that_python_cannot_read(base, pattern):
    base.train_config.freeze_variables.append(pattern)
    (problem,) = config.check(base)
    assert "freeze_variables is" in problem
    assert "no regular expression" in problem
    assert len(problem) <= 1000


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("mobilenet_v2/mnasfpn_c48_r99999999_L3(C3+C4)f96k3", "repeats is 99999999; at most 64"),
        ("mobilenet_v2/fpn_c64_from3_to99999999/shared_d64_n4", "max_level is 99999999; 5 to 12"),
        ("mobilenet_v2/fpn_c64_from-99999999/shared_d64_n4", "min_level is -99999999; 2 to 5"),
        ("resnet_50/fpn_c99999999/shared_d64_n4", "channels is 99999999; at most 8192"),
        ("resnet_50/fpn_c64/shared_d64_n99999999", "num_layers_before_predictor is 99999999; at"),
        ("amoebanet_d_n99999999_f256/fpn_c64/shared_d64_n4", "num_cells is 99999999; at most 256"),
        ("mobilenet_v2/fpn_c99999999999999999999/shared_d64_n4", "a whole number is needed"),
        ("mobilenet_v2/fpn_c64_x99999999/shared_d64_n4", "the options here are cNUMBER"),
        ("mobilenet_v2/fpn_c" + "9" * 10_000 + "/shared_d64_n4", "a whole number is needed"),
        ("mobilenet_v2/fpn_c64_" + "q" * 1_000_000 + "/shared_d64_n4", "the options here are"),
    ],
)
def test_architecture_strings_are_bounded(line, told):
    with pytest.raises(ConfigError) as caught:
        config.load_architecture(line)
    assert told in str(caught.value)
    assert len(str(caught.value)) <= 1000


def test_many_problems_are_counted_and_some_are_told(tmp_path):
    text = (CONFIGS / "quickstart.config").read_text()
    step = "data_augmentation_options { random_image_scale { max_scale_ratio: 0 } }\n"
    path = tmp_path / "many.config"
    path.write_text(text.replace("train_config {", "train_config {" + step * 60, 1))
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    first, *told, rest = str(caught.value).splitlines()
    # Two a step: 0 is not more than 0, and less than the least.
    assert first == f"120 problems in {path}:"
    assert len(told) == 50
    assert rest == "  and 70 more"
