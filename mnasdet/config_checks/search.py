"""The rules that a search config has to fulfil beyond its syntax."""

from __future__ import annotations

import math
import re

from mnasdet import search_stages
from mnasdet.base_codes import NUM_STAGES
from mnasdet.config_checks.architecture import check_predictor
from mnasdet.config_checks.compression import check_training_compression
from mnasdet.config_checks.files import check_exists
from mnasdet.config_checks.layers import (
    MAX_CHANNELS,
    MAX_DEPTH_MULTIPLIER,
    MAX_IMAGE_SIZE,
    MAX_KERNEL_SIZE,
    MAX_REPEATS,
    check_hyperparams_of,
)
from mnasdet.config_checks.section import Section
from mnasdet.config_checks.training import check_train

# Blocks or cells between the inputs of a cell and its outputs: the papers have 2 to 5. A space of
# thousands would take minutes to count.
_MAX_INTERNAL = 64

# The largest choice of each list; a larger one would only fail when a trial is built.
_MOST = {
    "channels": MAX_CHANNELS,
    "bases": MAX_CHANNELS,
    "pyramid_channels": MAX_CHANNELS,
    "min_blocks": MAX_REPEATS,
    "max_blocks": MAX_REPEATS,
    "expanded_channels": 64 * MAX_CHANNELS,
    "repeats": MAX_REPEATS,
    "kernel_sizes": MAX_KERNEL_SIZE,
    "image_sizes": MAX_IMAGE_SIZE,
    "depth_multipliers": MAX_DEPTH_MULTIPLIER,
    "depth_offsets": MAX_REPEATS,
    "width_factors": MAX_DEPTH_MULTIPLIER,
    "expansions": 64,
    "searched_blocks": 256,
}

# Values of one list. The papers have at most ten.
_MAX_CHOICES = 256

# ResNets double the width of their backbone three times.
_MAX_DOUBLINGS = 6

# 0 in one of these fields means no limit.
_LIMITS = ("max_params", "max_multiply_adds", "max_latency_ms", "max_file_size")

# Trials that are proposed at once, or that a controller holds.
_MAX_TRIALS = 100_000

# Numbers of each controller: at least 1, at most this.
_COUNTS = {
    "PpoConfig": {"batch_size": _MAX_TRIALS, "hidden_units": 4096, "epochs": 1000},
    "RegularizedEvolutionConfig": {"population_size": _MAX_TRIALS, "tournament_size": _MAX_TRIALS},
    "Nsga2Config": {"population_size": _MAX_TRIALS},
    "LocalSearchConfig": {"num_starts": _MAX_TRIALS},
    "OptunaConfig": {"num_startup_trials": _MAX_TRIALS},
    "PartialOrderConfig": {"num_starts": _MAX_TRIALS, "num_witnesses": _MAX_TRIALS},
}

# Controllers that weigh accuracy and cost by themselves.
_OF_TWO_OBJECTIVES = ("nsga2", "partial_order")

# Rounds in which a part drops operations.
_MAX_ROUNDS = 100

# Groups of a second stage.
_MAX_GROUPS = 1000

# Seeds of NumPy's RandomState, which Optuna draws from, have 32 bits; trials count on from here.
_MAX_SEED = 2**31 - 1

# Upper bounds for executors and measurements. No machine has as many cores; no trial takes a year.
_MAX_THREADS = 4096
_MAX_SECONDS = 365 * 24 * 3600
_MAX_RUNS = 1_000_000
_MAX_RETRIES = 1000

# The exponents and factors of each reward; a positive one would favour slow networks.
_PENALTIES = {
    "MnasFpnReward": ("exponent",),
    "MnasNetReward": ("alpha", "beta"),
    "TunasReward": ("beta",),
}


def check_search(search: Section) -> None:
    search.counts(_MAX_SEED, "seed", minimum=0)
    search.counts(_MAX_TRIALS, "max_pending_trials")
    _check_stage(search)
    if search.message.HasField("second_stage"):
        _check_second_stage(search)
    _check_store(search.child("trial_store"))
    _check_executor(search)
    for training in ("pretrain_config", "retrain_config"):
        if search.message.HasField(training):
            check_train(search.child(training))
            check_training_compression(search.child(training))
    if search.message.HasField("differentiable"):
        _check_differentiable(search)


def _check_stage(search: Section) -> None:
    """Checks what each stage of a search has of its own."""
    search.at_least("num_trials", 1)
    _check_sizes(search.child("search_space"))
    if search.selected("search_space", "search_space_oneof"):
        _check_space(search.child("search_space"))
    if search.message.HasField("differentiable"):
        if search.message.HasField("controller"):
            search.report("controller", "is there beside differentiable; remove one of them")
    elif controller := search.selected("controller", "controller_oneof"):
        _check_controller(controller)
    if reward := search.selected("reward", "reward_oneof"):
        _check_reward(reward)
        _check_objectives(search, reward)
    if source := search.selected("latency", "latency_oneof"):
        _check_latency(source)
    for name in _LIMITS:
        search.child("limits").at_least(name, 0)


