"""scripts/measure_proxy.py as a command."""

import functools
import json

import pytest

from mnasdet import files
from mnasdet.search.trials.trial_store import TrialState, list_searches
from tests.integration.commands import run

measure = functools.partial(run, "measure_proxy")


@pytest.fixture
def config(tiny_config, tmp_path):
    """Without pretrained weights."""
    path = tmp_path / "tiny.config"
    path.write_text(tiny_config[: tiny_config.index("  pretrain_config")] + "}\n")
    return f"--pipeline_config_path={path}"


def test_a_measurement_and_what_is_left_of_it(config, tmp_path):
    folder = tmp_path / "run"
    sizes = ["--num_architectures=2", "--num_seeds=2"]
    arguments = [config, f"--model_dir={folder}", "--long_factor=1.5", *sizes]
    done = measure(*arguments)
    lines = done.stdout.splitlines()
    assert lines[0].split()[0] == "architecture"
    assert [line.split()[0] for line in lines[1:3]] == ["0", "1"]
    assert lines[3].startswith("Spearman's rank correlation: -; 2 architectures have both")
    assert "proxy training each to tell them apart (95 %)" in lines[-1]
    assert sum("ETA" in line for line in done.stderr.splitlines()) == 6
    found = files.read_json(folder / "proxy_quality.json", "quality")
    assert found["verdict"] == lines[-1]
    assert found["noise"]["degrees_of_freedom"] == 2
    assert (found["proxy_num_steps"], found["long_num_steps"]) == (8, 12)
    assert found["proxy_seconds"] > 0
    assert [len(entry["proxy_accuracies"]) for entry in found["architectures"]] == [2, 2]
    assert None not in [entry["long_accuracy"] for entry in found["architectures"]]
    searches = list_searches(folder / "proxy.db")
    assert [summary.name for summary in searches] == ["proxy_0", "proxy_1", "long"]
    assert {summary.counts[TrialState.COMPLETE] for summary in searches} == {2}
    assert (folder / "pipeline.config").exists()

    again = measure(*arguments, status=1)
    assert "holds a run already; add --resume" in again.stderr
    other = measure(*arguments[:2], *sizes, "--long_num_steps=20", "--resume", status=1)
    assert "another run, with long_num_steps 12 in place of 20" in other.stderr
    resumed = measure(*arguments, "--resume", "--format=json")
    assert "resumed: 6 of 6 trainings are done" in resumed.stderr
    assert json.loads(resumed.stdout) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--long_factor=2", "--long_num_steps=9"], "one of --long_num_steps, --long_factor"),
        (["--long_num_steps=8"], "the long training has 8 steps; use more than the proxy's 8"),
        (["--num_architectures=1"], "--num_architectures=1"),
        (["--pipeline_config_path=missing.config"], "missing.config"),
        (["--pipeline_config_path=configs/mnasfpn_mobilenet_v2_bccd.config"], "input_path"),
    ],
)
def test_what_the_user_can_mend(arguments, message, config, tmp_path):
    done = measure(config, f"--model_dir={tmp_path}/out", *arguments, status=1)
    assert message in done.stderr
    assert done.stdout == "" or "--num_architectures" in message


def test_a_config_without_a_longer_recipe(config, tiny_config, tmp_path):
    text = tiny_config[: tiny_config.index("  retrain_config")] + "}\n"
    (tmp_path / "tiny.config").write_text(text)
    done = measure(config, f"--model_dir={tmp_path}/out", status=1)
    assert "no search_config.retrain_config; set --long_factor or --long_num_steps" in done.stderr
