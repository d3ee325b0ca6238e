"""The cost that enters the reward: latency, or what stands for it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from absl import logging
from tqdm import tqdm

from mnasdet.blueprint import TFLITE_KINDS
from mnasdet.protos import pipeline_pb2, search_pb2
from mnasdet.search.candidate import Candidate
from mnasdet.search.meters import Meter, PredictMeter, TfliteMeter
from mnasdet.tflite.devices import host
from mnasdet.tflite.devices.benchmark_model import Options
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.devices.provenance import DEVICE_FIELDS
from mnasdet.tflite.latency import latency_table, table_measurement
from mnasdet.tflite.latency.latency_table import LatencyTable
from mnasdet.tflite.latency.network_latency import Measured
from mnasdet.timing import predict

# Timed runs of each execution of a network: enough for a median, as a search measures hundreds.
_NUM_RUNS = 10


class LatencySource(Protocol):
    """Tells what networks cost.

    Attributes:
      unit: of the costs, for people.
    """

    unit: str

    def has_to_measure(self, candidates: Sequence[Candidate]) -> bool:
        """Returns whether `costs` of these networks wants the machine for itself."""
        ...

    def costs(self, candidates: Sequence[Candidate]) -> list[float]:
        """Returns one cost a network."""
        ...

    def figures(self, candidate: Candidate) -> dict[str, float]:
        """Returns what else is known of a network's cost, by name, for the trial's metrics."""
        ...


class MultiplyAdds:
    """Billions of multiply-adds in place of milliseconds."""

    unit = "G multiply-adds"

    def has_to_measure(self, candidates: Sequence[Candidate]) -> bool:
        return False

    def costs(self, candidates: Sequence[Candidate]) -> list[float]:
        return [candidate.sheet.total.multiply_adds / 1e9 for candidate in candidates]

    def figures(self, candidate: Candidate) -> dict[str, float]:
        return {}


class FixedTable:
    """A table as it is; a layer that it lacks is an error."""

    unit = "ms"

    def __init__(self, table: LatencyTable):
        self._table = table

    def has_to_measure(self, candidates: Sequence[Candidate]) -> bool:
        return False

    def costs(self, candidates: Sequence[Candidate]) -> list[float]:
        return [self._table.latency_ms(candidate.sheet) for candidate in candidates]

    def figures(self, candidate: Candidate) -> dict[str, float]:
        return {}


class HostTable:
    """This machine's own table, which grows by what it lacks."""

    unit = "ms"

    def __init__(self, num_threads: int = 1):
        self._spec = DeviceSpec(options=Options(num_threads=num_threads))
        self._path = latency_table.default_path(host.provenance(self._spec))
        self._table = self._load()

    def has_to_measure(self, candidates: Sequence[Candidate]) -> bool:
        return bool(latency_table.missing(self._table, [c.sheet for c in candidates]))

    def costs(self, candidates: Sequence[Candidate]) -> list[float]:
        sheets = [candidate.sheet for candidate in candidates]
        if self.has_to_measure(candidates):
            with opened(self._spec) as device:
                self._table = table_measurement.ensure(self._path, sheets, device, progress=True)
        return [self._table.latency_ms(sheet) for sheet in sheets]

    def figures(self, candidate: Candidate) -> dict[str, float]:
        return {}

    def _load(self) -> LatencyTable:
        if self._path.exists():
            return LatencyTable.load(self._path)
        return LatencyTable({}, {}, path=str(self._path))


class WholeNetworks:
    """Networks as they are, measured as a whole, each of them once."""

    unit = "ms"

    def __init__(self, meter: Meter):
        self._meter = meter
        # A controller may propose a network again, and measuring takes seconds for each.
        self._known: dict[str, Measured] = {}

    def has_to_measure(self, candidates: Sequence[Candidate]) -> bool:
        return any(candidate.key not in self._known for candidate in candidates)

    def costs(self, candidates: Sequence[Candidate]) -> list[float]:
        new = {c.key: c for c in candidates if c.key not in self._known}
        if new:
            with self._meter.opened() as measure:
                for key, candidate in tqdm(new.items(), desc="measuring", unit="network"):
                    measured = measure(candidate)
                    if measured.noisy:
                        logging.warning(
                            "%.4g ms are noisy: the runs differ; of the executions' medians the "
                            "interquartile range is %.2g ms",
                            measured.latency_ms,
                            measured.iqr_ms,
                        )
                    self._known[key] = measured
        return [self._known[candidate.key].latency_ms for candidate in candidates]

    def figures(self, candidate: Candidate) -> dict[str, float]:
        measured = self._known.get(candidate.key)
        return {} if measured is None else {"latency_iqr_ms": measured.iqr_ms}


