"""MnasFPN's pyramids as one supernet: every network of a search space has a part of its weights.

A network is a path: the numbers that describe its cells. What the path names is computed and
nothing else. A block has weights of its own for every feature that it may merge.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.feature_pyramids.mnasfpn import EXTRACTOR
from mnasdet.networks.blocks import scaled_channels
from mnasdet.networks.features import size_of
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, configured
from mnasdet.protos import architecture_pb2
from mnasdet.supernets import elastic
from mnasdet.supernets.elastic import ConvBn, SeparableConvBn

# Stands for an input that is not there.
_NONE = -1

# The numbers of a path: two of the pyramid, then of every block its inputs and a `_Place`.
_REPEATS, _CHANNELS, _FIRST_BLOCK = 0, 1, 2


class _Place(NamedTuple):
    """The numbers of a block, but for its inputs.

    Attributes:
      level: of the merged feature.
      gated: 1 where one input gates the other, 0 where all are added.
      expanded: F, channels of the merged feature.
      kernel_size: of the depthwise convolution.
    """

    level: Any
    gated: Any
    expanded: Any
    kernel_size: Any


class _Feature(NamedTuple):
    """A feature with what is known of it when the graph runs.

    Attributes:
      tensor: [batch, height, width, channels].
      level: it has stride 2^level.
    """

    tensor: tf.Tensor
    level: tf.Tensor
    channels: tf.Tensor


class _Stock:
    """Features of different sizes, of which an index picks one.

    They lie one after the other in one tensor: a branch of the graph for each would take minutes to
    trace.
    """

    def __init__(self, features: Sequence[_Feature]):
        self._flat: list[tf.Tensor] = []
        # The level, channels, height, width and length for one image of each feature.
        self._facts: list[tf.Tensor] = []
        for x in features:
            self.add(x)

    def add(self, x: _Feature) -> None:
        _, height, width, channels = tf.unstack(tf.shape(x.tensor))
        self._flat.append(tf.reshape(x.tensor, [-1, height * width * channels]))
        self._facts.append(
            tf.stack([x.level, x.channels, height, width, height * width * channels])
        )

    def picked(self, numbers: Sequence[tf.Tensor]) -> list[_Feature]:
        """Returns features by their numbers; the first one for numbers below zero."""
        values, facts = tf.concat(self._flat, 1), tf.stack(self._facts)
        ends = tf.cumsum(facts[:, -1])
        found = []
        for number in numbers:
            place = tf.maximum(number, 0)
            level, channels, height, width, length = tf.unstack(facts[place])
            x = values[:, ends[place] - length : ends[place]]
            x = tf.reshape(x, tf.stack([-1, height, width, channels]))
            found.append(_Feature(x, level, channels))
        return found


class _Block(NamedTuple):
    """The weights of a block.

    Attributes:
      of_sources: the convolutions of all features before the block.
      separable: the convolutions after the merge.
    """

    of_sources: ConvBn
    separable: SeparableConvBn


@dataclass(frozen=True)
class PathFormat:
    """How a pyramid of a space is written as numbers.

    Attributes:
      num_blocks: of a cell, those that are no output included.
      max_inputs: the most features that a block merges.
    """

    num_blocks: int
    max_inputs: int

    def path(self, architecture: architecture_pb2.Architecture) -> np.ndarray:
        """Returns the path of an architecture, [length] int32."""
        pyramid = scaled(architecture)
        numbers = [pyramid.repeats, pyramid.channels]
        read = _read_blocks(pyramid)
        for index, block in enumerate(pyramid.block):
            inputs = [*block.input, *[_NONE] * (self.max_inputs - len(block.input))]
            gated = block.merge == architecture_pb2.MnasFpn.SQUEEZE_EXCITE
            own = _Place(block.level, gated, block.expanded_channels, block.kernel_size)
            # A branch of the graph would cost more than what is computed for nothing: a block that
            # no output needs is as small as can be.
            numbers += [*inputs, *(own if index in read else _Place(pyramid.max_level, 0, 1, 1))]
        return np.array(numbers, np.int32)

    def block(self, path: tf.Tensor, index: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the inputs of a block and its other numbers."""
        length = self.max_inputs + len(_Place._fields)
        first = _FIRST_BLOCK + index * length
        own = first + self.max_inputs
        return path[first:own], path[own : first + length]


