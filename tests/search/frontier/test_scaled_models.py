"""The queue of full trainings, with trainings that take no time."""

import json

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.errors import UserError
from mnasdet.protos import architecture_pb2, pipeline_pb2, search_pb2
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.frontier import scaled_models
from mnasdet.search.frontier.frontier_scaling import Variant
from mnasdet.search.frontier.scaled_models import ScaledModels, with_checkpoints
from tests.search import cheap_trainings


@pytest.fixture
def pipeline():
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = 64
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.width = 64
    return pipeline


def variant(repeats, cost, image_size=None):
    architecture = architecture_pb2.Architecture()
    if image_size:
        architecture.input.height = architecture.input.width = image_size
    architecture.feature_pyramid.mnasfpn.repeats = repeats
    return Variant(
        name=f"trial_00001_r{repeats}_d1",
        trial=1,
        repeats=repeats,
        depth_multiplier=1.0,
        architecture=text_format.MessageToString(architecture),
        key=str(repeats),
        seed=40 + repeats,
        params=1000 * repeats,
        multiply_adds=10**6 * repeats,
        cost=cost,
        proxy_accuracy=0.05,
    )


# With 3 repeats it is slower and worse than with 4; with 5 its training diverges.
VARIANTS = [variant(2, 10.0), variant(3, 30.0), variant(4, 20.0, image_size=96), variant(5, 40.0)]


def times(pipeline, folder):
    (folder / "detect.tflite").touch()
    return {"median_ms": 7.5}


def results(folder):
    models = json.loads((folder / "scaled.json").read_text())["models"]
    return {model["name"].removeprefix("trial_00001_"): model for model in models}


def trained(folder):
    """How often each model was."""
    return {
        path.parent.name.removeprefix("trial_00001_"): path.read_text().count("\n")
        for path in folder.glob("models/*/trainings")
    }


def test_the_whole_queue(pipeline, tmp_path):
    scaled = ScaledModels.create(tmp_path, pipeline, VARIANTS)
    seen = []

    def on_model(model):
        assert results(tmp_path)[model.name[12:]]["accuracy"] == model.accuracy
        seen.append(model.name[12:])

    scaled.train(ThisProcess(cheap_trainings.trains), on_model=on_model)
    scaled.deploy(times)
    found = results(tmp_path)
    assert seen == list(found) == ["r2_d1", "r3_d1", "r4_d1", "r5_d1"]
    assert [model["accuracy"] for model in found.values()] == [0.2, 0.3, 0.4, None]
    assert [model["on_frontier"] for model in found.values()] == [True, False, True, False]
    assert [model["measured_ms"] for model in found.values()] == [7.5, None, 7.5, None]
    assert found["r5_d1"]["error"] == "training diverged: the loss is nan at step 3"
    assert found["r2_d1"] == {
        "name": "trial_00001_r2_d1",
        "trial": 1,
        "repeats": 2,
        "depth_multiplier": 1.0,
        "architecture": "architectures/trial_00001_r2_d1.textproto",
        "key": "2",
        "seed": 42,
        "params": 2000,
        "multiply_adds": 2_000_000,
        "cost": 10.0,
        "proxy_accuracy": 0.05,
        "accuracy": 0.2,
        "error": None,
        "on_frontier": True,
        "measured_ms": 7.5,
    }
    assert (tmp_path / "architectures/trial_00001_r2_d1.textproto").read_text() == (
        VARIANTS[0].architecture
    )
    assert (tmp_path / "models/trial_00001_r2_d1/trainings").read_text() == "seed 42\n"
    written = (tmp_path / "models/trial_00001_r4_d1/pipeline.config").read_text()
    own = text_format.Parse(written, pipeline_pb2.TrainEvalPipelineConfig())
    assert own.model.architecture.feature_pyramid.mnasfpn.repeats == 4
    assert config.resolve(own).image_size == (96, 96)


def test_interrupted_it_goes_on_with_what_is_left(pipeline, tmp_path):
    scaled = ScaledModels.create(tmp_path, pipeline, VARIANTS)
    with pytest.raises(KeyboardInterrupt):
        scaled.train(ThisProcess(cheap_trainings.dies))
    assert [model["accuracy"] for model in results(tmp_path).values()] == [0.2, None, None, None]
    resumed = ScaledModels.load(tmp_path, pipeline)
    assert resumed.models == scaled.models
    resumed.train(ThisProcess(cheap_trainings.trains))
    assert trained(tmp_path) == {"r2_d1": 1, "r3_d1": 1, "r4_d1": 1, "r5_d1": 1}
    assert [model["accuracy"] for model in results(tmp_path).values()] == [0.2, 0.3, 0.4, None]


def test_what_failed_is_tried_again_only_when_asked(pipeline, tmp_path):
    ScaledModels.create(tmp_path, pipeline, VARIANTS).train(ThisProcess(cheap_trainings.trains))
    resumed = ScaledModels.load(tmp_path, pipeline)
    resumed.train(ThisProcess(cheap_trainings.trains))
    assert trained(tmp_path)["r5_d1"] == 1
    resumed.forget_failures()
    assert results(tmp_path)["r5_d1"]["error"] is None
    resumed.train(ThisProcess(cheap_trainings.trains))
    assert trained(tmp_path) == {"r2_d1": 1, "r3_d1": 1, "r4_d1": 1, "r5_d1": 2}


def test_models_are_exported_once(pipeline, tmp_path):
    scaled = ScaledModels.create(tmp_path, pipeline, VARIANTS)
    scaled.train(ThisProcess(cheap_trainings.trains))
    exported = []

    def fails_at_the_second(pipeline, folder):
        exported.append(folder.name[12:])
        if len(exported) == 2:
            raise UserError("no space")
        return times(pipeline, folder)

    with pytest.raises(UserError, match="no space"):
        scaled.deploy(fails_at_the_second)
    assert results(tmp_path)["r2_d1"]["measured_ms"] == 7.5
    ScaledModels.load(tmp_path, pipeline).deploy(fails_at_the_second)
    assert exported == ["r2_d1", "r4_d1", "r4_d1"]


def test_no_trained_model_is_no_frontier(pipeline, tmp_path):
    scaled = ScaledModels.create(tmp_path, pipeline, VARIANTS[3:])
    scaled.train(ThisProcess(cheap_trainings.trains))
    scaled.deploy(times)
    assert not scaled.models[0].on_frontier


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"num_steps": 1000}, 100),
        ({"num_steps": 5}, 1),
        ({"num_steps": 1000, "checkpoint_every_n_steps": 7}, 7),
        # With every evaluation there is one.
        ({"num_steps": 1000, "eval_every_n_steps": 200}, 0),
    ],
)
def test_a_full_training_has_checkpoints(given, expected, pipeline):
    for name, value in given.items():
        setattr(pipeline.train_config, name, value)
    with_checkpoints(pipeline)
    assert pipeline.train_config.checkpoint_every_n_steps == expected


def test_full_trainings_run_in_as_many_processes_as_the_config_has_workers():
    config = search_pb2.ExecutorConfig(max_retries=4)
    config.worker_processes.num_workers = 3
    config.worker_processes.max_trial_seconds = 5.0
    config.worker_processes.threads_per_worker = 2
    executor = scaled_models.executor_from_config(config)
    assert executor._num_workers == 3
    assert executor._settings.threads == 2
    assert executor._settings.max_trial_seconds == 0
    assert scaled_models.executor_from_config(search_pb2.ExecutorConfig())._num_workers == 1
