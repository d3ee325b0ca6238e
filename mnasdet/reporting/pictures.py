"""What a detector finds in pictures, beside what is there."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from mnasdet.reporting import page

MOST_EXAMPLES = 6

# Of one picture: its longest side in pixels is the first of these at which it fits the bytes, which
# are a third more as text.
_SIDES = (640, 480, 320, 240)
_MOST_BYTES = 180_000
_JPEG_QUALITY = 85

# Detections below it are left out, and only so many of an image are kept.
_LEAST_SCORE = 0.05
_MOST_DETECTIONS = 60

# Labels of more boxes cover each other; they are tooltips then.
_MOST_LABELS = 8

_STEPS = np.arange(1, 20) / 20
_USUAL_SCORE = 0.3
_IOU = 0.5


@dataclass(frozen=True)
class Example:
    """An image, what was detected and what is true.

    Attributes:
      image: uint8 [height, width, 3].
      boxes: [n, 4] (ymin, xmin, ymax, xmax), normalised; `classes` and `scores` [n], best first.
      truth_boxes: [m, 4]; `truth_classes` [m].
      class_names: by class id.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    truth_boxes: np.ndarray
    truth_classes: np.ndarray
    class_names: Mapping[int, str]


def section(examples: Sequence[Example] | None) -> str:
    """The first few, truth and detections side by side; "" for none.

    The score from which on detections are shown can be changed; at first it is the one with the
    highest F1 in these pictures.
    """
    shown = list(examples or [])[:MOST_EXAMPLES]
    if not shown:
        return ""
    right = [matches(example) for example in shown]
    score, f1 = best_score(shown, right)
    note = (
        f"Green: right, with the class of a box that is there and an IoU of {_IOU:g} or more with "
        "it; red: wrong, or found a second time."
    )
    if f1:
        note += f" F1 is highest, {f1:.2f} in these pictures, from a score of {score:.2f} on."
    if any(map(_is_dense, shown)):
        note += " Where there are many boxes, a label shows when you point at one."
    slider = (
        f'<label class="picker">Score from <output>{score:.2f}</output> <input type="range" '
        f'class="score" min="{_LEAST_SCORE}" max="0.95" step="0.05" value="{score:.2f}"></label>'
    )
    pictures = "".join(
        _figure(example, found, score, f"picture-{number}")
        for number, (example, found) in enumerate(zip(shown, right, strict=True))
    )
    content = f'{page.note(note)}{slider}<div class="examples">{pictures}</div>'
    return page.section("What the best model finds", content)


def matches(example: Example) -> np.ndarray:
    """[n], whether each detection is right: it takes the box of its class that fits it best, of
    those that no detection before it has taken."""
    right = np.zeros(len(example.boxes), bool)
    if not len(example.truth_boxes):
        return right
    overlap = _iou(example.boxes, example.truth_boxes)
    overlap *= example.classes[:, None] == example.truth_classes[None]
    for place in range(len(right)):
        taken = int(overlap[place].argmax())
        right[place] = overlap[place, taken] >= _IOU
        if right[place]:
            overlap[:, taken] = 0.0
    return right


def best_score(examples: Sequence[Example], right: Sequence[np.ndarray]) -> tuple[float, float]:
    """The multiple of 0.05 from which on detections have the highest F1, and that F1; the usual
    one where nothing is right.

    Args:
      right: `matches` of each example.
    """
    scores = np.concatenate([example.scores for example in examples])
    is_right = np.concatenate(right)
    num_true = sum(len(example.truth_boxes) for example in examples)
    f1 = [
        2 * is_right[scores >= step].sum() / max(1, (scores >= step).sum() + num_true)
        for step in _STEPS
    ]
    best = int(np.argmax(f1))
    return (float(_STEPS[best]), float(f1[best])) if f1[best] else (_USUAL_SCORE, 0.0)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n, m] of boxes [n, 4] and [m, 4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)


def _figure(example: Example, right: np.ndarray, score: float, name: str) -> str:
    """The picture is in the page once: the second drawing uses that of the first."""
    height, width = example.image.shape[:2]
    image = f'<image id="{name}" width="{width}" height="{height}" href="{_data_uri(example)}"/>'
    drawings = {
        "truth": image + "".join(_truth(example)),
        "detections": f'<use href="#{name}"/>' + "".join(_detections(example, right, score)),
    }
    kind = "boxes dense" if _is_dense(example) else "boxes"
    shown = "".join(
        f'<figure><svg viewBox="0 0 {width} {height}" class="{kind}" role="img" '
        f'style="--line:{_line(example):.3g}px"><title>{caption}</title>{content}</svg>'
        f"<figcaption>{caption}</figcaption></figure>"
        for caption, content in drawings.items()
    )
    return f'<div class="example">{shown}</div>'


def _is_dense(example: Example) -> bool:
    return len(example.truth_boxes) > _MOST_LABELS


def _truth(example: Example) -> Iterator[str]:
    for box, class_id in zip(example.truth_boxes, example.truth_classes, strict=True):
        yield _box(example, box, _name(example, class_id), '<g class="true">')


def _detections(example: Example, right: np.ndarray, score: float) -> Iterator[str]:
    """The best last, on top."""
    kept = np.flatnonzero(example.scores >= _LEAST_SCORE)[:_MOST_DETECTIONS]
    for place in kept[::-1]:
        own = float(example.scores[place])
        kind = ("right" if right[place] else "wrong") + " low" * (own < score)
        label = f"{_name(example, example.classes[place])} {own:.2f}"
        opening = f'<g class="{kind}" data-score="{own:.4f}">'
        yield _box(example, example.boxes[place], label, opening)


def _name(example: Example, class_id: int) -> str:
    return example.class_names.get(int(class_id), f"class {class_id}")


def _box(example: Example, box: np.ndarray, label: str, opening: str) -> str:
    """The label stands above the box, or in it at the upper edge of the picture."""
    height, width = example.image.shape[:2]
    top, left, bottom, right = (box * [height, width, height, width]).tolist()
    line = _line(example)
    baseline = top - 0.25 * line if top > 1.2 * line else top + line
    anchor = "end" if left > 0.75 * width else "start"
    return (
        f'{opening}<title>{escape(label)}</title><rect x="{left:.1f}" y="{top:.1f}" '
        f'width="{right - left:.1f}" height="{bottom - top:.1f}"/>'
        f'<text x="{right if anchor == "end" else left:.1f}" y="{baseline:.1f}" '
        f'text-anchor="{anchor}">{escape(label)}</text></g>'
    )


def _line(example: Example) -> float:
    """The height of a line of text, in pixels of the image."""
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
