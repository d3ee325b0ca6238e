"""Random damage to every file that is read again: told, made up for with a warning, or harmless.

Never another value without a word, and never a traceback.
"""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config, files
from mnasdet.data import label_map
from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2
from mnasdet.search import results, run_folder
from mnasdet.search.frontier import scaled_models
from mnasdet.tflite import interpreter
from mnasdet.training import checkpoints, run_files, trainer

# Seeds of the damages that each file gets.
_TIMES = 100

# A text proto with several problems has them told at once, each in its line.
_TEXT_PROTO_LINES = 30


def damaged(content, seed):
    """Returns the content with flipped bits, cut, with a block of zeros, or nothing of it."""
    draw = random.Random(seed)
    kind = draw.choice(["flip"] * 5 + ["flips", "cut", "cut", "zeros", "emptied"])
    spoilt = bytearray(content)
    if kind in ("flip", "flips"):
        for _ in range(1 if kind == "flip" else draw.randint(2, 20)):
            spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del spoilt[draw.randrange(len(spoilt)) :]
    elif kind == "zeros":
        # As a file system leaves what it had not written when the power went.
        start = draw.randrange(len(spoilt))
        end = min(len(spoilt), start + draw.choice([1, 16, 512, 4096]))
        spoilt[start:end] = bytes(end - start)
    else:
        spoilt.clear()
    return bytes(spoilt)


def check(path, read, caplog, lines=1, fallback=None):
    """Reads a file after each damage.

    Args:
      lines: that an error may have.
      fallback: whether another value may come, with a warning; takes that value.
    """
    sound, expected = path.read_bytes(), read()
    outcomes = dict.fromkeys(("told", "harmless", "warned"), 0)
    for seed in range(_TIMES):
        path.write_bytes(damaged(sound, f"{path.name} {seed}"))
        caplog.clear()
        message = ""
        try:
            value = read()
        except UserError as error:
            message = str(error)
            value = None
        if message:
            assert len(message.splitlines()) <= lines, f"damage {seed}: {message}"
            assert str(path.parent) in message, f"damage {seed}: {message}"
            outcomes["told"] += 1
            continue
        if value == expected:
            outcomes["harmless"] += 1
            continue
        assert fallback, f"damage {seed}: another value without a word: {value}"
        assert fallback(value), f"damage {seed}: {value}"
        assert str(path.parent) in caplog.text, f"damage {seed}: no warning"
        outcomes["warned"] += 1
    path.write_bytes(sound)
    assert read() == expected
    return outcomes


DESCRIPTION = {
    "config_sha256": "0123456789abcdef" * 4,
    "seed": 7,
    "cardinality": 10**20,
    "image_size": [128, 128],
    "counts": {"trials": 10, "complete": 8, "failed": 2},
}
FRONTIER = [
    {"trial": number, "key": "k" * 20, "mAP": 0.1 * number, "latency_ms": 3.5, "measured_ms": ms}
    for number, ms in ((3, 4.25), (11, 5.75), (12, None))
]


def test_what_a_search_knows(tmp_path, caplog):
    path = tmp_path / "search.json"
    files.write_json(path, DESCRIPTION)
    told = check(path, lambda: results.read_description(tmp_path), caplog)
    assert told["told"] > _TIMES / 2


def test_the_frontier(tmp_path, caplog):
    path = tmp_path / "pareto.json"
    files.write_json(path, FRONTIER)
    check(path, lambda: results.read_frontier(tmp_path), caplog)
    assert results.read_measured_ms(tmp_path) == {3: 4.25, 11: 5.75}
    # It can be measured once more: a search of hours goes on.
    outcomes = check(
        path, lambda: results.read_measured_ms(tmp_path), caplog, fallback=lambda ms: ms == {}
    )
    assert outcomes["told"] == 0
    assert outcomes["warned"] > _TIMES / 2


def test_the_noise_of_the_proxy_task(tmp_path, caplog):
    path = tmp_path / "proxy_quality.json"
    files.write_json(path, {"noise": {"std": 0.0125, "degrees_of_freedom": 12}, "num_seeds": 3})
    check(path, lambda: results.read_noise(tmp_path), caplog)


def test_the_best_metrics_so_far(tmp_path, caplog):
    path = tmp_path / "metrics.json"
    metrics = {"DetectionBoxes_Precision/mAP": 0.375, "step": 800.0}
    files.write_json(path, metrics | {"best": metrics})
    assert trainer._read_metrics(path)[1] == metrics
    check(path, lambda: trainer._read_metrics(path), caplog, fallback=lambda held: held[1] == {})


def test_the_description_of_a_run(tmp_path, caplog):
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    settings = {"repeats": [3, 4], "max_picks": 2}

    def read():
        with run_folder.claimed(tmp_path, pipeline, settings, resume=True):
            return True

    read()
    check(tmp_path / "run.json", read, caplog)


