"""Where a text proto is wrong, and what is allowed there."""

import pytest

from mnasdet import text_proto
from mnasdet.errors import ConfigError, DataError
from mnasdet.protos import pipeline_pb2, string_int_label_map_pb2
from mnasdet.protos.string_int_label_map_pb2 import StringIntLabelMap

BAD = {
    "model {\n  ssd {\n    num_class: 3\n  }\n}": [
        'my.config:3:5: no field "num_class" in Ssd; did you mean "num_classes"? '
        "(allowed: num_classes, ",
        '  in "num_class: 3"',
    ],
    "train_config { summarize_gradients: true }": [
        'my.config:1:16: "summarize_gradients" of the TF Object Detection API (gradients for '
        "TensorBoard) is not supported in TrainConfig: it has no effect on the result; remove it"
    ],
    "model {\n ssd { post_processing {\n score_converter: SIGMOD } } }": [
        'my.config:3:19: no value "SIGMOD" in ScoreConverter; did you mean "SIGMOID"? (allowed: '
        'SIGMOID, SOFTMAX, IDENTITY)  in "score_converter: SIGMOD } } }"'
    ],
    'model { ssd { num_classes: "three" } }': [
        'my.config:1:28: couldn\'t parse integer: "three"  in "model { ssd { num_classes: '
    ],
    "train_config { batch_size: -3 }": ["my.config:1:28: value out of range: -3"],
    "eval_config { metrics_set: coco }": [
        "my.config:1:28: expected string but found: 'coco'",
    ],
    "model { ssd {\n num_classes: 3\n num_classes: 4\n} }": [
        'my.config:3:15: "num_classes" is set a second time in Ssd; keep one  in "num_classes: 4"'
    ],
    'model {\n architecture_name: "x"\n architecture {}\n}': [
        'my.config:3:2: "architecture" excludes "architecture_name", which is set above; keep one'
    ],
    "model { ssd { num_classes: 3\n": ['the file ends inside a message; a "}" is missing'],
    "model { }\n}": ['my.config:2:1: a "}" too many  in "}"'],
    "train_config { batch_size 3 }": ['my.config:1:27: expected ":"'],
    "train_config { num_stepz @ }": ["my.config:1:16: no field"],
}


@pytest.mark.parametrize("text", BAD)
def test_parse_says_where_and_what_is_allowed(text):
    with pytest.raises(ConfigError) as caught:
        text_proto.parse(text, pipeline_pb2.TrainEvalPipelineConfig, "my.config")
    message = str(caught.value)
    assert "\n" not in message
    for expected in BAD[text]:
        assert expected in message


def test_parse_quotes_no_more_than_a_line_of_a_terminal():
    text = f"eval_config {{ metrics_set: {'x' * 500} }}"
    with pytest.raises(ConfigError) as caught:
        text_proto.parse(text, pipeline_pb2.TrainEvalPipelineConfig, "a")
    assert str(caught.value).endswith(f'"eval_config {{ metrics_set: {"x" * 53}"')


def test_read_takes_the_error_of_its_caller(tmp_path):
    path = tmp_path / "label_map.pbtxt"
    path.write_text('item {\n  id: 1\n  nmae: "cat"\n}\n')
    with pytest.raises(DataError, match=r':3:3: no field "nmae" in StringIntLabelMapItem; did you'):
        text_proto.read(path, StringIntLabelMap, DataError)


@pytest.mark.parametrize("text", ['item { id: 1 name: "cat" }', "\ufeffitem {\r\nid: 1\r\n}\r\n"])
def test_read_gives_the_message(tmp_path, text):
    path = tmp_path / "label_map.pbtxt"
    path.write_bytes(text.encode())
    label_map = text_proto.read(path, string_int_label_map_pb2.StringIntLabelMap)
    assert [item.id for item in label_map.item] == [1]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_sealed_text_with_the_line_ends_of_windows_is_unchanged(tmp_path, mark):
    """As a checkout or an editor leaves it there."""
    path = tmp_path / "label_map.pbtxt"
    text = text_proto.sealed('item {\n  id: 17\n  name: "cat"\n}\n').replace("\n", "\r\n")
    path.write_bytes(f"{mark}{text}".encode())
    (item,) = text_proto.read(path, StringIntLabelMap).item
    assert (item.id, item.name) == (17, "cat")
    path.write_bytes(f"{mark}{text}".replace("17", "16").encode())
    with pytest.raises(ConfigError, match="was damaged or changed after mnasdet wrote it"):
        text_proto.read(path, StringIntLabelMap)


def test_read_of_what_is_no_text_file(tmp_path):
    (tmp_path / "empty.config").write_text(" \n")
    (tmp_path / "binary.config").write_bytes(b"\x0a\x00\xff\xfe")
    (tmp_path / "zeros.config").write_bytes(b"ab\x00cd")
    expected = {
        tmp_path: "is a directory; name a text-proto file in it",
        tmp_path / "empty.config": "is empty",
        tmp_path / "binary.config": "is a binary file; a text proto is needed",
        tmp_path / "zeros.config": "is a binary file; a text proto is needed",
        tmp_path / "emty.config": f"no such file; did you mean {tmp_path / 'empty.config'}?",
        tmp_path / "x" / "a.config": f"no such file; there is no folder {tmp_path / 'x'} either",
        tmp_path / "empty.config" / "a": "Not a directory",
    }
    for path, message in expected.items():
        with pytest.raises(ConfigError) as caught:
            text_proto.read(path, StringIntLabelMap)
        assert str(caught.value) == f"{path}: {message}"
