"""mnasdet/search/results.py: what a search writes beside its trials."""

import json
from contextlib import closing
from types import SimpleNamespace

import pytest

from mnasdet import config
from mnasdet.errors import UserError
from mnasdet.search import results
from mnasdet.search.trials.trial_store import TrialStore

SPACE = SimpleNamespace(cardinality=lambda: 12)


def start(folder, pipeline, resume=False):
    with closing(TrialStore(folder / "trials.db")) as store:
        results.start(folder, pipeline, SPACE, store, resume)


def test_no_file_of_a_search_has_the_password_of_its_database(tiny_pipeline, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    tiny_pipeline.search_config.trial_store.url = "postgresql://u:hush@h/db?password=hush"
    start(folder, tiny_pipeline)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert {"pipeline.config", "search.json"} <= {path.name for path in written}
    for path in written:
        assert b"hush" not in path.read_bytes(), path
    kept = config.load(folder / "pipeline.config")
    assert kept.search_config.trial_store.url == "postgresql://u@h/db"
    start(folder, kept, resume=True)


def test_a_damaged_description_of_a_search_is_told(tiny_pipeline, tmp_path, caplog):
    start(tmp_path, tiny_pipeline)
    path = tmp_path / "search.json"
    path.write_text(path.read_text().replace('"cardinality": 12', '"cardinality": 13'))
    with pytest.raises(UserError, match="search.json: is damaged"):
        results.read_description(tmp_path)
    # The store has it, too: the search goes on.
    start(tmp_path, tiny_pipeline, resume=True)
    assert "search.json: is damaged" in caplog.text
    assert results.read_description(tmp_path)["cardinality"] == 12


def test_a_description_has_its_digest_in_its_file_alone(tiny_pipeline, tmp_path):
    start(tmp_path, tiny_pipeline)
    start(tmp_path, tiny_pipeline, resume=True)
    assert "sha256" in json.loads((tmp_path / "search.json").read_text())
    with closing(TrialStore(tmp_path / "trials.db")) as store:
        assert store.description() == results.read_description(tmp_path)
    assert "sha256" not in results.read_description(tmp_path)


@pytest.mark.parametrize("content", ["", "[", "null", "{}", '[{"measured_ms": 1.0}]', "[1]"])
def test_a_frontier_that_cannot_be_read_is_measured_anew(tmp_path, caplog, content):
    assert results.read_measured_ms(tmp_path) == {}
    assert caplog.text == ""
    (tmp_path / "pareto.json").write_text(content)
    assert results.read_measured_ms(tmp_path) == {}
    assert f"{tmp_path}/pareto.json: is" in caplog.text
    assert "; the frontier is measured anew" in caplog.text
