"""A training, a search and an import start from a file of another program."""

import logging

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from safetensors.numpy import save_file

from mnasdet import config, models
from mnasdet.errors import CheckpointError
from mnasdet.search import identity, winner
from mnasdet.search.proxy import proxy_task
from mnasdet.training import checkpoints
from mnasdet.training.warm_start import load
from mnasdet.training.warm_start.importing import import_checkpoint
from tests.training.warm_start import torch_networks as torch


@pytest.fixture(scope="module")
def torch_file(tmp_path_factory):
    """The weights and the file of a MobileNetV2 by torchvision's names."""
    net = torch.Network(1e-5, grey=None)
    torch.torchvision_mobilenet_v2(net, tf.zeros((1, 32, 32, 3)))
    path = tmp_path_factory.mktemp("torch") / "mobilenet_v2.safetensors"
    save_file(net.weights, path)
    return net.weights, path


@pytest.fixture
def pipeline(tiny_pipeline, torch_file):
    """A small detector on MobileNetV2 that starts from the file."""
    tiny_pipeline.model.architecture.backbone.mobilenet_v2.depth_multiplier = 1.0
    tiny_pipeline.train_config.fine_tune_checkpoint = str(torch_file[1])
    return tiny_pipeline


# The models of this file by what they differ in: to build one takes seconds.
MODELS: dict[tuple, tf_keras.Model] = {}


def built(pipeline):
    blueprint = config.resolve(pipeline)
    width = blueprint.architecture.backbone.mobilenet_v2.depth_multiplier
    key = width, blueprint.num_classes
    if key not in MODELS:
        MODELS[key] = models.build(blueprint).model
    return MODELS[key]


def started(pipeline):
    """The report of a warm start and the model, and its variables from before."""
    model = built(pipeline)
    before = {name: v.numpy() for name, v in checkpoints.variables_by_name(model).items()}
    return load.from_config(model, pipeline.train_config), model, before


def test_a_detector_takes_the_whole_backbone(pipeline, torch_file, caplog):
    with caplog.at_level(logging.INFO, logger="absl"):
        report, model, before = started(pipeline)
    weights, path = torch_file
    for name, variable in checkpoints.variables_by_name(model).items():
        if not name.startswith("backbone/"):
            np.testing.assert_array_equal(variable, before[name], err_msg=name)
    found = checkpoints.variables_by_name(model)
    # By hand: a kernel that only changes its layout, and the factor for an epsilon of 0.01 or so.
    kernel = weights["features.2.conv.0.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(found["backbone/layer_3/expand/conv/kernel"], kernel, rtol=1e-6)
    norm = model.get_layer("backbone/layer_3/expand/batch_norm")
    variance = weights["features.2.conv.0.1.running_var"]
    gamma = weights["features.2.conv.0.1.weight"] * np.sqrt(
        (variance + norm.epsilon) / (variance + 1e-5)
    )
    np.testing.assert_allclose(norm.gamma, gamma, rtol=1e-5)
    assert norm.epsilon > 1e-4
    count = sum(name.startswith("backbone/") for name in found)
    assert len(report.matched) == count
    told = caplog.text
    assert f"{path}: torchvision's MobileNetV2; {count} of {count} variables loaded of the" in told
    assert "backbone, 0 unmatched, 0 misshapen" in told
    assert "not the same as there: strided layers pad both sides alike" in told


def test_too_few_that_match_end_the_training_with_one_line(pipeline):
    pipeline.model.architecture.backbone.mobilenet_v2.depth_multiplier = 0.5
    with pytest.raises(CheckpointError) as caught:
        started(pipeline)
    line = str(caught.value)
    assert "is torchvision's MobileNetV2; of the 255 variables of the backbone " in line
    assert "have another shape, first: backbone/layer_1/conv/kernel is [3, 3, 3, 32] there" in line
    assert "\n" not in line
    # The share that the line names is enough.
    share = line.partition("min_matched_share: ")[2].split()[0]
    pipeline.train_config.min_matched_share = float(share)
    report, _, _ = started(pipeline)
    assert 0 < len(report.matched) < 255
    assert len(report.matched) + len(report.misshapen) == 255


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"fine_tune_checkpoint_type": "classification"}, "backbone"),
        ({"fine_tune_checkpoint_type": "detection"}, "backbone and feature pyramid"),
        ({"from_detection_checkpoint": True}, "backbone and feature pyramid"),
        # All that the file has, of which a classifier's has a backbone.
        (
            {
                "fine_tune_checkpoint_type": "detection",
                "load_all_detection_checkpoint_vars": True,
            },
            "backbone",
        ),
    ],
)
def test_the_type_says_which_parts_are_needed(pipeline, fields, parts):
    for name, value in fields.items():
        setattr(pipeline.train_config, name, value)
    pipeline.train_config.min_matched_share = 0.0
    report, _, _ = started(pipeline)
    assert report.parts == parts
    assert bool(report.unmatched) == ("pyramid" in parts)


