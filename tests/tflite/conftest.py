"""A detector small enough to convert in a second or two; phones for adb."""

import socket
import sys
from pathlib import Path

import pytest

from tests.tflite.adb_daemon import Phone, require_adb, run_adb


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


@pytest.fixture(scope="session")
def tiny_graph():
    """One addition."""
    import tensorflow as tf

    function = tf.function(lambda x: x + 1.0, [tf.TensorSpec([1, 4], tf.float32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    return converter.convert()


@pytest.fixture
def tiny_graph_path(tiny_graph, tmp_path):
    path = tmp_path / "detect.tflite"
    path.write_bytes(tiny_graph)
    return path


@pytest.fixture
def stand_in(tmp_path):
    """Stands in for benchmark_model: executes the graph."""
    path = tmp_path / "benchmark_model"
    source = Path(__file__).with_name("benchmark_model_stand_in.py").read_text()
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def adb_server(tmp_path_factory):
    """An adb server of the tests' own, which sees no other devices than theirs."""
    require_adb()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        # No emulators, which adb looks for by itself.
        patch.setenv("ADB_LOCAL_TRANSPORT_MAX_PORT", "5554")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        started = run_adb("start-server")
        assert not started.returncode, started.stderr
        yield
        run_adb("kill-server")


@pytest.fixture
def make_phone(adb_server, tmp_path):
    """Makes phones that adb is connected to; at the end of the test they have to be clean."""
    phones = []

    def make(**options):
        phone = Phone(tmp_path / f"phone{len(phones)}", **options)
        phones.append(phone)
        run_adb("connect", phone.serial)
        return phone

    yield make
    for phone in phones:
        assert list(phone.tmp.iterdir()) == []
        phone.shell_hangs = False
        run_adb("disconnect", phone.serial)
        phone.switch_off()


@pytest.fixture
def phone(make_phone):
    return make_phone()
