"""From annotated images of any format to record files: the part that all converters share."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from absl import logging
from tqdm import tqdm

from mnasdet.data import label_map as label_maps
from mnasdet.data import pictures, records
from mnasdet.data.annotations import LISTED_CLASSES, AnnotatedImage, AnnotatedObject
from mnasdet.data.holdout import Holdout, holdout_path
from mnasdet.errors import DataError

# A larger share of lost boxes is a mistake in the whole data set, not in some annotations.
MAX_LOST_SHARE = 0.5

# InputReader.max_number_of_boxes where a config does not set it.
_DEFAULT_MAX_BOXES = 100


@dataclass
class Summary:
    """The record files that a conversion wrote, and what it left out.

    Attributes:
      paths: the record files.
      images, boxes: in them; `holdout_images` and `holdout_boxes` in the held-out ones.
      skipped_boxes: those of skipped images too.
      notes: says how often something was cut, turned, converted or understood.
      causes: why boxes were skipped, with numbers and names left out, to how often.
      examples: the first message of every cause.
    """

    paths: list[str]
    images: int = 0
    boxes: int = 0
    empty_images: int = 0
    skipped_images: int = 0
    skipped_boxes: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    unknown_classes: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    first_problem: str = ""
    most_boxes: int = 0
    remarks: Sequence[str] = ()
    holdout_paths: Sequence[str] = ()
    holdout_images: int = 0
    holdout_boxes: int = 0

    def add(self, record: records.Record, is_held_out: bool) -> None:
        """Counts an image that was written."""
        if is_held_out:
            self.holdout_images += 1
            self.holdout_boxes += len(record.boxes)
        else:
            self.images += 1
            self.boxes += len(record.boxes)
        self.empty_images += not len(record.boxes)
        self.most_boxes = max(self.most_boxes, len(record.boxes))

    def skip(self, image: AnnotatedImage, whole: bool) -> None:
        """Counts the boxes, or the whole image, that is left out."""
        self.skipped_images += whole
        self.unknown_classes.update(image.unknown_classes)
        lost = [*image.problems]
        self.first_problem = self.first_problem or next(
            (f"{image.name}: {text}" for text in (*lost, image.fault) if text), ""
        )
        if whole:
            others = image.num_objects - len(lost)
            lost += [image.fault] * others
        self.skipped_boxes += len(lost)
        for problem in lost:
            # Numbers and names left out, so that a thousand boxes with one fault are one cause.
            cause = re.sub(r"'[^']*'|\d[\d.]*", "_", problem)
            self.causes[cause] += 1
            self.examples.setdefault(cause, f"{image.name}: {problem}")

    def __str__(self) -> str:
        parts = [f"wrote {self.images} images with {self.boxes} boxes to {_span(self.paths)}"]
        if self.holdout_paths:
            parts.append(
                f"held out {self.holdout_images} images with {self.holdout_boxes} boxes, which are "
                f"in {_span(self.holdout_paths)}"
            )
        parts.append(f"left out {self.skipped_images} images and {self.skipped_boxes} boxes")
        if self.unknown_classes:
            parts[-1] += f" (unknown classes: {_counted(self.unknown_classes)})"
        if self.empty_images:
            parts.append(f"{self.empty_images} images have no box and are background")
        parts += [f"{text}: {count}" for text, count in self.notes.items() if count]
        parts += self.remarks
        if self.most_boxes > _DEFAULT_MAX_BOXES:
            parts.append(
                f"an image has {self.most_boxes} boxes: set max_number_of_boxes: "
                f"{self.most_boxes} in the input reader"
            )
        return "; ".join(parts)


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
    max_lost_share: float = MAX_LOST_SHARE,
    drawn_on: str = "auto",
    remarks: Sequence[str] = (),
    holdout: Holdout | None = None,
) -> Summary:
    """Writes the images to OUTPUT_PATH-00000-of-0000N and so on, and the label map.

    An image that loses all its boxes is left out: written, it would say that its objects are
    background.

    Args:
      total: number of images, for the progress bar on standard error.
      skip_bad: log what is bad and leave it out (a bad box alone, without its image), instead of
        ending with the first.
      max_lost_share: the share of the boxes, and of the images, that may be left out.
      drawn_on: what the boxes of pictures with an EXIF orientation were drawn on: "upright" or
        "stored"; "auto" asks the stated size and the boxes.
      remarks: what the reader of the annotations has to say of the whole file, for the summary.
      holdout: draws the images that go to `holdout_path` instead, with as many in a file.

    Raises:
      DataError: when something is bad and not skipped, when too many boxes are lost, when nothing
        is left, or when the output cannot be written.
    """
    if not Path(images_dir).is_dir():
        raise DataError(f"{images_dir}: the folder of the images does not exist")
    # Ahead of the pictures: writing them takes hours, and this may end it.
    _check_label_map_output(label_map_output, names)
    folder = pictures.Folder(images_dir)
    writer = records.ShardedWriter(output_path, num_shards)
    summary = Summary(writer.paths, remarks=remarks)
    located = _located(images, folder, summary)
    held_out, other = _held_out(located, holdout, output_path, num_shards)
    with contextlib.ExitStack() as writing:
        writing.enter_context(writer)
        if other:
            writing.enter_context(other)
            summary.holdout_paths = other.paths
        for image, source_id in tqdm(located, unit="image", desc=folder.path.name):
            record = None
            if not image.fault:
                record = _record(image, folder.path, names, source_id, drawn_on, summary)
            _report(image, skip_bad)
            summary.skip(image, whole=record is None)
            if record is None:
                continue
            is_held_out = image.filename in held_out
            (other if other and is_held_out else writer).write(record)
            summary.add(record, is_held_out)
        # Within the `with`: where too much is lost, the records are dropped.
        _check_losses(summary, max_lost_share)
        if not summary.images or (holdout and not summary.holdout_images):
            which = " of those to hold out" if summary.images else ""
            raise DataError(
                f"{images_dir}: no image{which} is left to write, {total} were annotated"
            )
        label_maps.save(label_map_output, names)
    return summary


def _check_label_map_output(path: str | os.PathLike[str], names: Mapping[int, str]) -> None:
    """Checks that two splits do not train with different ids for one class, without a word."""
    if Path(path).exists() and label_maps.load(path) != dict(names):
        raise DataError(
            f"{path}: exists and differs from the label map of these annotations; delete it or "
            "choose another --label_map_output"
        )


def _check_losses(summary: Summary, max_lost_share: float) -> None:
    written = summary.boxes + summary.holdout_boxes
    annotated = written + summary.skipped_boxes
    images = summary.images + summary.holdout_images + summary.skipped_images
    if summary.skipped_boxes > max_lost_share * annotated:
        cause, count = summary.causes.most_common(1)[0]
        message = (
            f"{summary.skipped_boxes} of {annotated} boxes would be lost, {count} of them as this "
            f"one: {summary.examples[cause]}"
        )
    # Corners that are read as widths reach far outside, but a part of each box is still inside.
    elif summary.notes[records.CUT_FAR] > max_lost_share * written:
        message = (
            f"{summary.notes[records.CUT_FAR]} of {written} boxes reach far outside of their "
            "images; COCO's bbox is [x, y, width, height], Pascal VOC's are two corners"
        )
    # If an annotation cannot be read, nobody knows its boxes: its image is counted.
    elif summary.skipped_images > max_lost_share * images:
        message = (
            f"{summary.skipped_images} of {images} images would be left out, the first for this: "
            f"{summary.first_problem}"
        )
    else:
        return
    if summary.unknown_classes:
        message += f"; unknown classes: {_counted(summary.unknown_classes)}"
    others = ", or let --max_lost_boxes=1 write what is left" if summary.images else ""
    raise DataError(f"{message} (mend the cause{others}; nothing was written)")


def _held_out(
    located: Sequence[tuple[AnnotatedImage, str]],
    holdout: Holdout | None,
    output_path: str | os.PathLike[str],
    num_shards: int,
) -> tuple[Collection[str], records.ShardedWriter | None]:
    """Returns the file names of the images that are held out, and what writes them.

    Without a holdout, checks that no records of one stay that would be taken for new ones.
    """
    path = holdout_path(output_path)
    if holdout:
        sound = [image.filename for image, _ in located if not image.fault]
        names = holdout.drawn(sound)
        few = max(1, round(num_shards * len(names) / len(sound)))
        return names, records.ShardedWriter(path, few)
    if old := sorted(path.parent.glob(f"{glob.escape(path.name)}-?????-of-?????")):
        raise DataError(
            f"{old[0]}: is left from a run with --holdout, and its images are now written with the "
            "others; delete it or choose another output path"
        )
    return (), None


def _span(paths: Sequence[str]) -> str:
    return paths[0] + (f" .. {paths[-1]}" if len(paths) > 1 else "")


def _counted(counter: Counter[str]) -> str:
    return ", ".join(
        f"{name!r} {count} times" for name, count in counter.most_common(LISTED_CLASSES)
    )


def _report(image: AnnotatedImage, skip_bad: bool) -> None:
    problems = [*image.problems, *([image.fault] if image.fault else [])]
    for problem in problems:
        message = f"{image.name}: {problem}"
        if not skip_bad:
            raise DataError(f"{message} (--bad_records=skip leaves it out)")
        logging.warning("left out: %s", message)


def _located(
    images: Iterable[AnnotatedImage], folder: pictures.Folder, summary: Summary
) -> list[tuple[AnnotatedImage, str]]:
    """Gives every image the name of its file, and a source_id that no other image has: its own id,
    or else the name of the file.

    All names are looked at before the first image is written: of two annotations for one file
    nobody knows which is its own.
    """
    held = list(images)
    for image in held:
        if not image.fault:
            _locate(image, folder, summary)
    good = [image for image in held if not image.fault]
    claims = Counter(image.filename for image in good)
    stems = Counter(pictures.without_ending(name) for name in claims)
    for image in good:
        if claims[image.filename] > 1:
            image.fault = (
                f"{claims[image.filename]} annotations are of {image.filename!r}; which one is its "
                "own cannot be known"
            )
    named = [(image, pictures.without_ending(image.filename)) for image in held]
    return [
        (image, image.image_id or (stem if stems[stem] == 1 else image.filename))
        for image, stem in named
    ]


def _locate(image: AnnotatedImage, folder: pictures.Folder, summary: Summary) -> None:
    try:
        image.filename, understood = folder.find(image.filename)
    except ValueError as error:
        image.fault = str(error)
    else:
        if understood:
            summary.notes["pictures found under a slightly different name"] += 1


def _record(
    image: AnnotatedImage,
    folder: Path,
    names: Mapping[int, str],
    source_id: str,
    drawn_on: str,
    summary: Summary,
) -> records.Record | None:
    """Makes the record of an image; None with `image.fault` set where there can be none."""
    try:
        picture = pictures.load(folder / image.filename)
        if picture.orientation != 1:
            picture = _oriented(image, picture, drawn_on, summary)
        if image.size not in (None, (picture.height, picture.width)):
            raise ValueError(
                f"the annotation says (height, width) {image.size}, the image has "
                f"{picture.height, picture.width}"
            )
    except OSError as error:
        image.fault = f"the image {folder / image.filename} cannot be read: {error.strerror}"
        return None
    except ValueError as error:
        image.fault = f"{folder / image.filename}: {error}"
        return None
    scale = (picture.height, picture.width) * 2 if image.normalised else (1.0,) * 4
    boxes: list[records.Box] = []
    objects, notes = [], Counter[str]()
    for item in image.objects:
        try:
            box = _sorted_corners(np.multiply(item.box, scale).tolist(), notes)
            _check_pixels(box, picture)
            boxes.append(records.cut(box, picture.height, picture.width, notes))
        except ValueError as error:
            image.problems.append(f"{item.name}: box {error}")
            continue
        objects.append(item)
        notes.update(item.notes)
    if image.num_objects and not objects:
        image.fault = "none of its boxes is left"
        image.objects.clear()
        return None
    # Objects with a problem are counted there.
    image.objects[:] = objects
    if picture.converted:
        notes[f"images converted from {picture.converted}"] += 1
    summary.notes.update(notes)
    sides = np.array([box.sides for box in boxes], np.float64).reshape(-1, 4)
    sides /= (picture.height, picture.width) * 2
    return records.Record(
        source_id=source_id,
        filename=image.filename,
        encoded=picture.encoded,
        image_format=picture.image_format,
        height=picture.height,
        width=picture.width,
        boxes=sides.astype(np.float32),
        class_ids=np.array([item.class_id for item in objects], np.int64),
        class_names=[names[item.class_id] for item in objects],
        area=np.array([_area(*pair) for pair in zip(objects, boxes, strict=True)], np.float32),
        is_crowd=np.array([item.is_crowd for item in objects], bool),
        difficult=np.array([item.difficult for item in objects], bool),
    )


def _sorted_corners(box: Sequence[float], notes: Counter[str]) -> Sequence[float]:
    """Sorts the corners of a box, which some tools exchange when it is dragged from below."""
    ymin, xmin, ymax, xmax = box
    if (ymin <= ymax and xmin <= xmax) or not np.isfinite(box).all():
        return box
    notes["boxes whose corners were exchanged"] += 1
    return min(ymin, ymax), min(xmin, xmax), max(ymin, ymax), max(xmin, xmax)


def _check_pixels(box: Sequence[float], picture: pictures.Picture) -> None:
    """Refuses boxes that are shares of the image: all of them would be in its first pixel."""
    if max(box) <= 1.0 and min(picture.height, picture.width) > 2:
        raise ValueError(f"{[round(side, 4) for side in box]} is a share of the image, not pixels")


def _oriented(
    image: AnnotatedImage, picture: pictures.Picture, drawn_on: str, summary: Summary
) -> pictures.Picture:
    """Returns the picture as its boxes were drawn, where EXIF's orientation makes two of it."""
    stored = (picture.height, picture.width)
    if drawn_on == "auto":
        drawn_on = _drawn_on(image, stored, picture.upright_size)
    if drawn_on == "stored":
        summary.notes["images with an EXIF orientation that were annotated as stored"] += 1
        return picture
    summary.notes["images turned upright, as their EXIF orientation says"] += 1
    # Some writers read the size from the file and the boxes from a screen.
    if image.size == stored:
        image.size = picture.upright_size
    return pictures.upright(picture)


def _drawn_on(image: AnnotatedImage, stored: tuple[int, int], upright: tuple[int, int]) -> str:
    """Returns which of the two sizes the boxes of an image fit: "upright" or "stored".

    Tools for annotation show pictures upright, and most state that size. A stated size that is the
    stored one is not trusted without a box that fits one size alone.
    """
    if stored == upright or not image.objects or image.size not in (None, stored):
        return "upright"
    fits_stored, fits_upright = (
        # One pixel of tolerance: tools round and count from 0 or 1.
        all(item.box[2] <= size[0] + 1 and item.box[3] <= size[1] + 1 for item in image.objects)
        for size in (stored, upright)
    )
    if fits_stored != fits_upright:
        return "stored" if fits_stored else "upright"
    if image.size is None:
        return "upright"
    raise ValueError(
        f"EXIF turns the picture from {stored} to {upright} (height, width), and its boxes fit "
        "both; say what they were drawn on with --drawn_on=upright or --drawn_on=stored"
    )


def _area(item: AnnotatedObject, box: records.Box) -> float:
    return box.area if item.area is None else item.area * box.kept
