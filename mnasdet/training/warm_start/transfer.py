"""The values that a model's variables take from a source.

What differs between two programs' networks is made up for in the weights where that is exact:

- the layout of kernels;
- another epsilon of batch normalisation, in its factor: gamma * sqrt((variance + ours) /
  (variance + theirs));
- biases of convolutions ahead of a batch normalisation, in its mean;
- the scaling of images and the order of their channels, in the first kernel and the mean after it.
  At the border this is not exact: the zeros that pad an image are another colour.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tf_keras

from mnasdet.networks.names import part_of
from mnasdet.protos import name_map_pb2
from mnasdet.training import checkpoints
from mnasdet.training.warm_start.name_map import Layer, NameMap
from mnasdet.training.warm_start.source import Source

_KERNELS = ("kernel", "depthwise_kernel")
_NORM = "batch_norm"

# Our images are pixels / _HALF - 1.
_HALF = 127.5


@dataclass
class Transfer:
    """The variables of a model beside those of a source.

    Attributes:
      values: for our variables, by name.
      unmatched: our variables that the source has not.
      misshapen: our variables that have another shape there, each with both shapes.
      optional: those of the two that the model can do without.
      unused: the source's variables of those parts that have no place in the model.
      differences: what the weights cannot make up for.
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    misshapen: dict[str, str] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)
    unused: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """The variables of a model, and what its layers do with them.

    Attributes:
      shapes: of the variables, by name.
      epsilons: of the batch normalisations, by the name of the layer.
      strides: of the convolutions, by the name of the layer.
    """

    shapes: Mapping[str, Sequence[int]]
    epsilons: Mapping[str, float]
    strides: Mapping[str, int]


def target(model: tf_keras.Model) -> Target:
    """Returns the target that a model is."""
    shapes = {
        name: variable.shape.as_list()
        for name, variable in checkpoints.variables_by_name(model).items()
        # No other program has ranges of activations: training learns them.
        if not checkpoints.is_range(name)
    }
    epsilons, strides = {}, {}
    # Through the submodules: a model that rounds to int8 has its layers in wrappers. A layer's own
    # variables are moved out of it there, so its name is the only one that is sure.
    for layer in model.submodules:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            epsilons[layer.name] = layer.epsilon
        elif isinstance(layer, (tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D)):
            strides[layer.name] = layer.strides[0]
    return Target(shapes, epsilons, strides)


def transfer(
    target: Target, source: Source, name_map: NameMap, parts: Collection[str] = ()
) -> Transfer:
    """Returns what a source has for the variables of a model.

    Args:
      parts: of the model that are taken, as "backbone"; none: all that the map knows.

    Raises:
      CheckpointError: the source is damaged.
    """
    return _Transferring(target, source, name_map).result(parts)


def _layer_of(variable: str) -> str:
    return variable.removesuffix(":0").rpartition("/")[0]


