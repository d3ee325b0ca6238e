"""Smaller TFLite files: what is there many times is written once."""

from __future__ import annotations

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

_IDENTIFIER = b"TFL3"

# Of weights, in bytes: what the schema asks for.
_ALIGNMENT = 16


def share_vectors(graph: bytes) -> bytes:
    """The same graph with equal vectors of numbers in one place.

    An int8 kernel has a scale and a zero point for every output channel, its bias, too; the zero
    points, eight bytes each, are all 0. Of a mobile network they are an eighth of the file.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(graph, 0))
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):
    def __init__(self) -> None:
        super().__init__()
        self._offsets: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        key = (x.dtype.str, x.tobytes())
        if key not in self._offsets:
            if x.dtype == np.uint8:
                self.Prep(_ALIGNMENT, x.nbytes)
            self._offsets[key] = super().CreateNumpyVector(x)
        return self._offsets[key]
