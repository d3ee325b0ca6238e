"""Reads Pascal VOC annotations: one XML file for every image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from mnasdet.data.conversion import AnnotatedImage, AnnotatedObject
from mnasdet.data.label_map import ids_of
from mnasdet.errors import DataError, nearest


def annotation_files(
    annotations_dir: str | os.PathLike[str], image_set: str | os.PathLike[str] | None = None
) -> list[Path]:
    """The XML files that an image set names, in its order; without one all, sorted.

    Args:
      image_set: a file of ImageSets/Main: one name a line, and possibly a flag after it.

    Raises:
      DataError: when the folder or the image set is missing or has no entry.
    """
    folder = Path(annotations_dir)
    if not folder.is_dir():
        raise DataError(f"{folder}: the folder of the annotations does not exist")
    if not image_set:
        files = sorted(folder.glob("*.xml"))
        if not files:
            raise DataError(f"{folder}: has no *.xml")
        return files
    try:
        lines = Path(image_set).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{image_set}: the image set cannot be read: {error}") from None
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise DataError(f"{image_set}: the image set names no image")
    return [folder / f"{name}.xml" for name in names]


def class_names(annotations_dir: str | os.PathLike[str]) -> dict[int, str]:
    """Ids from 1 for the classes of *all* the folder's annotations, in alphabetical order.

    All, so that every split of a data set gets the same ids.
    """
    names: set[str] = set()
    for file in annotation_files(annotations_dir):
        try:
            root = ElementTree.parse(file).getroot()
        except (OSError, ElementTree.ParseError):
            continue  # Reported when the image's turn comes.
        names.update(name for item in root.iter("object") if (name := _text(item, "name")))
    if not names:
        raise DataError(f"{annotations_dir}: no annotation has an object with a name")
    return dict(enumerate(sorted(names), start=1))


def listed_classes(classes: Sequence[str]) -> dict[int, str]:
    """Ids from 1 for the names in their order.

    Raises:
      DataError: when a name is empty or comes twice.
    """
    for position, name in enumerate(classes):
        if not name or name in classes[:position]:
            raise DataError(f"--classes: {name!r} is empty or comes twice")
    return dict(enumerate(classes, start=1))


def read(files: Sequence[Path], names: Mapping[int, str]) -> Iterator[AnnotatedImage]:
    """Reads the annotations one by one; what is wrong with one is noted in it.

    The coordinates are taken as they are, without a shift of one pixel; `folder` and `path` of
    the XML, which seldom survive a move, are not looked at.
    """
    for file in files:
        try:
            yield _image(file, ElementTree.parse(file).getroot(), ids_of(names))
        except OSError as error:
            fault = f"the annotation cannot be read: {error.strerror}"
            yield AnnotatedImage(str(file), filename="", fault=fault)
        except ElementTree.ParseError as error:
            yield AnnotatedImage(str(file), filename="", fault=f"no XML: {error}")
        except ValueError as error:
            yield AnnotatedImage(str(file), filename="", fault=str(error))


def _image(file: Path, root: ElementTree.Element, ids: dict[str, int]) -> AnnotatedImage:
    filename = _text(root, "filename")
    if root.tag != "annotation" or not filename:
        raise ValueError("no Pascal VOC annotation: expected <annotation> with a <filename>")
    image = AnnotatedImage(f"{file} ({filename})", filename)
    size = root.find("size")
    if size is not None:
        image.size = (int(_number(size, "height")), int(_number(size, "width")))
    for position, item in enumerate(root.iter("object"), start=1):
        name = f"object {position}"
        try:
            image.objects.append(_object(name, item, ids))
        except ValueError as error:
            image.problems.append(f"{name}: {error}")
    return image


def _object(name: str, item: ElementTree.Element, ids: dict[str, int]) -> AnnotatedObject:
    class_name, box = _text(item, "name"), item.find("bndbox")
    if class_name not in ids:
        raise ValueError(f"class {class_name!r} is unknown; expected {nearest(class_name, ids)}")
    if box is None:
        raise ValueError("has no <bndbox>")
    ymin, xmin, ymax, xmax = (_number(box, side) for side in ("ymin", "xmin", "ymax", "xmax"))
    difficult = _text(item, "difficult") == "1"
    return AnnotatedObject(name, ids[class_name], (ymin, xmin, ymax, xmax), difficult=difficult)


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(element: ElementTree.Element, tag: str) -> float:
    text = _text(element, tag)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"<{tag}> is {text!r}, expected a number of pixels") from None
