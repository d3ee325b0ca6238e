"""Records of images with one class each, for classifiers: ImageNet's features, as slim and
tensorflow/tpu write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from mnasdet.data import digits
from mnasdet.data.example_features import (
    bytes_of,
    image_of,
    numbers_of,
    of_bytes,
    of_image,
    of_ints,
)
from mnasdet.data.record_format import Example, sizes
from mnasdet.data.records import source_id
from mnasdet.errors import shown
from mnasdet.protos import input_reader_pb2

CLASS_KEY = "image/class/label"
TEXT_KEY = "image/class/text"

# Height of a digit over the image's side.
_DIGIT_SCALES = (0.6, 0.9)


@dataclass(frozen=True)
class ClassifiedImage:
    """One image and its class.

    Attributes:
      source_id: names the image in messages.
      encoded: the JPEG or PNG file's bytes.
      height, width: of the image in pixels.
      class_id: from 1.
      class_name: "" where the record has none.
    """

    source_id: str
    filename: str
    encoded: bytes
    image_format: str
    height: int
    width: int
    class_id: int
    class_name: str = ""


def to_example(image: ClassifiedImage) -> tf.train.Example:
    """Returns the image in ImageNet's features."""
    features = of_image(
        image.source_id,
        image.filename,
        image.encoded,
        image.image_format,
        image.height,
        image.width,
    ) | {
        CLASS_KEY: of_ints([image.class_id]),
        TEXT_KEY: of_bytes([image.class_name.encode()]),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def from_example(
    example: tf.train.Example, ids: Mapping[str, int] | None = None
) -> ClassifiedImage:
    """Returns the image of an example.

    The label counts. ImageNet's texts are sentences ("tench, Tinca tinca"), so a text stands for a
    class only where there is no label. One that is the name of another class is an error.

    Args:
      ids: class ids by name.

    Raises:
      ValueError: the class is missing, there are several, or the image is broken.
    """
    features = example.features.feature
    encoded, image_format, height, width = image_of(features)
    labels, texts = numbers_of(features, CLASS_KEY), bytes_of(features, TEXT_KEY)
    if len(labels) > 1:
        raise ValueError(f"{CLASS_KEY} has {len(labels)} values; an image has one class here")
    name = texts[0].decode("utf-8", "replace") if texts else ""
    if len(labels):
        if labels[0] != np.floor(labels[0]):
            raise ValueError(f"{CLASS_KEY} is {labels[0]:g}, expected a whole number")
        class_id = int(labels[0])
        # A text that is no name, such as ImageNet's sentences, says nothing of the label.
        if (of_name := (ids or {}).get(name, class_id)) != class_id:
            raise ValueError(
                f"{CLASS_KEY} is {class_id}, and {TEXT_KEY} {shown(name)!r} is class {of_name} of "
                "the label map; is it the records' own?"
            )
    elif name:
        class_id = (ids or {}).get(name, 0)
    else:
        raise ValueError(f"{CLASS_KEY} is missing")
    filename = bytes_of(features, "image/filename")[:1]
    return ClassifiedImage(
        source_id=source_id(example),
        filename=filename[0].decode("utf-8", "replace") if filename else "",
        encoded=encoded,
        image_format=image_format,
        height=height,
        width=width,
        class_id=class_id,
        class_name=name,
    )


@dataclass(frozen=True)
class ClassificationRecords:
    """A RecordFormat: `ClassifiedImage`."""

    @classmethod
    def from_reader(cls, reader: input_reader_pb2.InputReader) -> ClassificationRecords:
        return cls()

    def check(
        self,
        example: tf.train.Example,
        label_map: Mapping[int, str],
        ids: Mapping[str, int],
        notes: Counter[str],
    ) -> tuple[ClassifiedImage | None, list[str]]:
        """Returns the image with its class, which has to be in the label map."""
        image = from_example(example, ids)
        if image.class_id not in label_map:
            named = (
                f"class {shown(image.class_name)!r} with id " if image.class_name else "class id "
            )
            zero = "; ids start at 1" if image.class_id == 0 else ""
            raise ValueError(f"{named}{image.class_id} is not in the label map{zero}")
        return image, []

    def contents(self, checked: Sequence[ClassifiedImage | None]) -> dict[str, np.ndarray]:
        """Returns `class` [records] int32, `source_id` and `size`; nothing for those not usable."""
        return {
            "size": sizes(checked),
            "class": np.array([image.class_id if image else 0 for image in checked], np.int32),
            "source_id": np.array(
                [image.source_id.encode() if image else b"" for image in checked], object
            ),
        }

    def parse(
        self, serialized: tf.Tensor, number: tf.Tensor, contents: Mapping[str, tf.Tensor]
    ) -> Example:
        """Returns `encoded`, `source_id` and `class`, and no boxes, for the augmentations."""
        features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
        height, width = tf.unstack(contents["size"][number])
        return {
            "encoded": tf.io.parse_single_example(serialized, features)["image/encoded"],
            "source_id": contents["source_id"][number],
            "class": contents["class"][number],
            "height": height,
            "width": width,
            "boxes": tf.zeros([0, 4]),
            "classes": tf.zeros([0], tf.int32),
            "is_crowd": tf.zeros([0], tf.bool),
            "area": tf.zeros([0]),
        }

    def batched(self, example: Example) -> Example:
        return {
            key: value
            for key, value in example.items()
            if key not in ("boxes", "classes", "is_crowd", "area")
        }

    def warning(self, contents: Mapping[str, np.ndarray], num_images: int) -> str:
        return ""  # A class that is alone in a set of records is learnt, too.

    def digits(self, split: str, num_images: int, image_size: int) -> tuple[list[Path], Path]:
        """Returns pictures of one digit each, which fills most of it."""
        return digits.cached("digit-crops", split, num_images, image_size, _digit_crops, to_example)


def _digit_crops(split: str, num_images: int, image_size: int) -> Iterator[ClassifiedImage]:
    """Yields the handwritten digits of a split in turn, each time elsewhere on another paper."""
    handwritten, targets = digits.handwriting(split)
    for position in range(num_images):
        # Another stream than that of the pictures with boxes.
        random = np.random.RandomState([digits.SPLITS.index(split), 1, position])
        canvas = digits.paper(image_size, random)
        chosen = position % len(handwritten)
        ink = digits.scaled_ink(handwritten[chosen], image_size, _DIGIT_SCALES, random)
        y, x = (random.randint(image_size - side + 1) for side in ink.shape)
        digits.write(canvas, ink, y, x, random)
        class_id = int(targets[chosen]) + 1
        name = f"digit-crops-{split}-{position:06}"
        yield ClassifiedImage(
            source_id=name,
            filename=f"{name}.png",
            encoded=digits.encode(digits.to_pixels(canvas)),
            image_format="png",
            height=image_size,
            width=image_size,
            class_id=class_id,
            class_name=digits.NAMES[class_id],
        )
