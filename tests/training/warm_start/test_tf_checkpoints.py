"""Weights from checkpoints of slim, the TF Object Detection API and tf-models-official."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format

from mnasdet import config, models
from mnasdet.classifiers.network import classification_network
from mnasdet.detectors.network import detection_network
from mnasdet.errors import CheckpointError
from mnasdet.protos import architecture_pb2
from mnasdet.training import checkpoints, foreign_checkpoints
from mnasdet.training.warm_start import load, tf_checkpoint
from mnasdet.training.warm_start.source import Source
from mnasdet.training.warm_start.transfer import Target, Transfer, transfer
from tests.od_api_configs import config_text
from tests.training.warm_start import foreign_checkpoints as foreign

CLASSES = 3

TF1 = [
    "ssd_mobilenet_v2",
    "ssd_mobilenet_v2_fpn",
    "ssd_mobilenet_v2_mnasfpn",
    "ssd_mobilenet_v3_large",
    "ssd_mobilenet_v3_small",
    "ssd_resnet50_v1_fpn",
    "ssd_resnet101_v1_fpn",
    "ssd_resnet152_v1_fpn",
]
TF2 = [
    "ssd_mobilenet_v2_keras",
    "ssd_mobilenet_v2_fpn_keras",
    "ssd_resnet50_v1_fpn_keras",
    "ssd_resnet101_v1_fpn_keras",
    "ssd_resnet152_v1_fpn_keras",
]
RESNETS = [50, 101, 152]

# The squares of side 64 are small enough for seconds and large enough for every level.
SIDE = 64


def blueprint(tmp_path, extractor: str):
    path = tmp_path / "pipeline.config"
    path.write_text(config_text(extractor).replace("num_classes: 90", f"num_classes: {CLASSES}"))
    pipeline = config.load(path, readers=())
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = SIDE
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.width = SIDE
    return config.resolve(pipeline)


@functools.cache
def classifier(text: str) -> Target:
    architecture = text_format.Parse(f"{text}", architecture_pb2.Architecture())
    outputs = classification_network(architecture, (SIDE, SIDE), CLASSES).outputs
    return Target(foreign.variables(outputs), {}, foreign.strides(outputs))


def detector(tmp_path, extractor: str) -> Target:
    architecture = blueprint(tmp_path, extractor).architecture
    network = detection_network(architecture, (SIDE, SIDE), CLASSES)
    outputs = list(network.predictions.values())
    return Target(foreign.variables(outputs), {}, foreign.strides(outputs))


def transferred(ours: Target, theirs: foreign.Shapes, parts=()) -> Transfer:
    """Transfers from a checkpoint that is not written."""

    def read(name: str) -> np.ndarray:
        return np.broadcast_to(np.float32(1), theirs[name])

    source = Source("model.ckpt", tf_checkpoint.FORMAT, theirs, read)
    return transfer(ours, source, load.recognized(source), parts)


def assert_whole(found: Transfer, ours: Target, *parts: str) -> None:
    assert not found.unmatched
    assert not found.misshapen
    assert set(found.values) == {name for name in ours.shapes if name.partition("/")[0] in parts}


@pytest.mark.parametrize("multiplier", [0.35, 0.5, 0.75, 1.0, 1.3, 1.4])
def test_slim_s_mobilenet_v2_at_every_width(multiplier):
    ours = classifier(
        f"depth_multiplier: {multiplier} min_depth: 8 backbone {{ mobilenet_v2 {{}} }}"
    )
    last = foreign.divisible(1280 * max(multiplier, 1))
    theirs = foreign.slim_mobilenet_v2(multiplier, last)
    assert_whole(transferred(ours, theirs, ["backbone"]), ours, "backbone")


@pytest.mark.parametrize("size", ["large", "small"])
def test_slim_s_mobilenet_v3(size):
    ours = classifier(f"backbone {{ mobilenet_v3 {{ size: {size.upper()} }} }}")
    theirs = foreign.slim_mobilenet_v3(size)
    assert_whole(transferred(ours, theirs, ["backbone"]), ours, "backbone")


@pytest.mark.parametrize("depth", RESNETS)
def test_slim_s_resnets(depth):
    ours = classifier(f"backbone {{ resnet {{ depth: {depth} }} }}")
    theirs = foreign.slim_resnet(depth)
    assert_whole(transferred(ours, theirs, ["backbone"]), ours, "backbone")


@pytest.mark.parametrize("extractor", TF1)
def test_detectors_of_tf1_are_whole(tmp_path, extractor):
    ours = detector(tmp_path, extractor)
    theirs = foreign.tf1_detector(extractor, CLASSES + 1)
    found = transferred(ours, theirs)
    assert_whole(found, ours, "backbone", "feature_pyramid", "box_predictor")
    assert not any("stride" in difference for difference in found.differences)


@pytest.mark.parametrize("extractor", TF2)
def test_detectors_of_tf2_are_whole(tmp_path, extractor):
    ours = detector(tmp_path, extractor)
    theirs = foreign.tf2_detector(extractor, CLASSES + 1)
    found = transferred(ours, theirs)
    assert_whole(found, ours, "backbone", "feature_pyramid", "box_predictor")
    assert not any("stride" in difference for difference in found.differences)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("depth", RESNETS)
def test_classifiers_of_tf2_s_zoo_with_resnets(depth, bias):
    ours = classifier(f"backbone {{ resnet {{ depth: {depth} }} }}")
    theirs = foreign.tf2_resnet("feature_extractor", depth, bias)
    assert_whole(transferred(ours, theirs), ours, "backbone")


@pytest.mark.parametrize(
    "root", ["backbone", "model/backbone", "model/_backbone", "model/layer_with_weights-0"]
)
def test_mobilenets_of_tf_models_official(root):
    ours = classifier("backbone { mobilenet_v2 {} }")
    assert_whole(transferred(ours, foreign.official_mobilenet_v2(root)), ours, "backbone")


@pytest.mark.parametrize("detects", [False, True])
@pytest.mark.parametrize("depth", RESNETS)
def test_resnets_of_tf_models_official(depth, detects):
    ours = classifier(f"backbone {{ resnet {{ depth: {depth} }} }}")
    theirs = foreign.official_resnet("backbone", depth)
    if detects:
        theirs[f"head/_classifier/kernel{foreign.VALUE}"] = (3, 3, 256, 819)
    found = transferred(ours, theirs)
    assert_whole(found, ours, "backbone")
    assert found.differences == ["at the border of an image, padding is of another colour"]


@pytest.mark.parametrize("extractor", ["ssd_mobilenet_v2_fpn", "ssd_mobilenet_v2_keras"])
def test_other_classes_leave_out_the_last_layers_of_the_classes(tmp_path, extractor):
    ours = detector(tmp_path, extractor)
    theirs = foreign.tf2_detector if extractor.endswith("keras") else foreign.tf1_detector
    found = transferred(ours, theirs(extractor, slots=91))
    assert not found.unmatched
    # Its weights and its bias, on every feature where they are not shared.
    assert len(found.misshapen) == (12 if extractor.endswith("keras") else 2)
    assert found.optional == set(found.misshapen)
    assert all("/class/" in name for name in found.misshapen)


@pytest.fixture(scope="module")
def mnasfpn(tmp_path_factory):
    """A detector of ours with weights of the OD API's MnasFPN, and the values that it had there."""
    folder = tmp_path_factory.mktemp("mnasfpn")
    shapes = foreign.tf1_detector("ssd_mobilenet_v2_mnasfpn", CLASSES + 1)
    # In training the OD API keeps averages of some variables, and always these counters.
    averaged = "FeatureExtractor/MobilenetV2/expanded_conv_3/expand/weights"
    shapes[f"{averaged}/ExponentialMovingAverage"] = shapes[averaged]
    shapes["global_step"] = ()
    model = models.build(blueprint(folder, "ssd_mobilenet_v2_mnasfpn")).model
    report = load.load(model, foreign.write(folder / "model.ckpt", shapes))
    values = {name: v.numpy() for name, v in checkpoints.variables_by_name(model).items()}
    return report, values, shapes


