"""The layers of parts: what they default to, architectures, configs, weights, errors."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format

from mnasdet import config
from mnasdet.backbones.amoebanet import amoebanet_d
from mnasdet.backbones.base_code import base_code
from mnasdet.backbones.mobilenet_v2 import mobilenet_v2
from mnasdet.backbones.mobilenet_v3 import mobilenet_v3
from mnasdet.backbones.resnet import resnet
from mnasdet.errors import LayerError
from mnasdet.feature_pyramids.fpn import fpn
from mnasdet.feature_pyramids.mnasfpn import mnasfpn
from mnasdet.feature_pyramids.nas_fpn import nas_fpn
from mnasdet.feature_pyramids.ssd_layers import ssd_layers
from mnasdet.heads.classifier import classifier as classifier_network
from mnasdet.heads.convolutional import convolutional_predictor
from mnasdet.heads.weight_shared import weight_shared_predictor
from mnasdet.keras import (
    FPN,
    NASFPN,
    AmoebaNetD,
    BaseCode,
    Classifier,
    ConvolutionalBoxPredictor,
    MnasFPN,
    MnasNet,
    MobileNetV2,
    MobileNetV3,
    ResNet,
    SSDLayers,
    WeightSharedBoxPredictor,
    backbone,
    box_predictor,
    classifier,
    feature_pyramid,
)
from mnasdet.keras.backbones import FEATURES
from mnasdet.models import network_of
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2
from mnasdet.training import checkpoints

NUM_CLASSES = 3
SIZE = (128, 160)

# Widths that neither multiplier alone gives, an exit, other hyper-parameters.
_ARCHITECTURE = """
    name: "small"
    depth_multiplier: 0.7 min_depth: 8 exit: 1
    backbone {
      mobilenet_v2 { depth_multiplier: 0.3 }
      conv_hyperparams { activation: RELU_6 batch_norm { decay: 0.9 epsilon: 0.01 scale: true } }
    }
    feature_pyramid { mnasfpn {
      channels: 16 repeats: 2 min_level: 4 max_level: 5
      block { input: 0 input: 1 level: 5 expanded_channels: 24 kernel_size: 5 }
      block { input: 0 input: 2 level: 4 expanded_channels: 16 merge: SQUEEZE_EXCITE }
    } }
    box_predictor { convolutional_box_predictor {
      kernel_size: 3 use_depthwise: true
      conv_hyperparams { regularizer { l2_regularizer { weight: 4e-5 } } }
    } }
    anchor_generator { multiscale_anchor_generator { min_level: 4 max_level: 5 } }
"""


_NARROW_CLASSIFIER = """
    name: "narrow" depth_multiplier: 0.5 min_depth: 8
    backbone { mobilenet_v2 {} }
    classifier { hidden_channels: 16 dropout: 0.2 }
