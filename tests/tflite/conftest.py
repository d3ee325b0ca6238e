"""A detector small enough to convert in a second or two."""

import pytest


@pytest.fixture(scope="session")
def small_architecture():
    from mnasdet import config

    architecture = config.load_architecture("mobilenet_v2_mnasfpn")
    architecture.depth_multiplier = 0.35
    architecture.feature_pyramid.mnasfpn.repeats = 1
    return architecture


@pytest.fixture(scope="session")
def small_network(small_architecture):
    from mnasdet.detectors.network import detection_network

    return detection_network(small_architecture, (96, 64), 3)


@pytest.fixture(scope="session")
def small_detector(small_architecture, small_network):
    import numpy as np
    import tensorflow as tf

    from mnasdet.blueprint import Blueprint
    from mnasdet.data.image_resizer import ImageResizer
    from mnasdet.detectors import anchors
    from mnasdet.detectors.one_stage import Detector
    from mnasdet.detectors.post_processing import PostProcessing
    from mnasdet.networks.keras_builder import keras_model
    from mnasdet.protos import ssd_pb2

    tf.keras.utils.set_random_seed(0)
    model = keras_model(small_network.predictions)
    # Weights large enough for differences to show.
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        noise = rng.normal(0, 0.1, variable.shape)
        variable.assign_add(tf.constant(noise, tf.float32))
    generator = small_architecture.anchor_generator
    size = (96, 64)
    return Detector(
        Blueprint("ssd", small_architecture, ImageResizer(size), 3, ssd_pb2.Ssd()),
        model,
        anchors.from_proto(generator, size, small_network.feature_sizes),
        PostProcessing(),
    )


@pytest.fixture(scope="session")
def small_graph(small_detector):
    from mnasdet.tflite.convert import convert

    return convert(small_detector.model)
