"""Two replicas are one: training on two logical CPU devices. And which devices a config names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import train_pb2
from mnasdet.training import distribution


def run(script):
    """Returns what a script of this folder prints. A process sets its devices only once."""
    folder = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(folder / script)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder.parents[1])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def trained():
    """Returns the result of every case of two_replicas.py: [on one device, on two]."""
    return run("two_replicas.py")


@pytest.mark.parametrize(
    "case",
    [
        "frozen",
        "synchronized",
        "sums",
        "clipped",
        "parts",
        "accumulated",
        "accumulated_synchronized",
        "compiled",
        "pruned",
        "fine_tuned",
        "two_stage",
    ],
)
def test_two_replicas_of_8_images_are_one_of_16(trained, case):
    one, two = trained[case]
    assert (one["replicas"], two["replicas"]) == (1, 2)
    np.testing.assert_allclose(two["losses"][:3], one["losses"][:3], rtol=1e-5)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-3)
    assert one["losses"][-1] < 0.9 * one["losses"][0] or case == "clipped"


def test_a_bad_step_of_one_replica_moves_the_weights_of_none(trained):
    for of_one in trained["frozen"]:
        assert of_one["bad_step"] == 21
        assert not of_one["moved"]
        assert of_one["first_bad_tensor"] == "the input image"


def test_xla_changes_no_loss(trained):
    (plain, _), (compiled, _) = trained["frozen"], trained["compiled"]
    np.testing.assert_allclose(compiled["losses"], plain["losses"], rtol=1e-3)


@pytest.mark.parametrize("case", ["parts", "accumulated"])
def test_parts_are_the_whole_where_batch_norm_is_frozen(trained, case):
    (whole, _), (parts, _) = trained["frozen"], trained[case]
    np.testing.assert_allclose(parts["losses"], whole["losses"], rtol=1e-4)


def test_a_loss_that_is_scaled_for_float16_learns_the_same_on_two_replicas(trained):
    (plain, _), of_16_bits = trained["frozen"], trained["float16"]
    for trained_so in of_16_bits:
        np.testing.assert_allclose(trained_so["losses"], plain["losses"], rtol=0.02)


def test_kernels_are_sparse_or_of_few_values_on_two_replicas(trained):
    for of_one in trained["pruned"]:
        assert of_one["zeros"] == pytest.approx(0.5, abs=0.01)
    for of_one in trained["clustered"]:
        assert of_one["values"] == 4


def parsed(text, train=""):
    config = f"batch_size: 16 {train} distribution {{ {text} }}"
    return text_format.Parse(config, train_pb2.TrainConfig())


@pytest.fixture
def gpus(monkeypatch):
    """Makes a machine of so many GPUs, on which a mirrored strategy is what it was asked for."""

    def make(count):
        found = [f"GPU:{number}" for number in range(count)]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: found)
        monkeypatch.setattr(tf.distribute, "MirroredStrategy", Mirrored)

    return make


class Mirrored:
    def __init__(self, devices=None):
        self.devices = devices
        self.num_replicas_in_sync = 2 if devices is None else len(devices)


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("mirrored { num_gpus: 2 }", ["GPU:0", "GPU:1"]),
        ("mirrored {}", ["GPU:0", "GPU:1", "GPU:2", "GPU:3"]),
        ("", None),
    ],
)
def test_a_mirrored_training_has_the_gpus_that_were_asked_for(gpus, text, devices):
    gpus(4)
    assert distribution.strategy(parsed(text)).devices == devices


@pytest.mark.parametrize(("count", "text"), [(4, "one_device {}"), (1, ""), (0, "one_device {}")])
def test_one_device_needs_no_strategy(gpus, count, text):
    gpus(count)
    assert distribution.strategy(parsed(text)) is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("text", "train", "message"),
    [
        ("mirrored { num_gpus: 8 }", "", "mirrored has num_gpus 8; TensorFlow finds 4 on this"),
        (
            "mirrored { num_gpus: 3 }",
            "",
            "batch_size is 16; a multiple of 3 is needed for 3 replicas",
        ),
        (
            "mirrored { num_gpus: 4 }",
            "gradient_accumulation_steps: 8",
            "batch_size is 16; a multiple of 32 is needed for 4 replicas of 8 parts each",
        ),
        ("multi_worker {}", "", "multi_worker needs TF_CONFIG in the environment"),
    ],
)
def test_devices_that_are_not_there_are_told_in_one_line(gpus, monkeypatch, text, train, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    gpus(4)
    with pytest.raises(ConfigError, match=message):
        distribution.strategy(parsed(text, train))


def test_a_tpu_that_is_not_there_is_told_in_one_line(monkeypatch):
    def missing(name):
        raise ValueError(f"no {name}\nmore")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", missing)
    with pytest.raises(UserError, match='tpu: TensorFlow cannot use TPU "pod": no pod$'):
        distribution.strategy(parsed('tpu { name: "pod" }'))


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        ("{", "TF_CONFIG cannot be used: "),
        ("[]", "TF_CONFIG cannot be used: "),
        ('{"cluster": {}}', "'task' is missing"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "there is no worker 1 in the cluster",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
            "there is no ps 0 in the cluster",
        ),
    ],
)
def test_a_tf_config_that_cannot_be_used_says_why(monkeypatch, cluster, reason):
    monkeypatch.setenv("TF_CONFIG", cluster)
    with pytest.raises(ConfigError, match=reason):
        distribution.strategy(parsed("multi_worker {}"))


@pytest.mark.parametrize(
    ("chief", "task", "is_first"),
    [
        ([], ("worker", 0), True),
        ([], ("worker", 1), False),
        (["a:1"], ("chief", 0), True),
        (["a:1"], ("worker", 0), False),
    ],
)
def test_only_the_first_worker_writes_into_the_folder(tmp_path, monkeypatch, chief, task, is_first):
    cluster = {"worker": ["b:1", "c:1"]} | ({"chief": chief} if chief else {})
    place = {"cluster": cluster, "task": dict(zip(("type", "index"), task, strict=True))}
    monkeypatch.setenv("TF_CONFIG", json.dumps(place))
    config = parsed("multi_worker {}").distribution
    with distribution.written(tmp_path, config) as folder:
        assert (folder == tmp_path) == is_first
    assert folder.exists() == is_first
