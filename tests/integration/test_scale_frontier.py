"""scripts/scale_frontier.py as a command, with a kill -9 in the middle."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.compat.proto import event_pb2

from mnasdet import config
from mnasdet.evaluation.coco import MAP
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore
from mnasdet.search_spaces import factory
from tests.integration.commands import run, start

scale = functools.partial(run, "scale_frontier")

# One pick at two repeats, of which the first is the sampled one.
VARIANTS = ["trial_00001_r1_d1", "trial_00001_r2_d1"]


def add_trial(folder, number, cost, accuracy):
    """A complete one, of a random architecture."""
    pipeline = config.load(folder / "pipeline.config")
    base = config.resolve(pipeline).architecture
    space = factory.from_config(pipeline.search_config.search_space, base)
    tokens = space.sample(np.random.default_rng(number))
    complete = Trial(
        number=number,
        tokens=tokens,
        architecture=text_format.MessageToString(space.decode(tokens)),
        key=str(number),
        seed=number,
        state=TrialState.COMPLETE,
        metrics={MAP: accuracy},
        accuracy=accuracy,
        cost=cost,
    )
    with contextlib.closing(TrialStore(folder / "trials.db", "search")) as store:
        store.add([complete])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def search(runs, tiny_config):
    """The --search_dir of a search with three complete trials, two of them on its frontier."""
    folder = runs / "search"
    folder.mkdir()
    # Without pretrained weights, and in one process.
    text = tiny_config[: tiny_config.index("  pretrain_config")] + "}\n"
    (folder / "pipeline.config").write_text(text.replace("num_workers: 2", "num_workers: 1"))
    for number, (cost, accuracy) in enumerate([(5.0, 0.1), (10.0, 0.2), (15.0, 0.15)]):
        add_trial(folder, number, cost, accuracy)
    return f"--search_dir={folder}"


def flags(search, folder):
    return [
        search,
        f"--model_dir={folder}",
        "--latencies_ms=12",
        "--repeats=1,2",
        "--num_train_steps=8",
    ]


def models(folder):
    path = folder / "scaled.json"
    if not path.exists():
        return []
    return json.loads(path.read_text())["models"]


def newest_step(folder):
    steps = [int(path.stem.partition("-")[2]) for path in folder.glob("ckpt-*.index")]
    return max(steps, default=0)


def logged_steps(path):
    """Returns the steps in an event file. Its records are length, check, event, check."""
    content, steps = path.read_bytes(), set()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        if event.HasField("summary"):
            steps.add(event.step)
        content = content[16 + length :]
    return steps


def kill_in_the_second_training(search, folder, log):
    with open(log, "w") as file:
        words = flags(search, folder)
        process = start("scale_frontier", *words, output=file, errors=file, start_new_session=True)
        second = folder / "models" / VARIANTS[1]
        while newest_step(second) < 2 and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, log.read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    # Its worker ends as soon as it notices.
    time.sleep(1)


@dataclasses.dataclass
class Resumed:
    """A run that was killed in its second training and resumed.

    Attributes:
      folder: its --model_dir.
      killed: the models as the kill left them.
      half_way: the step of the second one's checkpoint then.
      written: when the last checkpoint of the first one was written.
      done: the command that went on with it.
    """

    folder: Path
    killed: list
    half_way: int
    written: int
    done: subprocess.CompletedProcess


def time_stamp(folder):
    """Returns the time of the first training's last checkpoint."""
    return (folder / "models" / VARIANTS[0] / "ckpt-8.index").stat().st_mtime_ns


@pytest.fixture(scope="module")
def resumed(search, runs):
    folder = runs / "scaled"
    kill_in_the_second_training(search, folder, runs / "log")
    killed = models(folder)
    half_way = newest_step(folder / "models" / VARIANTS[1])
    written = time_stamp(folder)
    add_trial(runs / "search", 3, 11.0, 0.9)  # Better, but not there when the run began.
    done = scale(*flags(search, folder), "--resume", "--format=json")
    return Resumed(folder, killed, half_way, written, done)


