"""Files of keras.applications start our networks, in every layout that Keras writes."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet.errors import CheckpointError
from mnasdet.training.warm_start import load, name_map
from tests.training.warm_start.our_networks import OurNetwork, check_close

# At even sizes the strided layers of the MobileNets pad right and below, as ours; those of the
# ResNets pad as ours at sizes of 32 n + 1.
EVEN, ODD = 64, 65

TF_KERAS_LAYOUTS = {
    "weights.h5": lambda model, path: model.save_weights(path),
    # The older layout, of weights alone and of a whole model.
    "h5": lambda model, path: model.save_weights(path),
    "model.h5": lambda model, path: model.save(path),
    "keras": lambda model, path: model.save(path),
}
KERAS_3_LAYOUTS = {name: save for name, save in TF_KERAS_LAYOUTS.items() if name != "h5"}
LAYOUTS = {tf_keras: TF_KERAS_LAYOUTS, keras: KERAS_3_LAYOUTS}


def randomize(model):
    """Gives all weights values that tell a mistake: no mean is 0 and no variance 1."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        name = variable.name.partition(":")[0].rpartition("/")[2]
        shape = tuple(variable.shape)
        if name.endswith("kernel"):
            # Counts one unit's weights; a depthwise unit has as many as its kernel has places.
            fan = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1])
            variable.assign(rng.uniform(-1, 1, shape) * np.sqrt(3 / fan))
        elif name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, shape))
        else:
            variable.assign(rng.uniform(-0.5, 0.5, shape))


def mobilenet_v2(package, alpha):
    model = package.applications.MobileNetV2(
        (EVEN, EVEN, 3), alpha=alpha, weights=None, classifier_activation=None
    )
    names = ["block_2_add", "block_5_add", "block_12_add", "block_16_project_BN"]
    ours = functools.partial(OurNetwork, f"mobilenet_v2 {{ depth_multiplier: {alpha} }}", EVEN)
    return model, names, ours


def mobilenet_v3(package, size):
    make = getattr(package.applications, f"MobileNetV3{size.capitalize()}")
    model = make(
        (EVEN, EVEN, 3), weights=None, classifier_activation=None, include_preprocessing=False
    )
    add = "expanded_conv_{}/Add" if package is tf_keras else "expanded_conv_{}_add"
    names = [add.format(index) for index in {"large": (2, 5, 11, 14), "small": (2, 7, 10)}[size]]
    if size == "small":
        project = "expanded_conv/project/BatchNorm", "expanded_conv_project_bn"
        names = [project[package is keras], *names]
    ours = functools.partial(
        OurNetwork,
        f"mobilenet_v3 {{ size: {size.upper()} }}",
        EVEN,
        hidden_channels={"large": 1280, "small": 1024}[size],
    )
    return model, names, ours


def resnet50(package):
    model = package.applications.ResNet50(
        input_shape=(ODD, ODD, 3), weights=None, classifier_activation=None
    )
    names = [f"conv{stage}_block{last}_out" for stage, last in ((2, 3), (3, 4), (4, 6), (5, 3))]
    ours = functools.partial(OurNetwork, "resnet { depth: 50 strides_in_1x1: true }", ODD)
    return model, names, ours


# The package, what makes the network, and how its source's name begins.
NETWORKS = {
    "tf_keras MobileNetV2": (
        tf_keras,
        functools.partial(mobilenet_v2, alpha=0.35),
        "MobileNetV2 of keras.applications",
    ),
    "tf_keras MobileNetV3Small": (
        tf_keras,
        functools.partial(mobilenet_v3, size="small"),
        "MobileNetV3Small of keras.applications",
    ),
    "tf_keras ResNet50": (tf_keras, resnet50, "ResNet"),
    "Keras 3 MobileNetV3Small": (
        keras,
        functools.partial(mobilenet_v3, size="small"),
        "MobileNetV3Small of keras.applications (Keras 3)",
    ),
}


def expected_features(package, model, names, images):
    """Returns what the model gives for images in [-1, 1], with our colour of padding."""
    outputs = [model.get_layer(name).output for name in names] + [model.outputs[0]]
    if "conv1_pad" not in [layer.name for layer in model.layers]:
        return package.Model(model.inputs, outputs)(images, training=False)
    # Blue first, and ImageNet's mean left out. Ours pads with grey, which is another colour there.
    theirs = (images[..., ::-1] + 1) * 127.5
    theirs = np.pad(theirs, [(0, 0), (3, 3), (3, 3), (0, 0)], constant_values=127.5)
    theirs = (theirs - [103.939, 116.779, 123.68]).astype(np.float32)
    return package.Model(model.get_layer("conv1_pad").output, outputs)(theirs, training=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_keras_in_every_layout(tmp_path, name):
    package, make, source = NETWORKS[name]
    original, names, ours = make(package)
    randomize(original)
    side = original.inputs[0].shape[1]
    images = np.random.default_rng(1).uniform(-1, 1, (1, side, side, 3)).astype(np.float32)
    expected = expected_features(package, original, names, images)
    model, first = ours(), {}
    layouts = LAYOUTS[package]
    if source == "ResNet":
        # A hundred megabytes each; the layouts with names of layers have one map.
        layouts = {layout: layouts[layout] for layout in ("h5", "weights.h5")}
    for layout, save in layouts.items():
        path = str(tmp_path / f"file.{layout}")
        save(original, path)
        for variable in model.variables:
            variable.assign(tf.zeros_like(variable))
        report = load.load(model, path)
        assert (report.unmatched, report.misshapen) == ([], []), layout
        assert report.source.startswith(source)
        assert len(report.matched) == len(model.variables)
        # No ResNet here strides elsewhere.
        assert not any("1x1" in difference for difference in report.differences)
        found = {variable.name: variable.numpy() for variable in model.variables}
        if first:
            for variable, value in first.items():
                np.testing.assert_array_equal(found[variable], value, err_msg=variable)
            continue
        first = found
        features = model(images)
        for key, feature in zip(["2", "3", "4", "5", "logits"], expected, strict=True):
            check_close(features[key], np.asarray(feature), f"{layout}: {key}")


def test_a_resnet_that_strides_elsewhere_is_told():
    """The weights fit, but in the 3x3 convolutions strides give other features."""
    strides = {"backbone/stage_3/block_1/layer_1/conv": 1}
    for one in name_map.all_maps():
        if one.source.startswith("ResNet") and "keras" in one.source:
            (told,) = one.other_strides(strides)
            assert told.startswith("bottlenecks stride in their first 1x1 convolution; here")
            assert one.other_strides(dict.fromkeys(strides, 2)) == []


def test_files_of_other_models_and_damaged_ones(tmp_path):
    model = OurNetwork("mobilenet_v2 {}", 32)
    other = tf_keras.Sequential([tf_keras.layers.Dense(2, name="head", input_shape=(3,))])
    other.save_weights(tmp_path / "other.h5")
    with pytest.raises(CheckpointError, match=r'other.h5: is a Keras file .* as "head/kernel"'):
        load.load(model, tmp_path / "other.h5")
    content = (tmp_path / "other.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"cut.h5: is a damaged Keras file: "):
        load.load(model, tmp_path / "cut.h5")
