"""The rules that a training config has to fulfil beyond its syntax."""

from __future__ import annotations

import math
import re

from mnasdet.config_checks.files import check_exists
from mnasdet.config_checks.layers import MAX_IMAGE_SIZE
from mnasdet.config_checks.section import Section
from mnasdet.errors import nearest
from mnasdet.protos import optimizer_pb2

# Upper bounds. They are far above what anybody trains with: a slip such as batch_size: 2147483647
# would otherwise fill the memory, or go on for years.
MAX_BATCH_SIZE = 65_536
_MAX_STEPS = 64  # Augmentations one after another.
_MAX_SCALE = 16  # Of the sides of an image.
_MAX_REPEATS = 1000

_CHECKPOINT_TYPES = ("classification", "detection", "fine_tune", "full")


def trainings(root: Section) -> list[Section]:
    """Returns all trainings that a config describes: its own, and those around a search."""
    found = [root.child("train_config")]
    if root.message.HasField("search_config"):
        search = root.child("search_config")
        names = ("pretrain_config", "retrain_config")
        found += [search.child(name) for name in names if search.message.HasField(name)]
        if search.message.HasField("one_shot"):
            found.append(search.child("one_shot").child("train_config"))
        if search.message.HasField("differentiable"):
            own = search.child("differentiable")
            found.append(own.child("train_config"))
            if own.message.HasField("screening"):
                found.append(own.child("screening").child("train_config"))
        if search.message.second_stage.HasField("train_config"):
            found.append(search.child("second_stage").child("train_config"))
    return found


def check_train(train: Section, starts: bool = True) -> None:
    """Checks how to train.

    Args:
      starts: it will train, so the checkpoint it starts from has to be there.
    """
    message = train.message
    train.counts(MAX_BATCH_SIZE, "batch_size")
    # The OD API trains without end where the field is missing.
    endless = "" if message.HasField("num_steps") else "; it is missing, and training has to end"
    train.require(message.num_steps >= 1, "num_steps", f"at least 1 is allowed{endless}")
    train.at_least("parallel_parts", 1)
    # Each part has batch statistics of its own, so all have to be of one size.
    train.require(
        train.message.batch_size % max(train.message.parallel_parts, 1) == 0,
        "parallel_parts",
        f"a divisor of batch_size, {train.message.batch_size}, is needed",
    )
    _check_accelerators(train)
    # 0 leaves gradients as they are.
    train.at_least("gradient_clipping_by_norm", 0)
    train.at_least("bias_grad_multiplier", 0)
    # A box here has one class; with either field one box of a record may stand for several.
    train.only("merge_multiple_label_boxes", False)
    train.only("use_multiclass_scores", False)
    _check_fine_tuning(train, starts)
    train.within("min_matched_share", 0, 1)
    for name in ("update_trainable_variables", "freeze_variables"):
        _check_patterns(train, name)
    _check_single_variables(train)
    if message.HasField("early_stopping"):
        _check_early_stopping(train)
    steps = train.children("data_augmentation_options")
    _check_length(train, "data_augmentation_options")
    for position, step in enumerate(steps[:_MAX_STEPS]):
        if augmentation := step.chosen("preprocessing_step"):
            _check_augmentation(augmentation)
        if position and step.message.HasField("random_mosaic"):
            # The other images have gone through no step before it.
            step.report("random_mosaic", "has to be the first of the steps, and there but once")
    if optimizer := train.needed("optimizer"):
        _check_optimizer(optimizer, message.num_steps)


def _check_patterns(section: Section, name: str) -> None:
    for pattern in getattr(section.message, name):
        try:
            re.compile(pattern)
        # A pattern can fail by more than re.error: a large count overflows, deep nesting recurses.
        except (re.error, OverflowError, RecursionError) as error:
            section.report(name, f'is "{pattern}", no regular expression: {error}')


