"""Every check of the evaluation and the input readers, by its message; and of what is missing."""

import functools
from pathlib import Path

import pytest

from mnasdet import config
from mnasdet.protos import pipeline_pb2
from tests.config_fragments import PREDICTOR, RATE, merge, the_problem

# A fragment that spoils the config, and the one problem that it makes.
BAD = [
    (
        'eval_config { metrics_set: "pascal_voc_detection_metrics" }',
        'eval_config.metrics_set has "pascal_voc_detection_metrics"; only "coco_detection_metrics" '
        "is supported: its mAP@.50IOU is the figure nearest to Pascal VOC's mAP, which is at IoU "
        "0.5",
    ),
    (
        'eval_config { metrics_set: "oid_V2_detection_metrics" }',
        'eval_config.metrics_set has "oid_V2_detection_metrics"; only "coco_detection_metrics" is '
        "supported: its mAP@.50IOU is the figure nearest to Open Images'",
    ),
    (
        'train_input_reader { label_map_path: "file:///data/my%20map.pbtxt" }',
        'train_input_reader.label_map_path is "file:///data/my%20map.pbtxt"; a path is needed, '
        'such as "/data/my map.pbtxt"',
    ),
    ("eval_config { batch_size: 0 }", "eval_config.batch_size is 0; at least 1 is allowed"),
    (
        "eval_config { use_moving_averages: true }",
        "eval_config.use_moving_averages is true; train_config.optimizer.use_moving_average is "
        "false, so there are none",
    ),
    (
        "eval_config { min_score_threshold: 50 }",
        "eval_config.min_score_threshold is 50; 0 to 1 is allowed",
    ),
    (
        "train_input_reader { num_readers: 0 }",
        "train_input_reader.num_readers is 0; at least 1 is allowed",
    ),
    (
        "train_input_reader { shuffle_buffer_size: 0 }",
        "train_input_reader.shuffle_buffer_size is 0; at least 1 is allowed",
    ),
    (
        'train_input_reader { tf_record_input_reader { input_path: "/no/train*" } }',
        'train_input_reader.tf_record_input_reader.input_path is "/no/train*", which does not '
        "exist; --train_input sets it",
    ),
    (
        'train_input_reader { label_map_path: "/no/map" }',
        'train_input_reader.label_map_path is "/no/map", which does not exist; --label_map sets it',
    ),
    (
        'train_input_reader { label_map_path: "" }',
        "train_input_reader.label_map_path is missing; name a label map or give --label_map",
    ),
    (
        "train_input_reader { digits_input_reader {} }",
        "model.ssd.num_classes is 90; train_input_reader.digits_input_reader has 10",
    ),
    (
        "eval_input_reader {} eval_input_reader {}",
        "eval_input_reader[1] is a further one; exactly one is needed",
    ),
    (
        "train_input_reader { num_epochs: 1 }",
        "train_input_reader.num_epochs is 1; only 0 is supported",
    ),
    (
        "train_input_reader { load_instance_masks: true }",
        "train_input_reader.load_instance_masks is true; only false is supported",
    ),
    (
        "train_input_reader { num_keypoints: 17 }",
        "train_input_reader.num_keypoints is 17; only 0 is supported",
    ),
]


@pytest.mark.parametrize(("fragment", "expected"), BAD)
def test_check_names_field_value_and_what_is_allowed(coco_pipeline, fragment, expected):
    assert the_problem(fragment, coco_pipeline).startswith(expected)


def test_a_label_map_is_read_as_training_reads_it(coco_pipeline, coco_inputs):
    Path(coco_inputs["label_map"]).write_text("item { id: 1 name: 'a' id: 90 name: 'b' }")
    (problem,) = config.check(coco_pipeline)
    assert "two classes share one pair of braces; expected item { id: 1 name" in problem


def test_check_compares_the_label_map(coco_pipeline, coco_inputs):
    Path(coco_inputs["label_map"]).write_text("item { id: 3 } item { id: 91 }")
    expected = f"model.ssd.num_classes is 90; {coco_inputs['label_map']} has ids up to 91"
    assert config.check(coco_pipeline) == [expected]
    Path(coco_inputs["label_map"]).write_text("item { idd: 3 }")
    assert f'{coco_inputs["label_map"]}:1:8: no field "idd"' in config.check(coco_pipeline)[0]


def test_digits_have_a_least_size(coco_pipeline):
    merge("model { ssd { num_classes: 10 } }", coco_pipeline)
    merge("train_input_reader { digits_input_reader { image_size: 31 } }", coco_pipeline)
    assert (
        "train_input_reader.digits_input_reader.image_size is 31; at least 32 is allowed"
        in config.check(coco_pipeline)
    )


# Fields that have no effect here, and values that are supported.
GOOD = [
    "eval_config { num_examples: 8000 max_evals: 10 eval_interval_secs: 60 save_graph: true "
    "retain_original_images: false }",
    "train_input_reader { queue_capacity: 9 min_after_dequeue: 9 prefetch_size: 9 "
    "num_parallel_map_calls: 9 read_block_length: 9 num_parallel_batches: 9 "
    "num_prefetch_batches: -1 use_display_name: true }",
]


