"""The features of a tf.train.Example, as the OD API's, slim's and other converters write them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import SupportsInt

import numpy as np
import tensorflow as tf

from mnasdet.data import pictures


def of_image(
    source_id: str, filename: str, encoded: bytes, image_format: str, height: int, width: int
) -> dict[str, tf.train.Feature]:
    """Returns the features that say what image it is and hold its bytes."""
    return {
        "image/encoded": of_bytes([encoded]),
        "image/format": of_bytes([image_format.encode()]),
        "image/height": of_ints([height]),
        "image/width": of_ints([width]),
        "image/filename": of_bytes([filename.encode()]),
        "image/source_id": of_bytes([source_id.encode()]),
        "image/key/sha256": of_bytes([hashlib.sha256(encoded).hexdigest().encode()]),
    }


def image_of(features: Mapping[str, tf.train.Feature]) -> tuple[bytes, str, int, int]:
    """Returns an image's bytes, format, height and width.

    Raises:
      ValueError: there is none, or it is broken or of another size than is stated.
    """
    encoded = bytes_of(features, "image/encoded")
    if len(encoded) != 1 or not encoded[0]:
        raise ValueError("image/encoded is missing" if not any(encoded) else "has several images")
    image_format, height, width = pictures.header(encoded[0])
    _check_stated_size(features, height, width)
    return encoded[0], image_format, height, width


def _check_stated_size(features: Mapping[str, tf.train.Feature], height: int, width: int) -> None:
    """Compares image/height and image/width, where they are given, with the image's own.

    Raises:
      ValueError: they differ.
    """
    stated = [numbers_of(features, key)[:1].tolist() for key in ("image/height", "image/width")]
    for key, found, actual in zip(("height", "width"), stated, (height, width), strict=True):
        if found and found[0] != actual:
            exchanged = height != width and stated == [[width], [height]]
            cause = "; they are exchanged, or an EXIF orientation was applied to the boxes"
            raise ValueError(
                f"image/{key} is {found[0]:g} but the image has {actual}"
                + (cause if exchanged else "")
            )


def numbers_of(features: Mapping[str, tf.train.Feature], key: str) -> np.ndarray:
    """Returns the values of a list of integers or floats, whichever a converter wrote.

    Raises:
      ValueError: it is a list of bytes.
    """
    kind = features[key].WhichOneof("kind") if key in features else None
    if kind == "bytes_list":
        raise ValueError(f"{key} is a list of bytes, expected numbers")
    return np.array(getattr(features[key], kind).value if kind else [], np.float64)


def bytes_of(features: Mapping[str, tf.train.Feature], key: str) -> Sequence[bytes]:
    """Returns the values of a list of bytes.

    Raises:
      ValueError: it is a list of numbers.
    """
    kind = features[key].WhichOneof("kind") if key in features else None
    if kind not in (None, "bytes_list"):
        raise ValueError(f"{key} is a list of numbers, expected bytes")
    return features[key].bytes_list.value if kind else []


def text_of(features: Mapping[str, tf.train.Feature], key: str) -> str:
    """Returns a text, or a number as some converters write ids; "" where there is neither."""
    feature = features[key] if key in features else tf.train.Feature()
    if value := feature.bytes_list.value:
        return value[0].decode("utf-8", "replace")
    return str(feature.int64_list.value[0]) if feature.int64_list.value else ""


def of_bytes(values: Iterable[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def of_ints(values: Iterable[SupportsInt]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=map(int, values)))


def of_floats(values: Iterable[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
