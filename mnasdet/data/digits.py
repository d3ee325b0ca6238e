"""The embedded data set: scikit-learn's handwritten digits, at several scales, on backgrounds.

It needs no download, so every installation can train and search. The 1797 digits of 8x8 pixels
are real handwriting; where they go and on what is drawn from fixed seeds.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from mnasdet import files
from mnasdet.data import label_map as label_maps
from mnasdet.errors import DataError, nearest

NAMES = {digit + 1: str(digit) for digit in range(10)}
SPLITS = ("train", "validation")
MIN_IMAGE_SIZE = 32

# Part of the cache folder's name: raise it with every change of the pictures.
_VERSION = 1

# The first digits of the 1797; the others are for validation.
_NUM_TRAIN_DIGITS = 1400

# Height of a digit over the image's side.
_SCALES = (0.2, 0.5)
_MAX_DIGITS = 5

# Colours of the background and of the ink, always darker: easy enough for minutes of training.
_PAPER, _PEN = (155, 256), (0, 100)

# Intersection over the smaller of two boxes.
_MAX_OVERLAP = 0.1

# Ink that is stronger than this is within the box; fainter ink is blur around it.
_INK = 0.35
_FAINT = 0.05

_RESAMPLING = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)

# (ymin, xmin, ymax, xmax) in pixels.
Box = tuple[int, int, int, int]


def records(split: str, num_images: int, image_size: int) -> tuple[list[Path], Path]:
    """Returns record files and label map of a split, made at first use and kept in a cache folder.

    The folder is MNASDET_CACHE_DIR, by default ~/.cache/mnasdet. Files appear whole and have
    always the same content, so that makers that run at once or are killed do no harm.

    Args:
      split: train or validation, which have no handwritten digit in common.
      image_size: side of the square images in pixels.

    Raises:
      DataError: for arguments out of range, or when the folder cannot be written.
    """
    return cached("digits", split, num_images, image_size, _records)


def cached(
    name: str,
    split: str,
    num_images: int,
    image_size: int,
    make: Callable[[str, int, int], Iterator[Any]],
    to_example: Callable[[Any], Any] | None = None,
) -> tuple[list[Path], Path]:
    """Returns what `records` does, of other pictures.

    Args:
      name: of the pictures; their part of the folder's name.
      make: the records of (split, num_images, image_size).
      to_example: as `ShardedWriter` takes it.
    """
    _check(split, num_images, image_size)
    folder = files.cache_folder() / f"{name}-v{_VERSION}-{split}-{num_images}x{image_size}"
    file, label_map_path = folder / "digits.record-00000-of-00001", folder / "label_map.pbtxt"
    if not (file.exists() and label_map_path.exists()):
        logging.info("making %d pictures of digits in %s", num_images, folder)
        try:
            _write(file, label_map_path, make(split, num_images, image_size), to_example)
        except OSError as error:
            raise DataError(
                f"{folder}: the digits cannot be written: {error.strerror}; "
                "name another folder in MNASDET_CACHE_DIR"
            ) from None
    return [file], label_map_path


def images(
    split: str, num_images: int, image_size: int
) -> Iterator[tuple[np.ndarray, list[int], list[Box]]]:
    """Yields the pictures one after the other.

    Yields:
      [image_size, image_size, 3] uint8, class ids from 1, and the boxes around the ink.
    """
    digits, targets = handwriting(split)
    for position in range(num_images):
        random = np.random.RandomState([SPLITS.index(split), position])
        yield _picture(digits, targets, image_size, random)


def handwriting(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the digits of a split, [digits, 8, 8] from 0 (paper) to 1, and which they are."""
    from sklearn.datasets import load_digits

    data = load_digits()
    # RandomState: the one generator whose stream numpy promises never to change.
    order = np.random.RandomState(0).permutation(len(data.images))
    order = order[:_NUM_TRAIN_DIGITS] if split == "train" else order[_NUM_TRAIN_DIGITS:]
    return data.images[order] / 16.0, data.target[order]


def _check(split: str, num_images: int, image_size: int) -> None:
    if split not in SPLITS:
        raise DataError(f"digits: split {split!r}; expected {nearest(split, SPLITS)}")
    if num_images < 1:
        raise DataError(f"digits: num_images {num_images}; at least 1 is needed")
    if image_size < MIN_IMAGE_SIZE:
        raise DataError(f"digits: image_size {image_size}; at least {MIN_IMAGE_SIZE} is needed")


def _write(
    file: Path,
    label_map_path: Path,
    made: Iterator[Any],
    to_example: Callable[[Any], Any] | None,
) -> None:
    from mnasdet.data import records

    file.parent.mkdir(parents=True, exist_ok=True)
    path = file.with_name("digits.record")
    with records.ShardedWriter(path, 1, to_example or records.to_example) as writer:
        for record in made:
            writer.write(record)
    # Last: a folder that has both files is complete.
    label_maps.save(label_map_path, NAMES)


def _records(split: str, num_images: int, image_size: int) -> Iterator[Any]:
    for position, picture in enumerate(images(split, num_images, image_size)):
        yield _record(f"digits-{split}-{position:06}", *picture)