def scaled(architecture: architecture_pb2.Architecture) -> architecture_pb2.MnasFpn:
    """Returns an architecture's pyramid with the widths that its depth multiplier leaves."""
    pyramid = architecture_pb2.MnasFpn()
    pyramid.CopyFrom(architecture.feature_pyramid.mnasfpn)

    def width(channels: int) -> int:
        return scaled_channels(channels, architecture.depth_multiplier, architecture.min_depth)

    pyramid.channels = width(pyramid.channels)
    for block in pyramid.block:
        block.expanded_channels = width(block.expanded_channels)
    return pyramid


def _read_blocks(pyramid: architecture_pb2.MnasFpn) -> set[int]:
    """Returns the indices of the blocks that an output needs, the outputs included."""
    num_inputs = pyramid.max_level - pyramid.min_level + 1
    # MnasFPN discards blocks that no output needs, where NAS-FPN adds them to one.
    read = set(range(len(pyramid.block) - num_inputs, len(pyramid.block)))
    for index in reversed(range(len(pyramid.block))):
        if index in read:
            read |= {source - num_inputs for source in pyramid.block[index].input}
    return {index for index in read if index >= 0}


class MnasFpnSupernet(tf_keras.layers.Layer):
    """The pyramid of a path: features of the backbone, and a path, to one feature a level.

    Attributes:
      format: how a path is written.
      norms: all batch normalisations.
      channels: the largest width of the space.
    """

    def __init__(
        self,
        architectures: Sequence[architecture_pb2.Architecture],
        channels_in: Sequence[int],
    ):
        """
        Args:
          architectures: networks of one space, which together have the largest of every choice.
          channels_in: the largest widths of the backbone's features, finest first, from the
            pyramid's first level on.
        """
        super().__init__(name="feature_pyramid")
        pyramids = [scaled(architecture) for architecture in architectures]
        blocks = [block for pyramid in pyramids for block in pyramid.block]
        self.format = PathFormat(len(pyramids[0].block), max(len(block.input) for block in blocks))
        self._fixed = fixed = pyramids[0]
        self._levels = list(range(fixed.min_level, fixed.max_level + 1))
        self._channels_in = list(channels_in)
        self.channels = max(pyramid.channels for pyramid in pyramids)
        self._repeats = max(pyramid.repeats for pyramid in pyramids)
        self._least_repeats = min(pyramid.repeats for pyramid in pyramids)
        hyperparams = configured(architectures[0].feature_pyramid) or EXTRACTOR
        # The config check lets no other normaliser pass.
        assert isinstance(hyperparams.normalizer, BatchNorm)
        expanded = max(block.expanded_channels for block in blocks)
        kernel_size = max(block.kernel_size for block in blocks)
        with tf.name_scope("/"):
            self._coarser = [
                self._made_coarser(level, hyperparams) for level in self._levels[len(channels_in) :]
            ]
            self._cells = [
                self._made_cell(repeat, expanded, kernel_size, hyperparams)
                for repeat in range(self._repeats)
            ]
        parts: list[ConvBn | SeparableConvBn] = [*self._coarser]
        for cell in self._cells:
            for block in cell:
                parts += [*block]
        self.norms = [part.norm for part in parts]
        # Keras finds variables and losses in attributes.
        self._weight_layers = [layer for part in parts for layer in part.layers]

    def _made_coarser(self, level: int, hyperparams: Hyperparams) -> ConvBn:
        """Returns the convolution that makes a level; the OD API leaves it without L2."""
        channels_in = self._channels_in[-1] if level == self._first_coarser else self.channels
        plain = replace(hyperparams, kernel=replace(hyperparams.kernel, l2=0.0))
        return ConvBn(f"feature_pyramid/c{level}", [channels_in], self.channels, plain)

    @property
    def _first_coarser(self) -> int:
        return self._levels[len(self._channels_in)]

    def _made_cell(
        self, repeat: int, expanded: int, kernel_size: int, hyperparams: Hyperparams
    ) -> list[_Block]:
        blocks = []
        for index in range(len(self._levels), len(self._levels) + self.format.num_blocks):
            name = f"feature_pyramid/cell_{repeat}/block_{index}"
            widths = [self._width(repeat, source) for source in range(index)]
            of_sources = ConvBn(f"{name}/sources", widths, expanded, hyperparams)
            separable = SeparableConvBn(
                f"{name}/separable", kernel_size, expanded, self.channels, hyperparams
            )
            blocks.append(_Block(of_sources, separable))
        return blocks

    def _width(self, repeat: int, source: int) -> int:
        """Returns the largest width of a feature that a cell's block may merge."""
        from_backbone = repeat == 0 and source < len(self._channels_in)
        return self._channels_in[source] if from_backbone else self.channels

    def call(self, inputs: list[tf.Tensor], training: bool | None = None) -> list[tf.Tensor]:
        """Args:
        inputs: the backbone's features, finest first, of any widths, and the path.
        """
        *features, path = inputs
        training = bool(training)
        channels = path[_CHANNELS]
        features = [
            _Feature(x, tf.constant(level), tf.shape(x)[-1])
            for x, level in zip(features, self._levels, strict=False)
        ]
        for level, conv in zip(self._levels[len(features) :], self._coarser, strict=True):
            finer = features[-1].tensor
            x = elastic.max_pool(finer, tf.constant(2))
            x = conv(x, 0, features[-1].channels, channels, training)
            x = _sized(x, size_of(_size(finer), 1))
            features.append(_Feature(x, tf.constant(level), channels))
        for repeat in range(self._repeats):
            run = functools.partial(self._cell, repeat, features, path, training)
            before = [x.tensor for x in features]
            # Cells that all networks have need no branch.
            tensors = (
                run()
                if repeat < self._least_repeats
                else tf.cond(path[_REPEATS] > repeat, run, lambda before=before: before)
            )
            features = [
                _Feature(_sized(x, _size(same)), tf.constant(level), channels)
                for x, same, level in zip(tensors, before, self._levels, strict=True)
            ]
        return [x.tensor for x in features]

    def _cell(
        self, repeat: int, inputs: list[_Feature], path: tf.Tensor, training: bool
    ) -> list[tf.Tensor]:
        channels = path[_CHANNELS]
        sizes = tf.constant([_size(x.tensor) for x in inputs])
        stock, blocks = _Stock(inputs), []
        for place, block in enumerate(self._cells[repeat]):
            sources, numbers = self.format.block(path, place)
            own = _Place(*tf.unstack(numbers))
            size = sizes[own.level - self._levels[0]]
            merged = self._merged(stock, block, tf.unstack(sources), own, size, training)
            # The block's only activation stands before it: inputs and outputs of blocks are linear.
            x = block.separable(
                tf.nn.relu6(merged), own.kernel_size, own.expanded, channels, training
            )
            blocks.append(_Feature(x, own.level, channels))
            stock.add(blocks[-1])
        return self._outputs(inputs, blocks, channels)

    def _merged(
        self,
        stock: _Stock,
        block: _Block,
        sources: list[tf.Tensor],
        own: _Place,
        size: tf.Tensor,
        training: bool,
    ) -> tf.Tensor:
        picked = stock.picked(sources)
        resampled = [
            self._resampled(block.of_sources, x, source, own, size, training)
            for x, source in zip(picked, sources, strict=True)
        ]
        first, second = resampled[:2]
        # As `blocks.global_pooling`: the coarser one gates, the first of two equals.
        in_order = picked[1].level > picked[0].level
        fine, coarse = tf.where(in_order, first, second), tf.where(in_order, second, first)
        gate = tf.sigmoid(tf.reduce_max(coarse, (1, 2), keepdims=True))
        merged = coarse + fine * tf.where(own.gated > 0, gate, tf.ones_like(gate))
        for source, x in zip(sources[2:], resampled[2:], strict=True):
            merged += tf.where(source == _NONE, tf.zeros_like(x), x)
        return merged

    def _resampled(
        self,
        conv: ConvBn,
        x: _Feature,
        source: tf.Tensor,
        own: _Place,
        size: tf.Tensor,
        training: bool,
    ) -> tf.Tensor:
        """Brings a feature to a block's level and width; see `feature_pyramids.mnasfpn`.

        Args:
          size: (height, width) of that level.
        """

        def pool(y: tf.Tensor) -> tf.Tensor:
            strides = tf.bitwise.left_shift(1, tf.maximum(own.level - x.level, 0))
            return elastic.max_pool(y, strides)

        # Size-dependent ordering: the 1x1 convolution comes after the pooling, where the feature is
        # small. It comes before the upsampling in either case.
        first = self._fixed.size_dependent_ordering
        y = pool(x.tensor) if first else x.tensor
        y = conv(y, source, x.channels, own.expanded, training)
        return elastic.upsample(y if first else pool(y), size)

    def _outputs(
        self, inputs: list[_Feature], blocks: list[_Feature], channels: tf.Tensor
    ) -> list[tf.Tensor]:
        """Returns the last blocks in the order of their levels, with the cell's residual."""
        last = blocks[-len(self._levels) :]
        of_last = tf.stack([x.level for x in last])
        places = [tf.argmax(of_last == level, output_type=tf.int32) for level in self._levels]
        outputs = []
        ordered = _Stock(last).picked(places)
        for x, own in zip(inputs, ordered, strict=True):
            y = _sized(own.tensor, _size(x.tensor))
            if self._fixed.cell_residual:
                # Only where the widths agree, as in the network itself.
                fits = tf.cast(x.channels == channels, y.dtype)
                y += fits * elastic.widened(x.tensor[..., :channels], channels)
            outputs.append(y)
        return outputs

    def weights_of(
        self, architecture: architecture_pb2.Architecture, channels_in: Sequence[int]
    ) -> dict[str, np.ndarray]:
        """Returns the weights of a network of the space, by their names in the network.

        Args:
          channels_in: of the network's own backbone, as when the supernet was made.
        """
        pyramid = scaled(architecture)
        channels = pyramid.channels
        found: elastic.Values = {}
        for level, conv in zip(self._levels[len(channels_in) :], self._coarser, strict=True):
            width = channels_in[-1] if level == self._first_coarser else channels
            found |= conv.part(f"feature_pyramid/c{level}", 0, width, channels)
        for repeat in range(pyramid.repeats):
            for index, block in enumerate(pyramid.block, start=len(self._levels)):
                of_sources, separable = self._cells[repeat][index - len(self._levels)]
                name = f"feature_pyramid/cell_{repeat}/block_{index}"
                for place, source in enumerate(block.input):
                    from_backbone = repeat == 0 and source < len(channels_in)
                    width = channels_in[source] if from_backbone else channels
                    found |= of_sources.part(
                        f"{name}/input_{place}", source, width, block.expanded_channels
                    )
                found |= separable.part(
                    f"{name}/separable", block.kernel_size, block.expanded_channels, channels
                )
        return found


def _size(x: tf.Tensor) -> tuple[int, int]:
    """Returns (height, width) of a feature, which has to be known."""
    return tuple(x.shape[1:3])


def _sized(x: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Tells a feature its size, which the graph does not know."""
    return tf.ensure_shape(x, [None, *size, None])