def _check_second_stage(search: Section) -> None:
    second = search.child("second_stage")
    second.counts(_MAX_GROUPS, "num_groups")
    # Fields that it leaves out are the first stage's, whose problems were told of there.
    whole = Section(search_stages.settings(search.message)[1], second.path, [])
    _check_stage(whole)
    told = {problem.replace(search.path, second.path, 1) for problem in search.problems}
    second.problems.extend(problem for problem in whole.problems if problem not in told)
    chosen = search.message.reward.WhichOneof("reward_oneof")
    has_target = chosen in ("mnasnet", "tunas")
    if (
        has_target
        and not second.message.HasField("reward")
        and not search_stages.have_one_cost(search.message)
    ):
        second.report(
            "reward",
            f"is missing; the target of search_config.reward.{chosen} is of another latency source",
        )
    if second.message.HasField("train_config"):
        check_train(second.child("train_config"))
        check_training_compression(second.child("train_config"))


# The sources that compute the cost of every operation of a supernet.
_ADDING_UP = ("multiply_adds", "latency_table")


def _check_differentiable(search: Section) -> None:
    own = search.child("differentiable")
    own.positive("alpha_learning_rate")
    own.at_least("cost_weight", 0)
    _check_weights_of_supernet(own)
    if own.message.HasField("screening"):
        screening = own.child("screening")
        # A supernet has a choice in every layer.
        screening.counts(_MAX_CHOICES, "num_kept", minimum=2)
        screening.counts(_MAX_ROUNDS, "num_rounds")
        screening.at_least("sparsity_weight", 0)
        _check_weights_of_supernet(screening)
    space = search.message.search_space
    name = space.WhichOneof("search_space_oneof")
    if name and name != "supernet":
        search.report("differentiable", f"needs search_space.supernet, and not {name}")
    for field in ("depth_multipliers", "image_sizes", "inputs"):
        if len(getattr(space, field)):
            search.report(
                f"search_space.{field}",
                "is not allowed with differentiable; the architecture and the image resizer say it",
            )
    source = search.message.latency.WhichOneof("latency_oneof")
    if source not in (None, *_ADDING_UP):
        search.report(
            f"latency.{source}",
            "measures whole networks, and differentiable needs the cost of every operation; "
            f"{' or '.join(_ADDING_UP)} is allowed",
        )
    for conflicting in ("one_shot", "second_stage"):
        if search.message.HasField(conflicting):
            search.report(conflicting, "is there beside differentiable; remove one of them")


def _check_weights_of_supernet(section: Section) -> None:
    """Checks a training of weights, of which alpha has the steps that are left."""
    num_steps = section.message.train_config.num_steps
    section.require(
        section.message.alpha_start_step < max(1, num_steps),
        "alpha_start_step",
        f"less than train_config.num_steps, {num_steps}, is allowed",
    )
    training = section.needed("train_config")
    if training is None:
        return
    check_train(training)
    check_training_compression(training)
    for name in ("pruning", "weight_clustering", "early_stopping"):
        if training.message.HasField(name):
            training.report(name, "is not allowed in the training of a supernet")


def _check_space(space: Section) -> None:
    """Checks the choices of a search space. Lists that are left out are the papers'."""
    chosen = space.chosen("search_space_oneof")
    assert chosen
    match chosen.message.DESCRIPTOR.name:
        case "MnasFpnSpaceConfig":
            _check_mnasfpn(chosen)
        case "NasFpnSpaceConfig":
            _check_choices(chosen, "channels")
            _check_choices(chosen, "repeats")
            chosen.at_least("num_internal_cells", 0)
            chosen.at_most("num_internal_cells", _MAX_INTERNAL)
        case "MnasNetSpaceConfig":
            _check_mnasnet(chosen)
        case "JointSpaceConfig":
            _check_mnasnet(chosen.child("mnasnet"))
            _check_mnasfpn(chosen.child("mnasfpn"))
        case "StructureSpaceConfig":
            chosen.counts(MAX_CHANNELS, "pyramid_channels")
            for name in ("backbones", "necks", "region_proposals", "heads"):
                _check_names(chosen, name)
            if chosen.message.HasField("box_predictor") and (
                predictor := chosen.selected("box_predictor", "box_predictor_oneof")
            ):
                check_predictor(predictor)
        case "BaseCodeSpaceConfig":
            _check_base_code(chosen)