def _record(source_id: str, image: np.ndarray, class_ids: list[int], boxes: list[Box]):
    from mnasdet.data.records import Record

    corners = np.array(boxes, np.float32)
    size = image.shape[0]
    return Record(
        source_id=source_id,
        filename=f"{source_id}.png",
        encoded=encode(image),
        image_format="png",
        height=size,
        width=size,
        boxes=corners / np.float32(size),
        class_ids=np.array(class_ids, np.int64),
        class_names=[NAMES[class_id] for class_id in class_ids],
        area=np.prod(corners[:, 2:] - corners[:, :2], axis=1),
        is_crowd=np.zeros(len(boxes), bool),
        difficult=np.zeros(len(boxes), bool),
    )


def encode(image: np.ndarray) -> bytes:
    """Returns a PNG, whose pixels do not depend on the version of a JPEG library."""
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def _picture(
    digits: np.ndarray, targets: np.ndarray, size: int, random: np.random.RandomState
) -> tuple[np.ndarray, list[int], list[Box]]:
    canvas = paper(size, random)
    class_ids: list[int] = []
    boxes: list[Box] = []
    for _ in range(random.randint(1, _MAX_DIGITS + 1)):
        chosen = random.randint(len(digits))
        ink = scaled_ink(digits[chosen], size, _SCALES, random)
        place = _place(ink, boxes, size, random)
        # A crowded picture has fewer digits than were drawn for it.
        if place is None:
            continue
        y, x, box = place
        write(canvas, ink, y, x, random)
        class_ids.append(int(targets[chosen]) + 1)
        boxes.append(box)
    return to_pixels(canvas), class_ids, boxes


def paper(size: int, random: np.random.RandomState) -> np.ndarray:
    """Returns a background, [size, size, 3] float64 from 0 to about 255."""
    return _background(size, _PAPER, random)


def write(
    canvas: np.ndarray, ink: np.ndarray, y: int, x: int, random: np.random.RandomState
) -> None:
    """Writes ink of a random dark colour on a background, at row `y` and column `x`."""
    colour = random.randint(*_PEN, size=3)
    window = canvas[y : y + ink.shape[0], x : x + ink.shape[1]]
    window += (colour - window) * ink[..., None]


def to_pixels(canvas: np.ndarray) -> np.ndarray:
    """Returns a canvas as uint8."""
    return canvas.round().clip(0, 255).astype(np.uint8)


def scaled_ink(
    digit: np.ndarray, size: int, scales: tuple[float, float], random: np.random.RandomState
) -> np.ndarray:
    """Returns a digit scaled up: [height, width] within [0, 1], with no empty edge.

    Args:
      size: side of the picture in pixels; `scales` are the least and the largest height over it.
    """
    # A margin, so that interpolation does not cut the strokes off at the edge.
    digit = np.pad(_trimmed(digit, _INK), 1)
    # Uniform in the logarithm: as many small digits as large ones.
    low, high = np.log(scales)
    factor = size * np.exp(random.uniform(low, high)) / (digit.shape[0] - 2)
    height = max(1, round(digit.shape[0] * factor))
    width = max(1, round(digit.shape[1] * factor * random.uniform(0.85, 1.15)))
    image = Image.fromarray((digit * 255).round().astype(np.uint8))
    method = _RESAMPLING[random.randint(len(_RESAMPLING))]
    scaled = np.asarray(image.resize((width, height), method)) / 255.0
    # Pen strokes are seldom full black in the data.
    return np.minimum(_trimmed(scaled, _FAINT) * 1.3, 1.0)[:size, :size]


def _trimmed(ink: np.ndarray, threshold: float) -> np.ndarray:
    ymin, xmin, ymax, xmax = _extent(ink, threshold)
    return ink[ymin:ymax, xmin:xmax]


def _extent(ink: np.ndarray, threshold: float) -> Box:
    rows, columns = (
        np.flatnonzero((ink > threshold).any(1)),
        np.flatnonzero((ink > threshold).any(0)),
    )
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _place(
    ink: np.ndarray, boxes: list[Box], size: int, random: np.random.RandomState
) -> tuple[int, int, Box] | None:
    """Returns row and column of a free place and the box there; None where all is taken."""
    ymin, xmin, ymax, xmax = _extent(ink, _INK)
    for _ in range(30):
        y = random.randint(size - ink.shape[0] + 1)
        x = random.randint(size - ink.shape[1] + 1)
        box = (y + ymin, x + xmin, y + ymax, x + xmax)
        if all(_overlap(box, other) <= _MAX_OVERLAP for other in boxes):
            return y, x, box
    return None


def _overlap(box: Box, other: Box) -> float:
    height = min(box[2], other[2]) - max(box[0], other[0])
    width = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return max(0, height) * max(0, width) / smaller


def _background(size: int, colours: tuple[int, int], random: np.random.RandomState) -> np.ndarray:
    """Returns [size, size, 3] float64: a gradient, clouds or stripes of two colours, with noise."""
    y, x = np.mgrid[0:size, 0:size] / size
    angle = random.uniform(0, 2 * np.pi)
    along = y * np.sin(angle) + x * np.cos(angle)
    kind = random.randint(3)
    if kind == 0:
        mix = (along - along.min()) / np.ptp(along)
    elif kind == 1:
        cells = random.randint(3, 13)
        clouds = Image.fromarray(random.randint(0, 256, (cells, cells)).astype(np.uint8))
        mix = np.asarray(clouds.resize((size, size), Image.Resampling.BICUBIC)) / 255.0
    else:
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * random.uniform(2, 12) * along)
    first, second = random.randint(*colours, size=(2, 3))
    noise = random.normal(0, random.uniform(0, 12), (size, size, 1))
    return first + (second - first) * mix[..., None] + noise
