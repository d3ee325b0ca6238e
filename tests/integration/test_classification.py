"""A classifier from its config to its file, in one process."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

from mnasdet import config, deployment
from mnasdet.data import class_folders
from mnasdet.data.input_pipeline import label_map
from mnasdet.errors import CheckpointError, UserError
from mnasdet.evaluation.classification import BASELINE, RECALL, TOP_1, TOP_5
from mnasdet.evaluation.evaluate import evaluate_pipeline, first_images, judged_on
from mnasdet.protos import pipeline_pb2
from mnasdet.search import candidate as search_candidate
from mnasdet.search import child
from mnasdet.tflite import metadata
from mnasdet.training import checkpoints, trainer
from mnasdet.training.warm_start import load

# MnasNet with a layer or two at each stride.
ARCHITECTURE = """
  architecture {
    min_depth: 8
    backbone { mnasnet {
      stem_channels: 8
      last_channels: 32
      block { channels: 8 op: SEPARABLE }
      block { channels: 8 stride: 2 expansion: 3 }
      block { channels: 16 stride: 2 expansion: 3 se_ratio: 0.25 }
      block { channels: 16 stride: 2 expansion: 3 repeats: 2 }
      block { channels: 24 stride: 2 expansion: 3 }
    } }
    classifier { dropout: 0.1 }
  }
"""
PIPELINE = f"""
  model {{
    {ARCHITECTURE}
    classification {{
      num_classes: 10
      image_resizer {{ fixed_shape_resizer {{ height: 32 width: 32 }} }}
      label_smoothing: 0.1
      mixup_alpha: 0.2
    }}
  }}
  train_config {{
    batch_size: 8
    num_steps: 3
    data_augmentation_options {{ rand_augment {{}} }}
    optimizer {{
      rms_prop_optimizer {{
        learning_rate {{ exponential_decay_learning_rate {{
          initial_learning_rate: 0.002 warmup_steps: 2 decay_steps: 2
        }} }}
        epsilon: 0.001
      }}
    }}
  }}
  train_input_reader {{
    features: IMAGE_CLASS digits_input_reader {{ num_images: 24 image_size: 32 }}
  }}
  eval_config {{ batch_size: 8 use_moving_averages: true }}
  eval_input_reader {{
    features: IMAGE_CLASS
    shuffle: false
    digits_input_reader {{ split: VALIDATION num_images: 20 image_size: 32 }}
  }}
"""


def parse(text):
    pipeline = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    assert config.check(pipeline) == []
    return pipeline


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training's pipeline, folder and metrics."""
    pipeline = parse(PIPELINE)
    folder = tmp_path_factory.mktemp("trained")
    return pipeline, folder, trainer.train(pipeline, folder)


def test_a_training_writes_its_metrics(trained):
    pipeline, folder, metrics = trained
    held = json.loads((folder / "metrics.json").read_text())
    assert held["step"] == metrics["step"] == 3
    assert 0 <= held[TOP_1] <= held[TOP_5] <= 1
    counts = np.bincount([int(name) for name in _validation_digits()])
    assert metrics[BASELINE] == counts.max() / 20
    assert label_map(pipeline.eval_input_reader[0])[1] == "0"
    assert (folder / "best").is_dir()


def _validation_digits():
    from sklearn.datasets import load_digits

    return load_digits().target[np.random.RandomState(0).permutation(1797)[1400:1420]]


def test_a_checkpoint_is_evaluated_as_the_training_did(trained):
    pipeline, folder, metrics = trained
    task = checkpoints.load_task(pipeline, folder)
    again = evaluate_pipeline(task, pipeline, per_category=True)
    assert again[TOP_1] == metrics[TOP_1]
    assert f"{RECALL}7" in again


