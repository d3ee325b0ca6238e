"""The Builder: networks as functions that record a graph, without TensorFlow.

A network is one ordinary function over a `Builder`. It returns `Node`s, which are read by
`cost.py` (parameters, multiply-adds, the layer list) and by `keras_builder.py` (a tf_keras model).
Only nodes that an output reaches are ever read: dead nodes cost nothing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mnasdet.errors import ConfigError
from mnasdet.networks.hyperparams import Kernel


@dataclass(frozen=True, eq=False)
class Node:
    """The output of one layer.

    Attributes:
      op: what the layer does: the name of the `Builder` method that made the node.
      name: the layer's name, scopes first. Nodes of one name share the layer's weights.
      inputs: the nodes that the layer reads, in order.
      shape: without the batch: (height, width, channels), or (anchors, values).
      attrs: the layer's arguments.
    """

    # Compared by identity (eq=False): two equal layers are two layers, and hashing a whole graph at
    # every look-up would be slow.
    op: str
    name: str
    inputs: tuple[Node, ...]
    shape: tuple[int, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def size(self) -> tuple[int, int]:
        """Returns (height, width) of a feature."""
        return self.shape[0], self.shape[1]

    def __repr__(self) -> str:
        return f"Node({self.name}: {self.op} -> {'x'.join(map(str, self.shape))})"


class Builder:
    """Records layers. Convolutions and pools pad SAME; `name` is relative to the scope."""

    def __init__(self) -> None:
        self._scopes: list[str] = []
        self._layers: dict[str, tuple] = {}

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefixes the names made inside. The outermost scope is the part of the detector."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    def input(self, shape: Sequence[int], name: str = "image") -> Node:
        """Adds a tensor from outside, (height, width, channels)."""
        return Node("input", name, (), tuple(shape))

    def conv2d(
        self,
        x: Node,
        filters: int,
        kernel_size: int | tuple[int, int],
        *,
        strides: int = 1,
        dilation: int = 1,
        groups: int = 1,
        use_bias: bool = False,
        bias: float = 0.0,
        kernel: Kernel,
        name: str,
        shared: bool = False,
    ) -> Node:
        """Adds a convolution.

        Args:
          bias: the first value of its bias.
          dilation: pixels between neighbouring weights of the kernel; needs strides of 1.
        """
        height, width, _ = x.shape
        return self._layer(
            "conv2d",
            name,
            (x,),
            (*_strided(height, width, strides), filters),
            shared,
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            groups=groups,
            use_bias=use_bias,
            bias=bias,
            **_kernel_attrs(kernel),
            **_dilation_attrs(strides, dilation, name),
        )

    def dense(
        self,
        x: Node,
        units: int,
        *,
        use_bias: bool = True,
        kernel: Kernel,
        name: str,
    ) -> Node:
        """Adds a fully connected layer of one place, (1, 1, channels) to (1, 1, units).

        It is a 1x1 convolution: its weights, its cost and whatever reads the graph are the same.
        Only Keras computes it otherwise, for batches of a thousand regions.
        """
        if x.size != (1, 1):
            raise ValueError(f"dense {name}: the size is {x.size}; only (1, 1) is allowed")
        return self._layer(
            "conv2d",
            name,
            (x,),
            (1, 1, units),
            filters=units,
            kernel_size=1,
            strides=1,
            groups=1,
            use_bias=use_bias,
            bias=0.0,
            **_kernel_attrs(kernel),
            dense=True,
        )

    def depthwise_conv2d(
        self,
        x: Node,
        kernel_size: int,
        *,
        strides: int = 1,
        dilation: int = 1,
        use_bias: bool = False,
        kernel: Kernel,
        name: str,
        shared: bool = False,
    ) -> Node:
        """Adds a depthwise convolution; see `conv2d` for `dilation`."""
        height, width, channels = x.shape
        return self._layer(
            "depthwise_conv2d",
            name,
            (x,),
            (*_strided(height, width, strides), channels),
            shared,
            kernel_size=kernel_size,
            strides=strides,
            use_bias=use_bias,
            **_kernel_attrs(kernel),
            **_dilation_attrs(strides, dilation, name),
        )

    def deformable_conv2d(
        self,
        x: Node,
        offsets: Node,
        filters: int,
        kernel_size: int,
        *,
        deformable_groups: int = 1,
        kernel: Kernel,
        name: str,
        shared: bool = False,
    ) -> Node:
        """Adds a convolution whose taps look beside their places, without a bias.

        Args:
          offsets: (height, width, deformable_groups * kernel_size^2 * 2): for each group of
            channels and each weight, row by row, (y, x) in pixels.
          deformable_groups: groups of channels with offsets of their own.
        """
        values = 2 * deformable_groups * kernel_size**2
        if offsets.shape != (*x.size, values) or x.channels % deformable_groups:
            raise ValueError(
                f"{name}: offsets of {offsets.shape} for {x.shape} in {deformable_groups} groups; "
                f"they need {values} channels and groups that divide those of the features"
            )
        if kernel.standardized:
            raise ValueError(f"{name}: a deformable convolution has no standardised kernel")
        return self._layer(
            "deformable_conv2d",
            name,
            (x, offsets),
            (*x.size, filters),
            shared,
            filters=filters,
            kernel_size=kernel_size,
            deformable_groups=deformable_groups,
            **_kernel_attrs(kernel),
        )

    def batch_norm(
        self,
        x: Node,
        *,
        momentum: float,
        epsilon: float,
        center: bool = True,
        scale: bool = True,
        synchronized: bool = False,
        name: str,
    ) -> Node:
        """Adds a batch normalisation.

        Args:
          momentum: the share of the old average that a step keeps.
          synchronized: whether the statistics are taken over all replicas.
        """
        return self._layer(
            "batch_norm",
            name,
            (x,),
            x.shape,
            momentum=momentum,
            epsilon=epsilon,
            center=center,
            scale=scale,
            **({"synchronized": True} if synchronized else {}),
        )

    def group_norm(self, x: Node, *, groups: int, epsilon: float, name: str) -> Node:
        """Normalises every group of channels of one image (Wu and He, "Group Normalization",
        2018), with a factor and an offset for each channel."""
        if x.channels % groups:
            # Only a whole network knows all its widths: this is where a config shows to be wrong.
            raise ConfigError(
                f"layer {'/'.join([*self._scopes, name])}: its {x.channels} channels are no "
                f"multiple of the {groups} groups of group_norm; use groups that divide the width "
                "of every layer, such as 8"
            )
        return self._layer("group_norm", name, (x,), x.shape, groups=groups, epsilon=epsilon)

    def activation(self, x: Node, function: str, *, name: str) -> Node:
        """Adds an activation; "linear" gives `x` back.

        Args:
          function: relu, relu6, swish, hard_swish, sigmoid, hard_sigmoid or linear.
        """
        if function == "linear":
            return x
        return self._layer("activation", name, (x,), x.shape, function=function)

    def stop_gradient(self, x: Node, *, name: str) -> Node:
        """Keeps what is learned after `x` from changing what is before."""
        return self._layer("stop_gradient", name, (x,), x.shape)

    def dropout(self, x: Node, rate: float, *, name: str) -> Node:
        """Drops single units in training; `rate` is the share dropped."""
        return self._layer("dropout", name, (x,), x.shape, rate=rate) if rate else x

    def drop_block(self, x: Node, keep_probability: float, block_size: int, *, name: str) -> Node:
        """Drops square blocks of all channels in training (Ghiasi et al., 2018)."""
        if keep_probability == 1.0:
            return x
        return self._layer(
            "drop_block",
            name,
            (x,),
            x.shape,
            keep_probability=keep_probability,
            block_size=block_size,
        )

    def max_pool(self, x: Node, size: int, *, strides: int, name: str) -> Node:
        height, width, channels = x.shape
        shape = (*_strided(height, width, strides), channels)
        return self._layer("max_pool", name, (x,), shape, size=size, strides=strides)

    def avg_pool(self, x: Node, size: int, *, strides: int, name: str) -> Node:
        """Adds an average pool; the padding does not count."""
        height, width, channels = x.shape
        shape = (*_strided(height, width, strides), channels)
        return self._layer("avg_pool", name, (x,), shape, size=size, strides=strides)

    def global_avg_pool(self, x: Node, *, name: str) -> Node:
        """Adds the mean over height and width: (1, 1, channels)."""
        return self._layer("global_avg_pool", name, (x,), (1, 1, x.channels))

    def global_max_pool(self, x: Node, *, name: str) -> Node:
        """Adds the maximum over height and width: (1, 1, channels)."""
        return self._layer("global_max_pool", name, (x,), (1, 1, x.channels))

    def upsample(self, x: Node, size: tuple[int, int], *, name: str) -> Node:
        """Adds nearest neighbour resizing up to `size`, (height, width)."""
        if x.size == size:
            return x
        return self._layer("upsample", name, (x,), (*size, x.channels))

    def add(self, x: Node, y: Node, *, name: str) -> Node:
        """Adds two features. For many, TFLite would take AddN, which is slower."""
        return self._elementwise("add", x, y, name)

    def multiply(self, x: Node, y: Node, *, name: str) -> Node:
        """Multiplies two features; `y` may be (1, 1, channels)."""
        return self._elementwise("multiply", x, y, name)

    def reshape(self, x: Node, shape: Sequence[int], *, name: str) -> Node:
        return self._layer("reshape", name, (x,), tuple(shape))

    def concat(self, nodes: Sequence[Node], *, axis: int = 0, name: str) -> Node:
        """Joins along an axis; 0 is the first after the batch, -1 are the channels."""
        if len(nodes) == 1:
            return nodes[0]
        shape = list(nodes[0].shape)
        shape[axis] = sum(node.shape[axis] for node in nodes)
        return self._layer("concat", name, tuple(nodes), tuple(shape), axis=axis)

    def choice(self, candidates: Sequence[Node], *, name: str) -> Node:
        """Leaves open which of several features it is; one candidate is no choice.

        `networks.choices` reads what is open: a supernet is an ordinary network with choices.
        """
        if len(candidates) == 1:
            return candidates[0]
        if len({node.shape for node in candidates}) > 1:
            shapes = ", ".join(str(node.shape) for node in candidates)
            raise ValueError(f"choice {name}: the candidates' shapes {shapes} differ")
        return self._layer("choice", name, tuple(candidates), candidates[0].shape)

    def _elementwise(self, op: str, x: Node, y: Node, name: str) -> Node:
        if x.shape != y.shape and y.shape != (1, 1, x.channels):
            raise ValueError(f"{op} {name}: shapes {x.shape} and {y.shape} differ")
        return self._layer(op, name, (x, y), x.shape)

    def _layer(
        self,
        op: str,
        name: str,
        inputs: tuple[Node, ...],
        shape: tuple[int, ...],
        shared: bool = False,
        **attrs: Any,
    ) -> Node:
        name = "/".join([*self._scopes, name])
        # Only channels: a shared layer runs at several sizes, but always with the same weights.
        signature = (op, tuple(attrs.items()), tuple([node.shape[-1] for node in inputs]), shared)
        if self._layers.setdefault(name, signature) is not signature and (
            not shared or self._layers[name] != signature
        ):
            raise ValueError(f"layer name {name!r} is taken by a different layer")
        return Node(op, name, inputs, shape, attrs)


def _strided(height: int, width: int, strides: int) -> tuple[int, int]:
    # Rounded up, as SAME padding does.
    return -(-height // strides), -(-width // strides)


# An argument that is newer than the first stored trials is no attribute while it has its default:
# the canonical keys of networks without it are in stored trials and latency tables, and stay as
# they are.


def _kernel_attrs(kernel: Kernel) -> dict[str, Any]:
    attrs: dict[str, Any] = {"initializer": kernel.initializer, "l2": kernel.l2}
    return attrs | {"standardized": True} if kernel.standardized else attrs


def _dilation_attrs(strides: int, dilation: int, name: str) -> dict[str, Any]:
    if dilation == 1:
        return {}
    if strides != 1:
        # TensorFlow's own convolution has no kernel for it.
        raise ValueError(
            f"{name}: strides are {strides} and dilation is {dilation}; one has to be 1"
        )
    return {"dilation": dilation}


def reachable(outputs: Sequence[Node]) -> list[Node]:
    """Returns the nodes that `outputs` need, each after its inputs."""
    return list(_reachable(tuple(outputs)))


# A search asks twice for every graph: for its cost and for its key.
@functools.lru_cache(maxsize=8)
def _reachable(outputs: tuple[Node, ...]) -> tuple[Node, ...]:
    # A stack of its own: a recursion would end at Python's limit in a network of a thousand layers.
    order: dict[Node, None] = {}
    # None: the inputs of the node that waits last have come.
    stack: list[Node | None] = [*reversed(outputs)]
    waiting: list[Node] = []
    while stack:
        node = stack.pop()
        if node is None:
            order[waiting.pop()] = None
        elif node not in order:
            waiting.append(node)
            stack += (None, *node.inputs[::-1])
    return tuple(order)


# Attributes that change nothing of what a trained network computes.
_NOT_COMPUTED = ("synchronized",)


def canonical_key(outputs: Sequence[Node]) -> str:
    """Returns a digest that two networks share when they are one but for names and dead nodes.

    Every node is labelled from what it computes (inputs of an addition in any order), then once
    more from what reads it, so that one layer read twice differs from two equal layers.
    """
    nodes = reachable(outputs)
    label: dict[Node, str] = {}
    for node in nodes:
        below = [label[node_in] for node_in in node.inputs]
        # x + y and y + x are one network; of a concatenation the order matters.
        if node.op == "add":
            below.sort()
        values = tuple(node.attrs.values())
        attrs = _attrs_text(tuple(node.attrs), values, tuple(map(type, values)))
        label[node] = _digest(f"({node.op!r}, {node.shape!r}, {attrs}, {below!r})")
    readers: dict[Node, list[str]] = {node: [] for node in nodes}
    for place, node in enumerate(outputs):
        readers[node].append(f"output {place}")
    whole: dict[Node, str] = {}
    for node in reversed(nodes):
        whole[node] = _digest(f"({label[node]!r}, {sorted(readers[node])!r})")
        for place, node_in in enumerate(node.inputs):
            readers[node_in].append(whole[node] + ("" if node.op == "add" else str(place)))
    return _digest(f"({sorted(whole.values())!r},)")


@functools.cache
def _attrs_text(names: tuple[str, ...], values: tuple[Any, ...], types: tuple[type, ...]) -> str:
    """Returns attributes as text; most nodes have those of some other node, which is kept.

    Args:
      types: they tell 1 from True.
    """
    attrs = zip(names, values, strict=True)
    return repr(sorted((name, str(value)) for name, value in attrs if name not in _NOT_COMPUTED))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