@pytest.mark.parametrize(
    ("ours", "theirs"),
    {
        "backbone/layer_1/conv/kernel": "FeatureExtractor/MobilenetV2/Conv/weights",
        "backbone/layer_2/depthwise/depthwise/depthwise_kernel": (
            "FeatureExtractor/MobilenetV2/expanded_conv/depthwise/depthwise_weights"
        ),
        "backbone/layer_5/expand/conv/kernel": (
            "FeatureExtractor/MobilenetV2/expanded_conv_3/expand/weights/ExponentialMovingAverage"
        ),
        "backbone/layer_18/project/batch_norm/gamma": (
            "FeatureExtractor/MobilenetV2/expanded_conv_16/project/BatchNorm/gamma"
        ),
        "feature_pyramid/c6/conv/kernel": "FeatureExtractor/MnasFPN/C6_Conv1x1/weights",
        "feature_pyramid/cell_2/block_7/input_1/conv/kernel": (
            "FeatureExtractor/MnasFPN/cell_2/block_3/input_1/Conv1x1/weights"
        ),
        "feature_pyramid/cell_3/block_8/separable/depthwise/depthwise_kernel": (
            "FeatureExtractor/MnasFPN/cell_3/block_4/SepConv/depthwise_weights"
        ),
        "feature_pyramid/cell_3/block_8/separable/batch_norm/moving_variance": (
            "FeatureExtractor/MnasFPN/cell_3/block_4/SepConv/BatchNorm/moving_variance"
        ),
        "box_predictor/tower/2/feature_3/batch_norm/beta": (
            "WeightSharedConvolutionalBoxPredictor/PredictionTower/conv2d_2/BatchNorm/feature_3/beta"
        ),
        "box_predictor/box/pointwise/kernel": (
            "WeightSharedConvolutionalBoxPredictor/BoxPredictor/pointwise_weights"
        ),
        "box_predictor/class/pointwise/bias": (
            "WeightSharedConvolutionalBoxPredictor/ClassPredictor/biases"
        ),
    }.items(),
)
def test_variables_of_tf1_have_their_values(mnasfpn, ours, theirs):
    _, values, shapes = mnasfpn
    np.testing.assert_allclose(values[ours], foreign.value_of(theirs, shapes[theirs]), rtol=1e-6)