def _check_single_variables(train: Section) -> None:
    """Checks what is said of some variables only: rates of their own, frozen first."""
    entries = train.children("rate_factors")
    for entry in entries:
        # 0 would be a slow way to freeze.
        entry.positive("factor")
    if train.message.HasField("freeze_until"):
        freezing = train.child("freeze_until")
        entries.append(freezing)
        steps = train.message.num_steps
        freezing.require(
            0 < freezing.message.step < steps or not steps,
            "step",
            f"more than 0 and less than num_steps, {steps}, is allowed; freeze_variables freezes "
            "to the end",
        )
    for entry in entries:
        if not entry.message.variables:
            entry.report("variables", 'is missing; name variables, as in "^backbone"')
        _check_patterns(entry, "variables")
    # The optimizer moves the clusters' values in place of the kernels that these would name.
    for name, is_set in (
        ("rate_factors", bool(train.message.rate_factors)),
        ("freeze_until", train.message.HasField("freeze_until")),
        ("optimizer", _decays_weights(train.message.optimizer)),
    ):
        if is_set and train.message.HasField("weight_clustering"):
            what = "with its weight_decay cannot" if name == "optimizer" else "cannot"
            train.report(name, f"{what} be combined with weight_clustering; remove one of them")


def _decays_weights(optimizer: optimizer_pb2.Optimizer) -> bool:
    name = optimizer.WhichOneof("optimizer")
    return bool(name and getattr(getattr(optimizer, name), "weight_decay", 0))


def _check_early_stopping(train: Section) -> None:
    stopping = train.child("early_stopping")
    stopping.at_least("evaluations_without_gain", 1)
    stopping.at_least("min_gain", 0)
    # There would be no evaluation to judge by.
    train.require(
        train.message.eval_every_n_steps >= 1,
        "eval_every_n_steps",
        "early_stopping needs at least 1",
    )


def _check_accelerators(train: Section) -> None:
    message = train.message
    train.at_least("gradient_accumulation_steps", 1)
    # One step is the whole batch, whose parallel_parts are checked by themselves.
    if (steps := message.gradient_accumulation_steps) > 1:
        parts = max(message.parallel_parts, 1)
        train.require(
            message.batch_size % (steps * parts) == 0,
            "gradient_accumulation_steps",
            f"times parallel_parts, {parts}, a divisor of batch_size, {message.batch_size}, is "
            "needed",
        )
    if message.use_bfloat16 and message.HasField("precision"):
        train.only("precision", message.BFLOAT16)
    if not message.HasField("distribution"):
        return
    train.child("distribution").chosen("distribution_oneof")
    if message.distribution.HasField("tpu") and message.precision == message.FLOAT16:
        train.report("precision", "is FLOAT16; a TPU computes in BFLOAT16 or FLOAT32")


def _check_length(section: Section, name: str) -> None:
    length = len(getattr(section.message, name))
    if length > _MAX_STEPS:
        section.report(name, f"is there {length} times; at most {_MAX_STEPS} are allowed")


def _check_fine_tuning(train: Section, starts: bool) -> None:
    message = train.message
    if message.fine_tune_checkpoint and starts:
        # A TensorFlow checkpoint is the prefix of its files; no file has the bare name.
        path = message.fine_tune_checkpoint
        check_exists(train, "fine_tune_checkpoint", [path, f"{path}.index"])
    kind = message.fine_tune_checkpoint_type
    if kind and kind not in _CHECKPOINT_TYPES:
        train.report(
            "fine_tune_checkpoint_type",
            f'is "{kind}"; {nearest(kind, _CHECKPOINT_TYPES)} is allowed',
        )
    # The OD API's older flag means the type "detection", so the two would contradict each other.
    if message.from_detection_checkpoint and kind == "classification":
        train.report(
            "from_detection_checkpoint",
            'is true beside fine_tune_checkpoint_type "classification"; remove one of them',
        )


def _check_optimizer(optimizer: Section, num_steps: int) -> None:
    optimizer.within("moving_average_decay", 0, 1)
    chosen = optimizer.chosen("optimizer")
    if not chosen:
        return
    match chosen.message.DESCRIPTOR.name:
        case "AdamOptimizer":
            chosen.positive("epsilon")
        case "AdamWOptimizer":
            chosen.positive("epsilon")
            chosen.at_least("weight_decay", 0)
        case "RMSPropOptimizer":
            chosen.within("momentum_optimizer_value", 0, 1)
            chosen.within("decay", 0, 1)
            chosen.positive("epsilon")
        case "MomentumOptimizer":
            chosen.within("momentum_optimizer_value", 0, 1)
            chosen.at_least("weight_decay", 0)
    if rate := chosen.selected("learning_rate", "learning_rate"):
        _check_learning_rate(rate, num_steps)


