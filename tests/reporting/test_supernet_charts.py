"""The charts of a supernet's training."""

import json
import re

import pytest
from google.protobuf import text_format

from mnasdet import files
from mnasdet.protos import architecture_pb2
from mnasdet.reporting import supernet_charts
from mnasdet.search.differentiable import records


def training(folder, ops, rows):
    """Writes what a training of two layers leaves, with a probability list for each step."""
    folder.mkdir(parents=True)
    listed = " ".join(f'op: "{op}"' for op in ops)
    layers = f"layer {{ {listed} channels: 8 stride: 2 }}"
    layers += (
        f" layer {{ {listed} channels: 8 stride: 2 }} layer {{ {listed} channels: 8 stride: 2 }}"
    )
    layers += ' layer { op: "sep_k3_d1" channels: 8 stride: 2 }'
    text = f"backbone {{ operation_layers {{ {layers} }} }} {_REST}"
    built = text_format.Parse(text, architecture_pb2.Architecture())
    (folder / "architecture.textproto").write_text(text_format.MessageToString(built))
    entries = [
        {
            "step": step,
            "probabilities": {
                f"backbone/layer_{layer}/choice": row for layer, row in enumerate(of_step, start=1)
            },
        }
        for step, of_step in enumerate(rows, start=1)
    ]
    files.write_json(folder / records.HISTORY_FILE, entries)


_REST = """
    feature_pyramid { fpn { min_level: 3 max_level: 5 channels: 16 } }
    box_predictor { weight_shared_convolutional_box_predictor {
      depth: 8 num_layers_before_predictor: 1
      conv_hyperparams {
        activation: RELU_6
        regularizer { l2_regularizer { weight: 1e-4 } }
        initializer { truncated_normal_initializer { stddev: 0.03 } }
      }
    } }
    anchor_generator { multiscale_anchor_generator {
      min_level: 3 max_level: 5 anchor_scale: 3.0 scales_per_octave: 1 aspect_ratios: [1.0]
    } }
"""


@pytest.fixture
def folder(tmp_path):
    ops = ["sep_k3_d1", "conv_k3_d1", "sep_k5_d1"]
    training(
        tmp_path / "screening" / "backbone_1",
        ops,
        [[[0.2, 0.3, 0.5]] * 3, [[0.1, 0.4, 0.5], [0.1, 0.2, 0.7], [0.1, 0.6, 0.3]]],
    )
    training(tmp_path / "screening" / "backbone_2", ops[1:], [[[0.4, 0.6]] * 3])
    rounds = {"backbone_1": {"part": "backbone"}, "backbone_2": {"part": "backbone"}}
    files.write_json(tmp_path / "screening" / records.SCREENING_FILE, {"rounds": rounds})
    training(tmp_path / "supernet", ops[1:], [[[0.5, 0.5], [0.5, 0.5], [0.2, 0.8]]])
    for name in ("alpha.json", "architecture.textproto"):
        (tmp_path / "supernet" / name).rename(tmp_path / name)
    found = {"backbone/layer_1": {"conv_k3_d1": 0.25, "sep_k5_d1": 0.75}}
    files.write_json(tmp_path / records.PROBABILITIES_FILE, {"probabilities": found})
    return tmp_path


def figures(html):
    drawn = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    return [json.loads(figure)["data"] for figure in drawn]


def test_the_lines_are_means_over_layers_and_end_where_operations_are_dropped(folder):
    screened, trained, last = figures(supernet_charts.section(folder))
    lines = {line["name"]: (line["x"], line["y"]) for line in screened}
    assert lines == {
        "sep_k3_d1": ([1, 2], [0.2, 0.1]),
        "conv_k3_d1": ([1, 2, 3], [0.3, 0.4, 0.4]),
        "sep_k5_d1": ([1, 2, 3], [0.5, 0.5, 0.6]),
    }
    assert {line["name"]: line["y"] for line in trained} == {
        "conv_k3_d1": [0.4],
        "sep_k5_d1": [0.6],
    }
    (heat,) = last
    assert (heat["x"], heat["y"]) == (["conv_k3_d1", "sep_k5_d1"], ["backbone/layer_1"])
    assert heat["z"] == [[0.25, 0.75]]


def test_without_a_supernet_there_is_nothing(tmp_path):
    assert supernet_charts.section(tmp_path) == ""
