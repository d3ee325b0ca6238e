"""Features of regions, all of one size (RoIAlign: He et al., "Mask R-CNN", 2017, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from mnasdet.protos import architecture_pb2

# The level of regions of `finest_scale` (Lin et al., "Feature Pyramid Networks", 2017, equation 1,
# counts from there as well: 56 pixels at level 2 are 224 at level 4).
_FINEST_LEVEL = 2


@dataclass(frozen=True)
class RegionFeatures:
    """Samples features under regions, without rounding their corners.

    A pixel's value stands at its centre: the first pixel of a feature of stride s covers the image
    from 0 to s, and its value is that of s / 2. (detectron2 and mmdetection call this aligned.)
    Beyond the outermost centres the values of the outermost pixels go on.

    Attributes:
      image_size: (height, width) in pixels.
      feature_sizes: (height, width) of the features by level, finest first; level l has stride 2^l.
      size: bins along a side of a region.
      sampling_ratio: samples along a side of a bin; their mean is the bin's value.
      max_pool_size, max_pool_stride: of a max pool over the bins, without padding.
      finest_scale: side in pixels of the smallest regions that are sampled at stride 4, but for
        those that are too small for it.
      from_corner_to_corner: the outermost samples are at the region's corners, and the outermost
        pixels' values at the image's edges, as TensorFlow's crop_and_resize has it.
    """

    image_size: tuple[int, int]
    feature_sizes: Mapping[int, tuple[int, int]]
    size: int = 7
    sampling_ratio: int = 2
    max_pool_size: int = 1
    max_pool_stride: int = 1
    finest_scale: float = 56.0
    from_corner_to_corner: bool = False

    def sheet(self, features: Mapping[int, tf.Tensor]) -> tf.Tensor:
        """Returns all levels side by side in one tensor, [batch, height, width, channels].

        One operation can then sample regions of all levels. Each level has its outermost pixels
        once more around it, so that samples at its border see none of the others.

        Args:
          features: [batch, height, width, channels] by level.
        """
        finest, *coarser = (_framed(features[level]) for level in self.feature_sizes)
        if not coarser:
            return finest
        height = max(finest.shape[1], sum(x.shape[1] for x in coarser))
        width = coarser[0].shape[2]
        right = tf.concat([_padded(x, x.shape[1], width) for x in coarser], axis=1)
        return tf.concat(
            [_padded(finest, height, finest.shape[2]), _padded(right, height, width)], axis=2
        )

    def __call__(self, sheet: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Returns the features of regions: [batch, regions, side, side, channels].

        Gradients flow to the features, and none to the boxes.

        Args:
          sheet: as `sheet` returns it.
          boxes: [batch, regions, 4] (ymin, xmin, ymax, xmax), normalised, within the image.
        """
        corners = self._corners(tf.stop_gradient(boxes))
        count = self.size * self.sampling_ratio
        # XLA has no kernel of crop_and_resize. Without it, gathers take four times as long and
        # three times the memory.
        sample = _gathered if _is_compiled() else _cropped
        x = sample(sheet, corners, count)
        if self.sampling_ratio > 1:
            x = tf.nn.avg_pool2d(x, self.sampling_ratio, self.sampling_ratio, "VALID")
        if self.max_pool_size > 1 or self.max_pool_stride > 1:
            x = tf.nn.max_pool2d(x, self.max_pool_size, self.max_pool_stride, "VALID")
        return tf.reshape(x, [-1, boxes.shape[1], *x.shape[1:]])

    def levels_of(self, boxes: tf.Tensor) -> tf.Tensor:
        """Returns the index of the level of each region, [batch, regions] int32, the finest first.

        Where a level is left out, its regions have the next coarser one.
        """
        height, width = self.image_size
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) * height * width
        # A region without an area would have the logarithm of 0.
        scale = tf.sqrt(tf.maximum(area, 1e-6)) / self.finest_scale
        level = _FINEST_LEVEL + tf.floor(tf.math.log(scale) / np.log(2.0))
        *but_coarsest, _ = self.feature_sizes
        coarser = [tf.cast(level > other, tf.int32) for other in but_coarsest]
        return sum(coarser, tf.zeros_like(level, tf.int32))

    def _corners(self, boxes: tf.Tensor) -> tf.Tensor:
        """Returns the first and the last sample of every region.

        Returns:
          [batch, regions, 4] (first y, first x, last y, last x) in pixels of the sheet.
        """
        index = self.levels_of(boxes)
        if self.from_corner_to_corner:
            last = [(h - 1, w - 1, h - 1, w - 1) for h, w in self.feature_sizes.values()]
            # The first pixel is the second within the frame.
            places = [(y + 1, x + 1, y + 1, x + 1) for y, x in self._places()]
            last, places = (
                tf.gather(tf.constant(values, tf.float32), index) for values in (last, places)
            )
            return boxes * last + places
        image = tf.constant([*self.image_size, *self.image_size], tf.float32)
        strides = tf.gather(tf.constant([2.0**level for level in self.feature_sizes]), index)
        in_pixels = boxes * image / strides[..., None]
        low, high = in_pixels[..., :2], in_pixels[..., 2:]
        half_step = (high - low) / (2 * self.size * self.sampling_ratio)
        # Indices count from the centre of the first pixel, which is the second within the frame.
        places = tf.gather(tf.constant(self._places(), tf.float32), index) + 1 - 0.5
        return tf.concat([low + half_step + places, high - half_step + places], axis=-1)

    def _places(self) -> list[tuple[int, int]]:
        """Returns the (y, x) of each level on the sheet: the coarser ones are one below another."""
        (_, finest_width), *coarser = self.feature_sizes.values()
        heights = [0, *(height + 2 for height, _ in coarser[:-1])]
        below = [(int(y), finest_width + 2) for y in np.cumsum(heights)]
        return [(0, 0), *below[: len(coarser)]]


