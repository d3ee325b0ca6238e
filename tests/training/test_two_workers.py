"""Two processes on loopback train one model: they are one, end together, and one of them writes."""

import json
import os
import re
import shutil
import signal
import socket
import time

import numpy as np

from mnasdet.training import checkpoints, trainer
from tests.integration.commands import start
from tests.training import small_classifier

# A training of one device as of two; after the first checkpoint they are compared. Later, one
# activation that the last bits of a sum carry over the kink of a ReLU makes other weights of it.
STEPS = 4


class Workers:
    """Both processes, as a user starts them."""

    def __init__(self, folder, model_dir):
        # Takes the ports of two sockets: for a while nobody else gets a port just closed.
        with socket.socket() as one, socket.socket() as other:
            for place in (one, other):
                place.bind(("127.0.0.1", 0))
            hosts = [f"127.0.0.1:{place.getsockname()[1]}" for place in (one, other)]
        config = folder / "two_workers.config"
        text = small_classifier.CONFIG.replace("num_steps: 4", "num_steps: 100000")
        text = text.replace("every_n_steps: 2", "every_n_steps: 4")
        config.write_text(
            text.replace("train_config {", "train_config { distribution { multi_worker {} }")
        )
        arguments = [f"--pipeline_config_path={config}", f"--model_dir={model_dir}"]
        self.errors = [folder / f"errors_{index}" for index in range(2)]
        self.processes = []
        for index, path in enumerate(self.errors):
            with path.open("w") as file:
                env = environment(hosts, index)
                self.processes.append(start("train", *arguments, errors=file, env=env))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()

    def wait_for_step(self, folder, step):
        end = time.monotonic() + 300
        while newest_step(folder) < step:
            assert time.monotonic() < end, "waited in vain"
            assert [process.poll() for process in self.processes] == [None, None]
            time.sleep(0.02)

    def told(self, index):
        """The last line of a worker that ended by itself, with status 1."""
        status = self.processes[index].wait(timeout=120)
        told = self.errors[index].read_text()
        assert status == 1, told
        assert "Traceback" not in told
        return told.splitlines()[-1]


def environment(hosts, index):
    task = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
    return os.environ | {"TF_CONFIG": json.dumps(task)}


def newest_step(folder):
    kept = checkpoints.all_in(folder)
    return int(kept[-1].rpartition("-")[2]) if kept else 0


def copy_newest(folder, target):
    """Copies the newest checkpoint, which will be deleted, and returns its step."""
    target.mkdir()
    prefix = checkpoints.all_in(folder)[-1]
    for path in folder.glob(f"{os.path.basename(prefix)}.*"):
        shutil.copy(path, target)
    return int(prefix.rpartition("-")[2])


def trained(folder):
    """The weights of a training, and what its model says of some images."""
    task = checkpoints.load_task(small_classifier.pipeline(), folder)
    variables = checkpoints.variables_by_name(task.model)
    images = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)
    weights = {name: variable.numpy() for name, variable in variables.items()}
    return weights, task.predict(images)["probabilities"].numpy()


def test_two_workers_are_one_end_together_and_go_on(tmp_path):
    model_dir, alone = tmp_path / "run", tmp_path / "alone"
    with Workers(tmp_path, model_dir) as workers:
        workers.wait_for_step(model_dir, STEPS)
        copied = copy_newest(model_dir, tmp_path / "copied")
        # The first one writes; the other one is told to stop.
        workers.processes[1].send_signal(signal.SIGTERM)
        lines = [workers.told(index) for index in range(2)]
    assert lines[0].startswith("error: stopped by a signal to another worker after step ")
    assert lines[1].startswith("error: stopped by SIGTERM after step ")
    (stopped_at,) = {int(re.search("after step ([0-9]+)", line)[1]) for line in lines}
    assert stopped_at == newest_step(model_dir)
    assert len(list((model_dir / "tensorboard").iterdir())) == 1

    pipeline = small_classifier.pipeline()
    pipeline.train_config.num_steps = copied
    trainer.train(pipeline, alone)
    (expected, said), (found, of_two) = trained(alone), trained(tmp_path / "copied")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(of_two, said, atol=1e-5)

    with Workers(tmp_path, model_dir) as workers:
        workers.wait_for_step(model_dir, stopped_at + 1)
        workers.processes[1].send_signal(signal.SIGKILL)
        line = workers.told(0)
    assert line.startswith("error: train_config.distribution.multi_worker: another worker was lost")
    assert f"go on from the newest checkpoint of {model_dir}" in line