def _check_learning_rate(rate: Section, num_steps: int) -> None:
    match rate.message.DESCRIPTOR.name:
        case "ConstantLearningRate":
            rate.positive("learning_rate")
        case "ExponentialDecayLearningRate":
            rate.positive("initial_learning_rate", "decay_factor")
            rate.at_least("decay_steps", 1)
            rate.at_least("burnin_learning_rate", 0)
            rate.at_least("min_learning_rate", 0)
            rate.ordered("min_learning_rate", "initial_learning_rate")
            if rate.message.warmup_steps and rate.message.burnin_steps:
                rate.report("warmup_steps", "is set beside burnin_steps; remove one of them")
        case "CosineDecayLearningRate":
            _check_cosine(rate, num_steps)
        case "ManualStepLearningRate":
            _check_manual_steps(rate)


def _check_cosine(rate: Section, num_steps: int) -> None:
    message = rate.message
    rate.positive("learning_rate_base")
    rate.at_least("warmup_learning_rate", 0)
    # Without a warm-up its rate is never used, whatever it is.
    if message.warmup_steps:
        rate.ordered("warmup_learning_rate", "learning_rate_base")
    rate.ordered("warmup_steps", "total_steps")
    rate.at_least("min_learning_rate", 0)
    rate.ordered("min_learning_rate", "learning_rate_base")
    # The schedule is 0 after its end: the steps after that would cost hours and change nothing.
    rate.require(
        message.total_steps >= num_steps or message.min_learning_rate > 0,
        "total_steps",
        f"train_config.num_steps is {num_steps}, and the rate is 0 from total_steps on",
    )
    rate.require(
        message.warmup_steps + message.hold_base_rate_steps <= message.total_steps,
        "hold_base_rate_steps",
        f"together with warmup_steps at most total_steps, {message.total_steps}, is allowed",
    )


def _check_manual_steps(rate: Section) -> None:
    rate.at_least("initial_learning_rate", 0)
    schedule = rate.children("schedule")
    if not schedule and not rate.message.initial_learning_rate:
        rate.report("schedule", "is empty, and the initial rate is 0")
    if not schedule and rate.message.warmup:
        rate.report("schedule", "is empty, but warmup needs its first step")
    # A rate out of order would never be reached.
    last = 0
    for step in schedule:
        step.positive("learning_rate")
        step.require(step.message.step > last, "step", f"more than {last}, the one before")
        last = step.message.step


# Fields that are shares, in every augmentation that has them.
_SHARES = (
    "min_object_covered",
    "min_area",
    "max_area",
    "overlap_thresh",
    "random_coef",
    "probability",
    "size_to_image_ratio",
    "ratio",
    "concat_vertical_probability",
    "concat_horizontal_probability",
)

# Pairs that are ranges above 0, in every augmentation that has them.
_RANGES = (
    ("minval", "maxval"),
    ("min_scale_ratio", "max_scale_ratio"),
    ("min_delta", "max_delta"),
    ("min_aspect_ratio", "max_aspect_ratio"),
    ("scale_min", "scale_max"),
    ("min_target_pixels", "max_target_pixels"),
    ("min_patch_size", "max_patch_size"),
)

_AT_LEAST_0 = (
    "max_delta",
    "max_border",
    "max_black_patches",
    "max_height_padding",
    "max_width_padding",
    "min_gaussian_stddev",
    "max_gaussian_stddev",
)

# The largest value, in every augmentation that has the field.
_MOST = {
    **dict.fromkeys(("max_scale_ratio", "scale_max"), _MAX_SCALE),
    **dict.fromkeys(
        (
            "min_image_height",
            "min_image_width",
            "max_image_height",
            "max_image_width",
            "max_height_padding",
            "max_width_padding",
            "max_border",
            "max_patch_size",
            "output_size",
        ),
        MAX_IMAGE_SIZE,
    ),
    **dict.fromkeys(("max_black_patches", "num_scales"), _MAX_REPEATS),
}

_COLORS = 3