def from_config(proto: search_pb2.LatencyConfig) -> LatencySource:
    """Opens the source of a `latency` message; without one, this machine's own table."""
    match proto.WhichOneof("latency_oneof"):
        case "multiply_adds":
            return MultiplyAdds()
        case "host" | "adb":
            return WholeNetworks(TfliteMeter(device_spec(proto)))
        case "predict":
            return WholeNetworks(PredictMeter(device_spec(proto)))
    source = proto.latency_table
    if source.path:
        return FixedTable(LatencyTable.load(source.path))
    return HostTable(source.num_threads)


def meter(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> Meter:
    """Returns what measures whole networks of a search: as its source does where that measures.

    Else float32 TFLite files are measured, or `predict` where the config's models are none.
    """
    proto = pipeline.search_config.latency
    has_files = pipeline.model.WhichOneof("model") in TFLITE_KINDS
    if proto.WhichOneof("latency_oneof") == "predict" or not has_files:
        return PredictMeter(device_spec(proto))
    return TfliteMeter(device_spec(proto))


def device_spec(proto: search_pb2.LatencyConfig) -> DeviceSpec:
    """Returns the device on which whole networks are measured.

    It is this machine where the source itself measures none, and where it times `predict`.
    """
    name = proto.WhichOneof("latency_oneof")
    if name == "predict":
        own = proto.predict
        return DeviceSpec(options=Options(num_threads=own.num_threads, num_runs=own.num_runs))
    if name not in ("host", "adb"):
        # As many threads as the table is for, so that prediction and measurement compare.
        options = Options(num_threads=proto.latency_table.num_threads, num_runs=_NUM_RUNS)
        return DeviceSpec(options=options)
    source = getattr(proto, name)
    options = Options(
        num_threads=source.num_threads, num_runs=source.num_runs, taskset=source.taskset
    )
    if name == "host":
        return DeviceSpec(binary=source.benchmark_binary, options=options)
    options = dataclasses.replace(
        options,
        use_xnnpack=source.use_xnnpack if source.HasField("use_xnnpack") else None,
        use_gpu=source.use_gpu,
        use_nnapi=source.use_nnapi,
    )
    return DeviceSpec("adb", list(source.serial), source.benchmark_binary, options)


def identity(proto: search_pb2.LatencyConfig) -> dict[str, Any]:
    """Returns what the source's figures depend on beside the config, by name.

    That is the device, or the table. It is compared when a search goes on.

    Raises:
      UserError: the device cannot be reached.
    """
    name = proto.WhichOneof("latency_oneof")
    if name == "multiply_adds":
        return {}
    if name not in ("host", "adb", "predict") and proto.latency_table.path:
        # By its content: a table may move with its search, and may be measured anew at its old
        # place.
        content = Path(proto.latency_table.path).read_bytes()
        return {"table": hashlib.sha256(content).hexdigest()[:16]}
    spec = device_spec(proto)
    if name == "predict":
        found = predict.provenance(spec)
    elif spec.kind == "host" and not spec.binary:
        # This machine is known without a process that times anything.
        found = host.provenance(spec)
    else:
        with opened(spec) as device:
            found = device.provenance()
    return {field: found[field] for field in DEVICE_FIELDS if found[field] not in (None, [])}


def measured_elsewhere(proto: search_pb2.LatencyConfig) -> str:
    """Returns a note for readers of measured latencies; "" where both are of one device.

    It says that the search went by the table of a phone, and measurements are of this machine.
    """
    if proto.WhichOneof("latency_oneof") != "latency_table" or not proto.latency_table.path:
        return ""
    table = LatencyTable.load(proto.latency_table.path).provenance
    # A table of this machine is of the device that is measured on.
    if table.get("device") != "adb":
        return ""
    phone = " ".join(filter(None, (table.get("manufacturer"), table.get("model")))) or "a phone"
    return f"Predicted for {phone}, measured on the machine that the search ran on."


def is_computed(proto: search_pb2.LatencyConfig) -> bool:
    """Returns whether the source computes costs: without a device, and the same ones again."""
    name = proto.WhichOneof("latency_oneof")
    return name == "multiply_adds" or bool(name == "latency_table" and proto.latency_table.path)


def unit(proto: search_pb2.LatencyConfig) -> str:
    """Returns `LatencySource.unit` without opening the source."""
    if proto.WhichOneof("latency_oneof") == "multiply_adds":
        return MultiplyAdds.unit
    return WholeNetworks.unit  # All others tell milliseconds.