def test_killed_and_resumed(resumed):
    first, second = resumed.killed
    assert [model["name"] for model in (first, second)] == VARIANTS
    assert first["accuracy"] is not None
    assert second["accuracy"] is None
    assert 2 <= resumed.half_way < 8

    stderr = resumed.done.stderr
    assert "resumed: 1 of 2 trainings are done" in stderr
    assert [line[:12] for line in stderr.splitlines() if "ETA" in line] == ["training 2/2"]
    found = json.loads(resumed.done.stdout)["models"]
    assert found == models(resumed.folder)
    assert [model["accuracy"] is not None for model in found] == [True, True]
    assert found[0]["accuracy"] == first["accuracy"]
    assert time_stamp(resumed.folder) == resumed.written
    # The half-trained one went on behind its checkpoint.
    events = (resumed.folder / "models" / VARIANTS[1] / "tensorboard").iterdir()
    assert logged_steps(max(events, key=os.path.getmtime)) == {8}


def test_what_a_run_leaves(resumed):
    folder = resumed.folder
    frontier = [model for model in models(folder) if model["on_frontier"]]
    assert frontier
    for model in models(folder):
        assert model["trial"] == 1, "the most accurate within 12 ms"
        assert model["proxy_accuracy"] == 0.2
        assert model["cost"] == pytest.approx(model["multiply_adds"] / 1e9)
        own = folder / "models" / model["name"]
        metrics = json.loads((own / "metrics.json").read_text())
        assert metrics["step"] == 8
        assert max(metrics[MAP], 0.0) == model["accuracy"]
        architecture = config.load_architecture(str(folder / model["architecture"]))
        assert architecture.feature_pyramid.mnasfpn.repeats == model["repeats"]
        assert (own / "detect.tflite").exists() == model["on_frontier"]
        assert (model["measured_ms"] is not None) == model["on_frontier"]
    assert (folder / "pipeline.config").exists()


def test_a_run_goes_on_only_with_resume_and_as_it_began(search, resumed):
    again = scale(*flags(search, resumed.folder), status=1)
    assert "holds a run already; add --resume" in again.stderr
    other = scale(*flags(search, resumed.folder), "--resume", "--repeats=1", status=1)
    assert "another run, with repeats [1, 2] in place of [1]" in other.stderr


def test_a_finished_run_is_shown_again_without_any_training(search, resumed):
    done = scale(*flags(search, resumed.folder), "--resume")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("* is the frontier")
    assert lines[1].split()[:3] == ["model", "params", "M"]
    assert {line[2:].split()[0] for line in lines[2:]} == set(VARIANTS)
    assert any(line.startswith("* trial_00001") for line in lines[2:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latencies_ms=4"], "takes 4 G multiply-adds or less; the fastest takes 5 G mul"),
        (["--latencies_ms=4,x"], "--latencies_ms=4,x: different positive numbers are allowed"),
        (["--repeats=3,3"], "--repeats=3,3: different positive whole numbers are allowed"),
        (["--repeats=0"], "--repeats=0: different positive whole"),
        (["--depth_multipliers=inf"], "--depth_multipliers=inf: different positive numbers"),
        (["--search_dir=README.md"], "README.md: holds no search, there is no pipeline.config"),
        (["--pipeline_config_path=missing.config"], "missing.config"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments, message, search, tmp_path):
    done = scale(search, f"--model_dir={tmp_path}/out", *arguments, status=1)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert done.stdout == ""


def test_a_search_without_a_complete_trial(search, runs, tmp_path):
    (tmp_path / "empty").mkdir()
    text = (runs / "search" / "pipeline.config").read_text()
    (tmp_path / "empty" / "pipeline.config").write_text(text)
    TrialStore(tmp_path / "empty" / "trials.db", "empty").close()
    out = tmp_path / "out"
    done = scale(f"--search_dir={tmp_path}/empty", f"--model_dir={out}", status=1)
    assert "none of its trials is complete yet" in done.stderr
    assert not [path for path in out.iterdir() if path.name != ".lock"]
