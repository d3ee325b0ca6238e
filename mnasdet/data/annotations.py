"""Annotated images, as the readers of all formats give them to the converter."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from mnasdet.errors import nearest

# A message lists at most as many classes: a line of a thousand names hides its beginning.
LISTED_CLASSES = 20

# To look for the nearest of more takes seconds.
_COMPARED_CLASSES = 10_000


@dataclass(frozen=True)
class AnnotatedObject:
    """One object as its annotation has it.

    Attributes:
      name: says in messages which of the image's objects it is.
      box: (ymin, xmin, ymax, xmax) in pixels, or in shares of the image where that says so.
      area: square pixels; None takes the box's.
      notes: what the summary counts of it, such as a box that was made from a polygon.
    """

    name: str
    class_id: int
    box: tuple[float, float, float, float]
    area: float | None = None
    is_crowd: bool = False
    difficult: bool = False
    notes: tuple[str, ...] = ()


@dataclass
class AnnotatedImage:
    """One image as its annotation file has it.

    Attributes:
      name: says in messages which image and annotation it is.
      filename: relative to the folder of the images.
      size: (height, width) in pixels that the annotation states, if it does.
      problems: what was wrong with single objects, which are left out of `objects`.
      unknown_classes: the names among those problems that are no class.
      fault: what makes the whole image unusable.
      unread_objects: objects that are in neither list, as the image is unusable.
      normalised: whether the boxes are shares of the image, within [0, 1].
      image_id: the annotation's own id, which becomes the record's source_id; "" takes the name of
        the file.
    """

    name: str
    filename: str
    size: tuple[int, int] | None = None
    objects: list[AnnotatedObject] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unknown_classes: list[str] = field(default_factory=list)
    fault: str = ""
    unread_objects: int = 0
    normalised: bool = False
    image_id: str = ""

    @property
    def num_objects(self) -> int:
        """Counts all objects of the annotation, good and bad."""
        return len(self.objects) + len(self.problems) + self.unread_objects


def expected(name: str, names: Iterable[str]) -> str:
    """Returns the classes for a message, nearest first: all, or the nearest of many."""
    names = list(names)
    if len(names) <= LISTED_CLASSES:
        return nearest(name, names)
    near = names if len(names) <= _COMPARED_CLASSES else []
    close = difflib.get_close_matches(name, near, n=5, cutoff=0.3)
    return f"one of {len(names)} classes" + (f", such as {', '.join(close)}" if close else "")
