"""Counts what a detector takes the objects of each class for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mnasdet.evaluation.boxes import covered, iou

if TYPE_CHECKING:
    from mnasdet.evaluation.coco import CocoEvaluator

BACKGROUND = "background"


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of objects and detections.

    A detection may find an object of any class. From the best score on, each detection takes the
    object that it overlaps most, of those that no detection before it has taken, if their IoU is
    at least `iou`. A pair counts in the row of the object's class and in the column of the
    detection's. An object that is not taken counts in the last column, a detection that takes
    nothing in the last row. Crowds are no objects, and a detection that takes nothing and lies in a
    crowd of its class by a share of at least `iou` counts for nothing.

    Attributes:
      names: [classes], of the rows and columns but the last, which are the background's.
      counts: [classes + 1, classes + 1] int64.
      score_threshold: detections below it are left out.
      iou: the least IoU of a pair.
    """

    names: Sequence[str]
    counts: np.ndarray
    score_threshold: float
    iou: float

    def to_json(self) -> dict[str, Any]:
        """Returns the counts, a row for every true class, and what they were counted by."""
        return {
            "names": [*self.names, BACKGROUND],
            "counts": self.counts.tolist(),
            "score_threshold": self.score_threshold,
            "iou": self.iou,
        }


def confusion_matrix(
    evaluator: CocoEvaluator, score_threshold: float, least_iou: float = 0.5
) -> ConfusionMatrix:
    """Returns the confusion of the detections of an evaluator with its objects."""
    categories = evaluator.categories
    place = {category: number for number, category in enumerate(categories)}
    objects, detections = _by_image(evaluator.annotations), _by_image(evaluator.detections)
    counts = np.zeros((len(place) + 1, len(place) + 1), np.int64)
    for image in objects.keys() | detections.keys():
        found = [one for one in detections[image] if one["score"] >= score_threshold]
        # A class that the label map lacks is nobody's column; COCO's metrics leave it out, too.
        found = [one for one in found if one["category_id"] in place]
        found.sort(key=lambda one: -one["score"])
        for true, detected in _pairs(objects[image], found, least_iou):
            row = len(place) if true is None else place[true]
            column = len(place) if detected is None else place[detected]
            counts[row, column] += 1
    return ConfusionMatrix(list(categories.values()), counts, score_threshold, least_iou)


def _by_image(members: Sequence[dict]) -> defaultdict[int, list[dict]]:
    by_image = defaultdict(list)
    for member in members:
        by_image[member["image_id"]].append(member)
    return by_image


def _pairs(
    annotations: Sequence[dict], found: Sequence[dict], least_iou: float
) -> list[tuple[int | None, int | None]]:
    """Returns the class of the object and that of the detection, for all that counts of an image.

    Args:
      found: the detections, best first.
    """
    objects = [one for one in annotations if not one["iscrowd"]]
    crowds = [one for one in annotations if one["iscrowd"]]
    overlaps = iou(_corners(found), _corners(objects))
    in_crowds = covered(_corners(found), _corners(crowds))
    free = np.ones(len(objects), bool)
    pairs: list[tuple[int | None, int | None]] = []
    for number, detection in enumerate(found):
        own = detection["category_id"]
        candidates = np.where(free, overlaps[number], -1.0)
        best = int(candidates.argmax()) if len(objects) else -1
        if best >= 0 and candidates[best] >= least_iou:
            free[best] = False
            pairs.append((objects[best]["category_id"], own))
        elif not any(
            share >= least_iou and crowd["category_id"] == own
            for share, crowd in zip(in_crowds[number], crowds, strict=True)
        ):
            pairs.append((None, own))
    missed = [one["category_id"] for one, is_free in zip(objects, free, strict=True) if is_free]
    return [*pairs, *((category, None) for category in missed)]


def _corners(members: Sequence[dict]) -> np.ndarray:
    """Returns COCO's boxes as (xmin, ymin, xmax, ymax), [members, 4]."""
    boxes = np.array([member["bbox"] for member in members], float).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
