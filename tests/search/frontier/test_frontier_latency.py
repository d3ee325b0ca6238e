"""mnasdet/search/frontier_latency.py: what the networks of a frontier take, in turns."""

from collections import Counter
from contextlib import contextmanager

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.protos import pipeline_pb2
from mnasdet.search import meters
from mnasdet.search.frontier import frontier_latency
from mnasdet.search.trials.trial_store import Trial

# Milliseconds of five turns: four undisturbed, one with something else on the machine.
RESTLESS = {3: [1.1, 1.0, 9.0, 1.2, 1.1], 7: [9.0, 2.2, 2.0, 2.1, 2.3]}


@pytest.fixture
def pipeline():
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.model.ssd.num_classes = 3
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = 64
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.width = 64
    return pipeline


@pytest.fixture
def members():
    trials = []
    for number, width in ((3, 0.35), (7, 1.0)):
        architecture = config.load_architecture("mobilenet_v2_mnasfpn")
        architecture.ClearField("image_size")
        architecture.backbone.mobilenet_v2.depth_multiplier = width
        text = text_format.MessageToString(architecture)
        trials.append(Trial(number, (), text, str(number), 0))
    return trials


@pytest.fixture
def order(monkeypatch):
    """The trials in the order in which a device whose times are told beforehand measures them: by
    size of their graph, of which the second trial's is larger."""
    counts, order = Counter(), []

    class Clock:
        def benchmark(self, graph):
            number = 7 if graph.stat().st_size > 6e6 else 3
            order.append(number)
            turn_ms = RESTLESS[number][counts[number]]
            counts[number] += 1
            return {"median_ms": turn_ms, "mean_ms": 100.0, "iqr_ms": 0.0, "noisy": False}

    @contextmanager
    def opened(spec):
        yield Clock()

    monkeypatch.setattr(meters, "opened", opened)
    return order


def test_the_fastest_of_five_turns_that_alternate(pipeline, members, order):
    assert frontier_latency.measure(pipeline, members, {}) == {3: 1.0, 7: 2.0}
    assert order == [3, 7] * 5


def test_what_is_known_is_not_measured_again(pipeline, members, order):
    assert frontier_latency.measure(pipeline, members, {3: 5.0, 4: 6.0}) == {3: 5.0, 4: 6.0, 7: 2.0}
    assert order == [7] * 5
    assert frontier_latency.measure(pipeline, members, {3: 5.0, 7: 6.0}) == {3: 5.0, 7: 6.0}


def test_on_this_machine(pipeline, members):
    """The second network is wider."""
    measured = frontier_latency.measure(pipeline, members, {})
    assert 0 < measured[3] < measured[7] < 1000