class _Transferring:
    """The values of a model's variables, one after the other."""

    def __init__(self, target: Target, source: Source, name_map: NameMap):
        self._target = target
        self._shapes = target.shapes
        self._epsilons = target.epsilons
        self._source = source
        self._map = name_map
        self._images = name_map.proto.images
        self._used: set[str] = set()

    def result(self, parts: Collection[str]) -> Transfer:
        found = Transfer()
        known = {part_of(name) for name in self._shapes if self._map.layers(_layer_of(name))}
        for name, shape in self._shapes.items():
            if part_of(name) not in (parts or known):
                continue
            # A variable of another shape has a place, too.
            self._used.update(
                there
                for one in self._map.layers(_layer_of(name))
                for there in self._map.names(one, name.rpartition("/")[2])
            )
            layer, _, variable = name.rpartition("/")
            there = self._layer(layer, variable)
            if there is None:
                found.unmatched.append(name)
            elif (other := self._shape(there, variable)) != tuple(shape):
                found.misshapen[name] = f"{name} is {list(other)} there, {list(shape)} here"
            else:
                found.values[name] = self._value(name, there).astype(np.float32)
                continue
            if any(one.optional for one in self._map.layers(layer)):
                found.optional.add(name)
        found.unused += [
            name
            for name in self._source.shapes
            if name not in self._used and self._map.is_of_part(name, parts or known)
        ]
        found.differences += self._differences(found.values)
        return found

    def _differences(self, loaded: Collection[str]) -> Iterator[str]:
        """Yields what the weights cannot make up for."""
        yield from self._map.proto.difference
        yield from self._map.other_strides(self._target.strides)
        # Grey is 0 for us. Where it is 0 there, too, padding has the same colour.
        has_other_grey = any(mean != _HALF for mean in self._images.mean)
        if has_other_grey and any(f"{layer}/kernel" in loaded for layer in self._images.layer):
            yield "at the border of an image, padding is of another colour"

    def _layer(self, layer: str, variable: str) -> Layer | None:
        """Returns the source's layer that has a variable of ours, or may leave it out."""
        layers = self._map.layers(layer)
        for one in layers:
            if self._name(one, variable):
                return one
        # A layer that leaves a variable out is there by its others.
        left_out = self._map.absent(variable) is not None
        return next((one for one in layers if left_out and self._is_there(one)), None)

    def _is_there(self, layer: Layer) -> bool:
        return any(self._name(layer, variable.ours) for variable in self._map.proto.variable)

    def _name(self, layer: Layer, variable: str) -> str:
        """Returns the name of a layer's variable in the source; "" if it has none."""
        names = self._map.names(layer, variable)
        return next((name for name in names if name in self._source.shapes), "")

    def _shape(self, layer: Layer, variable: str) -> tuple[int, ...]:
        """Returns the shape of a source's variable in our layout."""
        if name := self._name(layer, variable):
            shape = tuple(self._source.shapes[name])
            if variable in _KERNELS:
                return _arranged(shape, variable, self._map.proto.kernel_layout)
            return shape
        # One that is left out has the shape of those beside it.
        return next(
            tuple(self._source.shapes[name])
            for other in self._map.proto.variable
            if (name := self._name(layer, other.ours))
        )

    def _raw(self, layer: Layer, variable: str) -> np.ndarray:
        """Returns a variable as the source has it, in our layout."""
        if name := self._name(layer, variable):
            self._used.add(name)
            value = self._source.get(name).astype(np.float64)
            if variable in _KERNELS:
                return _laid_out(value, variable, self._map.proto.kernel_layout)
            return value
        return np.full(self._shape(layer, variable), self._map.absent(variable), np.float64)

    def _value(self, name: str, there: Layer) -> np.ndarray:
        """Returns the value that one of our variables takes."""
        layer, _, variable = name.rpartition("/")
        value = self._raw(there, variable)
        match variable:
            case "gamma" if layer in self._epsilons:
                variance = self._raw(there, "moving_variance")
                ours, theirs = self._epsilons[layer], there.batch_norm_epsilon
                return value * np.sqrt((variance + ours) / (variance + theirs))
            case "moving_mean":
                return value - self._offset(layer)
            case "kernel" if layer in self._images.layer:
                return self._for_our_images(value)
            case "bias" if layer in self._images.layer:
                return value + self._image_offset(layer)
        return value

    def _offset(self, norm: str) -> np.ndarray | float:
        """Returns what the convolution ahead of a batch normalisation adds there and not here."""
        if not norm.endswith(f"/{_NORM}"):
            return 0.0
        offset: np.ndarray | float = 0.0
        for convolution in self._convolutions(norm.removesuffix(f"/{_NORM}")):
            there = self._layer(convolution, "bias")
            if there is not None and f"{convolution}/bias" not in self._shapes:
                offset = offset + self._raw(there, "bias")
            if convolution in self._images.layer:
                offset = offset + self._image_offset(convolution)
        return offset

    def _convolutions(self, scope: str) -> Iterator[str]:
        """Yields our convolution ahead of the batch normalisation of a scope."""
        for name in ("conv", "depthwise"):
            if any(f"{scope}/{name}/{kernel}" in self._shapes for kernel in _KERNELS):
                yield f"{scope}/{name}"

    def _for_our_images(self, kernel: np.ndarray) -> np.ndarray:
        """Returns the first kernel for images in [-1, 1], red first."""
        if len(self._images.mean) != kernel.shape[2]:
            return kernel
        kernel = kernel * (_HALF / np.array(self._images.deviation))[:, np.newaxis]
        return kernel[:, :, ::-1] if self._images.bgr else kernel

    def _image_offset(self, layer: str) -> np.ndarray | float:
        """Returns what the first layer gives there for an image that is 0 here."""
        there = self._layer(layer, "kernel")
        if there is None or not self._images.mean:
            return 0.0
        grey = (_HALF - np.array(self._images.mean)) / np.array(self._images.deviation)
        kernel = self._raw(there, "kernel")
        if len(grey) != kernel.shape[2]:
            return 0.0
        return np.einsum("hwio,i->o", kernel, grey)


def _arranged(shape: tuple[int, ...], variable: str, layout: int) -> tuple[int, ...]:
    # Without a byte of memory.
    return _laid_out(np.broadcast_to(np.float32(0), shape), variable, layout).shape


def _laid_out(kernel: np.ndarray, variable: str, layout: int) -> np.ndarray:
    """Returns a kernel in our layout; one that is no kernel of any stays as it is.

    A dense layer's is that of a convolution of one pixel.
    """
    from_torch = layout == name_map_pb2.NameMap.OIHW
    match kernel.ndim:
        case 2:
            return (kernel.T if from_torch else kernel)[np.newaxis, np.newaxis]
        case 4 if from_torch:
            return kernel.transpose(
                (2, 3, 0, 1) if variable == "depthwise_kernel" else (2, 3, 1, 0)
            )
    return kernel
