"""Anchors: the boxes that predictions are relative to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mnasdet.protos import anchor_generator_pb2

# (scale, aspect ratio) of the anchors at one location.
_Specs = list[tuple[float, float]]


def multiscale_anchors(
    image_size: Sequence[int],
    feature_sizes: Sequence[tuple[int, int]],
    *,
    levels: Sequence[int],
    anchor_scale: float,
    aspect_ratios: Sequence[float],
    scales_per_octave: int,
) -> np.ndarray:
    """Returns a grid of anchors for every level.

    Lin et al., "Focal Loss for Dense Object Detection", 2017, section 4.

    Args:
      image_size: (height, width) in pixels.
      feature_sizes: (height, width) of the features, and `levels`, one for each; level l has stride
        2^l.
      anchor_scale: side of a level's smallest anchor over its stride.
      aspect_ratios: width over height.

    Returns:
      [anchors, 4] float32 (ymin, xmin, ymax, xmax), normalised: level by level, row by row, at a
      location aspect by aspect, within one scale by scale.
    """
    octaves = 2.0 ** (np.arange(scales_per_octave) / scales_per_octave)
    specs = [(scale, ratio) for ratio in aspect_ratios for scale in octaves]
    grids = []
    for level, size in zip(levels, feature_sizes, strict=True):
        stride = 2.0**level
        # Where strides leave a rest, SAME padding moves what a location sees up and left by half a
        # stride, more or less; the OD API moves the anchors with it.
        offset = [stride / 2 if side % stride == 0 else 0.0 for side in image_size]
        base = anchor_scale * stride
        grids.append(_grid(size, (stride, stride), offset, (base, base), specs))
    height, width = image_size
    return (np.concatenate(grids) / (height, width, height, width)).astype(np.float32)


def ssd_anchors(
    image_size: Sequence[int],
    feature_sizes: Sequence[tuple[int, int]],
    *,
    min_scale: float = 0.2,
    max_scale: float = 0.95,
    scales: Sequence[float] = (),
    aspect_ratios: Sequence[float] = (1.0, 2.0, 0.5, 3.0, 1 / 3),
    interpolated_scale_aspect_ratio: float = 1.0,
    reduce_boxes_in_lowest_layer: bool = True,
    base_anchor_size: tuple[float, float] = (1.0, 1.0),
    strides: Sequence[tuple[float, float]] = (),
    offsets: Sequence[tuple[float, float]] = (),
) -> np.ndarray:
    """Returns a grid of anchors for every feature.

    Liu et al., "SSD: Single Shot MultiBox Detector", 2016, section 2.2, with the OD API's variants.
    Anchors may reach beyond the image, as there.

    Args:
      image_size: (height, width) in pixels.
      feature_sizes: (height, width) of the features, finest first.
      min_scale: side of the finest feature's square anchors over the image's shorter side;
        `max_scale` the coarsest's; the others' evenly between.
      scales: in place of those, one a feature.
      aspect_ratios: width over height.
      interpolated_scale_aspect_ratio: of one anchor more, whose scale is the geometric mean of the
        feature's and the next, 1 after the last; 0: none.
      reduce_boxes_in_lowest_layer: only three anchors on the finest feature.
      base_anchor_size: (height, width) at scale 1, over the image's shorter side.
      strides: (y, x) in pixels, one a feature; the image's size over the feature's by default.
      offsets: (y, x) of the first centre, likewise; half a stride by default.

    Returns:
      [anchors, 4] float32 (ymin, xmin, ymax, xmax), normalised: feature by feature, row by row, at
      a location in the order of `aspect_ratios`, the interpolated one last.
    """
    scales = list(scales) or np.linspace(min_scale, max_scale, len(feature_sizes)).tolist()
    specs = _ssd_specs(
        scales,
        aspect_ratios,
        interpolated_scale_aspect_ratio,
        reduce_boxes_in_lowest_layer,
    )
    height, width = image_size
    base = (min(image_size) * base_anchor_size[0], min(image_size) * base_anchor_size[1])
    strides = strides or [(height / rows, width / columns) for rows, columns in feature_sizes]
    offsets = offsets or [(y / 2, x / 2) for y, x in strides]
    layers = [
        _grid(size, stride, offset, base, layer)
        for size, stride, offset, layer in zip(feature_sizes, strides, offsets, specs, strict=True)
    ]
    return (np.concatenate(layers) / (height, width, height, width)).astype(np.float32)


def grid_anchors(
    image_size: Sequence[int],
    feature_size: tuple[int, int],
    *,
    base_size: tuple[float, float],
    scales: Sequence[float],
    aspect_ratios: Sequence[float],
    strides: tuple[float, float] = (16, 16),
    offsets: tuple[float, float] = (0, 0),
) -> np.ndarray:
    """Returns the anchors of one feature.

    Ren et al., "Faster R-CNN", 2015, section 3.1.1. The first one's centre is the image's corner
    unless `offsets` say otherwise, as in the OD API. Anchors may reach beyond the image.

    Args:
      image_size: (height, width) in pixels.
      feature_size: (height, width) of the feature.
      base_size: (height, width) in pixels of an anchor at scale 1.
      aspect_ratios: width over height.
      strides: (y, x) in pixels.
      offsets: (y, x) in pixels of the first centre.

    Returns:
      [anchors, 4] float32 (ymin, xmin, ymax, xmax), normalised: row by row, at a location aspect by
      aspect, within one scale by scale.
    """
    specs = [(scale, ratio) for ratio in aspect_ratios for scale in scales]
    height, width = image_size
    corners = _grid(feature_size, strides, offsets, base_size, specs)
    return (corners / (height, width, height, width)).astype(np.float32)


def _ssd_specs(
    scales: Sequence[float],
    aspect_ratios: Sequence[float],
    interpolated_scale_aspect_ratio: float,
    reduce_boxes_in_lowest_layer: bool,
) -> list[_Specs]:
    """Returns the anchors at a location of every feature."""
    layers: list[_Specs] = []
    # The scale after the last feature's is 1: an anchor as large as the image.
    for scale, next_scale in zip(scales, [*scales[1:], 1.0], strict=True):
        specs = [(scale, ratio) for ratio in aspect_ratios]
        if interpolated_scale_aspect_ratio > 0:
            specs.append((math.sqrt(scale * next_scale), interpolated_scale_aspect_ratio))
        layers.append(specs)
    if reduce_boxes_in_lowest_layer:
        # The finest feature has most places; the OD API gives it fewer anchors, one of scale 0.1.
        layers[0] = [(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
    return layers


def _grid(
    size: tuple[int, int],
    stride: Sequence[float],
    offset: Sequence[float],
    base: tuple[float, float],
    specs: _Specs,
) -> np.ndarray:
    """Returns [rows * columns * specs, 4] corners in pixels; `base` is the size at scale 1."""
    rows, columns = size
    scales, ratios = np.asarray(specs, np.float64).T
    # An aspect changes the sides and keeps the area.
    half_heights = base[0] * scales / np.sqrt(ratios) / 2
    half_widths = base[1] * scales * np.sqrt(ratios) / 2
    y = (np.arange(rows) * stride[0] + offset[0])[:, None, None]
    x = (np.arange(columns) * stride[1] + offset[1])[None, :, None]
    corners = np.broadcast_arrays(
        y - half_heights, x - half_widths, y + half_heights, x + half_widths
    )
    return np.stack(corners, axis=-1).reshape(-1, 4)


def from_proto(
    proto: anchor_generator_pb2.AnchorGenerator,
    image_size: Sequence[int],
    feature_sizes: Sequence[tuple[int, int]],
    levels: Sequence[int] = (),
) -> np.ndarray:
    """Returns the anchors that an Architecture describes: [anchors, 4] (ymin, xmin, ymax, xmax).

    Args:
      image_size: (height, width) in pixels.
      feature_sizes: (height, width) of the features, finest first.
      levels: of the features, where a pyramid leaves some out; one after the other by default.
    """
    if proto.HasField("ssd_anchor_generator"):
        return _ssd_from_proto(proto.ssd_anchor_generator, image_size, feature_sizes)
    if proto.HasField("grid_anchor_generator"):
        return _grid_from_proto(proto.grid_anchor_generator, image_size, feature_sizes)
    generator = proto.multiscale_anchor_generator
    return multiscale_anchors(
        image_size,
        feature_sizes,
        levels=levels or range(generator.min_level, generator.min_level + len(feature_sizes)),
        anchor_scale=generator.anchor_scale,
        aspect_ratios=generator.aspect_ratios or [1.0, 2.0, 0.5],
        scales_per_octave=generator.scales_per_octave,
    )


def _ssd_from_proto(
    generator: anchor_generator_pb2.SsdAnchorGenerator,
    image_size: Sequence[int],
    feature_sizes: Sequence[tuple[int, int]],
) -> np.ndarray:
    return ssd_anchors(
        image_size,
        feature_sizes,
        min_scale=generator.min_scale,
        max_scale=generator.max_scale,
        scales=generator.scales,
        aspect_ratios=generator.aspect_ratios,
        interpolated_scale_aspect_ratio=generator.interpolated_scale_aspect_ratio,
        reduce_boxes_in_lowest_layer=generator.reduce_boxes_in_lowest_layer,
        base_anchor_size=(generator.base_anchor_height, generator.base_anchor_width),
        strides=list(zip(generator.height_stride, generator.width_stride, strict=True)),
        offsets=list(zip(generator.height_offset, generator.width_offset, strict=True)),
    )


def _grid_from_proto(
    generator: anchor_generator_pb2.GridAnchorGenerator,
    image_size: Sequence[int],
    feature_sizes: Sequence[tuple[int, int]],
) -> np.ndarray:
    (feature_size,) = feature_sizes
    return grid_anchors(
        image_size,
        feature_size,
        base_size=(generator.height, generator.width),
        scales=generator.scales,
        aspect_ratios=generator.aspect_ratios,
        strides=(generator.height_stride, generator.width_stride),
        offsets=(generator.height_offset, generator.width_offset),
    )
