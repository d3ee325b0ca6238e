"""Every check of a search config, by its message."""

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.protos import pipeline_pb2
from tests import two_stage_config
from tests.config_fragments import SPACE, merge, nested

SPACES = "search_config.search_space"
MNASNET = f"{SPACES}.mnasnet"
SECOND = "search_config.second_stage"
WORKERS = "search_config.executor.worker_processes"

# A fragment that spoils the config, and the one problem that it makes.
BAD = [
    ("search_config { num_trials: 0 }", "search_config.num_trials is 0; at least 1 is allowed"),
    ("search_config { seed: -1 }", "search_config.seed is -1; at least 0 is allowed"),
    (
        "search_config { max_pending_trials: 0 executor { this_process {} } }",
        "search_config.max_pending_trials is 0; at least 1 is allowed",
    ),
    (
        "search_config { limits { max_params: -1 } }",
        "search_config.limits.max_params is -1; at least 0 is allowed",
    ),
    (
        'search_config { trial_store { url: "postgresql" } }',
        'search_config.trial_store.url is "postgresql"; one such as postgresql+psycopg://',
    ),
    (
        nested(SPACE, "channels: [16, 16]"),
        f"{SPACE}.channels is [16, 16]; different values of at least 1 are allowed",
    ),
    (
        nested(SPACE, "expanded_channels: [0, 16]"),
        f"{SPACE}.expanded_channels is [0, 16]; different values of at least 1 are allowed",
    ),
    (
        nested(SPACE, "repeats: [3, 2147483647]"),
        f"{SPACE}.repeats is [3, 2.14748e+09]; at most 64 each is allowed",
    ),
    (
        nested(SPACE, "num_internal_blocks: 2147483647"),
        f"{SPACE}.num_internal_blocks is 2147483647; at most 64 is allowed",
    ),
    (
        nested(SPACE, "kernel_sizes: [3, 4]"),
        f"{SPACE}.kernel_sizes has 4; only odd sizes are allowed",
    ),
    (
        nested(SPACE, "repeats: 0"),
        f"{SPACE}.repeats is [0]; different values of at least 1 are allowed",
    ),
    (
        nested(f"{SPACES}.conn_search", "max_inputs: 1"),
        f"{SPACES}.conn_search.max_inputs is 1; at least 2 is allowed",
    ),
    (
        nested(SPACES, "depth_multipliers: [0.5, 0]"),
        f"{SPACES}.depth_multipliers is [0.5, 0]; different positive values are allowed",
    ),
    (
        nested(SPACES, "image_sizes: [320, 320]"),
        f"{SPACES}.image_sizes is [320, 320]; different values of at least 1 are allowed",
    ),
    (
        nested(SPACES, "inputs { height: 64 width: 96 } inputs { height: 64 width: 96 }"),
        f"{SPACES}.inputs is [64x96, 64x96]; different sizes are allowed",
    ),
    (
        nested(SPACES, "inputs { height: 64 width: 96 } inputs { height: 64 width: 0 }"),
        f"{SPACES}.inputs[1].width is 0; at least 1 is allowed",
    ),
    (
        nested(SPACES, "inputs { height: 64 width: 96 } image_sizes: 64"),
        f"{SPACES}.inputs and image_sizes are both set; one of them is allowed",
    ),
    (
        nested(f"{SPACES}.nas_fpn", "num_internal_cells: -1"),
        f"{SPACES}.nas_fpn.num_internal_cells is -1; at least 0 is allowed",
    ),
    (
        nested(MNASNET, "kernel_sizes: 2"),
        f"{MNASNET}.kernel_sizes has 2; only odd sizes are allowed",
    ),
    (
        nested(MNASNET, "se_ratios: [0, 1.5]"),
        f"{MNASNET}.se_ratios is [0, 1.5]; different values of 0 to 1 are allowed",
    ),
    (
        nested(MNASNET, "depth_offsets: [1, 1]"),
        f"{MNASNET}.depth_offsets is [1, 1]; different values are allowed",
    ),
    (
        nested(f"{SPACES}.joint", "mnasnet { width_factors: -1 }"),
        f"{SPACES}.joint.mnasnet.width_factors is [-1]; different positive values are allowed",
    ),
    (
        nested(f"{SPACES}.base_code", "bases: [48, 48]"),
        f"{SPACES}.base_code.bases is [48, 48]; different values of at least 1 are allowed",
    ),
    (
        nested(f"{SPACES}.base_code", "max_blocks: [1, 2, 3, 0]"),
        f"{SPACES}.base_code.max_blocks is [1, 2, 3, 0]; 4 values of 1 to 64 are allowed, one for "
        "each of the strides 4, 8, 16 and 32",
    ),
    (
        nested(f"{SPACES}.base_code", "min_doublings: 3 max_doublings: 2"),
        f"{SPACES}.base_code.min_doublings is 3; at most max_doublings, 2, is allowed",
    ),
    (
        nested(f"{SPACES}.structure", 'heads: ["retinanet", "retinanet"]'),
        f"{SPACES}.structure.heads is [retinanet, retinanet]; different names are allowed",
    ),
    (
        nested(f"{SPACES}.structure", 'heads: "retinanet" pyramid_channels: 0'),
        f"{SPACES}.structure.pyramid_channels is 0; at least 1 is allowed",
    ),
    (
        "search_config { controller { ppo { clip_range: 0 } } }",
        "search_config.controller.ppo.clip_range is 0; more than 0 is allowed",
    ),
    (
        "search_config { controller { regularized_evolution { population_size: 0 } } }",
        "search_config.controller.regularized_evolution.population_size is 0; at least 1",
    ),
    (
        "search_config { controller { nsga2 { crossover_probability: 2 } } }",
        "search_config.controller.nsga2.crossover_probability is 2; 0 to 1 is allowed",
    ),
    (
        "search_config { controller { local_search { num_starts: 0 } } }",
        "search_config.controller.local_search.num_starts is 0; at least 1 is allowed",
    ),
    (
        "search_config { controller { local_search { believed_gain: 0 } } }",
        "search_config.controller.local_search.believed_gain is 0; more than 0 is allowed",
    ),
    (
        "search_config { controller { regularized_evolution { crossover_probability: -1 } } }",
        "search_config.controller.regularized_evolution.crossover_probability is -1; 0 to 1 is",
    ),
    (
        "search_config { reward { mnasfpn { exponent: 0.3 } } }",
        "search_config.reward.mnasfpn.exponent is 0.3; at most 0 is allowed",
    ),
    (
        "search_config { reward { mnasnet {} } }",
        "search_config.reward.mnasnet.target_latency_ms is 0; more than 0 is allowed",
    ),
    (
        "search_config { reward { tunas { target_latency_ms: 20 beta: 0.07 } } }",
        "search_config.reward.tunas.beta is 0.07; at most 0 is allowed",
    ),
    (
        "search_config { controller { ppo {} } reward { multi_objective {} } }",
        "search_config.reward.multi_objective gives ppo the accuracy alone; use controller nsga2 "
        "or partial_order, set limits, or use reward accuracy",
    ),
    (
        "search_config { controller { nsga2 {} } reward { accuracy {} } }",
        "search_config.reward.accuracy leaves out latency, which controller nsga2 weighs by "
        "itself; use multi_objective, or another controller",
    ),
    (
        "search_config { controller { partial_order { trust: 2 } } reward { multi_objective {} } }",
        "search_config.controller.partial_order.trust is 2; 0 to 1 is allowed",
    ),
    (
        "search_config { controller { partial_order {} } reward { accuracy {} } }",
        "search_config.reward.accuracy leaves out latency, which controller partial_order weighs",
    ),
    (
        nested(SECOND, "num_trials: 0"),
        f"{SECOND}.num_trials is 0; at least 1 is allowed",
    ),
    (
        nested(SECOND, "num_groups: 0"),
        f"{SECOND}.num_groups is 0; at least 1 is allowed",
    ),
    (
        nested(SECOND, "controller { nsga2 { population_size: 0 } }"),
        f"{SECOND}.controller.nsga2.population_size is 0; at least 1 is allowed",
    ),
    (
        nested(SECOND, "search_space { base_code { min_blocks: [1, 1] } }"),
        f"{SECOND}.search_space.base_code.min_blocks is [1, 1]; 4 values of 1 to",
    ),
    (
        nested(SECOND, "reward { mnasfpn { exponent: 0.3 } }"),
        f"{SECOND}.reward.mnasfpn.exponent is 0.3; at most 0 is allowed",
    ),
    # An error in the first stage is reported once.
    (
        "search_config { limits { max_params: -1 } second_stage {} }",
        "search_config.limits.max_params is -1; at least 0 is allowed",
    ),
    (
        "search_config { reward { mnasnet { target_latency_ms: 20 } } second_stage { "
        "latency { multiply_adds {} } } }",
        f"{SECOND}.reward is missing; the target of search_config.reward.mnasnet is of another",
    ),
    (
        'search_config { latency { latency_table { path: "/no/table" } } }',
        'search_config.latency.latency_table.path is "/no/table", which does not exist',
    ),
    (
        "search_config { latency { host { num_threads: 0 } } }",
        "search_config.latency.host.num_threads is 0; at least 1 is allowed",
    ),
    (
        "search_config { latency { host { num_runs: 0 } } }",
        "search_config.latency.host.num_runs is 0; at least 1 is allowed",
    ),
    (
        'search_config { latency { host { taskset: "0,1" } } }',
        'search_config.latency.host.taskset is "0,1"; a hexadecimal mask of cores is needed, such',
    ),
    (
        'search_config { latency { host { benchmark_binary: "/no/binary" } } }',
        'search_config.latency.host.benchmark_binary is "/no/binary", which does not exist',
    ),
    (
        'search_config { latency { adb { serial: "1234" } } }',
        "search_config.latency.adb.benchmark_binary is missing; name TFLite's benchmark_model for",
    ),
    (nested(WORKERS, "num_workers: 0"), f"{WORKERS}.num_workers is 0; at least 1 is allowed"),
    (
        nested(WORKERS, "num_workers: 9"),
        f"{WORKERS}.num_workers is 9; at most search_config.max_pending_trials, 8, have something",
    ),
    (nested(WORKERS, "max_memory_mb: -1"), f"{WORKERS}.max_memory_mb is -1; at least 0 is"),
    (
        nested("search_config.executor.ray", "gpus_per_worker: -1"),
        "search_config.executor.ray.gpus_per_worker is -1; at least 0 is allowed",
    ),
    (
        "search_config { executor { max_retries: -1 } }",
        "search_config.executor.max_retries is -1; at least 0 is allowed",
    ),
    (
        "search_config { retrain_config { num_steps: 0 } }",
        "search_config.retrain_config.num_steps is 0; at least 1 is allowed",
    ),
]


