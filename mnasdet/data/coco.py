"""Reads COCO's instances_*.json."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnasdet import text_files
from mnasdet.data import values
from mnasdet.data.annotations import AnnotatedImage, AnnotatedObject
from mnasdet.data.geometry import FROM_POLYGON, FROM_TURNED_BOX, around_points, around_turned_box
from mnasdet.errors import DataError, shown

# A longer run of digits is no id and no coordinate; Python refuses to convert 4300.
_MAX_DIGITS = 300
_BACKGROUND = {"background", "__background__", "_background_", "bg"}


def read(path: str | os.PathLike[str]) -> tuple[dict[int, str], list[AnnotatedImage], list[str]]:
    """Reads one annotation file. The ids of the categories are kept, sparse as they may be.

    Ids that start at 0 are shifted by one, whatever the annotations use, so that all splits of a
    data set agree. An id 0 for the background, or for the data set itself in Roboflow's exports, is
    dropped.

    Returns:
      Class id to name; the images in the file's order, crowd regions among their objects; remarks
      about the ids for the summary.

    Raises:
      DataError: when the file is no COCO detection file. What is wrong with a single image or
        object is noted there.
    """
    content = _load(path)
    remarks: list[str] = []
    names, shift = _categories(content["categories"], path, remarks)
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[values.identity(annotation.get("image_id"))].append(annotation)
    ids = Counter(values.identity(item.get("id")) for item in content["images"])
    images = []
    for item in content["images"]:
        image_id = values.identity(item.get("id"))
        image = AnnotatedImage(
            f"{path}: image id {shown(item.get('id'))} ({shown(_filename(item))})", _filename(item)
        )
        # Results that are judged by this file, or sent to COCO's server, name images by it.
        image.image_id = str(image_id) if isinstance(image_id, int) else values.text(image_id)
        # Nobody knows whose the boxes of pictures with a shared id are: they are counted once.
        annotations = by_image.pop(image_id, [])
        if ids[image_id] > 1:
            image.fault = f"{ids[image_id]} images have this id; whose the boxes are is unknown"
            image.unread_objects = len(annotations)
        elif not annotations and (lost := by_image.get(None)):
            image.fault = f"has no box, but perhaps one of {len(lost)} that have no image_id"
        else:
            _read_image(image, item, annotations, names, shift)
        images.append(image)
    # Objects without a picture would else vanish without being counted as lost.
    for image_id, annotations in by_image.items():
        name = f"{path}: image id {shown(image_id)}"
        fault = f"{len(annotations)} annotations are of an image that is not in 'images'"
        if image_id is None:
            name, fault = str(path), f"{len(annotations)} annotations have no image_id"
        images.append(AnnotatedImage(name, "", fault=fault, unread_objects=len(annotations)))
    return names, images, remarks


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    if Path(path).is_dir():
        raise DataError(
            f"{path}: is a folder; name COCO's JSON file in it (for a folder of XML files there is "
            "create_pascal_tf_record, for one of YOLO's txt files create_yolo_tf_record)"
        )
    text = text_files.read_text(path, DataError, "JSON text")
    if text.lstrip().startswith("<"):
        raise DataError(f"{path}: is XML; Pascal VOC's is read by create_pascal_tf_record")
    try:
        content = json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as error:
        several = error.msg == "Extra data"
        reason = "several JSON values (JSON Lines?); COCO's is one object" if several else error.msg
        raise DataError(f"{path}:{error.lineno}:{error.colno}: no JSON: {reason}") from None
    # A nest of brackets within the allowed size may be deeper than Python recurses.
    except RecursionError:
        raise DataError(f"{path}: no COCO detection file: is nested too deeply") from None
    # COCO's image_info_test-dev2017.json: pictures whose objects are secret.
    if isinstance(content, dict) and {"images", "categories"} <= content.keys():
        content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise DataError(
                f"{path}: no COCO detection file: has no list of objects {key!r}"
                + _other_format(content)
            )
    if not content["categories"]:
        raise DataError(f"{path}: 'categories' is empty; it names the classes of the annotations")
    return content


def _integer(digits: str) -> int | float:
    if len(digits) <= _MAX_DIGITS:
        return int(digits)
    return -math.inf if digits.startswith("-") else math.inf


def _other_format(content: Any) -> str:
    """Says which tool's own format the file is in, and what to do; "" for an unknown one."""
    first = content
    if isinstance(content, list):
        first = content[0] if content else None
    elif isinstance(content, dict) and "_via_img_metadata" in content:
        first = {"regions": []}
    elif isinstance(content, dict) and content:
        one = next(iter(content.values()))
        first = one if isinstance(one, dict) and "regions" in one else content
    keys = set(first) if isinstance(first, dict) else set()
    for needed, tool in (
        ({"regions"}, "VIA's own JSON; export as COCO"),
        ({"shapes", "imagePath"}, "LabelMe's own JSON; convert it with labelme2coco"),
        ({"data", "annotations"}, "Label Studio's own JSON; export as COCO"),
        ({"data", "completions"}, "Label Studio's own JSON; export as COCO"),
        ({"image", "annotations"}, "CreateML's JSON; export as COCO"),
        ({"image_id", "category_id", "score"}, "a list of detections; annotations are needed"),
        ({"type", "features"}, "GeoJSON; convert it to COCO"),
    ):
        if needed <= keys:
            return f"; this is {tool}"
    return ""