def test_every_variable_of_tf1_is_loaded(mnasfpn):
    report, values, _ = mnasfpn
    assert len(report.matched) == len(values)
    assert report.source == "MnasFPN of the TF Object Detection API (TF1)"
    assert not report.differences


def object_graph(backbone: tf_keras.Model, slots: int) -> tf.Module:
    """Returns objects in the places that ssd_mobilenet_v2_fpn_keras of the OD API has them in."""

    def separable(outputs: int, bias: bool = False) -> tf_keras.layers.Layer:
        return built(tf_keras.layers.SeparableConv2D(outputs, 3, use_bias=bias))

    def built(layer: tf_keras.layers.Layer, channels: int = 128) -> tf_keras.layers.Layer:
        layer.build((None, 4, 4, channels))
        for variable in layer.variables:
            name = f"{id(layer)}{variable.name}"
            variable.assign(foreign.value_of(name, tuple(variable.shape)))
        return layer

    def norm() -> tf_keras.layers.Layer:
        return built(tf_keras.layers.BatchNormalization())

    def lateral(channels: int) -> tf_keras.layers.Layer:
        return built(tf_keras.layers.Conv2D(128, 1), channels)

    relu = tf_keras.layers.ReLU
    pyramid = tf.Module()
    pyramid.top_layers = [lateral(1280)]
    pyramid.residual_blocks = [[lateral(96)], [lateral(32)]]
    pyramid.conv_layers = [[separable(128), norm(), relu()] for _ in range(2)]
    extractor = tf.Module()
    extractor.classification_backbone = backbone
    extractor._fpn_features_generator = pyramid
    extractor._coarse_feature_layers = [[separable(128), norm(), relu()] for _ in range(2)]
    shared = [separable(128) for _ in range(4)]
    predictor = tf.Module()
    predictor._head_scope_conv_layers = {"PredictionTower": shared}
    predictor._base_tower_layers_for_heads = {
        "box_encodings": [
            [layer for conv in shared for layer in (conv, norm(), relu())] for _ in range(5)
        ]
    }
    boxes, classes = tf.Module(), tf.Module()
    boxes._box_encoder_layers = [separable(6 * 4, bias=True)]
    classes._class_predictor_layers = [separable(6 * slots, bias=True)]
    predictor._box_prediction_head = boxes
    predictor._prediction_heads = {"class_predictions_with_background": classes}
    model = tf.Module()
    model._feature_extractor = extractor
    model._box_predictor = predictor
    return model