def _check_sizes(space: Section) -> None:
    """Checks the widths of networks and the sizes of images, which every space may choose."""
    _check_choices(space, "depth_multipliers", allowed="different positive values are allowed")
    _check_choices(space, "image_sizes")
    sizes = [(size.height, size.width) for size in space.message.inputs]
    if sizes and space.message.image_sizes:
        space.report("inputs", "and image_sizes are both set; one of them is allowed")
    if len(set(sizes)) < len(sizes):
        shown = ", ".join(f"{height}x{width}" for height, width in sizes)
        space.report("inputs", f"is [{shown}]; different sizes are allowed")
    if len(sizes) > _MAX_CHOICES:
        space.report("inputs", f"has {len(sizes)} values; at most {_MAX_CHOICES} are allowed")
    for size in space.children("inputs"):
        size.counts(MAX_IMAGE_SIZE, "height", "width")


def _check_mnasfpn(space: Section) -> None:
    for name in ("channels", "expanded_channels", "repeats"):
        _check_choices(space, name)
    _check_choices(space, "kernel_sizes", odd=True)
    space.at_least("num_internal_blocks", 0)
    space.at_most("num_internal_blocks", _MAX_INTERNAL)
    # A block merges at least two features: single inputs would leave nothing to merge.
    space.at_least("max_inputs", 2)
    space.at_most("max_inputs", _MAX_INTERNAL)


def _check_mnasnet(space: Section) -> None:
    # The first operation and the first skip are 0, and a depth offset may be negative.
    for name in ("ops", "skips", "depth_offsets"):
        _check_choices(space, name, above=-math.inf, allowed="different values are allowed")
    for name in ("expansions", "searched_blocks"):
        _check_choices(space, name)
    _check_choices(space, "kernel_sizes", odd=True)
    _check_choices(space, "width_factors", allowed="different positive values are allowed")
    ratios = space.message.se_ratios
    # The same value twice would be sampled twice as often and count every architecture twice.
    if any(not 0 <= ratio <= 1 for ratio in ratios) or len(set(ratios)) < len(ratios):
        space.report("se_ratios", f"is {_shown(ratios)}; different values of 0 to 1 are allowed")


def _check_names(space: Section, name: str) -> None:
    """Reports names that are there twice, or too many; the search space knows the allowed ones."""
    names = list(getattr(space.message, name))
    if len(set(names)) < len(names):
        space.report(name, f"is [{', '.join(names)}]; different names are allowed")
    if len(names) > _MAX_CHOICES:
        space.report(name, f"has {len(names)} values; at most {_MAX_CHOICES} are allowed")


def _check_base_code(space: Section) -> None:
    for name in ("bases", "pyramid_channels"):
        _check_choices(space, name)
    for name in ("min_blocks", "max_blocks"):
        blocks = list(getattr(space.message, name))
        if blocks and (
            len(blocks) != NUM_STAGES or not 1 <= min(blocks) <= max(blocks) <= _MOST[name]
        ):
            space.report(
                name,
                f"is {blocks}; {NUM_STAGES} values of 1 to {_MOST[name]} are allowed, one for each "
                "of the strides 4, 8, 16 and 32",
            )
    space.counts(_MAX_DOUBLINGS, "min_doublings", "max_doublings", minimum=0)
    space.ordered("min_doublings", "max_doublings")
    check_hyperparams_of(space)


def _check_choices(
    space: Section,
    name: str,
    *,
    above: float = 0.0,
    odd: bool = False,
    allowed: str = "different values of at least 1 are allowed",
) -> None:
    """Reports choices that are not different values, each of them greater than `above`."""
    choices = list(getattr(space.message, name))
    if not all(choice > above for choice in choices) or len(set(choices)) < len(choices):
        space.report(name, f"is {_shown(choices)}; {allowed}")
    if len(choices) > _MAX_CHOICES:
        space.report(name, f"has {len(choices)} values; at most {_MAX_CHOICES} are allowed")
    most = _MOST.get(name, math.inf)
    if any(choice > most for choice in choices):
        space.report(name, f"is {_shown(choices)}; at most {most:g} each is allowed")
    even = [choice for choice in choices if odd and choice % 2 == 0]
    if even:
        space.report(name, f"has {even[0]}; only odd sizes are allowed")


def _shown(choices) -> str:
    return f"[{', '.join(f'{choice:g}' for choice in choices)}]"


def _check_controller(controller: Section) -> None:
    kind = controller.message.DESCRIPTOR.name
    for name, most in _COUNTS.get(kind, {}).items():
        controller.counts(most, name)
    match kind:
        case "PpoConfig":
            controller.positive("learning_rate", "clip_range")
            # A bonus below 0 would reward a controller for deciding early.
            controller.at_least("entropy_bonus", 0)
            controller.within("baseline_decay", 0, 1)
        case "Nsga2Config" | "RegularizedEvolutionConfig":
            controller.within("crossover_probability", 0, 1)
        case "LocalSearchConfig":
            # At 0 nothing would be believed, so that no climb would ever move.
            controller.positive("believed_gain")
            controller.within("believed_gain", 0, 1)
        case "PartialOrderConfig":
            controller.within("trust", 0, 1)