def _categories(
    categories: list[dict], path: str | os.PathLike[str], remarks: list[str]
) -> tuple[dict[int, str], int]:
    """Returns class id to name, and what is added to the file's ids."""
    found = [_category(category, path) for category in categories]
    above = {values.text(category.get("supercategory")) for category in categories}
    kept = []
    for category, (class_id, name) in zip(categories, found, strict=True):
        if class_id == 0 and name.casefold() in _BACKGROUND:
            remarks.append(f"category id 0 {shown(name)!r} is the background and was dropped")
        elif class_id == 0 and category.get("supercategory") == "none" and name in above:
            remarks.append(f"category id 0 {shown(name)!r} is Roboflow's data set and was dropped")
        else:
            kept.append((class_id, name))
    shift = int(any(class_id == 0 for class_id, _ in kept))
    names: dict[int, str] = {}
    ids: dict[str, int] = {}
    for class_id, name in kept:
        where = f"{path}: category {shown(name)!r}"
        if class_id in names:
            raise DataError(f"{where}: id {class_id} is already that of {shown(names[class_id])!r}")
        if name in ids:
            raise DataError(f"{where}: a category of this name came before")
        names[class_id], ids[name] = name, class_id
    if not names:
        raise DataError(f"{path}: 'categories' has no class but the background")
    if shift:
        remarks.append("category ids are one higher than in the file, as id 0 is the background")
    return {class_id + shift: names[class_id] for class_id in sorted(names)}, shift


def _category(category: dict, path: str | os.PathLike[str]) -> tuple[int, str]:
    name = category.get("name")
    name = values.text(str(name) if type(name) is int else name)  # The digits, for one.
    if not name:
        fault = _fault_of(category.get("name"), "name")
        raise DataError(f"{path}: category id {shown(category.get('id'))} {fault}")
    try:
        values.check_name(name)
    except ValueError as problem:
        raise DataError(f"{path}: category {shown(name)!r}: {problem}") from None
    try:
        class_id = values.whole(category.get("id"))
    except ValueError as problem:
        raise DataError(f"{path}: category {shown(name)!r}: id {problem}: no number") from None
    if not 0 <= class_id < values.MAX_CLASS_ID:
        raise DataError(
            f"{path}: category {shown(name)!r}: id {class_id}; ids start at 1 and are below "
            f"{values.MAX_CLASS_ID}"
        )
    return class_id, name


def _fault_of(value: Any, field: str) -> str:
    """Returns what is wrong with a value that `values.text` does not take."""
    return f"has a {field} that is no Unicode text" if value else f"has no {field}"


def _filename(image: dict) -> str:
    """Returns the name of the picture; for LVIS, which has no other, the one in its address."""
    return values.text(image.get("file_name")) or values.text(image.get("coco_url"))


def _read_image(
    result: AnnotatedImage,
    image: dict,
    annotations: list[dict],
    names: Mapping[int, str],
    shift: int,
) -> None:
    """Fills in the size and the objects of an image."""
    if values.identity(image.get("id")) is None:
        stated = image.get("id") is not None
        result.fault = "has an id that is no whole number and no text" if stated else "has no id"
    elif not result.filename:
        result.fault = _fault_of(image.get("file_name"), "file_name")
    try:
        result.size = values.size(image.get("height"), image.get("width"))
    except ValueError as problem:
        result.fault = str(problem)
    for annotation in annotations:
        where = f"annotation id {shown(annotation.get('id'))}"
        try:
            result.objects.append(_object(where, annotation, names, shift))
        except ValueError as error:
            result.problems.append(f"{where}: {error}")


def _object(where: str, annotation: dict, names: Mapping[int, str], shift: int) -> AnnotatedObject:
    try:
        class_id = values.whole(annotation.get("category_id")) + shift
    except ValueError:
        class_id = 0
    if class_id not in names:
        met = shown(annotation.get("category_id"))
        raise ValueError(f"category_id {met} is not in 'categories'")
    try:
        is_crowd = values.flag(annotation.get("iscrowd"))
    except ValueError as problem:
        raise ValueError(f"iscrowd {problem}") from None
    box, notes = _box(annotation)
    area = values.area(annotation.get("area"))
    return AnnotatedObject(where, class_id, box, area, is_crowd, notes=notes)


def _box(annotation: dict) -> tuple[tuple[float, float, float, float], tuple[str, ...]]:
    """Returns (ymin, xmin, ymax, xmax), and a note of how it was found."""
    bbox = annotation.get("bbox")
    if not bbox and (points := _polygon_points(annotation.get("segmentation"))):
        return around_points(points[::2], points[1::2]), (FROM_POLYGON,)
    try:
        xmin, ymin, width, height = [values.number(value) for value in bbox or ()]
    except (TypeError, ValueError):
        raise ValueError(f"bbox {shown(bbox)}: expected [x, y, width, height] in pixels") from None
    box = (ymin, xmin, ymin + height, xmin + width)
    attributes = annotation.get("attributes")
    # CVAT's: degrees, clockwise, about the centre of a box that it exports as if it stood upright.
    rotation = attributes.get("rotation") if isinstance(attributes, dict) else None
    if rotation and (degrees := _degrees(rotation)) % 360:
        return around_turned_box(box, math.radians(degrees)), (FROM_TURNED_BOX,)
    for key in ("angle", "rotation", "theta"):
        if annotation.get(key):
            raise ValueError(f"is a turned box ({key} {shown(annotation[key])}); only upright ones")
    return box, ()


def _degrees(rotation: Any) -> float:
    try:
        return values.number(rotation)
    except ValueError as problem:
        raise ValueError(f"rotation is {problem}, expected degrees") from None


def _polygon_points(segmentation: Any) -> list[float]:
    """Returns the coordinates x, y, x, y ... of all polygons; none for a mask in another form."""
    if not isinstance(segmentation, list) or not segmentation:
        return []
    parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
    try:
        points = [values.number(value) for part in parts for value in part]
    except (TypeError, ValueError):
        return []
    return points if len(points) >= 6 and len(points) % 2 == 0 else []