@pytest.fixture(scope="module")
def fpnlite(tmp_path_factory):
    """A graph of Keras layers as the OD API has it, and a detector that starts from it."""
    folder = tmp_path_factory.mktemp("fpnlite")
    backbone = tf_keras.applications.MobileNetV2(
        input_shape=(SIDE, SIDE, 3), include_top=False, weights=None
    )
    for variable in backbone.variables:
        if "moving" in variable.name or "gamma" in variable.name:
            variable.assign(foreign.value_of(variable.name, tuple(variable.shape)))
    graph = object_graph(backbone, CLASSES + 1)
    (folder / "checkpoint").mkdir()
    tf.train.Checkpoint(model=graph).save(str(folder / "checkpoint" / "ckpt"))
    model = models.build(blueprint(folder, "ssd_mobilenet_v2_fpn_keras")).model
    report = load.load(model, folder)
    return graph, model, report


def test_every_variable_of_tf2_is_loaded(fpnlite):
    _, model, report = fpnlite
    assert len(report.matched) == len(checkpoints.variables_by_name(model))
    assert report.source == "a detector of the TF Object Detection API (TF2) with MobileNetV2"
    assert not report.differences


def test_features_of_tf2_s_backbone_are_the_same(fpnlite):
    graph, model, _ = fpnlite
    images = np.random.default_rng(1).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype("f4")
    theirs = graph._feature_extractor.classification_backbone(images, training=False)
    last = model.get_layer("backbone/layer_19/relu6").output
    ours = tf_keras.Model(model.inputs, last)(images, training=False)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_variables_of_tf2_have_their_values(fpnlite):
    graph, model, _ = fpnlite
    values = {name: v.numpy() for name, v in checkpoints.variables_by_name(model).items()}
    extractor, predictor = graph._feature_extractor, graph._box_predictor
    pyramid = extractor._fpn_features_generator
    tower = predictor._base_tower_layers_for_heads["box_encodings"]
    classes = predictor._prediction_heads["class_predictions_with_background"]
    expected = {
        "feature_pyramid/lateral_5/conv/kernel": pyramid.top_layers[0].kernel,
        "feature_pyramid/lateral_4/conv/bias": pyramid.residual_blocks[0][0].bias,
        "feature_pyramid/lateral_3/conv/kernel": pyramid.residual_blocks[1][0].kernel,
        "feature_pyramid/p4/pointwise/kernel": pyramid.conv_layers[0][0].pointwise_kernel,
        "feature_pyramid/p3/batch_norm/beta": pyramid.conv_layers[1][1].beta,
        "feature_pyramid/p7/depthwise/depthwise_kernel": (
            extractor._coarse_feature_layers[1][0].depthwise_kernel
        ),
        "box_predictor/tower/3/pointwise/kernel": tower[0][9].pointwise_kernel,
        "box_predictor/tower/3/feature_4/batch_norm/moving_mean": tower[4][10].moving_mean,
        "box_predictor/box/depthwise/depthwise_kernel": (
            predictor._box_prediction_head._box_encoder_layers[0].depthwise_kernel
        ),
        "box_predictor/class/pointwise/bias": classes._class_predictor_layers[0].bias,
    }
    for name, variable in expected.items():
        np.testing.assert_allclose(values[name], variable.numpy(), rtol=1e-6, err_msg=name)


def test_averages_of_tf2_go_first():
    ours = classifier("backbone { mobilenet_v2 {} }")
    theirs = foreign.official_mobilenet_v2("backbone")
    name = "backbone/layer_with_weights-18/_conv0/kernel"
    theirs[name + foreign.AVERAGE] = theirs[name + foreign.VALUE]
    source = Source(
        "ckpt", tf_checkpoint.FORMAT, theirs, lambda name: foreign.value_of(name, theirs[name])
    )
    kernel = "backbone/layer_19/conv/kernel"
    found = transfer(Target({kernel: ours.shapes[kernel]}, {}, {}), source, load.recognized(source))
    expected = foreign.value_of(name + foreign.AVERAGE, ours.shapes[kernel])
    np.testing.assert_array_equal(found.values[kernel], expected)


