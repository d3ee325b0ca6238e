"""Two replicas are one: training on two logical CPU devices, and steps that XLA compiles."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config, models
from mnasdet.protos import pipeline_pb2
from mnasdet.training import runtime
from mnasdet.training.learner import Learner

SCRIPT = Path(__file__).with_name("two_replicas.py")


@pytest.fixture(scope="module")
def trained():
    """What every case of two_replicas.py came to: [on one device, on two]."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, cwd=SCRIPT.parents[2]
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "case", ["frozen", "synchronized", "sums", "clipped", "parts", "compiled", "pruned"]
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


PIPELINE = """
  model { ssd {
    num_classes: 3
    image_resizer { fixed_shape_resizer { height: 64 width: 64 } }
    encode_background_as_zeros: true
    loss {
      classification_loss { weighted_sigmoid_focal { alpha: 0.25 gamma: 2.0 } }
      localization_loss { weighted_smooth_l1 {} }
    }
  } }
  train_config { optimizer { momentum_optimizer { learning_rate {
    constant_learning_rate { learning_rate: 0.01 }
  } } } }
"""


@pytest.fixture
def pipeline():
    return text_format.Parse(PIPELINE, pipeline_pb2.TrainEvalPipelineConfig())


def architecture(name, **pyramid):
    loaded = config.load_architecture(name)
    loaded.depth_multiplier = 0.25
    for field, value in pyramid.items():
        part = loaded.feature_pyramid
        setattr(getattr(part, part.WhichOneof("feature_pyramid_oneof")), field, value)
    return loaded


@pytest.mark.parametrize(
    ("name", "pyramid"),
    [
        ("mobilenet_v2_mnasfpn", {"repeats": 1}),
        ("resnet10_nas_fpn_3_256", {"repeats": 1, "channels": 16}),
        ("mobilenet_v2_ssdlite", {}),
    ],
)
def test_xla_compiles_the_step_of_a_detector(pipeline, name, pyramid):
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = 128
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.width = 128
    runtime.seed_everything(0)
    task = models.build(config.resolve(pipeline, architecture(name, **pyramid)))
    rng = np.random.default_rng(0)
    shape = (2, len(task.anchors))
    batch = {
        "image": tf.constant(rng.uniform(-1, 1, (2, 128, 128, 3)), tf.float32),
        "class_targets": tf.constant(rng.choice([-1, 0, 0, 1, 2, 3], shape), tf.int32),
        "box_targets": tf.constant(rng.normal(size=(*shape, 4)), tf.float32),
    }
    check_compiled(task, pipeline, batch)


def check_compiled(task, pipeline, batch):
    learner = Learner(task, pipeline.train_config, jit_compile=True)
    losses = learner.update(batch)
    assert np.isfinite([float(value) for value in losses.values()]).all()
    compiled = learner._losses.experimental_get_compiler_ir(batch)(stage="hlo")
    assert "convolution" in compiled
