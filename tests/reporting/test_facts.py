import pytest
from google.protobuf import text_format

from mnasdet.protos import search_pb2
from mnasdet.reporting import facts
from mnasdet.search.axes import DEFAULT


def test_of_a_search(tiny_pipeline):
    found = facts.of_search(tiny_pipeline, ["/x/mnasdet-search", "--model_dir=my runs", "--seed=3"])
    counted = found.pop("evaluation set").removeprefix("embedded digits, validation: ")
    assert counted.startswith("1 file, 8 pictures, ")
    assert int(counted.split()[-2]) >= 8
    assert found.pop("training set").startswith("embedded digits, train: 1 file, 24 pictures, ")
    assert found == {
        "reward": "mnasfpn: mAP × latency^-0.3, no target",
        "latency": "multiply-adds in place of milliseconds",
        "classes": "10",
        "a child's training": "8 steps of 8 pictures",
        "the best one's training": "10 steps of 8 pictures",
        "command": "mnasdet-search '--model_dir=my runs' --seed=3",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "mnasnet { target_latency_ms: 12 alpha: 0 beta: -1 }",
            "mnasnet: mAP × (latency / target)^w, target 12 ms, w 0 up to it, -1 above",
        ),
        (
            "tunas { target_latency_ms: 8.5 }",
            "tunas: mAP + -0.07 × |latency / target - 1|, target 8.5 ms",
        ),
        ("accuracy {}", "accuracy: mAP"),
        ("multi_objective {}", "multi_objective: mAP; the controller weighs latency itself"),
    ],
)
def test_rewards(text, expected):
    assert facts.reward(text_format.Parse(text, search_pb2.RewardConfig()), DEFAULT) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the sum over a table of single layers (this machine's own)"),
        (
            "latency_table { path: 'tables/pixel.textproto' }",
            "the sum over a table of single layers (pixel.textproto)",
        ),
        ("host {}", "whole networks, measured on the machine that the search ran on"),
        ("adb {}", "whole networks, measured on a phone"),
    ],
)
def test_latencies(text, expected):
    config = text_format.Parse(text, search_pb2.LatencyConfig())
    assert facts.latency_source(config) == expected
