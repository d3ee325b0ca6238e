"""The objects that a detector finds in pictures, beside the true ones."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from mnasdet.evaluation.boxes import covered, iou
from mnasdet.reporting import labels, page

MOST_EXAMPLES = 6

# The longest side of one picture in pixels is the first of these at which it fits the bytes, which
# are a third more as text.
_SIDES = (640, 480, 320, 240)
_MOST_BYTES = 180_000
_JPEG_QUALITY = 85

# Detections below the score are left out; of an image the best ones alone are kept.
_LEAST_SCORE = 0.05
_MOST_DETECTIONS = 60

# Labels of more boxes cover each other; they are tooltips then.
_MOST_LABELS = 8

# The height of a label's line, in heights of its letters.
_LINE_HEIGHT = 1.25

_STEPS = np.arange(1, 20) / 20
_USUAL_SCORE = 0.3
_IOU = 0.5


@dataclass(frozen=True)
class Example:
    """An image, what was detected and what is true.

    Attributes:
      image: uint8 [height, width, 3], in the shape that people see; empty where it is not shown.
      boxes: [n, 4] (ymin, xmin, ymax, xmax), normalised; `classes` and `scores` [n], best first.
      truth_boxes: [m, 4]; `truth_classes` [m].
      class_names: by class id.
      truth_is_crowd: [m]; no crowds if left out. A crowd is not missed, and what is found in it is
        neither right nor wrong.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    truth_boxes: np.ndarray
    truth_classes: np.ndarray
    class_names: Mapping[int, str]
    truth_is_crowd: np.ndarray | None = None

    @property
    def is_object(self) -> np.ndarray:
        """Tells which of the [m] truth boxes are to be found: those of crowds are not."""
        if self.truth_is_crowd is None:
            return np.ones(len(self.truth_boxes), bool)
        return ~self.truth_is_crowd.astype(bool)


class Threshold(NamedTuple):
    """The score from which on detections have the highest F1, in how many pictures."""

    score: float
    f1: float
    num_pictures: int


def section(
    examples: Sequence[Example] | None,
    threshold: Threshold | None = None,
    title: str = "What the best model finds",
) -> Markup:
    """Returns the first few, truth and detections side by side; nothing for none.

    Args:
      threshold: the score from which on detections are shown at first, of the whole set; that of
        these pictures if left out. The reader can change it.
    """
    shown = list(examples or [])[:MOST_EXAMPLES]
    if not shown:
        return Markup()
    score, f1, num_pictures = threshold or best_threshold(shown)
    note = (
        f"Green: right, with the class of a box that is there and an IoU of {_IOU:g} or more with "
        "it; red: wrong, or found a second time; dashed yellow: missed."
    )
    if f1:
        where = f"all {num_pictures:,} pictures of the evaluation set" if threshold else "these"
        note += (
            f" Over {where} F1 is highest, {f1:.2f}, from a score of {score:.2f} on; the score is "
            "chosen on the pictures that it is judged on."
        )
    if any(example.truth_is_crowd is not None and any(example.truth_is_crowd) for example in shown):
        note += " Dotted: crowds, which count for nothing."
    if any(map(_is_dense, shown)):
        note += " Where there are many boxes, a label shows when you point at one."
    slider = Markup(
        '<label class="picker">Score from <output>{score:.2f}</output> <input type="range" '
        'class="score" min="{least}" max="0.95" step="0.05" value="{score:.2f}"></label>'
    ).format(score=score, least=_LEAST_SCORE)
    pictures = Markup().join(
        _figure(example, score, f"picture-{number}") for number, example in enumerate(shown)
    )
    content = page.note(note) + slider + Markup('<div class="examples">{}</div>').format(pictures)
    return page.section(title, content)


def matches(example: Example) -> np.ndarray:
    """Returns [n], whether each detection is right: it takes the box of its class that fits it
    best, of those that no detection before it has taken."""
    return _taken(example) >= 0


def found_from(example: Example) -> np.ndarray:
    """Returns [m], the score of the detection that finds each truth box; 0 for a missed one."""
    taken = _taken(example)
    scores = np.zeros(len(example.truth_boxes))
    scores[taken[taken >= 0]] = example.scores[taken >= 0]
    return scores


def _taken(example: Example) -> np.ndarray:
    """Returns [n], the index of the truth box that each detection takes; -1 for none."""
    taken = np.full(len(example.boxes), -1)
    if not len(example.truth_boxes):
        return taken
    overlap = iou(example.boxes, example.truth_boxes) * _same_class(example)
    # A crowd is never taken: what is found in it counts for nothing.
    overlap[:, ~example.is_object] = 0.0
    for place in range(len(taken)):
        best = int(overlap[place].argmax())
        if overlap[place, best] >= _IOU:
            taken[place] = best
            # A box is taken once: the next detection of it is wrong.
            overlap[:, best] = 0.0
    return taken


def counted(example: Example) -> np.ndarray:
    """Returns [n], whether each detection is right or wrong: all but those that take no box and
    lie in a crowd of their class, as COCO judges."""
    crowds = covered(example.boxes, example.truth_boxes) * _same_class(example)
    return matches(example) | ~(crowds[:, ~example.is_object] >= _IOU).any(axis=1)


def _same_class(example: Example) -> np.ndarray:
    return example.classes[:, None] == example.truth_classes[None]


