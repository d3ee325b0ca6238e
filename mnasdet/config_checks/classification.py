"""The rules of a pipeline config whose model is an image classifier."""

from __future__ import annotations

import math

from mnasdet.config_checks.architecture import MAX_CLASSES
from mnasdet.config_checks.image_resizer import check_resizer
from mnasdet.config_checks.section import Section
from mnasdet.config_checks.training import trainings
from mnasdet.protos import architecture_pb2

# Fields that only detectors have a use for. Beside a classifier they would be without effect, and
# the user who wrote them expects one.
_OF_DETECTORS = {
    "eval_config": (
        "metrics_set",
        "min_score_threshold",
        "max_num_boxes_to_visualize",
        "all_metrics_per_category",
    ),
    "train_input_reader": ("max_number_of_boxes",),
    "eval_input_reader": ("max_number_of_boxes",),
}

# A classifier has no use for steps that change boxes alone, or leave an image several classes.
_OF_BOXES = ("random_jitter_boxes", "random_mosaic")


def check_classification(root: Section, architecture: architecture_pb2.Architecture | None) -> None:
    """Checks the classification message, and what else of a config is the classifier's.

    Args:
      root: the whole config.
      architecture: what the model builds, as far as that is known.
    """
    if architecture and not architecture.HasField("classifier"):
        root.problems.append(
            "model: the architecture is a detector; one with a classifier is needed, such as "
            "mnasnet_a1"
        )
    settings = root.child("model").child("classification")
    settings.counts(MAX_CLASSES, "num_classes")
    if resizer := settings.selected("image_resizer", "image_resizer_oneof"):
        check_resizer(resizer, architecture)
    smoothing = settings.message.label_smoothing
    settings.require(0 <= smoothing < 1, "label_smoothing", "0 to less than 1 is allowed")
    alpha = settings.message.mixup_alpha
    settings.require(0 <= alpha < math.inf, "mixup_alpha", "at least 0 is allowed")
    _check_rest(root)


def _check_rest(root: Section) -> None:
    readers = root.children("eval_input_reader")
    if root.message.HasField("train_input_reader"):
        readers.append(root.child("train_input_reader"))
    for reader in readers:
        reader.only("features", type(reader.message).IMAGE_CLASS)
    for section in (root.child("eval_config"), *readers):
        for name in _OF_DETECTORS[section.path.partition("[")[0]]:
            if _is_set(section, name):
                section.report(name, "is for detectors and has no effect here; remove it")
    for training in trainings(root):
        for step in training.children("data_augmentation_options"):
            name = step.message.WhichOneof("preprocessing_step")
            if name in _OF_BOXES:
                step.report(name, "is for detectors and has no effect here; remove it")
            if step.message.HasField("random_crop_image"):
                _check_crop(step.child("random_crop_image"))


def _check_crop(crop: Section) -> None:
    """Checks a crop where the whole image is the object: less of it is never cut out."""
    least = crop.message.min_object_covered
    crop.require(
        least <= crop.message.min_area,
        "min_object_covered",
        f"at most min_area, {crop.message.min_area:g}, is allowed: the whole image is the object",
    )


def _is_set(section: Section, name: str) -> bool:
    return any(field.name == name for field, _ in section.message.ListFields())