def test_the_children_and_the_winner_of_a_search_take_what_fits(pipeline):
    assert pipeline.HasField("search_config")
    pipeline.model.architecture.backbone.mobilenet_v2.depth_multiplier = 0.5
    settings = pipeline.search_config
    settings.ClearField("pretrain_config")
    settings.retrain_config.CopyFrom(pipeline.train_config)
    children = proxy_task.prepare(pipeline, "no folder is needed")
    report, _, _ = started(children)
    assert 0 < len(report.matched) < 255
    blueprint = config.resolve(children)
    full = winner.retraining(children, blueprint.architecture)
    assert len(started(full)[0].matched) == len(report.matched)
    # The winner starts as the children do where its training does not say how, and from random
    # weights where it says so.
    settings.retrain_config.ClearField("fine_tune_checkpoint")
    inherited = proxy_task.prepare(pipeline, "no folder is needed").search_config.retrain_config
    assert inherited == children.search_config.retrain_config
    settings.retrain_config.fine_tune_checkpoint = ""
    scratch = proxy_task.prepare(pipeline, "no folder is needed").search_config.retrain_config
    assert not scratch.fine_tune_checkpoint
    # The config's own min_matched_share holds.
    pipeline.train_config.min_matched_share = 0.9
    with pytest.raises(CheckpointError, match="of the 255 variables of the backbone"):
        started(proxy_task.prepare(pipeline, "no folder is needed"))


def test_a_search_is_known_by_the_file(pipeline, torch_file, tmp_path):
    """The same weights elsewhere are the same search; other weights are another."""
    pipeline.search_config.ClearField("pretrain_config")
    held = identity.of_search(pipeline)
    weights, path = torch_file
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    pipeline.train_config.fine_tune_checkpoint = str(copy)
    assert identity.differences(held, identity.of_search(pipeline)) == []
    save_file(dict(list(weights.items())[:-1]), copy)
    (difference,) = identity.differences(held, identity.of_search(pipeline))
    assert difference.startswith("fine_tune_checkpoint: ")


def test_a_network_that_is_not_known_is_told(tmp_path):
    save_file({"encoder.weight": np.ones(3, np.float32)}, tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load.load(tf_keras.Sequential(), tmp_path / "vit.safetensors")
    line = str(caught.value)
    assert 'a safetensors file with variables such as "encoder.weight", which are of no' in line
    assert "one of " in line
    assert "torchvision's MobileNetV2" in line


def test_our_own_checkpoints_report_the_same(pipeline, tmp_path, caplog):
    """They start other networks, too: whatever fits is loaded."""
    model = built(pipeline)
    weights = checkpoints.variables_by_name(model)
    prefix = tf.train.Checkpoint(**{checkpoints.WEIGHTS: weights}).save(str(tmp_path / "ckpt"))
    pipeline.train_config.fine_tune_checkpoint = prefix
    pipeline.model.ssd.num_classes += 1
    with caplog.at_level(logging.INFO, logger="absl"):
        report, _, _ = started(pipeline)
    assert len(report.misshapen) == 2
    assert len(report.matched) == len(weights) - 2
    assert f"{len(weights) - 2} of {len(weights)} variables loaded of the model" in caplog.text
    pipeline.train_config.min_matched_share = 1.0
    with pytest.raises(CheckpointError, match="2 have another shape, first: box_predictor/"):
        started(pipeline)


def test_an_import_is_a_checkpoint_of_ours(pipeline, torch_file, tmp_path):
    folder = tmp_path / "imported"
    assert len(import_checkpoint(pipeline, folder).matched) == 255
    # Its config does not name the file that it was made of.
    kept = config.load(folder / "pipeline.config")
    assert not kept.train_config.fine_tune_checkpoint
    found = checkpoints.variables_by_name(checkpoints.load_task(kept, folder).model)
    kernel = torch_file[0]["features.5.conv.2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(found["backbone/layer_6/project/conv/kernel"], kernel, rtol=1e-6)
    with pytest.raises(CheckpointError, match=r"imported: has a checkpoint already, .*ckpt-0; na"):
        import_checkpoint(pipeline, folder)