def test_a_training_goes_on(trained, tmp_path):
    pipeline, folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    longer = pipeline_pb2.TrainEvalPipelineConfig()
    longer.CopyFrom(pipeline)
    longer.train_config.num_steps = 4
    assert trainer.train(longer, tmp_path / "copy")["step"] == 4
    # Not with other classes.
    longer.model.classification.num_classes = 11
    with pytest.raises(CheckpointError, match="num_classes"):
        trainer.train(longer, tmp_path / "copy")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    pipeline, folder, _ = trained
    task = checkpoints.load_task(pipeline, folder)
    images = first_images(pipeline, task.blueprint.resizer, 20)
    output = tmp_path_factory.mktemp("exported")
    for quantization, input_type in (("none", "float32"), ("int8", "uint8")):
        deployment.export(
            task,
            output / quantization,
            images=images,
            quantization=quantization,
            input_type=input_type,
            calibration_images=images,
            labels=label_map(pipeline.eval_input_reader[0]),
        )
    return task, images, output


@pytest.mark.parametrize(("quantization", "tolerance"), [("none", 1e-4), ("int8", 0.1)])
def test_the_file_gives_probabilities(exported, quantization, tolerance):
    task, images, output = exported
    path = output / quantization / "classify.tflite"
    found = deployment.predict_function(task.blueprint, path)(images)
    expected = {name: value.numpy() for name, value in task.predict(images).items()}
    assert set(found) == set(expected)
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=tolerance)
    np.testing.assert_allclose(np.sum(found["probabilities"], axis=1), 1, atol=0.05)
    description = json.loads((path.parent / "export.json").read_text())
    assert description["outputs"] == {"probabilities": {"shape": [1, 10]}}
    assert description["num_classes"] == 10
    assert description["input"]["dtype"] == ("uint8" if quantization == "int8" else "float32")
    assert max(description["parity"]["max_abs_difference"].values()) < tolerance


def test_the_file_is_evaluated_as_the_model_is(trained, exported):
    pipeline, _, metrics = trained
    task, _, output = exported
    for quantization in ("none", "int8"):
        predict = deployment.predict_function(
            task.blueprint, output / quantization / "classify.tflite"
        )
        of_file = evaluate_pipeline(task, pipeline, predict)
        assert of_file[TOP_5] == pytest.approx(metrics[TOP_5], abs=0.2)
    compared = deployment.compare(task, pipeline, output / "none" / "classify.tflite", others=())
    assert compared["none"]["top-1"] == compared["keras"]["top-1"] == metrics[TOP_1]


def test_its_saved_model_is_evaluated_as_the_model_is(trained, tmp_path):
    pipeline, folder, metrics = trained
    task = checkpoints.load_task(pipeline, folder)
    names = label_map(pipeline.eval_input_reader[0])
    described = deployment.export_saved_model(task, pipeline, tmp_path / "out", labels=names)
    outputs = described["signatures"]["image_tensor"]["outputs"]
    assert outputs["probabilities"] == {"shape": [None, 10], "dtype": "float32"}
    predict = deployment.saved_model_function("classification", tmp_path / "out")
    evaluator = deployment.evaluator("classification", names)
    found = judged_on(pipeline, evaluator, predict, None).metrics()
    for name in (TOP_1, TOP_5):
        assert found[name] == pytest.approx(metrics[name], abs=1e-6)


def test_the_file_has_its_labels(exported):
    _, _, output = exported
    path = output / "int8" / "classify.tflite"
    with zipfile.ZipFile(path) as archive:
        assert archive.read(metadata.LABELS_FILE).decode().split() == list("0123456789")


def test_a_deployed_classifier_is_one_file(trained, exported, tmp_path):
    pipeline, _, _ = trained
    task, _, _ = exported
    timing = deployment.deploy(task, pipeline, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "benchmark.json",
        "classify.tflite",
        "export.json",
    ]
    ((form, result),) = deployment.timings("classification", timing)
    assert form.graph_name == "classify.tflite"
    assert result["median_ms"] == timing["median_ms"] > 0


def test_a_detector_has_two_files_with_a_timing_each():
    timing = {"median_ms": 1.0, "nms": {"median_ms": 2.0}}
    named = {
        form.graph_name: result["median_ms"] for form, result in deployment.timings("ssd", timing)
    }
    assert named == {"detect.tflite": 1.0, "detect_nms.tflite": 2.0}


def test_a_classifier_has_nothing_to_suppress(exported, tmp_path):
    task, _, _ = exported
    with pytest.raises(UserError, match="--nms: a classifier finds no boxes to suppress"):
        deployment.export(task, tmp_path, nms=True)