"""


def small_architecture():
    return text_format.Parse(_ARCHITECTURE, architecture_pb2.Architecture())


def described(outputs):
    """All layers of a network: name, what they do, shape, arguments."""
    return [
        (node.name, node.op, node.shape, {key: plain(node.attrs[key]) for key in node.attrs})
        for node in reachable(outputs)
    ]


def plain(value):
    """A layer's argument with the digits that the fields of messages have."""
    if dataclasses.is_dataclass(value):
        return {key: plain(inside) for key, inside in vars(value).items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def parts_of(architecture):
    """The layers of an architecture, by scope."""
    if architecture.HasField("classifier"):
        return {
            "backbone": backbone(architecture),
            "classifier": classifier(architecture, NUM_CLASSES),
        }
    features = {
        "backbone": backbone(architecture),
        "feature_pyramid": feature_pyramid(architecture),
    }
    if architecture.HasField("region_head"):
        # Both stages are no layers: what lies between them depends on the predictions.
        return features
    return {**features, "box_predictor": box_predictor(architecture, NUM_CLASSES)}


def expected_outputs(architecture):
    """Returns the outputs that the layers of an architecture should give."""
    network = network_of(architecture, SIZE, NUM_CLASSES)
    if not architecture.HasField("region_head"):
        return network.outputs
    features = network.graphs["features"].outputs
    return [node for name, node in features.items() if name.startswith("region_features/")]


def outputs_of(parts):
    """The network of layers, each reading what the one before gives."""
    b = Builder()
    x = b.input((*SIZE, 3))
    for scope, layer in parts.items():
        with b.scope(scope):
            x = layer.network(b, x if isinstance(x, list) else [x])
    return x if isinstance(x, list) else [x]


def reloaded(layer):
    """The layer that a saved model would have."""
    written = json.loads(json.dumps(layer.get_config()))
    return type(layer).from_config(written)


def test_the_layers_of_an_architecture_are_its_network():
    names = config.architecture_names()
    assert len(names) > 10
    narrow = text_format.Parse(_NARROW_CLASSIFIER, architecture_pb2.Architecture())
    for architecture in [*map(config.load_architecture, names), small_architecture(), narrow]:
        outputs = expected_outputs(architecture)
        expected = described(outputs)
        parts = parts_of(architecture)
        # The coarsest level of two stages only proposes, and regions are not cropped from it.
        assert described(outputs_of(parts)[: len(outputs)]) == expected, architecture.name
        loaded = {scope: reloaded(layer) for scope, layer in parts.items()}
        assert described(outputs_of(loaded)[: len(outputs)]) == expected, architecture.name


@pytest.mark.parametrize(
    ("layer", "network"),
    [
        (MobileNetV2, mobilenet_v2),
        (MobileNetV3, mobilenet_v3),
        (ResNet, resnet),
        (AmoebaNetD, amoebanet_d),
        (BaseCode, base_code),
    ],
)
def test_backbones_default_to_what_is_published(layer, network):
    b = Builder()
    features = network(b, b.input((64, 64, 3)))
    expansion = features.expansion or features.levels[4]
    expected = [*features.levels.values(), expansion, features.last]
    b = Builder()
    nodes = layer(outputs=FEATURES).network(b, [b.input((64, 64, 3))])
    assert described(nodes) == described(expected)


@pytest.mark.parametrize(("layer", "network"), [(MnasFPN, mnasfpn), (NASFPN, nas_fpn), (FPN, fpn)])
def test_pyramids_default_to_what_is_published(layer, network):
    def inputs(b):
        return [b.input((size, size, 24), f"c{size}") for size in (16, 8, 4)]

    b = Builder()
    expected = network(b, inputs(b))
    b = Builder()
    assert described(layer().network(b, inputs(b))) == described(expected)


def test_a_two_stage_pyramid_takes_the_levels_that_it_lists():
    layer = FPN(16, variant="two_stage", input_level=[3, 5], output_level=[3, 5, 6])
    b = Builder()
    features = [b.input((16, 24, 8), "c3"), b.input((4, 6, 8), "c5")]
    sizes = [node.size for node in layer.network(b, features)]
    assert sizes == [(16, 24), (4, 6), (2, 3)]
    with pytest.raises(ValueError, match=r"1 features come in; 2 are needed, those of levels \[3,"):
        layer.network(b, features[:1])
    with pytest.raises(ValueError, match="16x24 comes before one of 8x12; 4x6 is needed, 1/4"):
        layer.network(b, [features[0], b.input((8, 12, 8), "c4")])
    architecture = architecture_pb2.Architecture()
    architecture.backbone.base_code.code = "basicblock_8_1-2-2-2"
    architecture.feature_pyramid.fpn.variant = architecture_pb2.Fpn.TWO_STAGE
    architecture.feature_pyramid.fpn.input_level[:] = [3, 5]
    assert backbone(architecture).get_config()["outputs"] == ["c3", "c5"]
    architecture.ClearField("feature_pyramid")
    assert backbone(architecture).get_config()["outputs"] == "c5"


def test_mnasnet_defaults_to_a1():
    published = MnasNet.from_architecture("mnasnet_a1", min_depth=8, outputs=FEATURES, name="m")
    assert MnasNet(outputs=FEATURES, name="m").get_config() == published.get_config()
    assert len(published.get_config()["block"]) == 7


def test_ssd_layers_default_to_ssdlite():
    def inputs(b):
        return [b.input((8, 8, 24), "expansion"), b.input((4, 4, 32), "last")]

    b = Builder()
    expected = ssd_layers(b, *inputs(b))
    b = Builder()
    assert described(SSDLayers().network(b, inputs(b))) == described(expected)


@pytest.mark.parametrize(
    ("layer", "network", "anchors"),
    [
        (ConvolutionalBoxPredictor, convolutional_predictor, [6, 6]),
        (WeightSharedBoxPredictor, weight_shared_predictor, 6),
    ],
)
def test_predictors_default_to_the_object_detection_api(layer, network, anchors):
    def inputs(b):
        return [b.input((8, 8, 24), "fine"), b.input((4, 4, 24), "coarse")]

    b = Builder()
    expected = network(b, inputs(b), num_classes=2, anchors_per_location=anchors)
    b = Builder()
    nodes = layer(2, 6).network(b, inputs(b))
    assert described(nodes) == described(expected)


def test_the_classifier_defaults_to_mnasnets():
    b = Builder()
    expected = classifier_network(b, b.input((4, 4, 24)), num_classes=5)
    b = Builder()
    assert described([Classifier(5).network(b, [b.input((4, 4, 24))])]) == described([expected])


def test_the_checkpoint_of_a_detector_loads_into_the_layers_by_name(tmp_path):
    architecture = small_architecture()
    architecture.backbone.resnet.depth = 10
    (graph,) = network_of(architecture, (64, 64), NUM_CLASSES)
    detector = keras_model(graph.outputs)
    rng = np.random.default_rng(0)
    for variable in detector.variables:
        variable.assign(rng.uniform(0.1, 0.2, variable.shape))
    weights = {checkpoints.WEIGHTS: checkpoints.variables_by_name(detector)}
    tf.train.Checkpoint(**weights).save(tmp_path / "ckpt")

    image = tf_keras.Input((64, 64, 3))
    features = backbone(architecture, name="backbone")(image)
    features = feature_pyramid(architecture, name="feature_pyramid")(features)
    head = box_predictor(architecture, NUM_CLASSES, name="box_predictor")
    model = tf_keras.Model(image, head(features))
    checkpoints.load_weights(model, tmp_path)

    picture = rng.uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    for output, expected in zip(model(picture), detector(picture).values(), strict=True):
        assert np.std(expected) > 0
        np.testing.assert_array_equal(output, expected)


def test_an_architecture_comes_from_a_file_that_the_saved_model_does_not_need(tmp_path):
    path = tmp_path / "trial.textproto"
    path.write_text(_ARCHITECTURE)
    layer = MnasFPN.from_architecture(path, name="p")
    features = [tf_keras.Input((size, size, 8)) for size in (4, 2)]
    model = tf_keras.Model(features, layer(features))
    model.save(tmp_path / "model.keras")
    path.unlink()
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("p").get_config() == layer.get_config()


def test_arguments_take_the_place_of_what_the_architecture_says():
    layer = MnasFPN.from_architecture("mobilenet_v2_mnasfpn", channels=24, repeats=1)
    b = Builder()
    features = [b.input((size, size, 8), f"c{size}") for size in (8, 4, 2)]
    assert [node.shape for node in layer.network(b, features)] == [
        (8, 8, 24),
        (4, 4, 24),
        (2, 2, 24),
        (1, 1, 24),
    ]


def test_one_name_gives_one_tensor_for_sequential():
    model = tf_keras.Sequential(
        [MobileNetV3("SMALL", depth_multiplier=0.25, outputs="last"), Classifier(5)]
    )
    model.build((None, 32, 32, 3))
    assert model.output_shape == (None, 5)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: MnasFPN(channels=-1, name="p"),
            'MnasFPN "p": feature_pyramid.mnasfpn.channels is -1; at least 1 is allowed',
        ),
        (
            lambda: MnasFPN(channels="wide", name="p"),
            "MnasFPN \"p\": channels: invalid literal for int() with base 10: 'wide'",
        ),
        (
            lambda: MnasFPN(block=[{"inputs": [1]}], name="p"),
            'MnasFPN "p": feature_pyramid.mnasfpn.block[0]: no field "inputs" in Block; did you '
            'mean "input"? (allowed: input, kernel_size, expanded_channels, merge, level)',
        ),
        (
            lambda: MobileNetV3("tiny", name="m"),
            'MobileNetV3 "m": backbone.mobilenet_v3.size: no value "TINY" in Size (allowed: '
            "SMALL, LARGE)",
        ),
        (
            lambda: MobileNetV2(outputs=["c6"], name="m"),
            'MobileNetV2 "m": outputs has "c6"; one of c5, c4, c3, c2, last, expansion is allowed',
        ),
        (
            lambda: MobileNetV2(outputs=[], name="m"),
            'MobileNetV2 "m": outputs has ""; one of last, expansion, c5, c4, c3, c2 is allowed',
        ),
        (
            lambda: Classifier(0, name="c"),
            'Classifier "c": num_classes is 0; a whole number from 1 on is allowed',
        ),
        (
            lambda: MnasFPN.from_architecture("resnet50_fpn_256"),
            'MnasFPN: architecture "resnet50_fpn_256" has fpn for its feature_pyramid, not '
            "mnasfpn; mnasdet.keras.feature_pyramid(architecture) makes the layer of any kind",
        ),
        (
            lambda: feature_pyramid("mnasnet_a1"),
            'architecture "mnasnet_a1" has no feature_pyramid',
        ),
        (
            lambda: classifier("mobilenet_v2_mnasfpn", 3),
            'Classifier: architecture "mobilenet_v2_mnasfpn" has no classifier',
        ),
    ],
)
def test_arguments_that_no_layer_takes(make, expected):
    with pytest.raises(LayerError) as error:
        make()
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("layer", "shapes", "expected"),
    [
        (
            MnasFPN(name="p"),
            [(8, 8, 4), (3, 3, 4)],
            'MnasFPN "p": a feature of 8x8 comes before one of 3x3; 4x4 is needed, half of it',
        ),
        (
            FPN(name="p", min_level=5, max_level=5),
            [(8, 8, 4), (4, 4, 4)],
            'FPN "p": 2 features come in; at most 1 are allowed, those of levels 5 to 5',
        ),
        (
            SSDLayers(name="s"),
            [(8, 8, 4)],
            'SSDLayers "s": 1 features come in; 2 are needed, a backbone\'s expansion and last',
        ),
        (
            WeightSharedBoxPredictor(3, name="h"),
            [(8, 8, 4), (4, 4, 8)],
            'WeightSharedBoxPredictor "h": features of [4, 8] channels come in; they have to be '
            "the same",
        ),
        (
            ConvolutionalBoxPredictor(3, [2], name="h"),
            [(8, 8, 4), (4, 4, 8)],
            'ConvolutionalBoxPredictor "h": 2 features come in, and anchors_per_location has 1 '
            "values; as many are needed",
        ),
        (
            MobileNetV2(name="m"),
            [(64, 64, 3), (64, 64, 3)],
            'MobileNetV2 "m": 2 tensors come in; 1 is needed',
        ),
    ],
)
def test_features_that_do_not_fit(layer, shapes, expected):
    with pytest.raises(LayerError) as error:
        layer([tf_keras.Input(shape) for shape in shapes])
    assert str(error.value) == expected
