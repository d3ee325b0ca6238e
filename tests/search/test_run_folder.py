"""Folders that belong to one run."""

import contextlib

import pytest

from mnasdet import text_proto
from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2
from mnasdet.search.run_folder import claimed


@pytest.fixture
def pipeline():
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.train_config.num_steps = 5
    return pipeline


def written(folder):
    return text_proto.read(folder / "pipeline.config", pipeline_pb2.TrainEvalPipelineConfig)


def claim(folder, pipeline, settings, resume=False):
    with claimed(folder, pipeline, settings, resume):
        assert written(folder) == pipeline


def test_a_run_goes_on_only_with_resume(pipeline, tmp_path):
    folder = tmp_path / "new" / "run"
    claim(folder, pipeline, {"repeats": [3, 4]}, resume=True)
    with pytest.raises(UserError, match="holds a run already; add --resume to go on with it"):
        claim(folder, pipeline, {"repeats": [3, 4]})
    # Who computes it does not matter.
    pipeline.search_config.executor.worker_processes.num_workers = 7
    claim(folder, pipeline, {"repeats": [3, 4]}, resume=True)


def test_another_run_is_refused(pipeline, tmp_path):
    claim(tmp_path, pipeline, {"repeats": [3, 4], "max_picks": 1})
    with pytest.raises(UserError, match=r"another run, with repeats \[3, 4\] in place of \[3\];"):
        claim(tmp_path, pipeline, {"repeats": [3], "max_picks": 1}, resume=True)
    other = pipeline_pb2.TrainEvalPipelineConfig()
    other.CopyFrom(pipeline)
    other.train_config.num_steps = 6
    with pytest.raises(UserError, match="another run, with config_sha256"):
        claim(tmp_path, other, {"repeats": [3, 4], "max_picks": 1}, resume=True)
    assert written(tmp_path) == pipeline


def test_a_run_whose_database_has_a_password_goes_on_without_it(pipeline, tmp_path):
    pipeline.search_config.trial_store.url = "postgresql://u:hush@h/db"
    with claimed(tmp_path, pipeline, {"max_picks": 1}, False):
        pass
    for path in tmp_path.iterdir():
        assert b"hush" not in path.read_bytes(), path
    assert written(tmp_path).search_config.trial_store.url == "postgresql://u@h/db"
    for same in (written(tmp_path), pipeline):
        with claimed(tmp_path, same, {"max_picks": 1}, True):
            pass


def test_a_folder_with_something_else_is_refused(pipeline, tmp_path):
    (tmp_path / "search.json").touch()
    with pytest.raises(UserError, match="holds something else already"):
        claim(tmp_path, pipeline, {}, resume=True)
    assert not (tmp_path / "pipeline.config").exists()


def test_a_run_that_fails_before_it_has_begun_gives_the_folder_back(pipeline, tmp_path):
    with pytest.raises(UserError, match="no such latency"), claimed(tmp_path, pipeline, {}, False):
        raise UserError("no such latency")
    claim(tmp_path, pipeline, {"repeats": [3]})
    for mistake in (UserError("no space"), KeyboardInterrupt()):
        with pytest.raises(type(mistake)), claimed(tmp_path, pipeline, {"repeats": [3]}, True):
            raise mistake
    with pytest.raises(UserError, match="holds a run already"):
        claim(tmp_path, pipeline, {"repeats": [3]})


def test_a_run_that_fails_later_keeps_it(pipeline, tmp_path):
    with pytest.raises(UserError, match="no space"), claimed(tmp_path, pipeline, {}, False):
        (tmp_path / "models").mkdir()
        raise UserError("no space")
    claim(tmp_path, pipeline, {}, resume=True)


def test_two_runs_at_once_are_refused(pipeline, tmp_path):
    with contextlib.ExitStack() as stack:
        stack.enter_context(claimed(tmp_path, pipeline, {}, False))
        with pytest.raises(UserError, match="another process is at work in"):
            claim(tmp_path, pipeline, {}, resume=True)
    claim(tmp_path, pipeline, {}, resume=True)