def test_the_list_of_scaled_models(tmp_path, caplog):
    model = {
        "name": "trial_00003",
        "trial": 3,
        "architecture": "a.textproto",
        "latency_ms": 3.5,
        "proxy_mAP": 0.25,
        "mAP": 0.5,
    }
    (tmp_path / "a.textproto").write_text('name: "x"\n')
    files.write_json(tmp_path / "scaled.json", {"models": [model]})

    def read():
        return files.read_json(
            tmp_path / scaled_models.RESULTS_FILE, "list of models", keys=["models"]
        )

    check(tmp_path / "scaled.json", read, caplog)


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    """Writes the files that a training keeps beside its checkpoints."""
    folder = tmp_path_factory.mktemp("files") / "run"
    source = folder.parent / "tiny.config"
    source.write_text(tiny_config)
    pipeline = config.load(source, readers=())
    run_files.write(folder, config.resolve(pipeline), pipeline, {1: "cat", 2: "dog", 10: "ü"})
    return folder


def test_the_architecture_of_a_training(run, caplog):
    path = run / run_files.ARCHITECTURE_FILE
    outcomes = check(
        path, lambda: config.load_architecture(str(path)), caplog, lines=_TEXT_PROTO_LINES
    )
    assert outcomes["told"] > _TIMES / 2


def test_the_label_map_of_a_training(run, caplog):
    path = run / run_files.LABEL_MAP_FILE
    assert label_map.load(path) == {1: "cat", 2: "dog", 10: "ü"}
    check(path, lambda: label_map.load(path), caplog, lines=_TEXT_PROTO_LINES)


def test_the_config_of_a_training(run, caplog):
    """People edit it: a change is warned of."""
    path = run / run_files.CONFIG_FILE
    check(
        path,
        lambda: config.load(path, readers=()),
        caplog,
        lines=_TEXT_PROTO_LINES,
        fallback=lambda pipeline: pipeline.HasField("model"),
    )
    # A training that goes on compares itself with what it says, or with nothing.
    check(path, lambda: run_files._config(run), caplog, fallback=lambda _: True)


def test_the_description_of_an_export(tmp_path, caplog):
    graph, anchors = tmp_path / "detect.tflite", tmp_path / "anchors.npy"
    graph.write_bytes(b"\0\0\0\0TFL3" + bytes(range(256)))
    np.save(anchors, np.arange(8.0).reshape(2, 4))
    described = {
        path.name: {"bytes": path.stat().st_size, "sha256": interpreter.sha256(path.read_bytes())}
        for path in (graph, anchors)
    }
    files.write_json(tmp_path / "export.json", {"graph": graph.name, "files": described})

    def read():
        content = anchors.read_bytes()
        interpreter.check_exported(graph, anchors, content)
        return interpreter.read_graph(graph), content

    for path in (tmp_path / "export.json", graph, anchors):
        check(path, read, caplog)


@pytest.fixture
def trained(tmp_path):
    """The checkpoints of steps 1 and 2, of a few variables each."""
    for step in (1, 2):
        weights = {
            f"backbone/layer_{i}/kernel": tf.Variable(np.full([8, i], step, np.float32))
            for i in (1, 2, 3)
        }
        state = tf.train.Checkpoint(weights=weights, step=tf.Variable(step))
        state.write(str(tmp_path / f"ckpt-{step}"))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\n')
    return tmp_path


def values(prefix):
    reader = tf.train.load_checkpoint(prefix)
    # The object graph is a text beside the weights, which our loaders do without.
    return {
        name: np.array(reader.get_tensor(name)).tolist()
        for name in reader.get_variable_to_shape_map()
        if name.startswith("weights")
    }


def test_checkpoints(trained, caplog):
    before = values(str(trained / "ckpt-1"))

    def read():
        return values(checkpoints.find(trained))

    for name in ("ckpt-2.index", "ckpt-2.data-00000-of-00001"):
        outcomes = check(trained / name, read, caplog, fallback=lambda found: found == before)
        assert outcomes["told"] == 0
        assert outcomes["warned"] > _TIMES / 3
    # TensorFlow's own list of them decides nothing.
    assert check(trained / "checkpoint", read, caplog)["harmless"] == _TIMES
    for path in trained.glob("ckpt-1.*"):
        path.unlink()
    for name in ("ckpt-2.index", "ckpt-2.data-00000-of-00001"):
        check(trained / name, read, caplog)


def test_a_search_that_was_described_by_an_older_version_is_read(tmp_path):
    (tmp_path / "search.json").write_text(json.dumps(DESCRIPTION))
    assert results.read_description(tmp_path) == DESCRIPTION
    (tmp_path / "pareto.json").write_text(json.dumps(FRONTIER))
    assert results.read_measured_ms(tmp_path) == {3: 4.25, 11: 5.75}


def test_a_text_proto_that_an_older_version_wrote_is_read(run, tmp_path):
    for name in (run_files.ARCHITECTURE_FILE, run_files.CONFIG_FILE):
        first, _, rest = (run / name).read_text().partition("\n")
        assert first.startswith("# sha256 of the lines below: ")
        (tmp_path / name).write_text(rest)
    architecture = config.load_architecture(str(tmp_path / run_files.ARCHITECTURE_FILE))
    assert architecture == config.load_architecture(str(run / run_files.ARCHITECTURE_FILE))
    text_format.Parse(
        (Path(tmp_path) / run_files.CONFIG_FILE).read_text(), pipeline_pb2.TrainEvalPipelineConfig()
    )
