"""Tests that a config which cannot be quantised, pruned or clustered is refused."""

import pytest

from mnasdet import config, text_proto
from mnasdet.protos import pipeline_pb2
from tests.config_fragments import merge, the_problem

PREDICTOR = "box_predictor.weight_shared_convolutional_box_predictor.conv_hyperparams"
PREDICTOR_WITH = (
    "model { ssd { box_predictor { weight_shared_convolutional_box_predictor { "
    "conv_hyperparams { %s } } } } }"
)
STANDARDIZED = "batch_norm {} standardize_weights: true"

# The fragment, and what is said of it. The config has 1000 steps.
PROBLEMS = {
    "graph_rewriter {}": "graph_rewriter.quantization is missing",
    "graph_rewriter { quantization { delay: 0 weight_bits: 4 } }": (
        "graph_rewriter.quantization.weight_bits is 4; only 8 is supported"
    ),
    "graph_rewriter { quantization { delay: 0 activation_bits: 16 } }": (
        "graph_rewriter.quantization.activation_bits is 16; only 8 is supported"
    ),
    "graph_rewriter { quantization { delay: 0 symmetric: true } }": (
        "graph_rewriter.quantization.symmetric is true; only false is supported"
    ),
    "graph_rewriter { quantization { delay: -1 } }": (
        "graph_rewriter.quantization.delay is -1; at least 0 is allowed"
    ),
    # The OD API's default.
    "graph_rewriter { quantization {} }": (
        "graph_rewriter.quantization.delay is 500000; less than train_config.num_steps, 1000, is "
        "needed, or nothing is rounded"
    ),
    "train_config { pruning { final_sparsity: 1.0 end_step: 100 } }": (
        "train_config.pruning.final_sparsity is 1; at least 0 and less than 1 is allowed"
    ),
    "train_config { pruning { initial_sparsity: -0.5 end_step: 100 } }": (
        "train_config.pruning.initial_sparsity is -0.5; at least 0 and less than 1 is allowed"
    ),
    "train_config { pruning { initial_sparsity: 0.75 end_step: 100 } }": (
        "train_config.pruning.initial_sparsity is 0.75; at most final_sparsity, 0.5, is allowed"
    ),
    "train_config { pruning {} }": (
        "train_config.pruning.end_step is 0; more than begin_step, 0, and at most "
        "train_config.num_steps, 1000, is allowed"
    ),
    "train_config { pruning { end_step: 1001 frequency: 7 } }": (
        "train_config.pruning.end_step is 1001; more than begin_step, 0, and at most "
        "train_config.num_steps, 1000, is allowed"
    ),
    "train_config { pruning { begin_step: 50 end_step: 100 } }": (
        "train_config.pruning.frequency is 100; a divisor of the steps from begin_step to "
        "end_step, 50, is needed"
    ),
    "train_config { pruning { end_step: 100 frequency: 0 } }": (
        "train_config.pruning.frequency is 0; at least 1 is allowed"
    ),
    f"graph_rewriter {{ quantization {{ delay: 0 }} }} {PREDICTOR_WITH % 'group_norm {}'}": (
        f"graph_rewriter cannot be combined with {PREDICTOR}.group_norm: where int8 kernels round "
        "inside it is not modelled; use batch_norm"
    ),
    f"graph_rewriter {{ quantization {{ delay: 0 }} }} {PREDICTOR_WITH % STANDARDIZED}": (
        f"graph_rewriter cannot be combined with {PREDICTOR}.standardize_weights, which changes "
        "the weights after it; remove one of them"
    ),
    f"train_config {{ pruning {{ end_step: 100 }} }} {PREDICTOR_WITH % STANDARDIZED}": (
        f"train_config.pruning cannot be combined with {PREDICTOR}.standardize_weights, which "
        "changes the weights after it; remove one of them"
    ),
    f"train_config {{ weight_clustering {{}} }} {PREDICTOR_WITH % STANDARDIZED}": (
        f"train_config.weight_clustering cannot be combined with {PREDICTOR}.standardize_weights, "
        "which changes the weights after it; remove one of them"
    ),
    "train_config { weight_clustering { num_clusters: 1 } }": (
        "train_config.weight_clustering.num_clusters is 1; at least 2 is allowed"
    ),
    "train_config { weight_clustering {} pruning { end_step: 100 } }": (
        "train_config.weight_clustering cannot be combined with pruning: the values of clusters "
        "are not zero; remove one of them"
    ),
    "train_config { weight_clustering {} } graph_rewriter { quantization { delay: 0 } }": (
        "train_config.weight_clustering cannot be combined with graph_rewriter: int8 kernels, on "
        "a scale for every channel, have other values; remove one of them"
    ),
    'train_config { weight_clustering {} rate_factors { variables: "^backbone" factor: 2 } }': (
        "train_config.rate_factors cannot be combined with weight_clustering; remove one of them"
    ),
    'train_config { weight_clustering {} freeze_until { variables: "^backbone" step: 9 } }': (
        "train_config.freeze_until cannot be combined with weight_clustering; remove one of them"
    ),
    "train_config { weight_clustering {} optimizer { momentum_optimizer { weight_decay: 1 } } }": (
        "train_config.optimizer with its weight_decay cannot be combined with weight_clustering; "
        "remove one of them"
    ),
    "train_config { weight_clustering {} optimizer { use_moving_average: true } } "
    "eval_config { use_moving_averages: true }": (
        "train_config.weight_clustering cannot be combined with eval_config.use_moving_averages: "
        "averages of clustered weights are not clustered; set it to false"
    ),
}


@pytest.fixture
def pipeline(coco_pipeline):
    coco_pipeline.ClearField("search_config")
    optimizer = coco_pipeline.train_config.optimizer.momentum_optimizer
    optimizer.learning_rate.constant_learning_rate.learning_rate = 0.01
    coco_pipeline.train_config.num_steps = 1000
    coco_pipeline.eval_config.use_moving_averages = False
    return coco_pipeline


@pytest.mark.parametrize("fragment", PROBLEMS)
def test_the_problem_is_named(pipeline, fragment):
    assert the_problem(fragment, pipeline) == PROBLEMS[fragment]


@pytest.mark.parametrize(
    ("fragment", "field"),
    [
        ("graph_rewriter { quantization { delay: 0 } }", "graph_rewriter"),
        ("train_config { pruning { end_step: 100 } }", "train_config.pruning"),
        ("train_config { weight_clustering {} }", "train_config.weight_clustering"),
    ],
)
def test_a_search_trains_plain_networks(coco_pipeline, fragment, field):
    coco_pipeline.eval_config.use_moving_averages = False
    assert the_problem(fragment, coco_pipeline) == (
        f"{field} cannot be combined with search_config: a search trains plain networks; remove "
        "one of them, and train what was found with the other"
    )


@pytest.mark.parametrize(
    "fragment",
    [
        "graph_rewriter { quantization { delay: 999 weight_bits: 8 activation_bits: 8 } }",
        "train_config { pruning { begin_step: 100 end_step: 900 } }",
        "train_config { pruning { end_step: 1000 } } graph_rewriter { quantization { delay: 0 } }",
        "train_config { weight_clustering { num_clusters: 256 } }",
    ],
)
def test_what_can_be_done(pipeline, fragment):
    merge(fragment, pipeline)
    assert config.check(pipeline) == []


def test_the_od_apis_spelling():
    text = "graph_rewriter { quantization { delay: 48000 weight_bits: 8 activation_bits: 8 } }"
    parsed = text_proto.parse(text, pipeline_pb2.TrainEvalPipelineConfig, "a.config")
    assert parsed.graph_rewriter.quantization.delay == 48000
