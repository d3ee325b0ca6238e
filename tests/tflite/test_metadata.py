"""mnasdet/tflite/metadata.py and detector_file.py, read by hand as the public schema says."""

import io
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.number_types import (
    Float32Flags,
    Int8Flags,
    Int32Flags,
    Uint8Flags,
    Uint32Flags,
    UOffsetTFlags,
)

from mnasdet.deployment import export
from mnasdet.tflite import graph_file, metadata
from mnasdet.tflite.detector_file import DetectorFile
from mnasdet.tflite.interpreter import TfliteModel

LABELS = {1: "cat", 3: "dog — große"}


class Table:
    """A table of a flatbuffer; fields by their number."""

    def __init__(self, content, position):
        self._table = flatbuffers.table.Table(content, position)

    @classmethod
    def root(cls, content):
        return cls(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))

    def _place(self, field):
        offset = self._table.Offset(4 + 2 * field)
        return offset and self._table.Pos + offset

    def __contains__(self, field):
        return bool(self._place(field))

    def scalar(self, field, flags):
        place = self._place(field)
        return self._table.Get(flags, place) if place else 0

    def text(self, field):
        return self._table.String(self._place(field)).decode()

    def table(self, field):
        return Table(self._table.Bytes, self._table.Indirect(self._place(field)))

    def vector(self, field, flags):
        place = self._table.Vector(self._place(field) - self._table.Pos)
        count = self._table.VectorLen(self._place(field) - self._table.Pos)
        return [self._table.Get(flags, place + 4 * i) for i in range(count)]

    def tables(self, field):
        place = self._table.Vector(self._place(field) - self._table.Pos)
        count = self._table.VectorLen(self._place(field) - self._table.Pos)
        return [
            Table(self._table.Bytes, place + 4 * i + self._table.Get(UOffsetTFlags, place + 4 * i))
            for i in range(count)
        ]


def metadata_of(graph):
    model = schema.Model.GetRootAs(graph)
    entries = {model.Metadata(i).Name(): model.Metadata(i) for i in range(model.MetadataLength())}
    assert b"min_runtime_version" in entries
    content = model.Buffers(entries[b"TFLITE_METADATA"].Buffer()).DataAsNumpy().tobytes()
    assert content[4:8] == b"M001"
    return Table.root(content)


@pytest.fixture(scope="module", params=[False, True], ids=["raw", "nms"])
def exported(request, small_detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("metadata")
    images = np.zeros((1, 96, 64, 3), np.float32)
    export(small_detector, folder, images=images, nms=request.param, labels=LABELS)
    return request.param, (folder / "detect.tflite").read_bytes()


def test_says_how_to_normalise_the_picture(exported):
    root = metadata_of(exported[1])
    assert root.text(0) == "mnasdet detector"
    assert root.text(7) == "1.0.0"
    (subgraph,) = root.tables(3)
    (image,) = subgraph.tables(2)
    content = image.table(3)
    assert content.scalar(0, Uint8Flags) == 2  # ImageProperties
    properties = content.table(1)
    assert properties.scalar(0, Int8Flags) == 1  # RGB
    size = properties.table(1)
    assert (size.scalar(0, Uint32Flags), size.scalar(1, Uint32Flags)) == (64, 96)  # width, height
    (unit,) = image.tables(4)
    assert unit.scalar(0, Uint8Flags) == 1  # NormalizationOptions
    options = unit.table(1)
    assert options.vector(0, Float32Flags) == [127.5]
    assert options.vector(1, Float32Flags) == [127.5]
    stats = image.table(5)
    assert stats.vector(0, Float32Flags) == [1.0]  # the largest first
    assert stats.vector(1, Float32Flags) == [-1.0]


def test_says_what_the_outputs_are(exported):
    nms, graph = exported
    outputs = metadata_of(graph).tables(3)[0].tables(3)
    names = [tensor.text(0) for tensor in outputs]
    if not nms:
        assert names == ["box_encodings", "class_predictions_with_background"]
        assert "times (10, 10, 5, 5)" in outputs[0].text(1)
        return
    assert names == ["location", "category", "score", "number of detections"]
    content = outputs[0].table(3)
    assert content.scalar(0, Uint8Flags) == 3  # BoundingBoxProperties
    boxes = content.table(1)
    # Left, top, right, bottom of (ymin, xmin, ymax, xmax).
    assert boxes.vector(0, Uint32Flags) == [1, 0, 3, 2]
    assert boxes.scalar(1, Int8Flags) == 1  # BOUNDARIES
    assert boxes.scalar(2, Int8Flags) == 0  # RATIO
    limits = content.table(2)
    assert (limits.scalar(0, Int32Flags), limits.scalar(1, Int32Flags)) == (2, 2)


def test_label_map_is_in_the_file(exported):
    nms, graph = exported
    outputs = metadata_of(graph).tables(3)[0].tables(3)
    assert [number for number, tensor in enumerate(outputs) if 6 in tensor] == [1]
    (file,) = outputs[1].tables(6)
    assert file.scalar(2, Int8Flags) == (3 if nms else 2)  # labels of values; of an axis
    with zipfile.ZipFile(io.BytesIO(graph)) as archive:
        assert archive.namelist() == [file.text(0)]
        lines = archive.read(file.text(0)).decode().splitlines()
    # Detections count classes from 0; raw predictions have the background first.
    assert lines == ([] if nms else ["background"]) + ["cat", "???", "dog — große"]
    assert TfliteModel(graph).image_size == (96, 64)


def test_without_a_label_map_there_is_no_file(small_detector, small_graph):
    model = graph_file.read(small_graph)
    description = DetectorFile(small_detector).metadata(input_type="float32", labels=False)
    metadata.attach(model, description)
    graph = graph_file.write(model)
    assert not zipfile.is_zipfile(io.BytesIO(graph))
    assert all(6 not in tensor for tensor in metadata_of(graph).tables(3)[0].tables(3))


def test_pixels_have_limits_of_their_own():
    tensor = metadata.Tensor("image", "", normalization=(127.5, 127.5), limits=(0.0, 255.0))
    root = Table.root(metadata.encode(metadata.Model("a", "b", "c", [tensor])))
    (image,) = root.tables(3)[0].tables(2)
    assert image.table(5).vector(0, Float32Flags) == [255.0]
    assert image.table(5).vector(1, Float32Flags) == [0.0]


@pytest.mark.parametrize("background", [None, "background"])
def test_labels_are_read_as_they_were_written(tmp_path, background):
    names = {1: "Katze", 3: "犬"}
    path = tmp_path / "a.tflite"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(metadata.LABELS_FILE, metadata.label_file(names, background))
    assert metadata.read_labels(path, background=background is not None) == names


def test_a_file_without_labels(tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(b"....TFL3")
    assert metadata.read_labels(path, background=False) == {}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "cat")
    assert metadata.read_labels(path, background=False) == {}
