"""Characters and paths that come with copying a text proto from elsewhere."""

import pytest

from mnasdet import text_proto
from mnasdet.errors import ConfigError
from mnasdet.protos.pipeline_pb2 import TrainEvalPipelineConfig

# A text, and how its message has to start.
BAD = {
    "eval_config { metrics_set: “coco_detection_metrics” }": (
        'a:1:28: “ (U+201C) is a typographic quote; use "'
    ),
    'eval_config {\n metrics_set: "coco_detection_metrics” }': (
        'a:2:15: the string starts with " and ends with ” (U+201D); use "'
    ),
    'eval_config { metrics_set: "coco }\n}': 'a:1:28: the string has no ending "  in',
    'eval_config { metrics_set: "coco&quot; }': (
        'a:1:28: the string has no ending ", but "&quot;", as web pages are written'
    ),
    "eval_config { metrics_set: &quot;coco&quot; }": 'a:1:28: "&quot" is written for a web page',
    "train_config { bias_grad_multiplier: −1 }": "a:1:38: − (U+2212) is a typographic dash; use -",
    "train_config { batch_size： 8 }": "a:1:16: ： (U+FF1A) is a wide or styled character; use :",
    "train_config { batch＿size: 8 }": "a:1:16: ＿ (U+FF3F) is a wide or styled character; use _",
    "train_config { \u200bbatch_size: 8 }": "a:1:16: (U+200B) is there, which editors do not show",
    "train_config { }\n\ufeffeval_config { }": "a:2:1: (U+FEFF) is there, which editors do not",
    "train_config { batch_size: 8 ... }": 'a:1:30: "..." stands for lines that were left out',
    "model {\n  …\n}": 'a:2:3: "…" stands for lines that were left out',
    "// SSD\nmodel { }": 'a:1:1: "//" starts no comment here; a comment starts with #',
    "```\nmodel { }\n```": (
        "2 problems in a:\n  line 1: ``` belongs to Markdown; remove it\n  line 3"
    ),
    "\n<!DOCTYPE html>\n<html>": "a:2:1: this is a web page or XML; on GitHub, download",
    '{"model": {"ssd": 1}}': "a:1:1: this is JSON or YAML; a text proto has fields",
    # Backslashes: unreadable, readable but wrong, and without a drive.
    'train_input_reader { label_map_path: "C:\\Users\\me\\map.pbtxt" }': (
        "a:1:38: label_map_path has single backslashes, which start escapes here; write "
        '"C:/Users/me/map.pbtxt" or double each'
    ),
    "train_config {\n fine_tune_checkpoint: 'D:\\train\\new' }": (
        "a:2:24: fine_tune_checkpoint has single backslashes, which start escapes here; write "
        '"D:/train/new" or double each'
    ),
    'train_input_reader { label_map_path: "data\\new.pbtxt" }': "a:1:38: label_map_path has single",
}


@pytest.mark.parametrize("text", BAD)
def test_the_cause_is_named_with_its_place_and_the_remedy(text):
    with pytest.raises(ConfigError) as caught:
        text_proto.parse(text, TrainEvalPipelineConfig, "a")
    assert str(caught.value).startswith(BAD[text])


@pytest.mark.parametrize(
    ("text", "path"),
    [
        # The OD API reads all that protobuf reads: no-break and wide spaces, tabs, semicolons.
        ('train_input_reader {\u00a0label_map_path:\u3000"a";\t}', "a"),
        ('train_input_reader { label_map_path: "C:\\\\new\\\\a" }', "C:\\new\\a"),
        ('train_input_reader { label_map_path: "C:/new/a" }', "C:/new/a"),
        # As protobuf itself writes "Blutkörperchen.pbtxt".
        ('train_input_reader { label_map_path: "Blutk\\303\\266rper" }', "Blutkörper"),
        ('train_input_reader { label_map_path: "“a”…" }  # “quoted” …', "“a”…"),
    ],
)
def test_what_protobuf_reads_is_read(text, path):
    assert (
        text_proto.parse(text, TrainEvalPipelineConfig, "a").train_input_reader.label_map_path
        == path
    )


def test_backslashes_of_a_regular_expression_are_no_path():
    text = r'train_config { freeze_variables: "layer\\.1" freeze_variables: "\x41\n" }'
    assert list(text_proto.parse(text, TrainEvalPipelineConfig, "a").train_config.freeze_variables)