@pytest.mark.parametrize("fragment", GOOD)
def test_check_lets_pass(coco_pipeline, fragment):
    merge(fragment, coco_pipeline)
    assert config.check(coco_pipeline) == []


MISSING = {
    "model": "model is missing",
    "model.ssd": "model is empty; set faster_rcnn or ssd or classification",
    "model.ssd.image_resizer": "model.ssd.image_resizer is missing",
    "model.ssd.box_coder": "model.ssd.box_coder is missing",
    "model.ssd.matcher": "model.ssd.matcher is missing",
    "model.ssd.matcher.argmax_matcher": "model.ssd.matcher is empty; set argmax_matcher",
    "model.ssd.similarity_calculator": "model.ssd.similarity_calculator is missing",
    "model.ssd.box_predictor": "model.ssd.box_predictor is missing",
    "model.ssd.anchor_generator": "model.ssd.anchor_generator is missing",
    "model.ssd.loss": "model.ssd.loss is missing",
    "model.ssd.loss.localization_loss": "model.ssd.loss.localization_loss is missing",
    "model.ssd.loss.classification_loss": "model.ssd.loss.classification_loss is missing",
    "model.ssd.post_processing": "model.ssd.post_processing is missing",
    f"{PREDICTOR}.conv_hyperparams": f"{PREDICTOR}.conv_hyperparams is missing",
    "train_config": "train_config is missing",
    "train_config.optimizer": "train_config.optimizer is missing",
    RATE: f"{RATE} is missing",
    "train_input_reader": "train_input_reader is missing",
    "train_input_reader.tf_record_input_reader": "train_input_reader.tf_record_input_reader."
    "input_path is missing; name record files or give --train_input",
    "eval_input_reader": "eval_input_reader is there 0 times; exactly one is needed",
    "search_config.search_space": "search_config.search_space is missing",
    "search_config.controller": "search_config.controller is missing",
    "search_config.reward": "search_config.reward is missing",
    "search_config.latency": "search_config.latency is missing",
}


@pytest.mark.parametrize("path", MISSING)
def test_check_names_what_is_missing(coco_pipeline, path):
    *parents, field = path.split(".")
    functools.reduce(getattr, parents, coco_pipeline).ClearField(field)
    assert MISSING[path] in config.check(coco_pipeline)


def test_check_of_an_empty_config():
    assert config.check(pipeline_pb2.TrainEvalPipelineConfig()) == [
        "model is missing",
        "train_config is missing",
        "train_input_reader is missing",
        "eval_input_reader is there 0 times; exactly one is needed",
    ]


def test_num_classes_and_the_largest_id_are_compared_both_ways(coco_pipeline, tmp_path):
    def problems(ids, readers=("train_input_reader", "eval_input_reader")):
        path = tmp_path / "ids.pbtxt"
        path.write_text("".join(f'item {{ id: {i} name: "{i}" }}\n' for i in ids))
        for reader in (coco_pipeline.train_input_reader, *coco_pipeline.eval_input_reader):
            reader.label_map_path = str(path)
        return config.check(coco_pipeline, readers)

    # COCO's own ids have gaps.
    assert problems([1, 13, 90]) == []
    (few,) = problems([1, 91])
    assert few == f"model.ssd.num_classes is 90; {tmp_path / 'ids.pbtxt'} has ids up to 91"
    (many,) = problems([1])
    assert many == (
        f"model.ssd.num_classes is 90; {tmp_path / 'ids.pbtxt'} has ids up to 1, so no example has "
        "the classes above; set num_classes to 1 or name the label map of all classes"
    )
    # An evaluation may look at some of the classes.
    assert problems([1], ["eval_input_reader"]) == []


def test_a_folder_and_a_near_miss_are_named(coco_pipeline, tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "my map.pbtxt").touch()
    records = coco_pipeline.train_input_reader.tf_record_input_reader
    records.input_path[:] = [str(tmp_path / "records")]
    (problem,) = config.check(coco_pipeline)
    assert problem == (
        "train_input_reader.tf_record_input_reader.input_path is "
        f'"{tmp_path}/records", a folder; name its files, as in "{tmp_path}/records/*.record*"'
    )
    for path, hint in {
        "my%20map.pbtxt": f'did you mean "{tmp_path}/my map.pbtxt"?',
        "my mapp.pbtxt": f'did you mean "{tmp_path}/my map.pbtxt"?',
        "none/map.pbtxt": f'there is no folder "{tmp_path}/none" either',
        "my map.pbtxt ": "a space is at its start or end",
    }.items():
        coco_pipeline.eval_input_reader[0].label_map_path = f"{tmp_path}/{path}"
        assert config.check(coco_pipeline)[-1].endswith(f"; --label_map sets it; {hint}")
