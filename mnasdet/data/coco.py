"""Reads COCO's instances_*.json."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from mnasdet.data.conversion import AnnotatedImage, AnnotatedObject
from mnasdet.errors import DataError


def read(path: str | os.PathLike[str]) -> tuple[dict[int, str], list[AnnotatedImage]]:
    """Reads one annotation file. The ids of the categories are kept, sparse as they may be.

    Returns:
      Class id to name, and the images in the file's order, crowd regions among their objects.

    Raises:
      DataError: when the file is no COCO detection file. What is wrong with a single image or
        object is noted there.
    """
    content = _load(path)
    names = _categories(content["categories"], path)
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        # As text, which can be a key whatever the file has there.
        by_image[str(annotation.get("image_id"))].append(annotation)
    images, ids = [], set()
    for item in content["images"]:
        image_id = str(item.get("id"))
        images.append(_image(item, by_image.get(image_id, []), names, path))
        if image_id in ids:
            images[-1].fault = "an image of this id came before"
        ids.add(image_id)
    for image_id in sorted(by_image.keys() - ids):
        name = f"{path}: image id {image_id}"
        fault = f"{len(by_image[image_id])} annotations are of an image that is not in 'images'"
        images.append(AnnotatedImage(name, filename="", fault=fault))
    return names, images


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: the annotations cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}: no JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: no JSON: is no text file") from None
    for key in ("images", "annotations", "categories"):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise DataError(f"{path}: no COCO detection file: has no list of objects {key!r}")
    return content


def _categories(categories: list[dict], path: str | os.PathLike[str]) -> dict[int, str]:
    names: dict[int, str] = {}
    for category in categories:
        class_id, name = category.get("id"), category.get("name")
        where = f"{path}: category {name!r}"
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: category id {class_id!r} has no name")
        if not isinstance(class_id, int) or class_id < 1:
            raise DataError(f"{where}: id {class_id!r}; ids start at 1, 0 is the background")
        if class_id in names:
            raise DataError(f"{where}: id {class_id} is already that of {names[class_id]!r}")
        if name in names.values():
            raise DataError(f"{where}: a category of this name came before")
        names[class_id] = name
    return dict(sorted(names.items()))


def _image(
    image: dict, annotations: list[dict], names: dict[int, str], path: str | os.PathLike[str]
) -> AnnotatedImage:
    filename = image.get("file_name")
    result = AnnotatedImage(f"{path}: image id {image.get('id')} ({filename})", str(filename))
    if "id" not in image or not isinstance(filename, str) or not filename:
        result.fault = "has no id or no file_name"
        return result
    if "height" in image and "width" in image:
        result.size = (image["height"], image["width"])
    for annotation in annotations:
        try:
            result.objects.append(_object(annotation, names))
        except ValueError as error:
            result.problems.append(f"annotation id {annotation.get('id')}: {error}")
    return result


def _object(annotation: dict, names: dict[int, str]) -> AnnotatedObject:
    box, class_id = annotation.get("bbox"), annotation.get("category_id")
    numbers = isinstance(box, list) and all(isinstance(value, (int, float)) for value in box)
    if box is None or not numbers or len(box) != 4:
        raise ValueError(f"bbox {box}: expected [x, y, width, height] in pixels")
    if not isinstance(class_id, int) or class_id not in names:
        raise ValueError(f"category_id {class_id} is not in 'categories'")
    area = annotation.get("area")
    if area is not None and not (isinstance(area, (int, float)) and 0 <= area < math.inf):
        raise ValueError(f"area {area!r}: expected square pixels")
    xmin, ymin, width, height = box
    return AnnotatedObject(
        name=f"annotation id {annotation.get('id')}",
        class_id=class_id,
        box=(ymin, xmin, ymin + height, xmin + width),
        area=area,
        is_crowd=bool(annotation.get("iscrowd", 0)),
    )
