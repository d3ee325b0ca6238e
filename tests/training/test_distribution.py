"""Two replicas are one: training on two logical CPU devices, and steps that XLA compiles."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def run(script):
    """What a script of this folder prints. TensorFlow is told of devices once in a process."""
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
    """What every case of two_replicas.py came to: [on one device, on two]."""
    return run("two_replicas.py")


@pytest.mark.parametrize(
    "case",
    ["frozen", "synchronized", "sums", "clipped", "parts", "compiled", "pruned", "fine_tuned"],
)
def test_two_replicas_of_8_images_are_one_of_16(trained, case):
    one, two = trained[case]
    assert (one["replicas"], two["replicas"]) == (1, 2)
    np.testing.assert_allclose(two["losses"][:3], one["losses"][:3], rtol=1e-5)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-3)
    assert one["losses"][-1] < 0.9 * one["losses"][0] or case == "clipped"


def test_xla_changes_no_loss(trained):
    (plain, _), (compiled, _) = trained["frozen"], trained["compiled"]
    np.testing.assert_allclose(compiled["losses"], plain["losses"], rtol=1e-3)


def test_parts_are_the_whole_where_batch_norm_is_frozen(trained):
    (whole, _), (parts, _) = trained["frozen"], trained["parts"]
    np.testing.assert_allclose(parts["losses"], whole["losses"], rtol=1e-4)


def test_kernels_are_sparse_or_of_few_values_on_two_replicas(trained):
    for of_one in trained["pruned"]:
        assert of_one["zeros"] == pytest.approx(0.5, abs=0.01)
    for of_one in trained["clustered"]:
        assert of_one["values"] == 4


@pytest.fixture(scope="module")
def compiled():
    """The losses of a step that XLA compiled, by architecture."""
    return run("compiled_steps.py")


@pytest.mark.parametrize(
    "name", ["mobilenet_v2_mnasfpn", "resnet10_nas_fpn_3_256", "mobilenet_v2_ssdlite"]
)
def test_xla_compiles_the_step_of_a_detector(compiled, name):
    losses = compiled[name]
    assert losses["Loss/localization_loss"] > 0
    assert losses["Loss/classification_loss"] > 0
    assert np.isfinite(list(losses.values())).all()
