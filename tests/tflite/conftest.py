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

    from mnasdet.detectors import anchors
    from mnasdet.detectors.detector import Detector
    from mnasdet.detectors.post_processing import PostProcessing
    from mnasdet.networks.keras_builder import keras_model

    tf.keras.utils.set_random_seed(0)
    model = keras_model(
        {
            "box_encodings": small_network.predictions.box_encodings,
            "class_predictions_with_background": small_network.predictions.class_logits,
        }
    )
    # Weights large enough for differences to show.
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        noise = rng.normal(0, 0.1, variable.shape)
        variable.assign_add(tf.constant(noise, tf.float32))
    generator = small_architecture.anchor_generator
    return Detector(
        model=model,
        anchors=anchors.from_proto(generator, (96, 64), small_network.feature_sizes),
        image_size=(96, 64),
        num_classes=3,
        post_processing=PostProcessing(),
    )


@pytest.fixture(scope="session")
def small_graph(small_detector):
    from mnasdet.tflite.convert import convert

    return convert(small_detector.model)
