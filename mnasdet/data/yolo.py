"""Reads YOLO's labels: a txt file for every image, a line for every object."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mnasdet import text_files
from mnasdet.data import ordinary_files, values
from mnasdet.data.annotations import AnnotatedImage, AnnotatedObject
from mnasdet.data.geometry import FROM_POLYGON, Sides, around_points
from mnasdet.data.pictures import Folder, without_ending
from mnasdet.errors import DataError, shown

# Coordinates are shares of the image. Above this they are pixels.
_LARGEST_SHARE = 2.0
# Texts among the labels that are not labels.
_OTHER_TEXTS = {"classes", "labels", "train", "val", "test", "readme", "readme.roboflow"}
_EXPECTED = "expected class x_center y_center width height, or class and the points of a polygon"


def classes(path: str | os.PathLike[str]) -> tuple[dict[int, str], int]:
    """Reads the names of the classes.

    Returns:
      Class id, one above YOLO's, to name; how many numbers of keypoints follow every box.

    Raises:
      DataError: when the file has no classes.
    """
    text = text_files.read_text(path, DataError, "class list")
    content: Any = {"names": [line.strip() for line in text.splitlines() if line.strip()]}
    if str(path).lower().endswith((".yaml", ".yml")):
        try:
            content = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: no YAML: {reason}") from None
    listed = content.get("names") if isinstance(content, dict) else None
    if isinstance(listed, list):
        listed = dict(enumerate(listed))
    if not isinstance(listed, dict) or not listed:
        raise DataError(f"{path}: has no classes; expected names: [cat, dog]")
    names: dict[int, str] = {}
    taken: set[str] = set()
    for number, value in listed.items():
        name = _name(value)
        if not isinstance(number, int) or not 0 <= number < values.MAX_CLASS_ID:
            raise DataError(
                f"{path}: class {shown(number)}: {shown(value)!r}: expected a number of 0 to "
                f"{values.MAX_CLASS_ID - 1}"
            )
        if not name or name in taken:
            raise DataError(f"{path}: class {shown(number)}: {shown(value)!r}: no name, or twice")
        try:
            values.check_name(name)
        # One above YOLO's number: 0 is the background here.
        except ValueError as problem:
            raise DataError(f"{path}: class {number}: {shown(name)!r}: {problem}") from None
        names[number + 1] = name
        taken.add(name)
    return dict(sorted(names.items())), _keypoint_values(content.get("kpt_shape"), path)


def _name(value: Any) -> str:
    """Returns the name that YAML reads as a string, a number, a flag or a date; "" for others.

    The text of lists is not asked for: with aliases, a few lines of YAML are gigabytes of it.
    """
    return "" if isinstance(value, (list, dict, set)) else values.text(str(value))


def _keypoint_values(shape: Any, path: str | os.PathLike[str]) -> int:
    """Returns the numbers of all keypoints after a box, of kpt_shape: [keypoints, 2 or 3]."""
    if shape is None:
        return 0
    try:
        keypoints, numbers = [values.whole(value) for value in shape]
    except (TypeError, ValueError):
        raise DataError(f"{path}: kpt_shape {shown(shape)}: expected [keypoints, 2]") from None
    return keypoints * numbers


def labels_folder(images_dir: str | os.PathLike[str]) -> Path:
    """Returns where YOLO looks for the labels of a folder of images: "labels" for "images"."""
    images = Path(images_dir).absolute()
    # The last folder of that name counts, as in YOLO's own code: others may lie above the data.
    parts = list(images.parts)
    for position in reversed(range(len(parts))):
        if parts[position] == "images":
            other = Path(*parts[:position], "labels", *parts[position + 1 :])
            return other if other.is_dir() else images
    return images


def read(
    images_dir: str | os.PathLike[str],
    labels_dir: str | os.PathLike[str],
    names: Mapping[int, str],
    keypoint_values: int = 0,
) -> tuple[list[AnnotatedImage], list[str]]:
    """Reads the labels of all pictures of a folder; what is wrong with one is noted in it.

    Returns:
      The images by name, and remarks for the summary.

    Raises:
      DataError: when a folder is missing, or no picture has a txt file.
    """
    for folder, content in ((images_dir, "images"), (labels_dir, "labels")):
        if not Path(folder).is_dir():
            raise DataError(f"{folder}: the folder of the {content} does not exist")
    pictures = Folder(images_dir).pictures()
    unused = {
        file.relative_to(labels_dir).with_suffix("").as_posix()
        for file in Path(labels_dir).rglob("*.txt")
        if file.stem.lower() not in _OTHER_TEXTS
    }
    images, missing = [], 0
    for picture in pictures:
        stem = without_ending(picture)
        image = AnnotatedImage(str(Path(images_dir, picture)), picture, normalised=True)
        if stem in unused:
            _read_objects(image, Path(labels_dir, f"{stem}.txt"), names, keypoint_values)
        else:
            missing += 1
        images.append(image)
    # Only here: a.jpg and a.png may have one label file.
    unused -= {without_ending(picture) for picture in pictures}
    if missing == len(pictures):
        raise DataError(f"{labels_dir}: has no txt file for any of {len(pictures)} pictures")
    # Labels without a picture would else vanish without being counted as lost.
    images += [_without_picture(Path(labels_dir, f"{stem}.txt")) for stem in sorted(unused)]
    return images, [f"{missing} images have no txt file"] if missing else []


def _without_picture(file: Path) -> AnnotatedImage:
    try:
        lines = len([line for line in _content(file).splitlines() if line.strip()])
    except (OSError, ValueError):
        lines = 0
    return AnnotatedImage(str(file), "", fault="has no picture", unread_objects=lines)


def _read_objects(
    image: AnnotatedImage, file: Path, names: Mapping[int, str], keypoint_values: int
) -> None:
    image.name = f"{file} ({image.filename})"
    try:
        # An empty file is a picture without objects.
        text = text_files.decode(_content(file), "label file")
    except (OSError, ValueError) as error:
        image.fault = f"the labels cannot be read: {error}"
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name = f"line {number}"
        try:
            image.objects.append(_object(name, line.split(), names, keypoint_values))
        except ValueError as error:
            image.problems.append(f"{name}: {error}")


def _content(file: Path) -> bytes:
    """Returns the bytes of a label file.

    Raises:
      OSError: when it cannot be read, such as a link to nothing.
      ValueError: when it is no ordinary file.
    """
    ordinary_files.size(file)
    return file.read_bytes()


def _object(
    name: str, words: list[str], names: Mapping[int, str], keypoint_values: int
) -> AnnotatedObject:
    try:
        class_id = values.whole(words[0]) + 1
        numbers = [values.number(word) for word in words[1:]]
    except ValueError as problem:
        raise ValueError(f"{problem} is no number; {_EXPECTED}") from None
    if class_id not in names:
        raise ValueError(f"class {class_id - 1} is not in the classes 0 to {max(names) - 1}")
    if keypoint_values:
        # Keypoints follow the box, so they are cut from the end.
        numbers = numbers[: len(numbers) - keypoint_values]
    box, notes = _box(numbers)
    # Not above 1: boxes may reach a little beyond the edge, and are cut there.
    if max(box) > _LARGEST_SHARE:
        raise ValueError(f"{shown(' '.join(words))} are pixels; expected shares of the image")
    return AnnotatedObject(name, class_id, box, notes=notes)


def _box(numbers: list[float]) -> tuple[Sides, tuple[str, ...]]:
    if len(numbers) == 4:
        x, y, width, height = numbers
        return (y - height / 2, x - width / 2, y + height / 2, x + width / 2), ()
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        return around_points(numbers[::2], numbers[1::2]), (FROM_POLYGON,)
    raise ValueError(f"has {len(numbers) + 1} values; {_EXPECTED}")
