"""TFLite files as objects: read, changed, written."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

IDENTIFIER = b"TFL3"

_MIN_RUNTIME_VERSION = b"min_runtime_version"

# The alignment of weights that the TFLite schema wants; Python's generated code does not know of
# it.
_ALIGNMENT = 16

# The oldest that a zip file can have: equal graphs are equal files.
_DATE = (1980, 1, 1, 0, 0, 0)


class _AlignedBuffer(schema.BufferT):
    # Buffers that are mapped from a file are read where they lie, by aligned instructions.
    def Pack(self, builder):
        if self.data is not None:
            builder.Prep(_ALIGNMENT, len(self.data))
        return super().Pack(builder)


class _Builder(flatbuffers.Builder):
    """Stores equal vectors of int64, zero points, once.

    Nearly all of them are zeros, one for every channel of weights and of biases: a seventh of an
    int8 file of MnasFPN.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._zero_points: dict[bytes, int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        if x.dtype != np.int64:
            return super().CreateNumpyVector(x)
        key = x.tobytes()
        if key not in self._zero_points:
            self._zero_points[key] = super().CreateNumpyVector(x)
        return self._zero_points[key]


def read(graph: bytes) -> schema.ModelT:
    """Reads the file's own tables; files that are appended to it are left out."""
    return schema.ModelT.InitFromPackedBuf(bytearray(graph))


def write(model: schema.ModelT, files: Mapping[str, bytes] | None = None) -> bytes:
    """Returns the TFLite file of a model.

    Args:
      files: by name, appended as a zip file, where readers of TFLite metadata look for them.
    """
    model.buffers = [_aligned(buffer.data) for buffer in model.buffers]
    # A builder that grows copies all it has, again and again.
    constants = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = _Builder(constants + (1 << 20))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    content = io.BytesIO(bytes(builder.Output()))
    if files:
        with zipfile.ZipFile(content, "a") as archive:
            for name, text in files.items():
                archive.writestr(zipfile.ZipInfo(name, _DATE), text)
    return content.getvalue()


def _aligned(data: np.ndarray | None) -> _AlignedBuffer:
    buffer = _AlignedBuffer()
    buffer.data = data
    return buffer


def quantization(scale: float, zero_point: int) -> schema.QuantizationParametersT:
    """Returns the quantisation of a whole tensor."""
    parameters = schema.QuantizationParametersT()
    parameters.scale, parameters.zeroPoint = [scale], [zero_point]
    return parameters


def sign(model: schema.ModelT, input_name: str, output_names: Sequence[str]) -> None:
    """Gives a model of one input a signature, "serving_default", and its tensors these names.

    Args:
      output_names: sorted, of the outputs as they are.
    """
    subgraph = model.subgraphs[0]
    entry = schema.TensorMapT()
    (entry.tensorIndex,) = subgraph.inputs
    entry.name = input_name
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.inputs = [entry]
    model.signatureDefs = [signature]
    set_outputs(model, dict(zip(output_names, subgraph.outputs, strict=True)))


def outputs(model: schema.ModelT) -> dict[str, int]:
    """Returns the tensor of each output, by its name in the signature."""
    return {_text(entry.name): entry.tensorIndex for entry in model.signatureDefs[0].outputs}


def set_outputs(
    model: schema.ModelT, tensors: Mapping[str, int], names: Mapping[str, str] | None = None
) -> None:
    """Makes tensors the outputs, in this order.

    Args:
      tensors: by name in the signature.
      names: of the tensors themselves, where these are others.
    """
    subgraph, signature = model.subgraphs[0], model.signatureDefs[0]
    subgraph.outputs = list(tensors.values())
    signature.outputs = []
    for name, tensor in tensors.items():
        subgraph.tensors[tensor].name = names[name] if names else name
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, tensor
        signature.outputs.append(entry)


def append(model: schema.ModelT, tail: schema.ModelT) -> list[int]:
    """Appends the operations of `tail` to those of `model`, whose outputs its inputs are by name.

    Returns:
      The tensors, now of `model`, that are the outputs of the last operation.
    """
    head, subgraph = model.subgraphs[0], tail.subgraphs[0]
    sources = outputs(model)
    place = {
        entry.tensorIndex: sources[_text(entry.name)] for entry in tail.signatureDefs[0].inputs
    }
    for index, tensor in enumerate(subgraph.tensors):
        if index not in place:
            data = tail.buffers[tensor.buffer].data
            tensor.buffer = 0 if data is None else add_buffer(model, data)
            place[index] = len(head.tensors)
            head.tensors.append(tensor)
    first_code = len(model.operatorCodes)
    model.operatorCodes.extend(tail.operatorCodes)
    for operator in subgraph.operators:
        operator.opcodeIndex += first_code
        operator.inputs = [place.get(index, index) for index in operator.inputs]
        operator.outputs = [place[index] for index in operator.outputs]
        head.operators.append(operator)
    if _version(runtime_version(tail)) > _version(runtime_version(model)):
        _runtime_buffer(model).data = _runtime_buffer(tail).data
    return head.operators[-1].outputs


def add_buffer(model: schema.ModelT, data: bytes) -> int:
    """Adds a buffer and returns its number."""
    model.buffers.append(_aligned(np.frombuffer(bytes(data), np.uint8)))
    return len(model.buffers) - 1


def runtime_version(model: schema.ModelT) -> str:
    """Returns the oldest TFLite that executes the model, such as 2.3.0."""
    return bytes(_runtime_buffer(model).data).rstrip(b"\0").decode()


def _runtime_buffer(model: schema.ModelT) -> schema.BufferT:
    (buffer,) = (x.buffer for x in model.metadata if x.name == _MIN_RUNTIME_VERSION)
    return model.buffers[buffer]


def _version(version: str) -> list[int]:
    # The version of a custom operation is empty.
    return [int(number) for number in version.split(".") if number]


def _text(name: bytes | str) -> str:
    return name if isinstance(name, str) else name.decode()
