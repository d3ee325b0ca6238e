"""From a folder for each class to records: pictures sorted by hand, as ImageNet comes, too."""

from __future__ import annotations

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from absl import logging
from tqdm import tqdm

from mnasdet.data import label_map as label_maps
from mnasdet.data import pictures, values
from mnasdet.data.annotations import expected
from mnasdet.data.classification_records import ClassifiedImage, to_example
from mnasdet.data.records import ShardedWriter
from mnasdet.errors import DataError, shown

LABEL_MAP_FILE = "label_map.pbtxt"

# The names of the two sets of records.
TRAIN, VALIDATION = "train.record", "val.record"


@dataclass(frozen=True)
class Listing:
    """The content of a folder.

    Attributes:
      names: class id, from 1, to name.
      pictures: of each class: paths below the folder, sorted.
      odd: what is no picture of a class, each with the reason.
    """

    names: dict[int, str]
    pictures: dict[int, list[str]]
    odd: list[str]


@dataclass
class Summary:
    """The files that a conversion wrote, and what it left out.

    Attributes:
      paths: the record files by split, "train" and "validation".
      images: the number of pictures by split.
      left_out: what was left out, each with the reason.
      notes: says how often pictures were turned or converted.
    """

    label_map: str
    num_classes: int
    paths: dict[str, list[str]] = field(default_factory=dict)
    images: Counter[str] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        parts = [
            f"wrote {self.images[split]} images for {split} to {paths[0]}"
            + (f" .. {paths[-1]}" if len(paths) > 1 else "")
            for split, paths in self.paths.items()
        ]
        parts.append(f"{self.num_classes} classes in {self.label_map}")
        if self.left_out:
            parts.append(f"left out {len(self.left_out)} files, the first: {self.left_out[0]}")
        return "; ".join([*parts, *(f"{text}: {count}" for text, count in self.notes.items())])


def listing(images_dir: str | os.PathLike[str], names: Mapping[int, str] | None = None) -> Listing:
    """Lists the pictures of a folder that has a folder for each class.

    Args:
      names: of the classes, by id; the folders in the order of their names if left out.

    Raises:
      DataError: it is no such folder, or a folder in it is no class of `names`.
    """
    if not Path(images_dir).is_dir():
        raise DataError(f"{images_dir}: the folder of the images does not exist")
    by_class: dict[str, list[str]] = {}
    odd = []
    for name in sorted(_files(images_dir)):
        class_name, _, rest = name.partition("/")
        # Such as ".DS_Store", "@eaDir" of a Synology device, and "__MACOSX" in archives of macOS.
        if any(part.startswith((".", "@")) or part == "__MACOSX" for part in name.split("/")):
            odd.append(f"{shown(name)!r} is a system's own copy or note")
        elif not _is_text(name):
            odd.append(f"{shown(name)!r} has a name that is no UTF-8")
        elif Path(images_dir, name).is_dir():
            odd.append(f"{shown(name)!r} is a link to a folder")
        elif not rest:
            odd.append(f"{shown(name)!r} lies in no folder of a class")
        elif not name.lower().endswith(pictures.ENDINGS):
            odd.append(f"{shown(name)!r} is no picture by its ending")
        else:
            by_class.setdefault(class_name, []).append(name)
    if not by_class:
        raise DataError(
            f"{images_dir}: has no pictures in folders; expected {images_dir}/cat/1.jpg, a folder "
            "for each class"
        )
    names = dict(names or enumerate(sorted(by_class), start=1))
    ids = label_maps.ids_of(names)
    for name in by_class:
        if name not in ids:
            raise DataError(
                f"{Path(images_dir, name)}: the folder is no class of the label map; "
                f"{expected(name, ids)}"
            )
        try:
            values.check_name(name)
        except ValueError as problem:
            raise DataError(f"{Path(images_dir, name)}: {problem}") from None
    return Listing(names, {ids[name]: files for name, files in by_class.items()}, odd)


