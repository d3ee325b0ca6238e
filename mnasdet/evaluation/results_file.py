"""Detections in COCO's format of results, which pycocotools and COCO's server take."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mnasdet import files
from mnasdet.errors import DataError, shown

if TYPE_CHECKING:
    from mnasdet.evaluation.coco import CocoEvaluator


def write(path: str | os.PathLike, evaluator: CocoEvaluator) -> None:
    """Writes all detections of an evaluator as `results`."""
    # Text by text: test-dev has two million detections.
    files.write(path, "[" + ",\n".join(map(json.dumps, results(evaluator))) + "]\n")


def results(evaluator: CocoEvaluator) -> Iterator[dict[str, Any]]:
    """Yields all detections, with the ids that the data set has for its images.

    These are the `source_id` of the records: integers where all of them are whole numbers, as
    COCO's are, and otherwise texts. bbox is (x, y, width, height) in pixels of the original image,
    category_id is the label map's.

    Raises:
      DataError: an image has no id, or two have the same one.
    """
    names = _ids([image["source_id"] for image in evaluator.images])
    by_image = {image["id"]: name for image, name in zip(evaluator.images, names, strict=True)}
    for found in evaluator.detections:
        yield {
            "image_id": by_image[found["image_id"]],
            "category_id": found["category_id"],
            "bbox": found["bbox"],
            "score": found["score"],
        }


def _ids(source_ids: list[str]) -> list[int] | list[str]:
    if not all(source_ids):
        raise DataError(
            f"image {source_ids.index('') + 1} of the evaluation set has neither image/source_id "
            "nor image/filename; results need an id"
        )
    # COCO's files are named by the id with zeros before it. int() would take "1_2", too.
    numbers = all(re.fullmatch(r"\d{1,18}", source_id, re.ASCII) for source_id in source_ids)
    ids: list[Any] = [int(source_id) for source_id in source_ids] if numbers else source_ids
    name, count = Counter(ids).most_common(1)[0] if ids else ("", 0)
    if count > 1:
        raise DataError(
            f"{count} images of the evaluation set have the image/source_id {shown(name)}; results "
            "could not tell them apart"
        )
    return ids
