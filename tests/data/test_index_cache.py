import dataclasses
import os
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mnasdet.data import index_cache, input_pipeline, label_map, record_index
from mnasdet.data.box_records import BoxRecords
from mnasdet.data.classification_records import ClassificationRecords, ClassifiedImage, to_example
from mnasdet.data.records import ShardedWriter
from mnasdet.protos import input_reader_pb2

NAMES = {1: "cat", 3: "dog"}
BOXES = BoxRecords(100)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MNASDET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "LEAST_BYTES", 0)
    return tmp_path / "cache" / "record-indexes"


@pytest.fixture
def paths(make_record, write_records):
    """Two files with a lost box, a lost record, and an end that is missing."""
    far = np.array([[0, 0, 1, 1], [0, 0, 9, 1]], np.float32)
    images = [make_record(f"{i}\0") for i in range(6)]
    images[1] = make_record("far", boxes=far)
    images[3] = make_record("none", class_ids=np.array([5, 4]), class_names=[])
    paths = write_records(images, num_shards=2)
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:-3])
    return paths


class Looks:
    """Checks records, and counts how often."""

    def __init__(self):
        self.count = 0

    def __call__(self, paths, names=NAMES, record_format=BOXES):
        def look():
            self.count += 1
            return record_index.check_records(paths, names, record_format)

        stamps = [index_cache.stamp(path) for path in paths]
        return index_cache.index(stamps, (tuple(names.items()), record_format), look)


def assert_same(one, two):
    assert one.files == two.files
    assert [mask.tolist() for mask in one.usable] == [mask.tolist() for mask in two.usable]
    assert one.problems == two.problems
    assert one.notes == two.notes
    assert isinstance(two.notes, Counter)
    assert one.decoded_bytes == two.decoded_bytes
    assert one.contents.keys() == two.contents.keys()
    for key, values in one.contents.items():
        assert values.dtype == two.contents[key].dtype
        np.testing.assert_array_equal(values, two.contents[key], strict=True)


def test_records_are_looked_at_once(paths):
    looks = Looks()
    first, second = looks(paths), looks(paths)
    assert looks.count == 1
    assert [len(mask) for mask in first.usable] == [3, 2]
    assert len(first.problems) == 4
    assert first.contents["source_id"].tolist() == [b"0\0", b"2\0", b"4\0", b"far", b""]
    assert_same(first, second)


def test_records_of_one_class_each(tmp_path, encode_image):
    image = ClassifiedImage("a", "a.jpg", encode_image(8, 9), "jpeg", 8, 9, 3, "dog")
    with ShardedWriter(tmp_path / "classes", 1, to_example) as writer:
        writer.write(image)
    looks = Looks()
    found = [looks(writer.paths, record_format=ClassificationRecords()) for _ in range(2)]
    assert looks.count == 1
    assert found[1].contents["size"].tolist() == [[8, 9]]
    assert_same(*found)


def test_another_content_of_the_same_size_and_time(paths):
    looks = Looks()
    looks(paths)
    stat = os.stat(paths[0])
    content = bytearray(Path(paths[0]).read_bytes())
    content[-20] ^= 255
    time.sleep(0.02)  # The clock of file systems ticks every few milliseconds.
    Path(paths[0]).write_bytes(content)
    os.utime(paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [len(mask) for mask in looks(paths).usable] == [2, 2]
    assert looks.count == 2


def test_another_label_map_or_reader(paths):
    looks = Looks()
    assert looks(paths).num_usable == 4
    assert looks(paths, {1: "cat"}).num_usable == 4
    assert looks(paths, {3: "dog"}, BoxRecords(1)).num_usable == 0
    assert looks.count == 3


def test_other_code_looks_again(paths, monkeypatch):
    looks = Looks()
    looks(paths)
    monkeypatch.setattr(index_cache, "_code", lambda: b"a later version")
    looks(paths)
    assert looks.count == 2


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-9], lambda c: b"", lambda c: c[:50] + b"\0" + c[51:]]
)
def test_a_damaged_file_is_made_anew(paths, cache, damage, caplog):
    looks = Looks()
    first = looks(paths)
    (kept,) = [path for path in cache.iterdir() if not path.suffix]
    kept.write_bytes(damage(kept.read_bytes()))
    assert_same(first, looks(paths))
    assert "is damaged; the records are checked anew" in caplog.text
    assert_same(first, looks(paths))
    assert looks.count == 2


def test_without_a_folder_it_works_as_well(paths, cache):
    cache.parent.write_text("a file")
    looks = Looks()
    assert_same(looks(paths), looks(paths))
    assert looks.count == 2


def test_small_files_are_not_kept(paths, cache, monkeypatch):
    monkeypatch.setattr(index_cache, "LEAST_BYTES", 10**6)
    Looks()(paths)
    assert not cache.exists()


def test_what_may_be_otherwise_next_time_is_not_kept(paths):
    found = record_index.check_records(paths, NAMES, BoxRecords(100))
    assert found.is_final
    looks = []

    def look():
        looks.append(1)
        return dataclasses.replace(found, is_final=False)

    for _ in range(2):
        index_cache.index([index_cache.stamp(path) for path in paths], "", look)
    assert len(looks) == 2


def test_the_second_waits_for_the_first(paths):
    looks, looking = Looks(), threading.Event()
    found = []

    def slow(*arguments):
        looking.set()
        time.sleep(0.3)
        return check(*arguments)

    check = record_index.check_records
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_index, "check_records", slow)
        first = threading.Thread(target=lambda: found.append(looks(paths)))
        first.start()
        assert looking.wait(10)
        found.append(looks(paths))
        first.join()
    assert looks.count == 1
    assert_same(*found)


def test_the_oldest_are_deleted(paths, cache, monkeypatch):
    monkeypatch.setattr(index_cache, "_MOST_FILES", 2)
    looks = Looks()
    for names in (NAMES, {1: "a"}, {1: "b"}):
        looks(paths, names)
        time.sleep(0.02)
    assert len([path for path in cache.iterdir() if not path.suffix]) == 2
    looks(paths, {1: "b"})
    assert looks.count == 3
    looks(paths, NAMES)
    assert looks.count == 4


def test_the_pipeline_keeps_its_index(paths, tmp_path, cache, monkeypatch):
    label_map.save(tmp_path / "map.pbtxt", NAMES)
    reader = input_reader_pb2.InputReader(
        label_map_path=str(tmp_path / "map.pbtxt"), bad_records=input_reader_pb2.InputReader.SKIP
    )
    reader.tf_record_input_reader.input_path.extend(paths)
    input_pipeline.check_large_files(reader)
    # As in a new process, in which nothing may be read of the records.
    input_pipeline._checked.cache_clear()
    monkeypatch.setattr(record_index, "check_records", None)
    assert input_pipeline.num_images(reader) == 4


def test_small_files_are_not_checked_ahead(paths, monkeypatch):
    monkeypatch.setattr(index_cache, "LEAST_BYTES", 10**6)
    monkeypatch.setattr(record_index, "check_records", None)
    reader = input_reader_pb2.InputReader()
    reader.tf_record_input_reader.input_path.extend(paths)
    input_pipeline.check_large_files(reader)
