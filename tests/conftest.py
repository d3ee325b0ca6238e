"""Provides all tests with a cache folder of their own, a task that takes seconds, and phones."""

import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from tests.tflite.adb_daemon import Phone, require_adb, run_adb

# Before anything reads it, and for the commands that the tests start.
_CACHE = tempfile.TemporaryDirectory(prefix="mnasdet-tests-")
os.environ["MNASDET_CACHE_DIR"] = _CACHE.name
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]

# Folders whose files take minutes.
_LONG = {"integration", "search", "training"}


def pytest_collection_modifyitems(items):
    """Puts the long files first, so that no core is idle at the end of a parallel run."""
    items.sort(key=lambda item: not _LONG & set(item.path.parts))


@pytest.fixture(scope="session")
def tiny_config():
    """The text of the quickstart's config, cut down to eight steps of few layers on few images."""
    text = (ROOT / "configs" / "quickstart.config").read_text()
    for old, new in {
        "num_steps: 300": "num_steps: 8",
        "total_steps: 300": "total_steps: 8",
        "warmup_steps: 30": "warmup_steps: 2",
        "num_steps: 700": "num_steps: 9",
        "num_steps: 1000": "num_steps: 10",
        "num_images: 800 image_size: 128": "num_images: 24 image_size: 64",
        "num_images: 100 image_size: 128": "num_images: 8 image_size: 64",
        "height: 128 width: 128": "height: 64 width: 64",
        "repeats: 2": "repeats: 1",
        "num_trials: 10": "num_trials: 4",
        "latency_table {}": "multiply_adds {}",
        # Few layers: tracing them is most of what a training takes here.
        "mobilenet_v2 { depth_multiplier: 0.5 }": 'base_code { code: "basicblock_8_1-1-1-1" }',
        "num_layers_before_predictor: 2": "num_layers_before_predictor: 1",
        "num_internal_blocks: 3": "num_internal_blocks: 1",
    }.items():
        assert old in text, f"{old!r} is not in quickstart.config any more"
        text = text.replace(old, new)
    return text


@pytest.fixture
def tiny_pipeline(tiny_config, tmp_path):
    from mnasdet import config

    path = tmp_path / "tiny.config"
    path.write_text(tiny_config)
    return config.load(path)


@pytest.fixture
def coco_inputs(tmp_path):
    """The arguments of config.load that name the data of a config with COCO's classes."""
    records, label_map = tmp_path / "a.record", tmp_path / "label_map.pbtxt"
    records.touch()
    label_map.write_text('item { id: 90 name: "toothbrush" }')
    return {
        "train_input": [str(tmp_path / "*.record")],
        "eval_input": [str(records)],
        "label_map": str(label_map),
    }


@pytest.fixture
def coco_pipeline(coco_inputs):
    """The COCO config with the search of the other one."""
    from mnasdet import config

    loaded = config.load(
        ROOT / "configs" / "mnasfpn_mobilenet_v2_320x320_coco.config", **coco_inputs
    )
    search = config.load(ROOT / "configs" / "mnasfpn_search_coco.config", **coco_inputs)
    loaded.search_config.CopyFrom(search.search_config)
    return loaded


@pytest.fixture(scope="module", autouse=True)
def _memory_freed():
    """TensorFlow keeps every graph of a module's tests; a few modules of them fill the memory."""
    from mnasdet.networks.memory import memory_freed

    with memory_freed():
        yield


@pytest.fixture
def eager():
    from tests import eagerly

    with eagerly.eager():
        yield


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
    source = (ROOT / "tests/tflite/benchmark_model_stand_in.py").read_text()
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