def best_threshold(examples: Sequence[Example]) -> Threshold:
    """Returns the multiple of 0.05 from which on detections have the highest F1; the usual one
    where nothing is right."""
    scores = np.concatenate([example.scores[counted(example)] for example in examples])
    right = np.concatenate([matches(example)[counted(example)] for example in examples])
    num_true = sum(int(example.is_object.sum()) for example in examples)
    f1 = [
        2 * right[scores >= step].sum() / max(1, (scores >= step).sum() + num_true)
        for step in _STEPS
    ]
    best = int(np.argmax(f1))
    if not f1[best]:
        return Threshold(_USUAL_SCORE, 0.0, len(examples))
    return Threshold(float(_STEPS[best]), float(f1[best]), len(examples))


def _figure(example: Example, score: float, name: str) -> Markup:
    """Returns both drawings. The picture is in the page once: the second one uses the first's."""
    height, width = example.image.shape[:2]
    image = Markup('<image id="{}" width="{}" height="{}" href="{}"/>').format(
        name, width, height, _data_uri(example)
    )
    found = [*_missed(example, score), *_detections(example, score)]
    drawings = {
        "truth": image + Markup().join(_truth(example)),
        "detections": Markup('<use href="#{}"/>').format(name) + Markup().join(found),
    }
    shown = Markup().join(
        Markup(
            '<figure><svg viewBox="0 0 {width} {height}" class="{kind}" role="img" '
            'style="--line:{line:.3g}px"><title>{caption}</title>{content}</svg>'
            "<figcaption>{caption}</figcaption></figure>"
        ).format(
            width=width,
            height=height,
            kind="boxes dense" if _is_dense(example) else "boxes",
            line=_line(example),
            caption=caption,
            content=content,
        )
        for caption, content in drawings.items()
    )
    return Markup('<div class="example">{}</div>').format(shown)


def _is_dense(example: Example) -> bool:
    return len(example.truth_boxes) > _MOST_LABELS


def _truth(example: Example) -> Iterator[Markup]:
    names = [_name(example, class_id) for class_id in example.truth_classes]
    corners = _label_corners(example, example.truth_boxes, names)
    for box, name, corner, is_object in zip(
        example.truth_boxes, names, corners, example.is_object, strict=True
    ):
        opening = Markup('<g class="true">') if is_object else Markup('<g class="true crowd">')
        yield _box(example, box, name, opening, corner)


def _missed(example: Example, score: float) -> Iterator[Markup]:
    """Yields every object's box; one that is found at the score is hidden."""
    for place, own in enumerate(found_from(example).tolist()):
        if example.is_object[place]:
            label = f"missed: {_name(example, example.truth_classes[place])}"
            kind = "missed" + " low" * (own >= score)
            opening = Markup('<g class="{}" data-found="{:.4f}">').format(kind, own)
            yield _box(example, example.truth_boxes[place], label, opening)


def _detections(example: Example, score: float) -> Iterator[Markup]:
    """Yields the boxes, the best last, on top."""
    right, counts = matches(example), counted(example)
    kept = np.flatnonzero(example.scores >= _LEAST_SCORE)[:_MOST_DETECTIONS]
    names = [f"{_name(example, example.classes[i])} {example.scores[i]:.2f}" for i in kept]
    corners = _label_corners(example, example.boxes[kept], names)
    for place, label, corner in reversed(list(zip(kept, names, corners, strict=True))):
        own = float(example.scores[place])
        kind = ("right" if right[place] else "wrong" if counts[place] else "in-crowd") + " low" * (
            own < score
        )
        opening = Markup('<g class="{}" data-score="{:.4f}">').format(kind, own)
        yield _box(example, example.boxes[place], label, opening, corner)


def _name(example: Example, class_id: int) -> str:
    return example.class_names.get(int(class_id), f"class {class_id}")


def _label_corners(
    example: Example, boxes: np.ndarray, names: Sequence[str]
) -> list[tuple[float, float]]:
    """Returns the left upper corners of labels, in pixels, in the order of the boxes."""
    height, width = example.image.shape[:2]
    line = _line(example)
    sizes = [(labels.text_width(name, line), _LINE_HEIGHT * line) for name in names]
    pixels = (boxes * [height, width, height, width]).tolist()
    return labels.places(pixels, sizes, width, height)


def _box(
    example: Example,
    box: np.ndarray,
    label: str,
    opening: Markup,
    corner: tuple[float, float] | None = None,
) -> Markup:
    """Returns a box and its label.

    Args:
      opening: the tag that begins the group of both.
      corner: of the label, which is a tooltip alone without it.
    """
    height, width = example.image.shape[:2]
    top, left, bottom, right = (box * [height, width, height, width]).tolist()
    text = Markup()
    if corner:
        text = Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(
            corner[0], corner[1] + _line(example), label
        )
    rect = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        left, top, right - left, bottom - top
    )
    return Markup("{}<title>{}</title>{}{}</g>").format(opening, label, rect, text)


def _line(example: Example) -> float:
    """Returns the height of a line of text, in pixels of the image."""
    return max(example.image.shape[:2]) / 24


def _data_uri(example: Example) -> str:
    content = b""
    for side in _SIDES:
        image = Image.fromarray(example.image)
        image.thumbnail((side, side))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
        content = buffer.getvalue()
        if len(content) <= _MOST_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
