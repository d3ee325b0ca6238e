"""Features of regions, all of one size (RoIAlign: He et al., "Mask R-CNN", 2017, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from mnasdet.protos import architecture_pb2

# The level of regions of `finest_scale` (Lin et al., "Feature Pyramid Networks", 2017, equation 1,
# counts from there as well: 56 pixels at level 2 are 224 at level 4).
_FINEST_LEVEL = 2


@dataclass(frozen=True)
class RegionFeatures:
    """Samples features under regions, without rounding their corners.

    A pixel's value stands at its centre: the pixel at index 0 of a feature of stride s covers the
    image from 0 to s, and its value is that of s / 2. (detectron2 and mmdetection call this
    aligned.) Beyond the outermost centres the values of the outermost pixels go on.

    Attributes:
      image_size: (height, width) in pixels.
      size: bins along a side of a region.
      sampling_ratio: samples along a side of a bin; their mean is the bin's value.
      max_pool_size, max_pool_stride: of a max pool over the bins, without padding.
      finest_scale: side in pixels of the smallest regions that are sampled at stride 4.
    """

    image_size: tuple[int, int]
    size: int = 7
    sampling_ratio: int = 2
    max_pool_size: int = 1
    max_pool_stride: int = 1
    finest_scale: float = 56.0

    def __call__(self, features: Mapping[int, tf.Tensor], boxes: tf.Tensor) -> tf.Tensor:
        """Returns the features of regions: [batch, regions, side, side, channels].

        Gradients flow to the features, and none to the boxes.

        Args:
          features: [batch, height, width, channels] by level; level l has stride 2^l.
          boxes: [batch, regions, 4] (ymin, xmin, ymax, xmax), normalised.
        """
        boxes = tf.stop_gradient(boxes)
        levels = sorted(features)
        sizes = [tuple(features[level].shape[1:3]) for level in levels]
        channels = features[levels[0]].shape[-1]
        # All levels in one table, so that one gather serves regions of all levels.
        table = tf.concat(
            [
                tf.reshape(features[level], [-1, h * w, channels])
                for level, (h, w) in zip(levels, sizes, strict=True)
            ],
            axis=1,
        )
        chosen = self.levels_of(boxes, levels) - levels[0]
        strides = tf.gather(tf.constant([2.0**level for level in levels]), chosen)
        heights = tf.gather(tf.constant([h for h, _ in sizes]), chosen)
        widths = tf.gather(tf.constant([w for _, w in sizes]), chosen)
        starts = np.cumsum([0, *(h * w for h, w in sizes[:-1])])
        start = tf.gather(tf.constant(starts, tf.int32), chosen)
        height, width = self.image_size
        y = self._taps(boxes[..., 0] * height / strides, boxes[..., 2] * height / strides, heights)
        x = self._taps(boxes[..., 1] * width / strides, boxes[..., 3] * width / strides, widths)
        sampled = 0.0
        for row, row_weight in y:
            for column, column_weight in x:
                # [batch, regions, size, size]
                index = row[..., :, None] * widths[..., None, None] + column[..., None, :]
                index += start[..., None, None]
                weight = row_weight[..., :, None] * column_weight[..., None, :]
                sampled += tf.gather(table, index, batch_dims=1) * weight[..., None]
        return self._pooled(sampled)

    def levels_of(self, boxes: tf.Tensor, levels: Sequence[int]) -> tf.Tensor:
        """Returns the level of each region, [batch, regions] int32: the coarser the larger."""
        height, width = self.image_size
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) * height * width
        # A region without an area would have the logarithm of 0.
        scale = tf.sqrt(tf.maximum(area, 1e-6)) / self.finest_scale
        level = _FINEST_LEVEL + tf.cast(tf.floor(tf.math.log(scale) / np.log(2.0)), tf.int32)
        return tf.clip_by_value(level, levels[0], levels[-1])

    def _taps(
        self, low: tf.Tensor, high: tf.Tensor, limit: tf.Tensor
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Returns the pixels that the bins along one axis are made of, and their weights.

        Args:
          low, high: the ends of the regions in pixels of the feature, [batch, regions].
          limit: the feature's pixels along the axis.

        Returns:
          Two for every sample: indices and weights, each [batch, regions, size].
        """
        bin_size = (high - low)[..., None] / self.size
        last = tf.cast(limit - 1, tf.float32)[..., None]
        taps = []
        for sample in range(self.sampling_ratio):
            offset = np.arange(self.size) + (sample + 0.5) / self.sampling_ratio
            place = low[..., None] + bin_size * tf.constant(offset, tf.float32) - 0.5
            place = tf.clip_by_value(place, 0.0, last)
            first = tf.floor(place)
            share = place - first
            for pixel, weight in ((first, 1 - share), (tf.minimum(first + 1, last), share)):
                taps.append((tf.cast(pixel, tf.int32), weight / self.sampling_ratio))
        return taps

    def _pooled(self, x: tf.Tensor) -> tf.Tensor:
        if self.max_pool_size == self.max_pool_stride == 1:
            return x
        regions, shape = x.shape[1], x.shape[2:]
        x = tf.nn.max_pool2d(
            tf.reshape(x, [-1, *shape]), self.max_pool_size, self.max_pool_stride, "VALID"
        )
        return tf.reshape(x, [-1, regions, *x.shape[1:]])


def from_proto(proto: architecture_pb2.RegionAlign, image_size: tuple[int, int]) -> RegionFeatures:
    """Builds the sampling that an Architecture describes."""
    return RegionFeatures(
        image_size,
        size=proto.size,
        sampling_ratio=proto.sampling_ratio,
        max_pool_size=proto.max_pool_size,
        max_pool_stride=proto.max_pool_stride,
        finest_scale=proto.finest_scale,
    )