def _framed(x: tf.Tensor) -> tf.Tensor:
    """Repeats the outermost pixels of features once on every side."""
    x = tf.concat([x[:, :1], x, x[:, -1:]], axis=1)
    return tf.concat([x[:, :, :1], x, x[:, :, -1:]], axis=2)


def _padded(x: tf.Tensor, height: int, width: int) -> tf.Tensor:
    rows, columns = height - x.shape[1], width - x.shape[2]
    return tf.pad(x, [[0, 0], [0, rows], [0, columns], [0, 0]]) if rows or columns else x


def _cropped(sheet: tf.Tensor, corners: tf.Tensor, count: int) -> tf.Tensor:
    """Returns bilinear samples, [batch * regions, count, count, channels].

    Args:
      corners: [batch, regions, 4], the first and the last sample in pixels.
      count: samples along a side.
    """
    _, height, width, _ = sheet.shape
    sides = tf.constant([height - 1, width - 1, height - 1, width - 1], tf.float32)
    num_regions = corners.shape[1]
    images = tf.repeat(tf.range(tf.shape(sheet)[0]), num_regions)
    return tf.image.crop_and_resize(
        sheet, tf.reshape(corners / sides, [-1, 4]), images, (count, count)
    )


def _gathered(sheet: tf.Tensor, corners: tf.Tensor, count: int) -> tf.Tensor:
    """Returns the same as `_cropped`."""
    _, height, width, channels = sheet.shape
    steps = tf.linspace(0.0, 1.0, count) if count > 1 else tf.constant([0.5])
    low, high = corners[..., :2, None], corners[..., 2:, None]
    # [batch, regions, 2, count]
    places = low * (1 - steps) + high * steps
    first = tf.floor(places)
    share = places - first
    y, x = tf.unstack(tf.cast(first, tf.int32), axis=2)
    y_share, x_share = tf.unstack(share, axis=2)
    pixels = tf.reshape(sheet, [-1, height * width, channels])
    sampled = 0.0
    for row, row_weight in ((y, 1 - y_share), (y + 1, y_share)):
        for column, column_weight in ((x, 1 - x_share), (x + 1, x_share)):
            index = row[..., :, None] * width + column[..., None, :]
            weight = row_weight[..., :, None] * column_weight[..., None, :]
            sampled += tf.gather(pixels, index, batch_dims=1) * weight[..., None]
    return tf.reshape(sampled, [-1, count, count, channels])


def _is_compiled() -> bool:
    """Tells whether XLA will compile what is being traced."""
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def from_proto(
    proto: architecture_pb2.RegionAlign,
    image_size: tuple[int, int],
    levels: Sequence[int],
    feature_sizes: Sequence[tuple[int, int]],
) -> RegionFeatures:
    """Builds the sampling that an Architecture describes.

    Args:
      levels: those that regions are sampled from, finest first.
      feature_sizes: their (height, width).
    """
    return RegionFeatures(
        image_size,
        dict(zip(levels, feature_sizes, strict=True)),
        size=proto.size,
        sampling_ratio=proto.sampling_ratio,
        max_pool_size=proto.max_pool_size,
        max_pool_stride=proto.max_pool_stride,
        finest_scale=proto.finest_scale,
        from_corner_to_corner=proto.from_corner_to_corner,
    )
