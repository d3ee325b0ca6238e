"""The benchmarks that need no quiet machine, in small."""

import json
import subprocess
import sys

from mnasdet import config
from mnasdet.config_checks.architecture import stated_hyperparams
from mnasdet.models import network_of
from tests.integration.commands import ROOT


def run(name, *flags):
    command = [sys.executable, f"benchmarks/{name}.py", *flags, "--format=json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_controllers():
    flags = ["--controllers=random,local_search", "--samples=10,40", "--seeds=2", "--processes=1"]
    for task, controllers in run("controllers", *flags)["tasks"].items():
        for name, result in controllers.items():
            for figure in ("reward", "hypervolume"):
                early, late = (result[figure][n] for n in ("10", "40"))
                assert early["median"] > 0, (task, name, figure)
                assert late["low"] <= late["median"] <= late["high"]
            # Of all samples, whereas noise decides which reward counts.
            assert result["hypervolume"]["10"]["median"] <= result["hypervolume"]["40"]["median"]


def test_bookkeeping():
    flags = ["--num_trials=200", "--controllers=random", "--optuna_trials=0"]
    figures = run("bookkeeping", *flags)["milliseconds_a_trial"]
    assert 0 < figures["random"]["200"] < 1000


def test_the_config_of_from_scratch_states_a_normalisation_in_every_part():
    pipeline = config.load(ROOT / "benchmarks" / "from_scratch.config")
    architecture = config.resolve(pipeline).architecture
    stated = stated_hyperparams(architecture)
    assert len(stated) == 3
    for hyperparams in stated.values():
        hyperparams.group_norm.groups = 4
    # Every width is a multiple of the benchmark's groups, or this fails.
    assert network_of(architecture, (96, 96), 10).outputs


def test_the_config_of_two_stages_on_few_pictures(tmp_path):
    (tmp_path / "train.record").touch()
    (tmp_path / "label_map.pbtxt").write_text(
        "\n".join(f'item {{ id: {n} name: "class {n}" }}' for n in (1, 2, 3))
    )
    records = [str(tmp_path / "train.record")]
    pipeline = config.load(
        ROOT / "benchmarks" / "two_stage_small_data.config",
        train_input=records,
        eval_input=records,
        label_map=str(tmp_path / "label_map.pbtxt"),
    )
    blueprint = config.resolve(pipeline)
    assert blueprint.kind == "faster_rcnn"
    graphs = network_of(blueprint.architecture, blueprint.image_size, 3).graphs
    assert [(name, graph.times) for name, graph in graphs.items()] == [
        ("features", 1),
        ("region_head_1", 64),
    ]