def _check_augmentation(augmentation: Section) -> None:
    fields = augmentation.message.DESCRIPTOR.fields_by_name
    for name in _SHARES:
        if name in fields:
            augmentation.within(name, 0, 1)
    # A factor, a ratio or a size of 0 would leave nothing of an image.
    for low, high in _RANGES:
        if low in fields:
            augmentation.positive(low, high)
            augmentation.ordered(low, high)
    if "min_area" in fields:
        augmentation.positive("min_area", "max_area")
        augmentation.ordered("min_area", "max_area")
    for name in ("output_size", "num_scales"):
        if name in fields:
            augmentation.at_least(name, 1)
    for name in _AT_LEAST_0:
        if name in fields:
            augmentation.at_least(name, 0)
    for name, most in _MOST.items():
        if name in fields:
            augmentation.at_most(name, most)
    if "operations" in fields:
        _check_length(augmentation, "operations")
        # Each operation is a whole crop, of which one is drawn for an image (Liu et al., 2016,
        # section 2.2).
        for operation in augmentation.children("operations")[:_MAX_STEPS]:
            _check_augmentation(operation)
    if "aspect_ratio" in fields:
        augmentation.positive("aspect_ratio")
    _check_padding(augmentation)
    match augmentation.message.DESCRIPTOR.name:
        case "RandomAdjustHue":
            # Hues lie on a circle of length 1: half of it to either side reaches every colour.
            augmentation.within("max_delta", 0, 0.5)
        case "RandomDistortColor":
            augmentation.within("color_ordering", 0, 1)
        case "RandomJpegQuality":
            augmentation.within("min_jpeg_quality", 0, 100)
            augmentation.within("max_jpeg_quality", 0, 100)
            augmentation.ordered("min_jpeg_quality", "max_jpeg_quality")
        case "RandomMosaic":
            # Each corner has at least a pixel.
            augmentation.at_least("output_size", 2)
            augmentation.within("min_share", 0, 0.5)
        case "RandAugment":
            augmentation.counts(_MAX_STEPS, "num_layers")
            # rand_augmentation.MAX_MAGNITUDE: beyond it, factors would be negative.
            augmentation.within("magnitude", 0, 10)


def _check_padding(augmentation: Section) -> None:
    message = augmentation.message
    fields = message.DESCRIPTOR.fields_by_name
    if "pad_color" in fields and len(message.pad_color) not in (0, _COLORS):
        augmentation.report(
            "pad_color", f"has {len(message.pad_color)} values; {_COLORS} are needed"
        )
    colors = {name: getattr(message, name) for name in fields if name.startswith("pad_color")}
    for name, color in colors.items():
        values = color if name == "pad_color" else [color]
        if not all(map(math.isfinite, values)):
            augmentation.report(name, f"is {list(values)}; 0 to 255 is allowed")
    if "min_padded_size_ratio" in fields:
        _check_size_ratios(augmentation)
    for side in ("height", "width"):
        low, high = f"min_image_{side}", f"max_image_{side}"
        if low in fields:
            augmentation.at_least(low, 0)
            augmentation.at_least(high, 0)
            # 0 stands for a size that is taken from the image, with which nothing can be compared
            # yet.
            if getattr(message, high):
                augmentation.ordered(low, high)


def _check_size_ratios(augmentation: Section) -> None:
    """Checks the ratios of height and width; absent they are 1 and 2."""
    message = augmentation.message
    for name in ("min_padded_size_ratio", "max_padded_size_ratio"):
        if len(getattr(message, name)) not in (0, 2):
            augmentation.report(
                name, f"has {len(getattr(message, name))} values; height and width are needed"
            )
    # Absent values are the OD API's defaults, so a ratio may conflict with one that nobody wrote.
    low = list(message.min_padded_size_ratio) or [1.0, 1.0]
    high = list(message.max_padded_size_ratio) or [2.0, 2.0]
    if not all(smallest <= largest for smallest, largest in zip(low, high, strict=False)):
        augmentation.report("min_padded_size_ratio", f"is {low}; at most {high} is allowed")
    elif max(high) > _MAX_SCALE:
        augmentation.report(
            "max_padded_size_ratio", f"is {high}; at most {_MAX_SCALE} each is allowed"
        )