def _check_reward(reward: Section) -> None:
    kind = reward.message.DESCRIPTOR.name
    if "target_latency_ms" in reward.message.DESCRIPTOR.fields_by_name:
        reward.positive("target_latency_ms")
    for name in _PENALTIES.get(kind, ()):
        value = getattr(reward.message, name)
        reward.require(-math.inf < value <= 0, name, "at most 0 is allowed")


def _check_objectives(search: Section, reward: Section) -> None:
    """Reports rewards by accuracy alone that no limit keeps from slow networks. A config that wants
    just that says so by the reward `accuracy`.
    """
    kind = reward.message.DESCRIPTOR.name
    several = kind == "MultiObjectiveReward"
    controller = search.message.controller.WhichOneof("controller_oneof")
    if kind == "AccuracyReward" and controller in _OF_TWO_OBJECTIVES:
        search.report(
            "reward.accuracy",
            f"leaves out latency, which controller {controller} weighs by itself; use "
            "multi_objective, or another controller",
        )
    limited = any(getattr(search.message.limits, name) for name in _LIMITS)
    weighs = controller in (None, "random", *_OF_TWO_OBJECTIVES)
    if several and not weighs and not limited:
        search.report(
            "reward.multi_objective",
            f"gives {controller} the accuracy alone; use controller "
            f"{' or '.join(_OF_TWO_OBJECTIVES)}, set limits, or use reward accuracy",
        )


def _check_latency(source: Section) -> None:
    kind = source.message.DESCRIPTOR.name
    # Multiply-adds are counted on the graph: there is no device and no thread to set.
    if kind == "MultiplyAddsSource":
        return
    source.counts(_MAX_THREADS, "num_threads")
    if kind == "LatencyTableSource":
        if source.message.path:
            check_exists(source, "path", [source.message.path])
        return
    source.counts(_MAX_RUNS, "num_runs")
    if kind == "PredictSource":
        return
    taskset = source.message.taskset
    # A mask without cores would fail on the phone only, in the middle of a search.
    source.require(
        not taskset or bool(re.fullmatch("(0x)?0*[1-9a-fA-F][0-9a-fA-F]*", taskset)),
        "taskset",
        "a hexadecimal mask of cores is needed, such as f0",
    )
    if source.message.benchmark_binary:
        check_exists(source, "benchmark_binary", [source.message.benchmark_binary])
    elif kind == "AdbSource":
        source.report(
            "benchmark_binary",
            "is missing; name TFLite's benchmark_model for the device (tflite/README.md)",
        )


def check_two_stage_search(search: Section) -> None:
    """Reports what needs TFLite files, which two-stage detectors are not."""
    stages = [search]
    if search.message.HasField("second_stage"):
        stages.append(search.child("second_stage"))
    for stage in stages:
        source = stage.message.latency.WhichOneof("latency_oneof")
        if source not in (None, "predict", "multiply_adds"):
            stage.child("latency").report(
                source,
                "measures TFLite files, and two-stage detectors are none; predict and "
                "multiply_adds are allowed",
            )
        if stage.message.limits.max_file_size:
            stage.child("limits").report(
                "max_file_size",
                "limits TFLite files, and two-stage detectors are none; remove it, or set "
                "max_params",
            )


def _check_store(store: Section) -> None:
    url = store.message.url
    # SQLAlchemy's own message for a path in place of a URL does not name the field.
    store.require(
        not url or "://" in url,
        "url",
        "one such as postgresql+psycopg://user@host/database is needed",
    )


def _check_executor(search: Section) -> None:
    executor = search.child("executor")
    executor.counts(_MAX_RETRIES, "max_retries", minimum=0)
    name = executor.message.WhichOneof("executor_oneof")
    # Children in the search's own process have no workers to configure.
    if name not in ("worker_processes", "ray"):
        return
    workers = executor.child(name)
    workers.at_least("num_workers", 1)
    workers.at_least("max_memory_mb", 0)
    workers.counts(_MAX_THREADS, "threads_per_worker", minimum=0)
    # Waiting for longer is an error of the operating system.
    workers.counts(_MAX_SECONDS, "max_trial_seconds", minimum=0)
    if name == "ray":
        workers.at_least("cpus_per_worker", 0)
        workers.at_least("gpus_per_worker", 0)
    # No more proposals are open at a time: further workers would only hold memory.
    pending = search.message.max_pending_trials
    workers.require(
        workers.message.num_workers <= pending,
        "num_workers",
        f"at most search_config.max_pending_trials, {pending}, have something to do",
    )
