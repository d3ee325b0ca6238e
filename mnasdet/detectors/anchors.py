"""Anchors: the boxes that predictions are relative to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnasdet.protos import architecture_pb2


def multiscale_anchors(
    image_size: Sequence[int],
    feature_sizes: Sequence[tuple[int, int]],
    *,
    min_level: int,
    anchor_scale: float,
    aspect_ratios: Sequence[float],
    scales_per_octave: int,
) -> np.ndarray:
    """A grid of anchors for every level (Lin et al., "Focal Loss for Dense Object Detection",
    2017, section 4).

    Args:
      image_size: (height, width) in pixels.
      feature_sizes: (height, width) of the levels, `min_level` first.
      anchor_scale: side of a level's smallest anchor over its stride.
      aspect_ratios: width over height.

    Returns:
      [anchors, 4] float32 (ymin, xmin, ymax, xmax), normalised: level by level, row by row, at a
      location aspect by aspect, within one scale by scale.
    """
    octaves = 2.0 ** (np.arange(scales_per_octave) / scales_per_octave)
    roots = np.sqrt(np.asarray(aspect_ratios, np.float64))
    # Half sizes for a unit stride, [aspects * scales].
    half_heights = (octaves[None, :] * anchor_scale / roots[:, None]).ravel() / 2
    half_widths = (octaves[None, :] * anchor_scale * roots[:, None]).ravel() / 2
    levels = []
    for level, (rows, columns) in enumerate(feature_sizes, start=min_level):
        stride = 2.0**level
        # A location stands for the middle of its stride x stride pixels.
        y = ((np.arange(rows) + 0.5) * stride)[:, None, None]
        x = ((np.arange(columns) + 0.5) * stride)[None, :, None]
        corners = np.broadcast_arrays(
            y - half_heights * stride,
            x - half_widths * stride,
            y + half_heights * stride,
            x + half_widths * stride,
        )
        levels.append(np.stack(corners, axis=-1).reshape(-1, 4))
    height, width = image_size
    return (np.concatenate(levels) / (height, width, height, width)).astype(np.float32)


def from_proto(
    proto: architecture_pb2.AnchorGenerator,
    image_size: Sequence[int],
    feature_sizes: Sequence[tuple[int, int]],
) -> np.ndarray:
    """`multiscale_anchors` as an Architecture describes them."""
    generator = proto.multiscale_anchor_generator
    return multiscale_anchors(
        image_size,
        feature_sizes,
        min_level=generator.min_level,
        anchor_scale=generator.anchor_scale,
        aspect_ratios=generator.aspect_ratios or [1.0, 2.0, 0.5],
        scales_per_octave=generator.scales_per_octave,
    )


def per_location(proto: architecture_pb2.AnchorGenerator) -> int:
    """Anchors at one location of a feature."""
    generator = proto.multiscale_anchor_generator
    return generator.scales_per_octave * (len(generator.aspect_ratios) or 3)
