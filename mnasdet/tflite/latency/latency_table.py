"""Latency tables: what single layers take on one device, summed up to a network. No TensorFlow."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format

from mnasdet import files, text_proto
from mnasdet.errors import ConfigError, UserError
from mnasdet.networks.cost import CostSheet
from mnasdet.networks.graph import Network
from mnasdet.protos import latency_table_pb2
from mnasdet.tflite.devices.provenance import difference
from mnasdet.tflite.latency.layers import Layer, layers

# Decimals of a latency in ms: a nanosecond, below what any clock here tells.
DIGITS = 6

# Bytes of inputs and output together; a layer with less is small.
_SMALL_BYTES = 1e6


def missing(table: LatencyTable | None, sheets: Iterable[CostSheet]) -> dict[str, Layer]:
    """Returns the layers of `sheets` that `table` has no latency for, by key."""
    known = table.entries if table else {}
    found = {layer.key: layer for sheet in sheets for layer in layers(sheet)}
    return {key: layer for key, layer in found.items() if key not in known}


@dataclass
class LatencyTable:
    """Latencies of single layers on one device.

    Attributes:
      provenance: the fields of the Provenance message.
      entries: milliseconds above a graph that does nothing, by `Layer.key`.
      scale: of the sum of a network's layers. To it are added `small_scale` of the small ones among
        them, whose inputs and output take less than 1e6 bytes and which lose more by not being
        alone; `ms_per_megabyte` for all that is read and written, which less of is in a cache than
        where a layer is alone; and `constant_ms`.
      path: where the table was read or written; for messages.
      networks: milliseconds of one run of whole graphs, by `canonical_key`.
      noisy: keys, of layers and networks, whose measurements do not agree, or are too few to tell.
    """

    provenance: dict[str, Any]
    entries: dict[str, float]
    scale: float = 1.0
    constant_ms: float = 0.0
    ms_per_megabyte: float = 0.0
    small_scale: float = 0.0
    path: str = "latency table"
    networks: dict[str, float] = field(default_factory=dict)
    noisy: set[str] = field(default_factory=set)

    @classmethod
    def load(cls, path: str | os.PathLike) -> LatencyTable:
        """Reads a text proto; raises ConfigError for what is none or has impossible values."""
        proto = text_proto.read(path, latency_table_pb2.LatencyTable)
        if not proto.entry:
            raise ConfigError(f"{path}: the table has no entries; {_how_to_add(path)}")
        # A dict would keep the last one without a word.
        repeated = [k for k, n in Counter(e.layer for e in proto.entry).items() if n > 1]
        if repeated:
            raise ConfigError(f"{path}: layer {repeated[0]!r} has several entries; keep one")
        for entry in proto.entry:
            # A missing latency reads as 0, which would make the layer free.
            if not (entry.HasField("latency_ms") and 0 <= entry.latency_ms < math.inf):
                raise _bad_latency(path, f"layer {entry.layer!r}", entry, "0 or more")
        for network in proto.network:
            if not (network.HasField("latency_ms") and 0 < network.latency_ms < math.inf):
                raise _bad_latency(path, f"network {network.key!r}", network, "more than 0")
        if not 0 < proto.scale < math.inf:
            raise ConfigError(f"{path}: scale is {proto.scale:g}; use a positive one")
        for name in ("small_scale", "constant_ms", "ms_per_megabyte"):
            if not math.isfinite(getattr(proto, name)):
                raise ConfigError(f"{path}: {name} is {getattr(proto, name):g}; use a finite one")
        return cls(
            json_format.MessageToDict(proto.provenance, preserving_proto_field_name=True),
            {entry.layer: entry.latency_ms for entry in proto.entry},
            proto.scale,
            proto.constant_ms,
            proto.ms_per_megabyte,
            proto.small_scale,
            os.fspath(path),
            {network.key: network.latency_ms for network in proto.network},
            {entry.layer for entry in proto.entry if entry.noisy}
            | {network.key for network in proto.network if network.noisy},
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes a text proto, entries sorted, whole or not at all."""
        fields = latency_table_pb2.Provenance.DESCRIPTOR.fields_by_name
        proto = latency_table_pb2.LatencyTable(
            provenance={
                name: value
                for name, value in self.provenance.items()
                if name in fields and value is not None
            },
            entry=[
                {"layer": layer, **self._figure(layer, ms)}
                for layer, ms in sorted(self.entries.items())
            ],
            scale=self.scale,
            constant_ms=self.constant_ms,
            ms_per_megabyte=self.ms_per_megabyte,
            small_scale=self.small_scale,
            network=[
                {"key": key, **self._figure(key, ms)} for key, ms in sorted(self.networks.items())
            ],
        )
        files.write(path, text_format.MessageToString(proto))
        self.path = os.fspath(path)

    def _figure(self, key: str, latency_ms: float) -> dict[str, Any]:
        noisy = {"noisy": True} if key in self.noisy else {}
        return {"latency_ms": round(latency_ms, DIGITS), **noisy}

    def latency_ms(self, sheet: CostSheet) -> float:
        """Returns the network's latency, the sum over its graphs, each as often as it runs.

        Raises:
          UserError: a layer is not in the table.
        """
        return self._scaled(self.sums(sheet)) + sheet.runs * self.constant_ms

    def measured_ms(self, network: Network) -> float:
        """Returns what the whole graphs of a network took, each as often as it runs.

        Raises:
          KeyError: a graph was not measured.
        """
        return sum(graph.times * self.networks[graph.key()] for graph in network)

    def sums(self, sheet: CostSheet) -> tuple[float, ...]:
        """Returns sums over the network's layers.

        They are milliseconds, milliseconds of the small ones, and megabytes that they read and
        write.

        Raises:
          UserError: a layer is not in the table.
        """
        return tuple(map(sum, zip(*(terms for _, terms in self._terms(sheet)), strict=True)))

    def layer_latencies_ms(self, sheet: CostSheet) -> list[tuple[Layer, float]]:
        """Returns what every layer adds to `latency_ms`, in order.

        What is left is `constant_ms` of every run of a graph.
        """
        return [(layer, self._scaled(terms)) for layer, terms in self._terms(sheet)]

    def _scaled(self, terms: tuple[float, ...]) -> float:
        layers_ms, small_ms, megabytes = terms
        return (
            self.scale * layers_ms + self.small_scale * small_ms + self.ms_per_megabyte * megabytes
        )

    def _terms(self, sheet: CostSheet) -> list[tuple[Layer, tuple[float, float, float]]]:
        """Returns each layer's part of `sums`."""
        terms = []
        for layer in layers(sheet):
            latency_ms = self.entries.get(layer.key)
            if latency_ms is None:
                raise self._lack(sheet)
            small_ms = latency_ms if layer.activation_bytes < _SMALL_BYTES else 0.0
            once = (latency_ms, small_ms, layer.memory_bytes / 1e6)
            layers_ms, small_ms, megabytes = (layer.times * term for term in once)
            terms.append((layer, (layers_ms, small_ms, megabytes)))
        return terms

    def missing(self, sheet: CostSheet) -> list[str]:
        """Returns the keys of the network's layers that the table does not have."""
        return list(missing(self, [sheet]))

    def check_device(self, here: Mapping[str, Any]) -> None:
        """Checks that measurements of a device belong into this table.

        Args:
          here: the device's provenance.

        Raises:
          ConfigError: the table is of another device.
        """
        field = difference(self.provenance, here)
        if field:
            raise ConfigError(
                f"{self.path}: measured with {field} {self.provenance.get(field)!r}, here it "
                f"is {here.get(field)!r}; use a file of its own"
            )

    def _lack(self, sheet: CostSheet) -> UserError:
        absent = self.missing(sheet)
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        return UserError(
            f"{self.path}: no latency for layer {absent[0]!r}{more}; {_how_to_add(self.path)}"
        )


def default_path(provenance: Mapping[str, Any]) -> Path:
    """Returns the path of a device's own table; what makes it another device is in the name."""
    words = ["host", provenance["cpu"]]
    if provenance["device"] == "adb":
        words = ["adb", provenance["manufacturer"], provenance["model"], provenance["soc"]]
    words += [provenance["runtime"], f"{provenance['num_threads']} threads"]
    if provenance["taskset"]:
        words.append(f"cores {provenance['taskset']}")
    words.append(provenance["delegate_options"] or "")
    name = re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(words)).strip("-")
    return files.cache_folder() / "latency" / f"{name}.textproto"


def _bad_latency(path: str | os.PathLike, name: str, figure: Any, allowed: str) -> ConfigError:
    met = figure.latency_ms if figure.HasField("latency_ms") else "missing"
    return ConfigError(f"{path}: latency_ms of {name} is {met}; use {allowed}")


def _how_to_add(path: str | os.PathLike) -> str:
    return f"add it with build_latency_table --output={os.fspath(path)}"
