"""Latency tables of search spaces, on a device that takes no time."""

import contextlib

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.protos import search_pb2
from mnasdet.search import latency, table_building
from mnasdet.search.candidate import candidate
from mnasdet.search.latency import FixedTable
from mnasdet.search_spaces import factory
from mnasdet.tflite.devices import host
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.latency.latency_table import LatencyTable


class BySize:
    """A device whose times go by the bytes of the graph: a kilobyte takes a microsecond."""

    def provenance(self):
        return host.provenance(DeviceSpec())

    def quick_ms(self, graphs):
        return [1e-6 * graph.stat().st_size for graph in graphs]


@pytest.fixture
def pipeline(tiny_pipeline):
    space = tiny_pipeline.search_config.search_space
    space.Clear()
    space.mnasfpn.channels.append(16)
    space.mnasfpn.expanded_channels.append(32)
    space.mnasfpn.kernel_sizes.append(3)
    space.mnasfpn.repeats.append(1)
    space.mnasfpn.num_internal_blocks = 0
    return tiny_pipeline


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(table_building, "_FRUITLESS_SAMPLES", 60)
    monkeypatch.setattr(table_building, "opened", lambda spec: contextlib.nullcontext(BySize()))


SIZES = {
    "squares": ("image_sizes: [64, 128]", [(64, 64), (128, 128)]),
    "rectangles": (
        "inputs { height: 64 width: 128 } inputs { height: 128 width: 64 }",
        [(64, 128), (128, 64)],
    ),
}


@pytest.mark.parametrize(("text", "sizes"), SIZES.values(), ids=SIZES)
def test_a_search_over_image_sizes_finds_every_layer(pipeline, tmp_path, text, sizes):
    space_config = pipeline.search_config.search_space
    text_format.Merge(text, space_config)
    path = tmp_path / "table.textproto"
    subject = table_building.searched(pipeline)
    report = table_building.build(subject, DeviceSpec(), path, num_fit=4, num_test=2)
    assert report["num_fit"] == 4
    assert len(report["networks"]) == 2
    assert LatencyTable.load(path).provenance["config_sha256"] == subject.config_sha256
    source = latency.from_config(search_pb2.LatencyConfig(latency_table={"path": str(path)}))
    assert isinstance(source, FixedTable)
    space = factory.from_config(space_config, config.resolve(pipeline).architecture)
    rng = np.random.default_rng(7)
    candidates = [candidate(pipeline, space.decode(space.sample(rng))) for _ in range(10)]
    assert {one.blueprint.image_size for one in candidates} == {*sizes}
    assert min(source.costs(candidates)) > 0


def test_given_architectures_are_of_the_config_s_size(pipeline):
    published = config.load_architecture("mobilenet_v2_mnasfpn")
    (network,) = table_building.configured(pipeline, [published]).given
    assert network.key() == candidate(pipeline, published).key
