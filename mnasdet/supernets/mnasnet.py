"""MnasNet backbones as one supernet: every network of a search space has a part of its weights.

A network is a path: the numbers that describe its layers. What the path names is computed and
nothing else, but for the gates of squeeze and excitation. Every operation has weights of its own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.backbones.mnasnet import PUBLISHED
from mnasdet.networks.blocks import scaled_channels
from mnasdet.networks.features import EXPANSION, LAST, MAX_LEVEL, level_name, size_of
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, configured
from mnasdet.protos import architecture_pb2
from mnasdet.supernets.elastic import SpatialConvBn, SqueezeExcite, Values, switched

_Proto = architecture_pb2.MnasNet

# The operations, each a factor on the width of a layer's input: an inverted bottleneck is its
# expansion. Without expansion it is a separable convolution.
_CONV, _SEPARABLE = 0, 1

# A layer adds to its output: nothing, its input, that pooled, or that projected as well.
# The first two are factors as well.
_NOTHING, _INPUT, _POOLED, _PROJECTED = range(4)

# The convolutions of an operation that stride.
_STRIDING = ("conv", "depthwise")


class _Block(NamedTuple):
    """A block of one network, as in its Architecture; or, of every field, all values in a space.

    Attributes:
      op: _CONV, _SEPARABLE, or the expansion of an inverted bottleneck.
      channels: those that the depth multiplier leaves.
    """

    op: Any
    kernel_size: Any
    se_ratio: Any
    skip: Any
    channels: Any
    repeats: Any


class _Numbers(NamedTuple):
    """The numbers of a layer in a path.

    Attributes:
      runs: 0 where the block ends before the layer; the others are then 0 as well.
      squeezed: channels between squeeze and excitation; 0: the layer has neither.
      skip: one of _NOTHING, _INPUT, _POOLED and _PROJECTED.
    """

    runs: Any
    op: Any
    kernel_size: Any
    channels_in: Any
    channels: Any
    squeezed: Any
    skip: Any


_ABSENT = _Numbers(*[0] * len(_Numbers._fields))


def _blocks(architecture: architecture_pb2.Architecture) -> list[_Block]:
    named = {_Proto.CONV: _CONV, _Proto.SEPARABLE: _SEPARABLE}
    return [
        _Block(
            named.get(block.op, block.expansion),
            block.kernel_size,
            block.se_ratio,
            block.skip,
            _width(architecture, block.channels),
            block.repeats,
        )
        for block in architecture.backbone.mnasnet.block
    ]


def _width(architecture: architecture_pb2.Architecture, channels: int) -> int:
    return scaled_channels(channels, architecture.depth_multiplier, architecture.min_depth)


def _numbers(block: _Block, channels_in: int, strides: int) -> _Numbers:
    """Returns the numbers of a layer by the rules of `backbones.mnasnet`."""
    fits = strides == 1 and channels_in == block.channels
    if block.skip == _Proto.NONE or (block.skip == _Proto.IDENTITY and not fits):
        skip = _NOTHING
    elif fits and block.skip != _Proto.AVERAGE_POOL:
        skip = _INPUT
    else:
        skip = _POOLED if channels_in == block.channels else _PROJECTED
    # A share of the layer's input, and not of its expansion as in MobileNetV3.
    squeezed = max(1, int(block.se_ratio * channels_in)) if block.se_ratio else 0
    return _Numbers(1, block.op, block.kernel_size, channels_in, block.channels, squeezed, skip)


class _Operation:
    """An operation of a layer, with its squeeze and excitation."""

    def __init__(self, name: str, op: int, most: _Numbers, strides: int, hyperparams: Hyperparams):
        """
        Args:
          most: the largest of every number.
        """
        self._op = op
        self._convolutions = {
            part: SpatialConvBn(
                f"{name}/{part}",
                *shape,
                hyperparams,
                strides=strides if part in _STRIDING else 1,
                depthwise=part == "depthwise",
            )
            for part, shape in self._shapes(most).items()
        }
        self.norms = [convolution.norm for convolution in self._convolutions.values()]
        self.layers = [x for each in self._convolutions.values() for x in each.layers]
        self._gate: SqueezeExcite | None = None
        if most.squeezed:
            self._gate = SqueezeExcite(
                f"{name}/squeeze_excite", self._gated(most), most.squeezed, hyperparams
            )
            self.layers += self._gate.layers

    def _shapes(self, own: _Numbers) -> dict[str, tuple[Any, Any, Any]]:
        """Returns kernel size, channels in and channels of every convolution."""
        if self._op == _CONV:
            return {"conv": (own.kernel_size, own.channels_in, own.channels)}
        expanded = own.channels_in * self._op
        expand = {"expand": (1, own.channels_in, expanded)} if self._op > _SEPARABLE else {}
        return expand | {
            "depthwise": (own.kernel_size, expanded, expanded),
            "project": (1, expanded, own.channels),
        }

    def _gated(self, own: _Numbers) -> Any:
        """Returns the channels that squeeze and excitation scales."""
        return own.channels if self._op == _CONV else own.channels_in * self._op

    def __call__(self, x: tf.Tensor, own: _Numbers, training: bool) -> list[tf.Tensor]:
        """Returns the operation's output, and what its depthwise convolution reads."""
        expanded = x
        for part, shape in self._shapes(own).items():
            x = self._convolutions[part](x, *shape, training)
            x = x if part == "project" else tf.nn.relu(x)
            if part == "expand":
                expanded = x
            elif self._gate and part in _STRIDING:
                x = self._gate(x, self._gated(own), own.squeezed)
        return [x, expanded]

    def part(self, name: str, own: _Numbers) -> Values:
        """Returns the weights of a network's layer, by their names."""
        found: Values = {}
        for part, shape in self._shapes(own).items():
            found |= self._convolutions[part].part(f"{name}/{part}", *shape)
        if self._gate and own.squeezed:
            gated = self._gated(own)
            found |= self._gate.part(f"{name}/squeeze_excite", gated, own.squeezed)
        return found


