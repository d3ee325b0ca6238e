"""Reads Pascal VOC annotations: one XML file for every image."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from mnasdet import text_files
from mnasdet.data import ordinary_files, values
from mnasdet.data.annotations import AnnotatedImage, AnnotatedObject, expected
from mnasdet.data.geometry import (
    FROM_POLYGON,
    FROM_TURNED_BOX,
    Sides,
    around_points,
    around_turned_box,
)
from mnasdet.data.label_map import ids_of
from mnasdet.data.pictures import without_ending
from mnasdet.errors import DataError, shown

_BY_DISPLAY_NAME = "boxes whose class is a display_name of the label map"
# To look for the nearest of a thousand names takes 30 ms.
_MAX_SUGGESTIONS = 100
# The flag that may follow a name in ImageSets/Main: whether the image shows a class.
_FLAG = re.compile(r"\s+-?[01]$")
_OTHER_FORMATS = {".json": "create_coco_tf_record", ".txt": "create_yolo_tf_record"}


class _UnknownClass(ValueError):
    """A class that is not to be read; its name is the second argument."""


@dataclass
class _Classes:
    """The ids of the classes by their names, and the answers for unknown names.

    Attributes:
      display_ids: by further names, which count where `ids` has none.
      told: the allowed names for every unknown one.
    """

    ids: Mapping[str, int]
    display_ids: Mapping[str, int]
    told: dict[str, str] = field(default_factory=dict)

    def expected(self, name: str) -> str:
        """Returns the allowed names for a message, the nearest to the first unknown ones first."""
        if name not in self.told:
            if len(self.told) >= _MAX_SUGGESTIONS:
                return f"one of {len({*self.ids, *self.display_ids})} classes"
            self.told[name] = expected(name, dict.fromkeys([*self.ids, *self.display_ids]))
        return self.told[name]


def annotation_files(
    annotations_dir: str | os.PathLike[str], image_set: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Returns the XML files that an image set names, in its order; without one all, sorted.

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
            raise DataError(f"{folder}: has no *.xml{_other_format(folder)}")
        return files
    lines = text_files.read_text(image_set, DataError, "image set").splitlines()
    named = [_annotation_file(folder, line.strip()) for line in lines if line.strip()]
    # A file that the set names twice is one image.
    return list(dict.fromkeys(named))


def _other_format(folder: Path) -> str:
    for ending, command in _OTHER_FORMATS.items():
        if any(folder.glob(f"*{ending}")):
            return f" but *{ending}; {command} may be the command for it"
    return ""


def _annotation_file(folder: Path, line: str) -> Path:
    """Returns the XML file that a line of an image set means.

    Names may have blanks, or be those of pictures or paths.
    """
    # The line as it is comes first: a name may end in a blank and a 1.
    names = [line, _FLAG.sub("", line), line.split()[0]]
    names += [re.split(r"[\\/]", name)[-1] for name in names[:2]]
    for name in names:
        # An image set may come from others: ".." must not lead out of the folder.
        for stem in (name, without_ending(name), name.removesuffix(".xml")):
            if stem and ".." not in stem and (folder / f"{stem}.xml").is_file():
                return folder / f"{stem}.xml"
    return folder / f"{_FLAG.sub('', line)}.xml"


def class_names(annotations_dir: str | os.PathLike[str]) -> dict[int, str]:
    """Returns ids from 1 for the classes of *all* the folder's annotations, by the alphabet.

    All, so that every split of a data set gets the same ids.
    """
    names: set[str] = set()
    faults = []
    for file in annotation_files(annotations_dir):
        try:
            root = _root(file)
        except ValueError as problem:
            # Each is reported when the image's turn comes.
            faults.append(f"; {file.name}: {problem}")
            continue
        here = {name for item in root.iter("object") if (name := _text(item, "name"))}
        try:
            for name in here:
                values.check_name(name)
        except ValueError as problem:
            raise DataError(f"{file}: class {shown(name)!r}: {problem}") from None
        names |= here
    if not names:
        fault = faults[0] if faults else ""
        raise DataError(f"{annotations_dir}: no annotation has an object with a name{fault}")
    return dict(enumerate(sorted(names), start=1))


def listed_classes(classes: Sequence[str]) -> dict[int, str]:
    """Ids from 1 for the names in their order.

    Raises:
      DataError: when a name is empty or comes twice.
    """
    names: dict[str, int] = {}
    for name in classes:
        if not name or name in names:
            raise DataError(f"--classes: {shown(name)!r} is empty or comes twice")
        names[name] = len(names) + 1
    return {class_id: name for name, class_id in names.items()}


def read(
    files: Sequence[Path],
    names: Mapping[int, str],
    ids: Mapping[str, int] | None = None,
    display_ids: Mapping[str, int] | None = None,
) -> Iterator[AnnotatedImage]:
    """Reads the annotations one by one; what is wrong with one is noted in it.

    The coordinates are taken as they are, without a shift of one pixel; `folder` and `path` of
    the XML, which seldom survive a move, are not looked at.

    Args:
      ids: class ids by the names in the annotations; those of `names` without.
      display_ids: further names of the classes, which count where `ids` has none.
    """
    classes = _Classes(ids_of(names) if ids is None else ids, display_ids or {})
    for file in files:
        try:
            yield _image(file, _root(file), classes)
        except ValueError as error:
            yield AnnotatedImage(str(file), filename="", fault=str(error))


def _root(file: Path) -> ElementTree.Element:
    """Reads the root of an XML file, in whatever encoding, its tags without namespaces.

    Raises:
      ValueError: when it is no XML.
    """
    if file.exists():
        ordinary_files.size(file)
    try:
        # From text: the XML parser itself knows no encoding of several bytes but Unicode's.
        text = text_files.read_text(file, ValueError, "XML text")
        root = ElementTree.fromstring(text.lstrip())
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    except ValueError as error:
        # The file is named once, by the image.
        raise ValueError(str(error).removeprefix(f"{file}: ")) from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _image(file: Path, root: ElementTree.Element, classes: _Classes) -> AnnotatedImage:
    filename = _text(root, "filename")
    if root.tag == "annotations":
        raise ValueError("is CVAT's own XML; export as Pascal VOC or COCO")
    if root.tag != "annotation" or not filename:
        raise ValueError("no Pascal VOC annotation: expected <annotation> with a <filename>")
    image = AnnotatedImage(f"{file} ({shown(filename)})", filename)
    size = root.find("size")
    if size is not None:
        try:
            image.size = values.size(_text(size, "height"), _text(size, "width"))
        except ValueError as problem:
            image.fault = f"<size>: {problem}"
    for position, item in enumerate(root.iter("object"), start=1):
        name = f"object {position}"
        try:
            image.objects.append(_object(name, item, classes))
        except ValueError as error:
            image.problems.append(f"{name}: {error.args[0]}")
            if isinstance(error, _UnknownClass):
                image.unknown_classes.append(error.args[1])
    return image


def _object(name: str, item: ElementTree.Element, classes: _Classes) -> AnnotatedObject:
    class_name = _text(item, "name")
    # The names come first: a display_name that is another class's name means that class.
    class_id = classes.ids.get(class_name) or classes.display_ids.get(class_name)
    if class_id is None:
        allowed = classes.expected(class_name)
        message = f"class {shown(class_name)!r} is unknown; expected {allowed}"
        raise _UnknownClass(message, shown(class_name))
    try:
        difficult = values.flag(_text(item, "difficult"))
    except ValueError as problem:
        raise ValueError(f"<difficult> is {problem}") from None
    box, notes = _box(item)
    if class_name not in classes.ids:
        notes = (*notes, _BY_DISPLAY_NAME)
    return AnnotatedObject(name, class_id, box, difficult=difficult, notes=notes)


def _box(item: ElementTree.Element) -> tuple[Sides, tuple[str, ...]]:
    """Returns the box of an object, and a note of how it was found."""
    upright, turned, polygon = item.find("bndbox"), item.find("robndbox"), item.find("polygon")
    if upright is not None and _text(upright, "xmin"):
        ymin, xmin, ymax, xmax = (
            _number(upright, side) for side in ("ymin", "xmin", "ymax", "xmax")
        )
        box = (ymin, xmin, ymax, xmax)
        if radians := _rotation(item):
            return around_turned_box(box, radians), (FROM_TURNED_BOX,)
        return box, ()
    if turned is not None:
        x, y, width, height, radians = (
            _number(turned, tag) for tag in ("cx", "cy", "w", "h", "angle")
        )
        # Degrees would make plausible boxes of another shape.
        if abs(radians) > 2 * math.pi:
            raise ValueError(f"<angle> is {radians:g}, expected radians")
        box = (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
        return around_turned_box(box, radians), (FROM_TURNED_BOX,)
    if polygon is not None:
        return _around_polygon(polygon), (FROM_POLYGON,)
    raise ValueError("has no <bndbox>")


def _around_polygon(polygon: ElementTree.Element) -> Sides:
    """Returns the box around <x1>, <y1>, <x2> ... or around LabelMe's <pt><x>, <y>."""
    points: dict[str, list[float]] = {"x": [], "y": []}
    for element in polygon.iter():
        if re.fullmatch(r"[xy][0-9]*", element.tag):
            points[element.tag[0]].append(_value(element.text or "", element.tag))
    if len(points["x"]) < 3 or len(points["x"]) != len(points["y"]):
        raise ValueError(f"<polygon> has {len(points['x'])} x and {len(points['y'])} y")
    return around_points(points["x"], points["y"])


def _rotation(item: ElementTree.Element) -> float:
    """Returns the angle in radians of a box that is turned about its centre, as CVAT exports it."""
    for attribute in item.iter("attribute"):
        if _text(attribute, "name") == "rotation" and _text(attribute, "value"):
            return math.radians(_number(attribute, "value") % 360)
    for element in item.iter("angle"):
        if angle := _value(element.text or "0", "angle"):
            raise ValueError(f"is a turned box (<angle> {angle:g}); only upright ones can be read")
    return 0.0


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(element: ElementTree.Element, tag: str) -> float:
    return _value(_text(element, tag), tag)


def _value(text: str, tag: str) -> float:
    try:
        return values.number(text.strip())
    except ValueError as problem:
        raise ValueError(f"<{tag}> is {problem}, expected a number of pixels") from None
