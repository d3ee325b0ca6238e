"""The latency that enters the reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mnasdet.networks.cost import CostSheet
from mnasdet.protos import search_pb2
from mnasdet.tflite import latency_table
from mnasdet.tflite.latency_table import LatencyTable, host_table_path


class LatencySource(Protocol):
    """Tells how long networks take."""

    def has_to_measure(self, sheets: Sequence[CostSheet]) -> bool:
        """Whether `latencies_ms` of these networks wants the machine for itself."""
        ...

    def latencies_ms(self, sheets: Sequence[CostSheet]) -> list[float]:
        """One a network."""
        ...


class MultiplyAdds:
    """Billions of multiply-adds in place of milliseconds."""

    def has_to_measure(self, sheets: Sequence[CostSheet]) -> bool:
        return False

    def latencies_ms(self, sheets: Sequence[CostSheet]) -> list[float]:
        return [sheet.total.multiply_adds / 1e9 for sheet in sheets]


class FixedTable:
    """A table as it is; a layer that it lacks is an error."""

    def __init__(self, table: LatencyTable):
        self._table = table

    def has_to_measure(self, sheets: Sequence[CostSheet]) -> bool:
        return False

    def latencies_ms(self, sheets: Sequence[CostSheet]) -> list[float]:
        return [self._table.latency_ms(sheet) for sheet in sheets]


class HostTable:
    """This machine's own table, which grows by what it lacks."""

    def __init__(self, num_threads: int = 1):
        self._num_threads = num_threads
        self._table = self._with_layers_of([])

    def has_to_measure(self, sheets: Sequence[CostSheet]) -> bool:
        return bool(latency_table.missing(self._table, sheets))

    def latencies_ms(self, sheets: Sequence[CostSheet]) -> list[float]:
        if self.has_to_measure(sheets):
            self._table = self._with_layers_of(sheets)
        return [self._table.latency_ms(sheet) for sheet in sheets]

    def _with_layers_of(self, sheets: Sequence[CostSheet]) -> LatencyTable:
        # Only who measures has to load TensorFlow.
        from mnasdet.tflite import layer_latency

        path = host_table_path(self._num_threads)
        return layer_latency.ensure(path, sheets, self._num_threads, progress=True)


def from_config(proto: search_pb2.LatencyConfig) -> LatencySource:
    """As the `latency` message says; without one, by this machine's own table."""
    if proto.WhichOneof("latency_oneof") == "multiply_adds":
        return MultiplyAdds()
    source = proto.latency_table
    if source.path:
        return FixedTable(LatencyTable.load(source.path))
    return HostTable(source.num_threads)