@pytest.mark.parametrize(("fragment", "expected"), BAD)
def test_check_names_field_value_and_what_is_allowed(coco_pipeline, fragment, expected):
    merge(fragment, coco_pipeline)
    (problem,) = config.check(coco_pipeline)
    assert problem.startswith(expected)


def test_the_training_of_a_second_stage_is_checked(coco_pipeline):
    merge(nested(SECOND, "train_config { num_steps: 0 batch_size: 0 }"), coco_pipeline)
    problems = config.check(coco_pipeline)
    for name in ("num_steps", "batch_size"):
        assert f"{SECOND}.train_config.{name} is 0; at least 1 is allowed" in problems


@pytest.mark.parametrize(
    "fragment",
    [
        "search_config { controller { nsga2 {} } reward { multi_objective {} } }",
        "search_config { controller { ppo {} } reward { accuracy {} } }",
        "search_config { controller { random {} } reward { accuracy {} } }",
        "search_config { controller { ppo {} } reward { multi_objective {} } "
        "limits { max_latency_ms: 20 } }",
        f'search_config {{ latency {{ adb {{ benchmark_binary: "{__file__}" taskset: "f0" }} }} }}',
        "search_config { latency { host { num_threads: 2 } } }",
        "search_config { controller { partial_order {} } reward { multi_objective {} } }",
        nested(SECOND, "search_space { base_code {} } latency { multiply_adds {} }"),
        "search_config { reward { mnasnet { target_latency_ms: 20 } } second_stage { "
        "latency { multiply_adds {} } reward { multi_objective {} } "
        "controller { partial_order {} } } }",
        nested(MNASNET, "ops: [CONV, MBCONV] skips: NONE depth_offsets: [-1, 0]"),
        nested(SPACES, "joint {} depth_multipliers: [0.5, 1] image_sizes: [192, 256]"),
        nested("search_config", "max_pending_trials: 32 executor { ray { num_workers: 32 } }"),
    ],
)
def test_sound_searches(coco_pipeline, fragment):
    merge(fragment, coco_pipeline)
    assert config.check(coco_pipeline) == []


