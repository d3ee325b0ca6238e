"""From annotated images of any format to record files: the part that all converters share."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from absl import logging
from PIL import Image
from tqdm import tqdm

from mnasdet.data import label_map as label_maps
from mnasdet.data import records
from mnasdet.errors import DataError


@dataclass(frozen=True)
class AnnotatedObject:
    """One object as its annotation has it.

    Attributes:
      name: says in messages which of the image's objects it is.
      box: (ymin, xmin, ymax, xmax) in pixels.
      area: square pixels; None takes the box's.
    """

    name: str
    class_id: int
    box: tuple[float, float, float, float]
    area: float | None = None
    is_crowd: bool = False
    difficult: bool = False


@dataclass
class AnnotatedImage:
    """One image as its annotation file has it.

    Attributes:
      name: says in messages which image and annotation it is.
      filename: relative to the folder of the images.
      size: (height, width) in pixels that the annotation states, if it does.
      problems: what was wrong with single objects, which are left out of `objects`.
      fault: what makes the whole image unusable.
    """

    name: str
    filename: str
    size: tuple[int, int] | None = None
    objects: list[AnnotatedObject] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    fault: str = ""

    @property
    def source_id(self) -> str:
        """The file name without its ending: the same for every format of annotations."""
        return str(PurePosixPath(self.filename).with_suffix(""))


@dataclass
class Summary:
    """What a conversion wrote and left out."""

    paths: list[str]
    images: int = 0
    boxes: int = 0
    skipped_images: int = 0
    skipped_boxes: int = 0

    def __str__(self) -> str:
        where = self.paths[0] + (f" .. {self.paths[-1]}" if len(self.paths) > 1 else "")
        return (
            f"wrote {self.images} images with {self.boxes} boxes to {where}; "
            f"left out {self.skipped_images} images and {self.skipped_boxes} boxes"
        )


def convert(
    images: Iterable[AnnotatedImage],
    *,
    total: int,
    images_dir: str | os.PathLike[str],
    names: Mapping[int, str],
    output_path: str | os.PathLike[str],
    num_shards: int,
    label_map_output: str | os.PathLike[str],
    skip_bad: bool,
) -> Summary:
    """Writes the images to OUTPUT_PATH-00000-of-0000N and so on, and the label map.

    Args:
      total: number of images, for the progress bar on standard error.
      skip_bad: log what is bad and leave it out (a bad box alone, without its image), instead of
        ending with the first.

    Raises:
      DataError: when something is bad and not skipped, when nothing is left, or when the output
        cannot be written.
    """
    if not Path(images_dir).is_dir():
        raise DataError(f"{images_dir}: the folder of the images does not exist")
    _check_label_map_output(label_map_output, names)
    writer = records.ShardedWriter(output_path, num_shards)
    summary = Summary(writer.paths)
    seen: set[str] = set()
    with writer:
        for image in tqdm(images, total=total, unit="image", desc=Path(output_path).name):
            record = None if image.fault else _record(image, Path(images_dir), names, seen)
            _report(image, skip_bad)
            summary.skipped_boxes += len(image.problems)
            if record is None:
                summary.skipped_images += 1
                continue
            writer.write(record)
            summary.images += 1
            summary.boxes += len(record.boxes)
        if not summary.images:
            raise DataError(f"{images_dir}: no image is left to write, {total} were annotated")
        label_maps.save(label_map_output, names)
    return summary


def _check_label_map_output(path: str | os.PathLike[str], names: Mapping[int, str]) -> None:
    """Two splits with different ids for one class would train without a word."""
    if Path(path).exists() and label_maps.load(path) != dict(names):
        raise DataError(
            f"{path}: exists and differs from the label map of these annotations; delete it or "
            "choose another --label_map_output"
        )


def _report(image: AnnotatedImage, skip_bad: bool) -> None:
    problems = [*image.problems, *([image.fault] if image.fault else [])]
    for problem in problems:
        message = f"{image.name}: {problem}"
        if not skip_bad:
            raise DataError(f"{message} (--bad_records=skip leaves it out)")
        logging.warning("left out: %s", message)


def _record(
    image: AnnotatedImage, folder: Path, names: Mapping[int, str], seen: set[str]
) -> records.Record | None:
    """The record of an image; None with `image.fault` set where there can be none."""
    try:
        encoded = (folder / image.filename).read_bytes()
        image_format, height, width = records.image_header(encoded)
        _decode(encoded)
        if image.size not in (None, (height, width)):
            raise ValueError(
                f"the annotation says (height, width) {image.size}, the image has {height, width}"
            )
        if image.source_id in seen:
            raise ValueError(f"an image of the name {image.source_id!r} came before")
    except OSError as error:
        image.fault = f"the image {folder / image.filename} cannot be read: {error.strerror}"
        return None
    except ValueError as error:
        image.fault = f"{folder / image.filename}: {error}"
        return None
    seen.add(image.source_id)
    objects = []
    for item in image.objects:
        if fault := records.box_fault(item.box, height, width):
            image.problems.append(f"{item.name}: box {fault}")
        else:
            objects.append(item)
    boxes = np.array([item.box for item in objects], np.float64).reshape(-1, 4)
    boxes = np.clip(boxes / (height, width, height, width), 0.0, 1.0)
    return records.Record(
        source_id=image.source_id,
        filename=image.filename,
        encoded=encoded,
        image_format=image_format,
        height=height,
        width=width,
        boxes=boxes.astype(np.float32),
        class_ids=np.array([item.class_id for item in objects], np.int64),
        class_names=[names[item.class_id] for item in objects],
        area=np.array([_area(item) for item in objects], np.float32),
        is_crowd=np.array([item.is_crowd for item in objects], bool),
        difficult=np.array([item.difficult for item in objects], bool),
    )


def _area(item: AnnotatedObject) -> float:
    if item.area is not None:
        return item.area
    ymin, xmin, ymax, xmax = item.box
    return (ymax - ymin) * (xmax - xmin)


def _decode(encoded: bytes) -> None:
    """A converter runs once, so it can afford to look at every pixel."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"the image is damaged: {error}") from None
