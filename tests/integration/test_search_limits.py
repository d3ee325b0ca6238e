"""Backbone and pyramid searched together, with hard limits: nothing over them is trained."""

import re

import pytest

from mnasdet import config, models
from mnasdet.architectures import from_trial
from mnasdet.search.trials.trial_store import TrialState, TrialStore
from mnasdet.tflite.convert import convert
from tests.integration.commands import run

MAX_PARAMS, MAX_MULTIPLY_ADDS, MAX_FILE_SIZE = 70_000, 2_400_000, 210_000

# A layer at each stride.
BACKBONE = """mnasnet {
  stem_channels: 8
  block { channels: 8 op: SEPARABLE }
  block { channels: 8 stride: 2 expansion: 3 }
  block { channels: 16 stride: 2 expansion: 3 }
  block { channels: 24 stride: 2 expansion: 3 }
  block { channels: 32 stride: 2 expansion: 3 }
}"""

JOINT = f"""
  search_space {{
    joint {{
      mnasnet {{ searched_blocks: [3, 5] width_factors: [0.75, 1.0, 1.25] }}
      mnasfpn {{
        channels: [16, 24]
        expanded_channels: [32, 64, 96]
        kernel_sizes: [3, 5]
        repeats: 1
        num_internal_blocks: 1
      }}
    }}
  }}
  limits {{
    max_params: {MAX_PARAMS}
    max_multiply_adds: {MAX_MULTIPLY_ADDS}
    max_file_size: {MAX_FILE_SIZE}
  }}
  controller {{ random {{}} }}
"""


@pytest.fixture(scope="module")
def search(tmp_path_factory, tiny_config):
    """The config and the trials of a search on the digits."""
    folder = tmp_path_factory.mktemp("limits")
    text = re.sub(r"search_space \{.*?controller [^\n]*\n", JOINT, tiny_config, flags=re.DOTALL)
    text = re.sub(r"base_code \{.*?\}", BACKBONE, text)
    path = folder / "joint.config"
    path.write_text(text.replace("num_steps: 8", "num_steps: 2"))
    flags = [f"--pipeline_config_path={path}", f"--model_dir={folder / 'run'}"]
    run("search", *flags, "--num_trials=10")
    return config.load(path), TrialStore(folder / "run" / "trials.db", "run").trials()


def test_whatever_was_trained_is_inside_the_limits(search):
    pipeline, trials = search
    trained = [trial for trial in trials if "train_seconds" in trial.metrics]
    assert len(trials) == 10
    assert len(trained) >= 2
    assert {trial.state for trial in trained} == {TrialState.COMPLETE}
    sizes = []
    for trial in trained:
        built = models.build(config.resolve(pipeline, from_trial(trial.architecture)))
        assert built.model.count_params() == trial.metrics["params"] <= MAX_PARAMS
        assert trial.metrics["multiply_adds"] <= MAX_MULTIPLY_ADDS
        sizes.append((built.model.count_params(), built.model))
    _, largest = max(sizes, key=lambda size: size[0])
    assert len(convert(largest)) <= MAX_FILE_SIZE


def test_whatever_was_not_says_which_limit_it_is_over(search):
    _, trials = search
    others = [trial for trial in trials if "train_seconds" not in trial.metrics]
    assert {trial.state for trial in others} == {TrialState.REJECTED}
    reasons = " ".join(trial.error for trial in others)
    for name in ("max_params", "max_multiply_adds", "max_file_size"):
        assert f"limits.{name}" in reasons
