"""A search over two-stage detectors, to its SavedModel and its report."""

from contextlib import contextmanager

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config, deployment, files
from mnasdet.architectures import from_trial
from mnasdet.evaluation.coco import MAP
from mnasdet.protos import pipeline_pb2
from mnasdet.reporting import facts, report
from mnasdet.search import latency, meters, results, reward, winner
from mnasdet.search.controllers.random_search import RandomSearch
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.frontier import frontier_latency
from mnasdet.search.search import Search
from mnasdet.search.trials.trial_store import TrialStore
from mnasdet.search_spaces import factory
from tests import two_stage_config
from tests.search import cheap_children

_SEARCH = """
search_config {
  num_trials: 2
  search_space { base_code {
    bases: 8 pyramid_channels: 16
    min_blocks: [1, 1, 1, 1] max_blocks: [1, 1, 1, 2] min_doublings: 0 max_doublings: 1
  } }
  controller { random {} }
  reward { mnasfpn {} }
  latency { predict {} }
  executor { this_process {} }
}
"""


class Timer:
    """Takes as many ms as the backbone's code has characters; the process is tested elsewhere."""

    def __init__(self, spec):
        assert spec.kind == "host"

    @contextmanager
    def held(self):
        yield self.benchmark

    def benchmark(self, blueprint):
        assert blueprint.kind == "faster_rcnn"
        typical = float(len(blueprint.architecture.backbone.base_code.code))
        runs = dict.fromkeys(("median_ms", "mean_ms", "p10_ms", "p90_ms", "min_ms"), typical)
        return {**runs, "iqr_ms": 0.25, "noisy": False, "num_runs": 9, "provenance": {}}

    def close(self):
        pass


@pytest.fixture
def pipeline(monkeypatch):
    for module in (meters, deployment):
        monkeypatch.setattr(module, "PredictTimer", Timer)
    # One stage of the second: each is traced and saved by itself, which takes seconds.
    text = two_stage_config.text(further=_SEARCH).replace("num_steps: 4", "num_steps: 1")
    text = text.replace("stage { iou_threshold: 0.6 loss_weight: 0.5 }", "")
    pipeline = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    assert config.check(pipeline) == []
    return pipeline


def test_a_search_ends_with_a_saved_model_and_a_report(pipeline, tmp_path):
    settings = pipeline.search_config
    space = factory.from_config(settings.search_space, config.resolve(pipeline).architecture)
    search = Search(
        pipeline=pipeline,
        store=TrialStore(tmp_path / "trials.db"),
        space=space,
        controller=RandomSearch(space, seed=0),
        reward=reward.from_config(settings.reward),
        latency=latency.from_config(settings.latency),
        executor=ThisProcess(cheap_children.accuracy),
        max_pending=2,
    )
    trials = search.run(settings.num_trials)
    codes = [
        config.resolve(pipeline, from_trial(t.architecture)).architecture.backbone for t in trials
    ]
    assert [t.cost for t in trials] == [float(len(one.base_code.code)) for one in codes]
    assert [t.metrics["latency_iqr_ms"] for t in trials] == [0.25, 0.25]
    frontier, best = results.frontier(trials), results.best(trials)
    measured = frontier_latency.measure(pipeline, frontier, {})
    assert measured == {t.number: t.cost for t in frontier}

    device = latency.device_spec(settings.latency)
    metrics, benchmark = winner.finish(pipeline, best, tmp_path / "best", device)
    assert benchmark["median_ms"] == best.cost
    assert benchmark["model_bytes"] > 10_000
    held = files.read_json(tmp_path / "best" / "benchmark.json", "benchmark")
    assert held == benchmark
    ((form, timing),) = deployment.timings("faster_rcnn", benchmark)
    assert (form.graph_name, timing) == ("saved_model", benchmark)
    described = files.read_json(tmp_path / "best" / "export.json", "description")
    assert described["kind"] == "faster_rcnn"
    assert (tmp_path / "best" / "label_map.pbtxt").exists()
    model = tf.saved_model.load(str(tmp_path / "best" / "saved_model"))
    found = model.signatures["image_tensor"](input_tensor=np.zeros((1, 40, 70, 3), np.uint8))
    assert found["detection_boxes"].shape == (1, 20, 4)

    report.write(
        tmp_path / "index.html",
        trials,
        search={"search_space": "base_code", "image_size": [64, 64]},
        space=space,
        retrained=metrics,
        benchmark=benchmark,
        measured_ms=measured,
        facts=facts.of_search(pipeline, ["search"]),
    )
    page = (tmp_path / "index.html").read_text()
    for text in (
        "SavedModel",
        "The best backbone",
        "The best detector",
        "timed in TensorFlow",
        f"base_code_{codes[best.number].base_code.code.partition('_')[0]}",
    ):
        assert text in page, text
    assert "TFLite file" not in page
    assert metrics[MAP] >= 0