def split(
    listed: Listing, validation_fraction: float, seed: int
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Draws the same share of every class for validation, and shuffles both sets: a training
    shuffles a few thousand records at a time.

    Returns:
      Pictures with their class ids, of training and of validation.
    """
    # RandomState: the one generator whose stream numpy promises never to change.
    random = np.random.RandomState(seed)
    train: list[tuple[str, int]] = []
    validation: list[tuple[str, int]] = []
    for class_id, names in sorted(listed.pictures.items()):
        order = [(names[place], class_id) for place in random.permutation(len(names))]
        count = round(len(names) * validation_fraction)
        validation += order[:count]
        train += order[count:]
    train = [train[place] for place in random.permutation(len(train))]
    validation = [validation[place] for place in random.permutation(len(validation))]
    return train, validation


def convert(
    images_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    num_shards: int = 1,
    names: Mapping[int, str] | None = None,
    skip_bad: bool = True,
    max_lost_share: float = 0.5,
) -> Summary:
    """Writes train.record-…, val.record-… and the label map.

    Args:
      validation_fraction: the share of each class for validation; 0 writes train.record alone.
      num_shards: of train.record; val.record has as many records a shard.
      names: as of `listing`.
      skip_bad: log what is odd or broken and leave it out, instead of ending with the first.
      max_lost_share: the share of the files that may be left out.

    Raises:
      DataError: when something is bad and not skipped, when too much is lost, when nothing is left,
        or when the output cannot be written.
    """
    listed = listing(images_dir, names)
    label_map_path = Path(output_dir, LABEL_MAP_FILE)
    # Records of an earlier run beside it would mean other classes by the same ids.
    if label_map_path.exists() and label_maps.load(label_map_path) != listed.names:
        raise DataError(
            f"{label_map_path}: exists and differs from the classes of {images_dir}; delete it or "
            "choose another --output_dir"
        )
    summary = Summary(str(label_map_path), len(listed.names))
    for problem in listed.odd:
        _leave_out(f"{images_dir}: {problem}", skip_bad, summary)
    train, validation = split(listed, validation_fraction, seed)
    num_files = len(train) + len(validation) + len(listed.odd)
    few = max(1, round(num_shards * validation_fraction))
    parts = (
        ("train", TRAIN, train, num_shards),
        ("validation", VALIDATION, validation, few),
    )
    for name, file, part, _ in parts:
        if not part and (old := sorted(Path(output_dir).glob(f"{glob.escape(file)}-*"))):
            # They would stay, and pass for the other half of this conversion.
            raise DataError(
                f"{old[0]}: is there, and nothing is for {name} now; delete it or choose another "
                "--output_dir"
            )
    with contextlib.ExitStack() as opened:
        for name, file, part, shards in parts:
            if part:
                writer = ShardedWriter(Path(output_dir, file), shards, to_example)
                opened.enter_context(writer)
                for image in _images(Path(images_dir), part, listed.names, skip_bad, summary):
                    writer.write(image)
                summary.paths[name], summary.images[name] = writer.paths, writer.num_written
        # Within the `with`: where too much is lost, neither set is written.
        _check_losses(summary, num_files, max_lost_share)
        label_maps.save(label_map_path, listed.names)
    return summary


def _images(
    folder: Path,
    part: Sequence[tuple[str, int]],
    names: Mapping[int, str],
    skip_bad: bool,
    summary: Summary,
) -> Iterable[ClassifiedImage]:
    """Yields the pictures that can be read, upright."""
    found = pictures.Folder(folder)
    for name, class_id in tqdm(part, unit="image", desc=folder.name, disable=None):
        try:
            file, _ = found.find(name)
            picture = pictures.load(folder / file)
        except OSError as error:
            _leave_out(f"{folder / name}: cannot be read: {error.strerror}", skip_bad, summary)
            continue
        except ValueError as error:
            _leave_out(f"{folder / name}: {error}", skip_bad, summary)
            continue
        if picture.orientation != 1:
            picture = pictures.upright(picture)
            summary.notes["images turned upright, as their EXIF orientation says"] += 1
        if picture.converted:
            summary.notes[f"images converted from {picture.converted}"] += 1
        yield ClassifiedImage(
            source_id=name,
            filename=name,
            encoded=picture.encoded,
            image_format=picture.image_format,
            height=picture.height,
            width=picture.width,
            class_id=class_id,
            class_name=names[class_id],
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leave_out(problem: str, skip_bad: bool, summary: Summary) -> None:
    if not skip_bad:
        raise DataError(f"{problem} (--bad_records=skip leaves it out)")
    logging.warning("left out: %s", problem)
    summary.left_out.append(problem)


def _check_losses(summary: Summary, num_files: int, max_lost_share: float) -> None:
    lost = len(summary.left_out)
    if lost > max_lost_share * num_files or not all(summary.images.values()):
        raise DataError(
            f"{lost} of {num_files} files would be left out, the first for this: "
            f"{summary.left_out[0]} (mend the cause, or let --max_lost_images=1 write what is "
            "left; nothing was written)"
        )


def _files(folder: str | os.PathLike[str]) -> Iterable[str]:
    """Yields the paths of all files below a folder, with "/"."""
    for inner, folders, names in os.walk(folder):
        # A link to a folder is not followed: it may lead anywhere, also back here.
        links = [name for name in folders if Path(inner, name).is_symlink()]
        for name in (*names, *links):
            yield Path(inner, name).relative_to(folder).as_posix()
