"""Two-stage detectors start from weights of the OD API's, and from those of classifiers."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet import config, text_proto
from mnasdet.detectors.two_stage_network import two_stage_network
from mnasdet.protos import pipeline_pb2
from mnasdet.training.warm_start import load, tf_checkpoint
from mnasdet.training.warm_start.source import Source
from mnasdet.training.warm_start.transfer import Target, Transfer, transfer
from tests.od_api_faster_rcnn_configs import config_text
from tests.training.warm_start import foreign_checkpoints as foreign

CLASSES = 3
DEPTHS = [50, 101, 152]
VALUE = foreign.VALUE


@functools.cache
def detector(extractor: str) -> Target:
    pipeline = text_proto.parse(
        config_text(extractor), pipeline_pb2.TrainEvalPipelineConfig, "od_api.config"
    )
    network = two_stage_network(config.resolve(pipeline).architecture, (64, 64), CLASSES)
    outputs = [*network.features.values(), *(x for head in network.heads for x in head.values())]
    return Target(foreign.variables(outputs), {}, foreign.strides(outputs))


def tf1(depth: int, classes: int) -> foreign.Shapes:
    """The variables of faster_rcnn_resnet50 and its like in TF1: 12 anchors, a box a class."""
    first, second = "FirstStageFeatureExtractor/", "SecondStageFeatureExtractor/"
    last = f"{second}resnet_v1_{depth}/block4"
    shapes = foreign.slim_resnet(depth, first)
    shapes |= {
        name: shape
        for name, shape in foreign.slim_resnet(depth, second).items()
        if name.startswith(last)
    }
    for name, size, inputs, outputs in (
        ("Conv", 3, 1024, 512),
        ("FirstStageBoxPredictor/BoxEncodingPredictor", 1, 512, 12 * 4),
        ("FirstStageBoxPredictor/ClassPredictor", 1, 512, 12 * 2),
    ):
        shapes |= {f"{name}/weights": (size, size, inputs, outputs), f"{name}/biases": (outputs,)}
    for name, outputs in (("BoxEncodingPredictor", 4 * classes), ("ClassPredictor", classes + 1)):
        name = f"SecondStageBoxPredictor/{name}"
        shapes |= {f"{name}/weights": (2048, outputs), f"{name}/biases": (outputs,)}
    return shapes


def tf2(depth: int, classes: int, dropout: bool = False) -> foreign.Shapes:
    """The variables of faster_rcnn_resnet50_keras and its like: one box for all classes."""
    proposing = "model/_feature_extractor_for_proposal_features"
    judging = "model/_feature_extractor_for_box_classifier_features"
    whole = foreign.tf2_resnet(proposing, depth)
    # The last three blocks are a model of their own, counted anew.
    last = max(int(name.split("-")[1].split("/")[0]) for name in whole) + 1
    first = last - (8 + 2 * 6)
    shapes: foreign.Shapes = {}
    for name, shape in whole.items():
        number, _, variable = name.removeprefix(f"{proposing}/layer_with_weights-").partition("/")
        if int(number) < first:
            shapes[name] = shape
        else:
            shapes[f"{judging}/layer_with_weights-{int(number) - first}/{variable}"] = shape
    heads = "model/_first_stage_box_predictor/_prediction_heads"
    layers = {
        "model/_first_stage_box_predictor_first_conv/layer_with_weights-0": (3, 3, 1024, 512),
        f"{heads}/box_encodings/0/_box_encoder_layers/0": (1, 1, 512, 12 * 4),
        f"{heads}/class_predictions_with_background/0/_class_predictor_layers/0": (1, 1, 512, 24),
    }
    for name, outputs in (
        ("_box_prediction_head/_box_encoder_layers", 4),
        ("_class_prediction_head/_class_predictor_layers", classes + 1),
    ):
        layers[f"model/_mask_rcnn_box_predictor/{name}/{2 if dropout else 1}"] = (2048, outputs)
    for name, kernel in layers.items():
        shapes |= {f"{name}/kernel{VALUE}": kernel, f"{name}/bias{VALUE}": kernel[-1:]}
    return shapes


def tf2_fpn(depth: int, classes: int) -> foreign.Shapes:
    """The variables of faster_rcnn_resnet50_fpn_keras and its like."""
    proposing = "model/_feature_extractor_for_proposal_features"
    shapes = foreign.tf2_resnet(f"{proposing}/layer_with_weights-0", depth)
    pyramid = f"{proposing}/layer_with_weights-1"
    heads = "model/_first_stage_box_predictor/_prediction_heads"
    judging = "model/_feature_extractor_for_box_classifier_features"
    predicting = "model/_mask_rcnn_box_predictor"
    layers: dict[str, tuple[int, ...]] = {f"{pyramid}/top_layers/0": (1, 1, 2048, 256)}
    norms = [f"{proposing}/layer_with_weights-3"]
    convs = {f"{proposing}/layer_with_weights-2": (3, 3, 256, 256)}
    # From coarse to fine.
    for number, channels in enumerate((1024, 512, 256)):
        layers[f"{pyramid}/residual_blocks/{number}/0"] = (1, 1, channels, 256)
        convs[f"{pyramid}/conv_layers/{number}/0"] = (3, 3, 256, 256)
        norms.append(f"{pyramid}/conv_layers/{number}/1")
    layers["model/_first_stage_box_predictor_first_conv/layer_with_weights-0"] = (3, 3, 256, 512)
    for level in range(5):
        classifying = f"{heads}/class_predictions_with_background/{level}/_class_predictor_layers/0"
        layers[f"{heads}/box_encodings/{level}/_box_encoder_layers/0"] = (1, 1, 512, 6 * 4)
        layers[classifying] = (1, 1, 512, 6 * 2)
    layers[f"{judging}/layer_with_weights-0"] = (7 * 7 * 256, 1024)
    layers[f"{judging}/layer_with_weights-1"] = (1024, 1024)
    layers[f"{predicting}/_box_prediction_head/_box_encoder_layers/1"] = (1024, 4 * classes)
    layers[f"{predicting}/_class_prediction_head/_class_predictor_layers/1"] = (1024, classes + 1)
    for name, kernel in layers.items():
        shapes |= {f"{name}/kernel{VALUE}": kernel, f"{name}/bias{VALUE}": kernel[-1:]}
    shapes |= {f"{name}/kernel{VALUE}": kernel for name, kernel in convs.items()}
    for name in norms:
        for variable in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"{name}/{variable}{VALUE}"] = (256,)
    return shapes


def transferred(ours: Target, theirs: foreign.Shapes, parts=()) -> Transfer:
    """Transfers from a checkpoint that is not written."""

    def read(name: str) -> np.ndarray:
        return np.broadcast_to(np.float32(1), theirs[name])

    source = Source("model.ckpt", tf_checkpoint.FORMAT, theirs, read)
    return transfer(ours, source, load.recognized(source), parts)


def assert_whole(found: Transfer, ours: Target) -> None:
    assert (found.unmatched, found.misshapen, found.unused) == ([], {}, [])
    assert set(found.values) == set(ours.shapes)


@pytest.mark.parametrize("depth", DEPTHS)
def test_detectors_of_tf1_are_whole(depth):
    ours = detector(f"faster_rcnn_resnet{depth}")
    theirs = tf1(depth, CLASSES)
    found = transferred(ours, theirs)
    # The image's own last stage is in the file, and of no use there either.
    assert all(name.startswith("FirstStage") and "/block4/" in name for name in found.unused)
    found.unused.clear()
    assert_whole(found, ours)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("depth", DEPTHS)
def test_detectors_of_tf2_are_whole(depth, dropout):
    ours = detector(f"faster_rcnn_resnet{depth}_keras")
    found = transferred(ours, tf2(depth, CLASSES, dropout))
    assert_whole(found, ours)
    assert not any("stride" in difference for difference in found.differences)


@pytest.mark.parametrize("depth", DEPTHS)
def test_detectors_of_tf2_with_a_pyramid_are_whole(depth):
    found = transferred(detector(f"faster_rcnn_resnet{depth}_fpn_keras"), tf2_fpn(depth, CLASSES))
    assert_whole(found, detector(f"faster_rcnn_resnet{depth}_fpn_keras"))
    assert not any("stride" in difference for difference in found.differences)


@pytest.fixture(scope="module")
def resnet50():
    return tf_keras.applications.ResNet50(include_top=False, weights=None)


@pytest.mark.parametrize("ending", ["", "_keras", "_fpn_keras"])
def test_keras_s_own_resnet_is_the_backbone_of_all(resnet50, ending):
    ours = detector(f"faster_rcnn_resnet50{ending}")
    theirs = {v.name.removesuffix(":0"): tuple(v.shape) for v in resnet50.variables}
    found = transferred(ours, theirs, ["backbone"])
    assert (found.unmatched, found.misshapen, found.unused) == ([], {}, [])
    # A kernel and the four numbers of its normalisation; Keras' biases go into those.
    assert len(found.values) == 53 * 5


def test_the_last_stage_is_counted_as_keras_counts_a_model_of_it(resnet50):
    """The numbers that the maps rest on, from tf_keras itself."""
    whole = resnet50
    features = whole.get_layer("conv4_block6_out").output
    proposing = tf_keras.Model(whole.inputs, features)
    with_weights = [layer.name for layer in proposing.layers if layer.weights]
    assert with_weights[85] == "conv4_block6_3_bn"
    assert len(with_weights) == 86
    judging = tf_keras.Model(features, whole.get_layer("conv5_block3_out").output)
    names = [layer.name.removeprefix("conv5_") for layer in judging.layers if layer.weights]
    assert names == [
        *("block1_1_conv", "block1_1_bn", "block1_2_conv", "block1_2_bn"),
        *("block1_0_conv", "block1_3_conv", "block1_0_bn", "block1_3_bn"),
        *("block2_1_conv", "block2_1_bn", "block2_2_conv", "block2_2_bn"),
        *("block2_3_conv", "block2_3_bn"),
        *("block3_1_conv", "block3_1_bn", "block3_2_conv", "block3_2_bn"),
        *("block3_3_conv", "block3_3_bn"),
    ]


def test_other_classes_leave_out_the_layers_that_depend_on_them():
    ours = detector("faster_rcnn_resnet50")
    found = transferred(ours, tf1(50, 90))
    # The weights and the bias of the classes and, with a box for each, of the boxes.
    assert len(found.misshapen) == 4
    assert found.optional == set(found.misshapen)
    ours = detector("faster_rcnn_resnet50_keras")
    found = transferred(ours, tf2(50, 90))
    assert sorted(found.misshapen) == [
        "region_head/stage_1/class/conv/bias",
        "region_head/stage_1/class/conv/kernel",
    ]


@pytest.mark.parametrize("extractor", ["faster_rcnn_resnet50_keras", "faster_rcnn_resnet50"])
@pytest.mark.parametrize("file", ["slim", "od_api", "tf_models"])
def test_the_last_stage_of_a_classifier_goes_to_the_regions(extractor, file):
    theirs = {
        "slim": lambda: foreign.slim_resnet(50),
        "od_api": lambda: foreign.tf2_resnet("feature_extractor", 50),
        "tf_models": lambda: foreign.official_resnet("backbone", 50),
    }[file]()
    ours = detector(extractor)
    found = transferred(ours, theirs, ["backbone"])
    assert not found.unmatched
    assert not found.misshapen
    outside = ("region_proposal/", "region_head/stage_1/box/", "region_head/stage_1/class/")
    assert set(found.values) == {name for name in ours.shapes if not name.startswith(outside)}
    assert "region_head/stage_1/stage_5/block_3/layer_3/conv/kernel" in found.values


def test_values_of_the_last_stage(tmp_path):
    """One value from a written checkpoint, through the whole way."""
    prefix = foreign.write(tmp_path / "model.ckpt", tf2(50, CLASSES))
    source = tf_checkpoint.open_source(prefix)
    found = transfer(detector("faster_rcnn_resnet50_keras"), source, load.recognized(source))
    theirs = (
        f"model/_feature_extractor_for_box_classifier_features/layer_with_weights-13/beta{VALUE}"
    )
    np.testing.assert_array_equal(
        found.values["region_head/stage_1/stage_5/block_2/layer_3/batch_norm/beta"],
        tf.train.load_variable(prefix, theirs),
    )
