from collections import Counter

import numpy as np
import psutil
import pytest

from mnasdet.data import image_cache, input_pipeline, label_map
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.data.record_index import RecordIndex
from mnasdet.protos import input_reader_pb2, pipeline_pb2
from mnasdet.training import training_data
from tests.data.coded_picture import step

MB = 1_000_000


def keeps(monkeypatch, free, num_files=1, trainings_at_once=1, **fields):
    """Whether 100 MB of pictures are kept where so many are free."""
    monkeypatch.setattr(image_cache, "free_bytes", lambda: free)
    index = RecordIndex(("f",) * num_files, (), (), Counter(), 100 * MB, {})
    reader = input_reader_pb2.InputReader(**fields)
    return image_cache.keeps_images(reader, index, trainings_at_once)


@pytest.mark.parametrize(
    ("free", "options", "expected"),
    [
        (400 * MB, {}, True),
        (399 * MB, {}, False),
        (799 * MB, {"trainings_at_once": 2}, False),
        (800 * MB, {"trainings_at_once": 2}, True),
        # Kept, the order of several files would be another one.
        (900 * MB, {"num_files": 2}, False),
        (900 * MB, {"num_files": 2, "shuffle": False}, True),
        # An explicit setting counts, however much memory is free.
        (900 * MB, {"cache_decoded_images": False}, False),
        (0, {"cache_decoded_images": True, "num_files": 2}, True),
    ],
)
def test_what_is_kept(monkeypatch, free, options, expected):
    assert keeps(monkeypatch, free, **options) == expected


def test_it_is_said_how_much(monkeypatch, caplog):
    caplog.set_level("INFO", logger="absl")
    keeps(monkeypatch, 500 * MB)
    keeps(monkeypatch, 100 * MB)
    assert [record.getMessage() for record in caplog.records] == [
        "keeping decoded images in memory: 100 of 500 MB free"
    ]


def test_a_container_has_less_than_its_machine(monkeypatch, tmp_path):
    limit, used = tmp_path / "max", tmp_path / "current"
    used.write_text("3000\n")
    monkeypatch.setattr(image_cache, "_GROUPS", [(limit, used)])
    least = psutil.virtual_memory().available // 2
    assert image_cache.free_bytes() > least
    limit.write_text("max\n")
    assert image_cache.free_bytes() > least
    limit.write_text("10000\n")
    assert image_cache.free_bytes() == 7000
    limit.write_text("1000\n")
    assert image_cache.free_bytes() == 0


def test_workers_of_a_search_share_the_memory():
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    assert training_data.trainings_at_once(pipeline) == 1
    pipeline.search_config.executor.worker_processes.num_workers = 3
    assert training_data.trainings_at_once(pipeline) == 3
    pipeline.search_config.executor.this_process.SetInParent()
    assert training_data.trainings_at_once(pipeline) == 1


def test_the_memory_changes_no_picture(tmp_path, monkeypatch, make_record, write_records):
    label_map.save(tmp_path / "map.pbtxt", {1: "cat", 3: "dog"})
    reader = input_reader_pb2.InputReader(label_map_path=str(tmp_path / "map.pbtxt"))
    paths = write_records([make_record(str(i)) for i in range(5)])
    reader.tf_record_input_reader.input_path.extend(paths)

    def batches(free):
        monkeypatch.setattr(image_cache, "free_bytes", lambda: free)
        dataset = input_pipeline.training_dataset(
            reader,
            resizer=ImageResizer((16, 24)),
            batch_size=3,
            augmentations=[step("random_horizontal_flip {}"), step("ssd_random_crop {}")],
            transform=lambda x: {"image": x["image"], "id": x["source_id"]},
            seed=4,
        )
        return list(dataset.take(6).as_numpy_iterator())

    for one, other in zip(batches(0), batches(10**9), strict=True):
        np.testing.assert_array_equal(one["id"], other["id"])
        np.testing.assert_array_equal(one["image"], other["image"])