@pytest.mark.parametrize(
    ("norm", "there", "epsilon"),
    [
        ("feature_pyramid/c6/batch_norm", "FeatureExtractor/MnasFPN/C6_Conv1x1/BatchNorm", 0.01),
        (
            "box_predictor/tower/0/feature_1/batch_norm",
            "WeightSharedConvolutionalBoxPredictor/PredictionTower/conv2d_0/BatchNorm/feature_1",
            0.001,
        ),
    ],
)
def test_mnasfpn_has_an_epsilon_for_its_extractor_and_one_for_its_predictor(norm, there, epsilon):
    theirs = foreign.tf1_detector("ssd_mobilenet_v2_mnasfpn", CLASSES + 1)
    source = Source(
        "ckpt", tf_checkpoint.FORMAT, theirs, lambda name: foreign.value_of(name, theirs[name])
    )
    channels = theirs[f"{there}/gamma"]
    target = Target({f"{norm}/gamma": channels}, {norm: 0.1}, {})
    found = transfer(target, source, load.recognized(source))
    gamma = foreign.value_of(f"{there}/gamma", channels)
    variance = foreign.value_of(f"{there}/moving_variance", channels)
    # The outputs are the same: gamma / sqrt(variance + epsilon).
    np.testing.assert_allclose(
        found.values[f"{norm}/gamma"] / np.sqrt(variance + 0.1),
        gamma / np.sqrt(variance + epsilon),
        rtol=1e-6,
    )


def test_one_file_of_tf1_s_first_format_is_read(tmp_path):
    names = foreign.slim_resnet(50)
    path = tmp_path / "resnet_v1_50.ckpt"
    tf.raw_ops.Save(
        filename=str(path),
        tensor_names=list(names),
        data=[tf.constant(1.0, shape=(1,)) for _ in names],
    )
    source = tf_checkpoint.open_source(tf_checkpoint.prefix_of(str(path)))
    assert set(source.shapes) == set(names)
    assert load.recognized(source).source == "a ResNet of slim (TF1)"
    assert foreign_checkpoints.kind(path) == "a classifier's checkpoint of slim (TF1)"


@pytest.mark.parametrize(
    ("name", "kind", "known"),
    [
        (
            "InceptionV1/Conv2d_1a_7x7/weights",
            "a classifier's checkpoint of slim (TF1)",
            "a MobileNet of slim (TF1)",
        ),
        (
            "FeatureExtractor/MobilenetV1/Conv2d_0/weights",
            "a checkpoint of the TF Object Detection API (TF1)",
            "a detector of the TF Object Detection API (TF1) with a MobileNet",
        ),
        (
            "model/_feature_extractor/_hourglass/kernel/.ATTRIBUTES/VARIABLE_VALUE",
            "a checkpoint of the TF Object Detection API (TF2)",
            "a detector of the TF Object Detection API (TF2) with a ResNet",
        ),
    ],
)
def test_networks_that_are_not_known_get_one_line(tmp_path, name, kind, known):
    prefix = foreign.write(tmp_path / "model.ckpt", {name: (3, 3, 3, 8), "global_step": ()})
    with pytest.raises(CheckpointError) as raised:
        load.load(tf_keras.Sequential(), prefix)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(
        f'{prefix}: is {kind} with variables such as "{name}", which are of no network'
    )
    assert known in line
    assert "torchvision" not in line


def test_a_checkpoint_is_found_by_each_of_its_files(tmp_path):
    prefix = foreign.write(tmp_path / "model.ckpt", {"MobilenetV2/Conv/weights": (1,)})
    for ending in ("", ".index", ".meta", ".data-00000-of-00001"):
        assert tf_checkpoint.prefix_of(f"{prefix}{ending}") == prefix
    # Without the file that names the newest, as in slim's archives.
    assert tf_checkpoint.prefix_of(str(tmp_path)) == prefix
