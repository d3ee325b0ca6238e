"""The rules that a pipeline config has to fulfil beyond its syntax.

Each check names the field by its path, the value met and what is allowed. All run, so that all
problems show at once.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from mnasdet.config_checks import label_maps
from mnasdet.config_checks.classification import check_classification
from mnasdet.config_checks.compression import check_compression
from mnasdet.config_checks.faster_rcnn import check_faster_rcnn
from mnasdet.config_checks.files import check_exists
from mnasdet.config_checks.one_shot import check_one_shot
from mnasdet.config_checks.search import check_search, check_two_stage_search
from mnasdet.config_checks.section import Section
from mnasdet.config_checks.ssd import check_ssd
from mnasdet.config_checks.stages import check_stages
from mnasdet.config_checks.training import MAX_BATCH_SIZE, check_train, trainings
from mnasdet.errors import DataError
from mnasdet.protos import architecture_pb2, pipeline_pb2

READERS = ("train_input_reader", "eval_input_reader")
_FLAGS = {"train_input_reader": "train_input", "eval_input_reader": "eval_input"}

# The checks of a whole config that its model decides, by the model's field in DetectionModel.
_MODELS = {
    "ssd": check_ssd,
    "faster_rcnn": check_faster_rcnn,
    "classification": check_classification,
}

# Classes of the digits: mnasdet/data/digits.py.
_DIGITS_CLASSES = 10

# Pixels; the smallest digit of them has eight.
_DIGITS_MIN_SIZE = 32
_DIGITS_MAX_SIZE = 2048

_DIGITS_MAX_IMAGES = 100_000

# Pictures that TensorBoard gets of one evaluation, which are held in memory.
_MAX_VISUALIZATIONS = 1000

# Evaluation pads the boxes of every image to as many. Pictures of crowds have some thousands.
_MAX_BOXES = 100_000


def pipeline_problems(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    architecture: architecture_pb2.Architecture | None = None,
    readers: Collection[str] = READERS,
) -> list[str]:
    """Returns all problems of a config but those of the architecture.

    Args:
      architecture: what the config builds, as far as that is known.
      readers: the input readers that will be used.
    """
    root = Section(pipeline, "", [])
    # Reading a file clears the field: with it, the message is not the whole config.
    if pipeline.include:
        root.report("include", f'is "{pipeline.include[0]}"; config.load reads it, from a file')
    if (model := root.needed("model")) and model.chosen("model"):
        _MODELS[model.message.WhichOneof("model")](root, architecture)
        check_stages(root, architecture)
    if train := root.needed("train_config"):
        check_train(train, starts="train_input_reader" in readers)
    check_compression(root, architecture)
    _check_eval(root.child("eval_config"), pipeline.train_config.optimizer.use_moving_average)
    for name in readers:
        _check_readers(root, name)
    if pipeline.HasField("search_config"):
        check_search(root.child("search_config"))
        if pipeline.search_config.HasField("one_shot"):
            check_one_shot(root, architecture)
        if pipeline.model.HasField("faster_rcnn"):
            check_two_stage_search(root.child("search_config"))
        for training in trainings(root):
            if training.message.distribution.HasField("multi_worker"):
                training.report(
                    "distribution",
                    "is multi_worker, which cannot be combined with search_config: its trainings "
                    "run in one process each; remove one of them",
                )
    return root.problems


def _check_eval(evaluation: Section, has_moving_averages: bool) -> None:
    evaluation.counts(MAX_BATCH_SIZE, "batch_size")
    evaluation.counts(_MAX_VISUALIZATIONS, "num_visualizations", minimum=0)
    evaluation.within("min_score_threshold", 0, 1)
    evaluation.at_least("max_num_boxes_to_visualize", 0)
    evaluation.require(
        has_moving_averages or not evaluation.message.use_moving_averages,
        "use_moving_averages",
        "train_config.optimizer.use_moving_average is false, so there are none",
    )


def _check_readers(root: Section, name: str) -> None:
    if name == "train_input_reader":
        sections = [section] if (section := root.needed(name)) else []
    else:
        sections = root.children(name)
        if len(sections) > 1:
            # The OD API evaluates on each in turn; one figure alone would pass for that of all.
            root.report(
                f"{name}[1]",
                "is a further one; exactly one is needed: keep one, and evaluate on others with "
                "--eval_input and --label_map",
            )
            return
        if not sections:
            root.report(name, "is there 0 times; exactly one is needed")
            return
    for section in sections:
        _check_reader(section, f"--{_FLAGS[name]}", _settings(root.child("model")))


def _settings(model: Section) -> Section:
    """Returns what the config says of its model, or an empty message of it."""
    return model.child(model.message.WhichOneof("model") or "ssd")


def _check_reader(reader: Section, flag: str, settings: Section) -> None:
    for name in ("sample_1_of_n_examples", "num_readers"):
        reader.at_least(name, 1)
    sampled = max(1, reader.message.sample_1_of_n_examples)
    reader.require(
        reader.message.first_sampled_example < sampled,
        "first_sampled_example",
        f"less than sample_1_of_n_examples, {sampled}, is allowed",
    )
    reader.counts(_MAX_BOXES, "max_number_of_boxes")
    # Training ends by num_steps alone: passes over the data would be a second end beside it.
    if reader.path == "train_input_reader":
        reader.only("num_epochs", 0)
    else:
        # 0 is the OD API's "without end"; an evaluation is one pass, for a second one finds the
        # same.
        reader.within("num_epochs", 0, 1)
    # No network here reads them: decoding them would cost time, and promise what is not learnt.
    for name in ("load_instance_masks", "load_multiclass_scores"):
        reader.only(name, False)
    for name in ("num_keypoints", "num_additional_channels"):
        reader.only(name, 0)
    if reader.message.shuffle:
        # tf.data refuses a buffer of 0 as well, without the name of the field.
        reader.at_least("shuffle_buffer_size", 1)
    source = reader.message.WhichOneof("input_reader")
    if source == "digits_input_reader":
        digits = reader.child(source)
        digits.counts(_DIGITS_MAX_IMAGES, "num_images")
        digits.counts(_DIGITS_MAX_SIZE, "image_size", minimum=_DIGITS_MIN_SIZE)
        settings.require(
            settings.message.num_classes == _DIGITS_CLASSES,
            "num_classes",
            f"{digits.path} has {_DIGITS_CLASSES}",
        )
        return
    if not reader.message.tf_record_input_reader.input_path:
        reader.report(
            "tf_record_input_reader.input_path", f"is missing; name record files or give {flag}"
        )
    for path in reader.message.tf_record_input_reader.input_path:
        records = reader.child("tf_record_input_reader")
        there = check_exists(records, "input_path", [path], f"{flag} sets it")
        if there and os.path.isdir(path):
            records.report(
                "input_path", f'is "{path}", a folder; name its files, as in "{path}/*.record*"'
            )
    _check_label_map(reader, settings)


def _check_label_map(reader: Section, settings: Section) -> None:
    path = reader.message.label_map_path
    if not path:
        reader.report("label_map_path", "is missing; name a label map or give --label_map")
    elif check_exists(reader, "label_map_path", [path], "--label_map sets it"):
        try:
            ids = {item.id for item in label_maps.items(path)}
        except DataError as error:
            reader.problems.append(str(error))
            return
        _check_ids(reader, settings, ids)


def _check_ids(reader: Section, settings: Section, ids: set[int]) -> None:
    """Compares num_classes with the largest id: ids may have gaps, as COCO's 80 up to 90 have."""
    path, largest = reader.message.label_map_path, max(ids, default=0)
    num_classes = settings.message.num_classes
    problem = f"{settings.field('num_classes')} is {num_classes}; {path} has ids up to {largest}"
    if largest > num_classes:
        reader.problems.append(problem)
    elif 0 < largest < num_classes and 0 not in ids and reader.path == "train_input_reader":
        # An evaluation may look at some of the classes, but training has to see all. Ids from 0
        # are a fault of the label map itself, and another one than too few classes.
        reader.problems.append(
            f"{problem}, so no example has the classes above; set num_classes to {largest} or name "
            "the label map of all classes"
        )
