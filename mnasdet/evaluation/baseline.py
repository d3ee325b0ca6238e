"""The detector that does not look: for each class one fixed box on every picture.

Where all objects lie in about the same place, as in many small data sets, such boxes have a high
mAP. A model that is not clearly above them has learnt where objects are, not what they look like.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mnasdet.evaluation.boxes import iou
from mnasdet.evaluation.coco import AP50, MAP, CocoEvaluator, mean_precision

BASELINE_MAP = "ConstantBoxes_Precision/mAP"
BASELINE_AP50 = "ConstantBoxes_Precision/mAP@.50IOU"

# COCO's thresholds, over which mAP is the mean.
_IOUS = np.arange(0.5, 1.0, 0.05)

# Boxes of a class that are tried as they are, evenly picked: more take longer and find little.
_MOST_CANDIDATES = 300

# Steps from the best candidate to the middle of the boxes around it.
_NUM_REFINEMENTS = 3


def margin(baseline_map: float) -> float:
    """Returns how far above the baseline a mAP has to be in order not to be level with it.

    A quarter of the baseline and 0.01, at most 0.05: a first training on COCO, at 0.02 against
    0.003, has learnt something; 0.215 against 0.194 may be chance.
    """
    return min(0.05, 0.01 + 0.25 * max(baseline_map, 0.0))


def is_level(metrics: Mapping[str, float]) -> bool:
    """Tells whether a model is hardly better than the best constant boxes.

    Args:
      metrics: the model's, with those of `metrics`.
    """
    least = metrics[BASELINE_MAP] + margin(metrics[BASELINE_MAP])
    return metrics[BASELINE_MAP] >= 0 and metrics[MAP] < least


def verdict(metrics: Mapping[str, float]) -> str:
    """Returns a sentence that compares a model with the best constant boxes; "" without them or
    where there was nothing to find."""
    if metrics.get(BASELINE_MAP, -1) < 0:
        return ""
    figures = (
        f"mAP {metrics[MAP]:.3f} against {metrics[BASELINE_MAP]:.3f}, AP50 {metrics[AP50]:.3f} "
        f"against {metrics[BASELINE_AP50]:.3f}"
    )
    if not is_level(metrics):
        return f"Better than one fixed box per class on every picture: {figures}."
    return (
        f"Hardly better than one fixed box per class on every picture: {figures}; less than "
        f"{margin(metrics[BASELINE_MAP]):.3f} above in mAP counts as level. The model may know "
        "where objects usually are, and not what they look like."
    )


def metrics(evaluator: CocoEvaluator) -> dict[str, float]:
    """Returns mAP and AP50 of the best constant boxes, judged by pycocotools like a model.

    The boxes are chosen on the evaluation set itself, so they are better than any that a training
    set could give: the comparison is generous to them.
    """
    boxes = best_boxes(evaluator)
    detections = [
        {"image_id": image["id"], "category_id": category, "bbox": _in_pixels(box, image)}
        | {"score": 1.0}
        for image in evaluator.images
        for category, box in boxes.items()
    ]
    precision = evaluator.judge(detections, sizes=False).eval["precision"]
    return {BASELINE_MAP: mean_precision(precision), BASELINE_AP50: mean_precision(precision[:1])}


def best_boxes(evaluator: CocoEvaluator) -> dict[int, np.ndarray]:
    """Returns the best constant box of every class that has objects, by category id: (ymin, xmin,
    ymax, xmax), normalised."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in evaluator.images}
    objects: dict[int, list[tuple[int, list[float]]]] = {}
    for annotation in evaluator.annotations:
        # A crowd is no object that a box could find.
        if not annotation["iscrowd"]:
            image = annotation["image_id"]
            height, width = sizes[image]
            x, y, w, h = annotation["bbox"]
            box = [y / height, x / width, (y + h) / height, (x + w) / width]
            objects.setdefault(annotation["category_id"], []).append((image, box))
    return {
        category: _best_box(
            np.array([box for _, box in members]), np.array([image for image, _ in members])
        )
        for category, members in sorted(objects.items())
    }


def _best_box(boxes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Tries the mean, the median and boxes of the class; then the middle of those around the best.

    Args:
      boxes: [objects, 4], normalised; `images` [objects], ascending.
    """
    step = -(-len(boxes) // _MOST_CANDIDATES)
    candidates = np.stack([boxes.mean(axis=0), np.median(boxes, axis=0), *boxes[::step]])
    quality = _quality(candidates, boxes, images)
    best, reached = candidates[quality.argmax()], quality.max()
    for _ in range(_NUM_REFINEMENTS):
        around = boxes[iou(best[None], boxes)[0] >= _IOUS[0]]
        if not len(around):
            break
        middle = around.mean(axis=0)
        (quality,) = _quality(middle[None], boxes, images)
        # A step that finds nothing better would only repeat itself.
        if quality <= reached:
            break
        best, reached = middle, quality
    return best


def _quality(candidates: np.ndarray, boxes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Returns a number per candidate that ranks them as the AP of one class does.

    With one box on every picture and all scores equal, precision is the same at every recall up to
    the last: AP is about precision times recall. Both have the same denominators for all
    candidates, so the squared number of pictures with a hit is enough. IoU may be computed in
    normalised coordinates: stretching a picture does not change it.
    """
    first_of_image = np.flatnonzero(np.diff(images, prepend=-1))
    nearest = np.maximum.reduceat(iou(candidates, boxes), first_of_image, axis=1)
    hits = (nearest[:, :, None] >= _IOUS).sum(axis=1)
    return (hits.astype(float) ** 2).sum(axis=1)


def _in_pixels(box: np.ndarray, image: Mapping[str, int]) -> list[float]:
    """Returns COCO's (x, y, width, height)."""
    ymin, xmin, ymax, xmax = box * ([image["height"], image["width"]] * 2)
    return [xmin, ymin, xmax - xmin, ymax - ymin]