class _Layer:
    """A layer of a block, in all of its forms."""

    def __init__(
        self,
        name: str,
        choices: Sequence[_Numbers],
        strides: int,
        hyperparams: Hyperparams,
        *,
        always_runs: bool = True,
        expands: bool = False,
    ):
        """
        Args:
          choices: all numbers that it may have where it runs.
          expands: it also gives what its depthwise convolution reads.
        """
        self._choices = _Numbers(*(sorted(set(values)) for values in zip(*choices, strict=True)))
        self._fits = strides == 1 and all(own.channels_in == own.channels for own in choices)
        self._always_runs, self._expands = always_runs, expands
        self._strides = strides
        most = _Numbers(*map(max, self._choices))
        self._operations = {
            op: _Operation(f"{name}/op_{op}", op, most, strides, hyperparams)
            for op in self._choices.op
        }
        operations = self._operations.values()
        self.layers = [layer for operation in operations for layer in operation.layers]
        self.norms = [norm for operation in operations for norm in operation.norms]
        if _PROJECTED in self._choices.skip:
            self._projection = SpatialConvBn(
                f"{name}/skip", 1, most.channels_in, most.channels, hyperparams
            )
            self.layers += self._projection.layers
            self.norms.append(self._projection.norm)

    def __call__(self, x: tf.Tensor, drawn: tf.Tensor, training: bool) -> list[tf.Tensor]:
        """Args:
        drawn: the layer's numbers.

        Returns:
          The output, and the expansion if the layer gives it.
        """
        # A number that is always the same needs no branch, and leaves sizes known.
        own = _Numbers(
            *(
                choices[0] if len(choices) == 1 else number
                for choices, number in zip(self._choices, tf.unstack(drawn), strict=True)
            )
        )
        run = functools.partial(self._run, x, own, training)
        return run() if self._always_runs else tf.cond(drawn[0] > 0, run, lambda: [x])

    def _run(self, x: tf.Tensor, own: _Numbers, training: bool) -> list[tf.Tensor]:
        def operation(op: int) -> list[tf.Tensor]:
            found = self._operations[op](x, own, training)
            return found if self._expands else found[:1]

        y, *expansion = switched(
            own.op, {op: functools.partial(operation, op) for op in self._choices.op}
        )

        def pooled() -> tf.Tensor:
            return tf.nn.avg_pool2d(x, 3, self._strides, "SAME")

        def projected() -> tf.Tensor:
            return self._projection(pooled(), 1, own.channels_in, own.channels, training)

        if self._fits and not {_POOLED, _PROJECTED} & set(self._choices.skip):
            # Cheaper than a branch.
            return [y + tf.cast(own.skip, y.dtype) * x, *expansion]
        skips = {
            _NOTHING: lambda: y,
            _INPUT: lambda: x + y,
            _POOLED: lambda: pooled() + y,
            _PROJECTED: lambda: projected() + y,
        }
        return [switched(own.skip, {skip: skips[skip] for skip in self._choices.skip}), *expansion]

    def part(self, name: str, own: _Numbers) -> Values:
        """Returns the weights of a network's layer, by their names."""
        found = self._operations[own.op].part(name, own)
        if own.skip == _PROJECTED:
            found |= self._projection.part(f"{name}/skip", 1, own.channels_in, own.channels)
        return found


