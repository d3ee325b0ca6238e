"""The benchmarks that need no quiet machine, in small."""

import csv
import json
import lzma
import subprocess
import sys

import numpy as np
import pytest

from mnasdet import config
from mnasdet.config_checks.architecture import stated_hyperparams
from mnasdet.models import network_of
from mnasdet.search.candidate import candidate
from mnasdet.search_spaces import factory as search_spaces
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
            # The hypervolume is of all samples, whereas noise decides which reward counts.
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


def test_partial_order(tmp_path):
    """A made-up table in which pruning is right: deeper and wider is better, and dearer."""
    text = (ROOT / "benchmarks" / "base_code_children.config").read_text()
    own_config = tmp_path / "small.config"
    own_config.write_text(text.replace("max_blocks: [1, 2, 2, 1]", "max_blocks: [1, 1, 2, 1]"))
    pipeline = config.load(own_config, readers=())
    space = search_spaces.from_config(
        pipeline.search_config.search_space, config.resolve(pipeline).architecture
    )
    rng = np.random.default_rng(0)
    tokens = {space.sample(rng) for _ in range(1000)}
    assert len(tokens) == space.cardinality()
    rows = [["tokens", "state", "accuracy", "cost"]]
    for one in sorted(tokens):
        total = candidate(pipeline, space.decode(one)).sheet.total
        # From some width on there is nothing more to gain.
        accuracy = min(total.params, 100_000) / 1e5
        rows.append([" ".join(map(str, one)), "complete", accuracy, total.multiply_adds / 1e9])
    with lzma.open(tmp_path / "table.csv.xz", "wt") as file:
        csv.writer(file).writerows(rows)
    flags = [f"--table={tmp_path / 'table.csv.xz'}", f"--config={own_config}"]
    result = run(
        "partial_order", *flags, "--trusts=1", "--witnesses=1", "--seeds=2", "--processes=1"
    )
    assert result["children"] == space.cardinality()
    assert result["violations"]["accuracy"] == result["violations"]["cost"] == 0
    found = result["trusts"]["1"]
    assert found["hypervolume"]["median"] == pytest.approx(1)
    assert found["evaluated_by_full_search"]["median"] == space.cardinality()
    assert found["saved"]["median"] > 0.3