_TWO_STAGES = """
  search_config {
    search_space { base_code {} } controller { random {} } reward { mnasfpn {} }
    executor { this_process {} } latency { predict {} }
  }
"""


@pytest.mark.parametrize(
    ("fragment", "expected"),
    [
        ("latency { predict { num_threads: 0 } }", "latency.predict.num_threads is 0; at least 1"),
        ("latency { predict { num_runs: 0 } }", "latency.predict.num_runs is 0; at least 1"),
        ("latency { host {} }", "latency.host measures TFLite files, and two-stage detectors are"),
        ("latency { latency_table {} }", "latency.latency_table measures TFLite files, and"),
        (
            "second_stage { search_space { base_code {} } latency { host {} } }",
            "second_stage.latency.host measures TFLite files, and two-stage detectors are none",
        ),
        (
            "limits { max_file_size: 1000000 }",
            "limits.max_file_size limits TFLite files, and two-stage detectors are none; remove it",
        ),
    ],
)
def test_what_a_search_of_two_stage_detectors_cannot_have(fragment, expected):
    text = two_stage_config.text(further=_TWO_STAGES)
    pipeline = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    assert config.check(pipeline) == []
    merge(f"search_config {{ {fragment} }}", pipeline)
    (problem,) = config.check(pipeline)
    assert problem.startswith(f"search_config.{expected}")


def test_one_stage_detectors_may_be_timed_in_tensorflow(coco_pipeline):
    merge("search_config { latency { predict { num_threads: 2 } } }", coco_pipeline)
    assert config.check(coco_pipeline) == []
