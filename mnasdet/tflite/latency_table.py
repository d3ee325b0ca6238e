"""Latency tables: what single layers take on one device, summed up to a network. No TensorFlow."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from mnasdet import files, text_proto
from mnasdet.errors import ConfigError, UserError
from mnasdet.networks.builder import Node
from mnasdet.networks.cost import CostSheet
from mnasdet.protos import latency_table_pb2
from mnasdet.tflite.benchmark import provenance

# What TFLite runs as part of the layer in front, and in which layers.
_FUSED_ACTIVATIONS = ("relu", "relu6")
_WITH_ACTIVATION = ("conv2d", "depthwise_conv2d", "add", "multiply")
_WITH_BATCH_NORM = ("conv2d", "depthwise_conv2d")

# Of a latency in ms, behind the point.
DIGITS = 6

# A change of these makes another device of it.
_DEVICE_FIELDS = ("device", "cpu", "runtime", "num_threads")


@dataclass(frozen=True)
class Layer:
    """A layer as the runtime executes it: a node, and the activation fused into it."""

    node: Node
    activation: str = "linear"

    @property
    def key(self) -> str:
        """All that its latency depends on: "conv2d 20x20x48->256 k1 s1 relu6"."""
        node, attrs = self.node, self.node.attrs
        op = attrs["function"] if node.op == "activation" else node.op
        inputs = " ".join("x".join(map(str, x.shape)) for x in node.inputs)
        words = [op, inputs]
        match node.op:
            case "conv2d":
                words[1] += f"->{node.channels}"
            case "upsample" | "reshape":
                words[1] += "->" + "x".join(map(str, node.shape))
        if "kernel_size" in attrs or "size" in attrs:
            words += [f"k{attrs.get('kernel_size') or attrs['size']}", f"s{attrs['strides']}"]
        if self.activation != "linear":
            words.append(self.activation)
        return " ".join(words)


def layers(sheet: CostSheet) -> list[Layer]:
    """The layers that the runtime executes, in order: batch normalisation runs as part of its
    convolution, and relu and relu6 as part of a convolution, an addition or a product."""
    readers: dict[Node, list[Node]] = {node: [] for node in sheet.nodes}
    for node in sheet.nodes:
        for x in node.inputs:
            readers.setdefault(x, []).append(node)
    fused: set[Node] = set()
    executed = []
    for node in sheet.nodes:
        if node in fused:
            continue
        last, activation = node, "linear"
        if node.op in _WITH_BATCH_NORM and [x.op for x in readers[last]] == ["batch_norm"]:
            (last,) = readers[last]
            fused.add(last)
        following = readers[last]
        if node.op in _WITH_ACTIVATION and [x.op for x in following] == ["activation"]:
            function = following[0].attrs["function"]
            if function in _FUSED_ACTIVATIONS:
                activation = function
                fused.add(following[0])
        executed.append(Layer(node, activation))
    return executed


def missing(table: LatencyTable | None, sheets: Iterable[CostSheet]) -> dict[str, Layer]:
    """The layers of `sheets` that `table` has no latency for, by key."""
    known = table.entries if table else {}
    found = {layer.key: layer for sheet in sheets for layer in layers(sheet)}
    return {key: layer for key, layer in found.items() if key not in known}


@dataclass
class LatencyTable:
    """Latencies of single layers on one device.

    Attributes:
      provenance: the fields of the Provenance message.
      entries: milliseconds above a graph that does nothing, by `Layer.key`.
      scale: of the sum of a network's layers, to which `constant_ms` is added.
      path: where the table was read or written; for messages.
    """

    provenance: dict[str, Any]
    entries: dict[str, float]
    scale: float = 1.0
    constant_ms: float = 0.0
    path: str = "latency table"

    @classmethod
    def load(cls, path: str | os.PathLike) -> LatencyTable:
        """Reads a text proto; raises ConfigError for what is none or has impossible values."""
        proto = text_proto.read(path, latency_table_pb2.LatencyTable)
        if not proto.entry:
            raise ConfigError(f"{path}: the table has no entries; {_how_to_add(path)}")
        repeated = [k for k, n in Counter(e.layer for e in proto.entry).items() if n > 1]
        if repeated:
            raise ConfigError(f"{path}: layer {repeated[0]!r} has several entries; keep one")
        for entry in proto.entry:
            if not (entry.HasField("latency_ms") and 0 <= entry.latency_ms < math.inf):
                raise ConfigError(
                    f"{path}: latency_ms of layer {entry.layer!r} is "
                    f"{entry.latency_ms if entry.HasField('latency_ms') else 'missing'}; "
                    "use 0 or more"
                )
        if not 0 < proto.scale < math.inf or not math.isfinite(proto.constant_ms):
            raise ConfigError(
                f"{path}: scale is {proto.scale:g} and constant_ms {proto.constant_ms:g}; "
                "use a positive scale and a finite constant"
            )
        return cls(
            {field.name: value for field, value in proto.provenance.ListFields()},
            {entry.layer: entry.latency_ms for entry in proto.entry},
            proto.scale,
            proto.constant_ms,
            os.fspath(path),
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes a text proto, entries sorted, whole or not at all."""
        fields = latency_table_pb2.Provenance.DESCRIPTOR.fields_by_name
        proto = latency_table_pb2.LatencyTable(
            provenance={k: v for k, v in self.provenance.items() if k in fields},
            entry=[
                {"layer": layer, "latency_ms": round(ms, DIGITS)}
                for layer, ms in sorted(self.entries.items())
            ],
            scale=self.scale,
            constant_ms=self.constant_ms,
        )
        files.write(path, text_format.MessageToString(proto))
        self.path = os.fspath(path)

    def layer_sum_ms(self, sheet: CostSheet) -> float:
        """Sum over the network's layers; raises UserError where one is not in the table."""
        absent = self.missing(sheet)
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise UserError(
                f"{self.path}: no latency for layer {absent[0]!r}{more}; {_how_to_add(self.path)}"
            )
        return sum(self.entries[layer.key] for layer in layers(sheet))

    def latency_ms(self, sheet: CostSheet) -> float:
        """The network's latency; raises UserError where a layer is not in the table."""
        return self.scale * self.layer_sum_ms(sheet) + self.constant_ms

    def missing(self, sheet: CostSheet) -> list[str]:
        """The keys of the network's layers that the table does not have."""
        return list(missing(self, [sheet]))

    def check_device(self, num_threads: int) -> None:
        """Raises ConfigError unless measurements made here, now, belong into this table."""
        here = provenance(num_threads)
        for field in _DEVICE_FIELDS:
            if self.provenance.get(field) != here[field]:
                raise ConfigError(
                    f"{self.path}: measured with {field} {self.provenance.get(field)!r}, here it "
                    f"is {here[field]!r}; use a file of its own"
                )


def host_table_path(num_threads: int = 1) -> Path:
    """Where this machine's own table is kept: one for every CPU, runtime and number of threads."""
    cache = os.environ.get("MNASDET_CACHE_DIR") or Path.home() / ".cache" / "mnasdet"
    here = provenance(num_threads)
    name = f"host {here['cpu']} {here['runtime']} {num_threads} threads"
    return Path(cache) / "latency" / (re.sub(r"[^A-Za-z0-9.]+", "-", name) + ".textproto")


def _how_to_add(path: str | os.PathLike) -> str:
    return f"add it with scripts/build_latency_table.py --output={os.fspath(path)}"