class MnasNetSupernet(tf_keras.layers.Layer):
    """The backbone of a path: images, and a path, to features by name.

    Attributes:
      widths: all that each feature may have, by its name.
      norms: all batch normalisations.
    """

    def __init__(
        self,
        architectures: Sequence[architecture_pb2.Architecture],
        names: Collection[str],
    ):
        """
        Args:
          architectures: networks of one space, which together have every choice of every block.
          names: of the features, as in `BackboneFeatures.by_name`.
        """
        super().__init__(name="backbone")
        base = architectures[0]
        self._names = names
        self._strides = [block.stride for block in base.backbone.mnasnet.block]
        self._levels = list(itertools.accumulate((s == 2 for s in self._strides), initial=1))[1:]
        self._stem_channels = _width(base, base.backbone.mnasnet.stem_channels)
        self._last_channels = base.backbone.mnasnet.last_channels
        # The decisions are independent: any combination may come.
        of_blocks = zip(*map(_blocks, architectures), strict=True)
        choices = [_Block(*map(set, zip(*blocks, strict=True))) for blocks in of_blocks]
        hyperparams = configured(base.backbone) or PUBLISHED
        assert isinstance(hyperparams.normalizer, BatchNorm)
        self.widths = {
            level_name(level): block.channels
            for level, block in zip(self._levels, choices, strict=True)
        }
        with tf.name_scope("/"):
            self._stem = SpatialConvBn(
                "backbone/shared/stem", 3, 3, self._stem_channels, hyperparams, strides=2
            )
            self._blocks = self._made_blocks(choices, hyperparams)
            if LAST in names:
                self._last = SpatialConvBn(
                    "backbone/shared/last",
                    1,
                    max(choices[-1].channels),
                    self._last_channels,
                    hyperparams,
                )
                self.widths[LAST] = {self._last_channels}
        layers = [layer for block in self._blocks for layer in block]
        parts: list[Any] = [self._stem, *layers, *([self._last] if LAST in names else [])]
        ends = [self._stem.norm, *([self._last.norm] if LAST in names else [])]
        self.norms = [*ends, *(norm for layer in layers for norm in layer.norms)]
        # Keras finds variables and losses in attributes.
        self._weight_layers = [layer for part in parts for layer in part.layers]

    def _made_blocks(
        self, choices: Sequence[_Block], hyperparams: Hyperparams
    ) -> list[list[_Layer]]:
        """
        Args:
          choices: of every block; each field has the set of its values.
        """
        made: list[list[_Layer]] = []
        widths = {self._stem_channels}
        for fields, stride, level in zip(choices, self._strides, self._levels, strict=True):
            blocks = [_Block(*values) for values in itertools.product(*fields)]
            name = f"backbone/shared/block_{len(made) + 1}"
            # SSDLite's first feature: the expansion of the first layer of stride 32.
            gives_expansion = EXPANSION in self._names and stride == 2 and level == MAX_LEVEL
            if gives_expansion:
                # Without an expansion it is the layer's input.
                ops = [max(op, 1) for op in fields.op]
                self.widths[EXPANSION] = {op * width for op in ops for width in widths}
            first = [_numbers(block, width, stride) for block in blocks for width in widths]
            others = [_numbers(block, block.channels, 1) for block in blocks]
            layers = [
                _Layer(f"{name}/layer_1", first, stride, hyperparams, expands=gives_expansion)
            ]
            for repeat in range(1, max(fields.repeats)):
                # Layers that the shortest block has run in all networks.
                runs = repeat < min(fields.repeats)
                layers.append(
                    _Layer(f"{name}/layer_{repeat + 1}", others, 1, hyperparams, always_runs=runs)
                )
            made.append(layers)
            widths = fields.channels
        return made

    @property
    def path_length(self) -> int:
        return len(_Numbers._fields) * sum(map(len, self._blocks))

    def path(self, architecture: architecture_pb2.Architecture) -> np.ndarray:
        """Returns the path of an architecture, [length] int32."""
        rows: list[_Numbers] = []
        for layers, own in zip(self._blocks, self._own(architecture), strict=True):
            rows += [*own, *[_ABSENT] * (len(layers) - len(own))]
        return np.array(rows, np.int32).reshape(-1)

    def _own(self, architecture: architecture_pb2.Architecture) -> list[list[_Numbers]]:
        """Returns the numbers of the layers of every block."""
        found, width = [], self._stem_channels
        for block, stride in zip(_blocks(architecture), self._strides, strict=True):
            others = [_numbers(block, block.channels, 1)] * (block.repeats - 1)
            found.append([_numbers(block, width, stride), *others])
            width = block.channels
        return found

    def call(self, inputs: list[tf.Tensor], training: bool | None = None) -> dict[str, tf.Tensor]:
        """Args:
        inputs: images [batch, height, width, 3] and the path.
        """
        images, path = inputs
        training = bool(training)

        def sized(x: tf.Tensor, level: int) -> tf.Tensor:
            """Tells a feature its size, which the graph does not know after a branch."""
            return tf.ensure_shape(x, [None, *size_of(tuple(images.shape[1:3]), level), None])

        x = tf.nn.relu(self._stem(images, 3, 3, self._stem_channels, training))
        rows = iter(tf.split(path, sum(map(len, self._blocks))))
        found = {}
        for layers, level in zip(self._blocks, self._levels, strict=True):
            for layer in layers:
                x, *expansion = layer(x, next(rows), training)
                if expansion:
                    # It is read before the depthwise convolution strides.
                    found[EXPANSION] = sized(expansion[0], level - 1)
            found[level_name(level)] = x = sized(x, level)
        if LAST in self._names:
            last = self._last(x, 1, tf.shape(x)[-1], self._last_channels, training)
            found[LAST] = sized(tf.nn.relu(last), MAX_LEVEL)
        return {name: found[name] for name in self._names}

    def weights_of(self, architecture: architecture_pb2.Architecture) -> Values:
        """Returns the weights of a network of the space, by their names in the network."""
        found = self._stem.part("backbone/stem", 3, 3, self._stem_channels)
        of_network = self._own(architecture)
        for index, (layers, own) in enumerate(zip(self._blocks, of_network, strict=True), 1):
            for number, (layer, numbers) in enumerate(zip(layers, own, strict=False), 1):
                found |= layer.part(f"backbone/block_{index}/layer_{number}", numbers)
        if LAST in self._names:
            width = of_network[-1][-1].channels
            found |= self._last.part("backbone/last", 1, width, self._last_channels)
        return found