def test_a_changed_file_is_refused(exported, tmp_path):
    task, _, output = exported
    for name in ("classify.tflite", "export.json"):
        content = (output / "none" / name).read_bytes()
        (tmp_path / name).write_bytes(content + b"x" * (name == "classify.tflite"))
    with pytest.raises(UserError, match="is not the file that export.json describes"):
        deployment.predict_function(task.blueprint, tmp_path / "classify.tflite")


def test_its_backbone_starts_a_detector(trained):
    """fine_tune_checkpoint_type "classification" takes the backbone, and nothing else."""
    pipeline, folder, _ = trained
    detector = text_format.Parse(
        (config.packaged.find_config("quickstart.config")).read_text(),
        pipeline_pb2.TrainEvalPipelineConfig(),
    )
    detector.ClearField("search_config")
    detector.model.ssd.image_resizer.fixed_shape_resizer.height = 64
    detector.model.ssd.image_resizer.fixed_shape_resizer.width = 64
    detector.model.ssd.feature_extractor.ClearField("conv_hyperparams")
    detector.model.ssd.feature_extractor.override_base_feature_extractor_hyperparams = False
    detector.model.architecture.backbone.CopyFrom(pipeline.model.architecture.backbone)
    detector.model.architecture.min_depth = 8
    detector.train_config.fine_tune_checkpoint = str(folder)
    detector.train_config.fine_tune_checkpoint_type = "classification"
    from mnasdet import models

    task = models.build(config.resolve(detector))
    before = {name: v.numpy() for name, v in checkpoints.variables_by_name(task.model).items()}
    load.from_config(task.model, detector.train_config)
    classifier = checkpoints.variables_by_name(checkpoints.load_task(pipeline, folder).model)
    taken = 0
    for name, variable in checkpoints.variables_by_name(task.model).items():
        if name.startswith("backbone/"):
            np.testing.assert_array_equal(variable, classifier[name], err_msg=name)
            taken += 1
        else:
            np.testing.assert_array_equal(variable, before[name], err_msg=name)
    assert taken > 50


def test_a_child_of_a_search_is_judged_by_its_top_1():
    pipeline = parse(PIPELINE)
    pipeline.train_config.num_steps = 1
    of_child = search_candidate.candidate(pipeline)
    outcome = child.run_safely(
        child.ChildTask(
            pipeline.SerializeToString(),
            text_format.MessageToString(of_child.architecture),
            seed=0,
        )
    )
    assert outcome.error is None
    assert outcome.objective == TOP_1
    assert outcome.accuracy == outcome.metrics[TOP_1]
    # The costs are the classifier's.
    backbone, head = of_child.sheet.parts["backbone"], of_child.sheet.parts["classifier"]
    assert head.params == 32 * 10 + 10
    assert of_child.sheet.total.params == backbone.params + head.params


@pytest.mark.parametrize("name", ["mnasnet_a1_imagenet", "mnasnet_search_imagenet"])
def test_the_imagenet_configs_train_on_a_handful_of_pictures(name, tmp_path, eager):
    """Two steps of the paper's recipe at 224 pixels."""
    random = np.random.default_rng(0)
    for class_name in ("cat", "dog"):
        (tmp_path / "images" / class_name).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / class_name / f"{number}.jpg")
    class_folders.convert(tmp_path / "images", tmp_path / "data", validation_fraction=0.34)

    def change(pipeline):
        pipeline.ClearField("search_config")
        pipeline.model.classification.num_classes = 2
        pipeline.train_config.batch_size = pipeline.train_config.num_steps = 2
        pipeline.eval_config.batch_size = 1

    pipeline = config.load(
        f"{name}.config",
        train_input=[str(tmp_path / "data" / "train.record*")],
        eval_input=[str(tmp_path / "data" / "val.record*")],
        label_map=str(tmp_path / "data" / "label_map.pbtxt"),
        change=change,
    )
    metrics = trainer.train(pipeline)
    assert metrics["step"] == 2
    assert metrics[TOP_5] == 1
