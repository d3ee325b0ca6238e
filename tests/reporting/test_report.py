import dataclasses
import datetime
import json
from html.parser import HTMLParser

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.evaluation.coco import MAP
from mnasdet.reporting import report
from mnasdet.search.trial_store import Trial, TrialState

EVIL = '<script>alert("&")</script>'
START = datetime.datetime(2026, 1, 5, 10)
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that tags match; gathers what the tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.loaded, self.ids, self.figures = [], [], [], []
        self.rows: list[list[str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.loaded += [attributes[name] for name in ("src", "href") if name in attributes]
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        if tag not in VOID:
            self.stack.append((tag, attributes.get("type")))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag

    def handle_data(self, data):
        if not self.stack:
            return
        tag, kind = self.stack[-1]
        self.texts.setdefault(tag, []).append(data)
        if kind == "application/json":
            self.figures.append(json.loads(data))
        if any(other == "td" for other, _ in self.stack):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def architecture():
    return text_format.MessageToString(config.load_architecture("mobilenet_v2_mnasfpn"))


@pytest.fixture
def page(tmp_path, architecture):
    """Writes a report and parses it."""

    def write(trials, best=None, benchmark=None, retrained=None, **search):
        path = tmp_path / "report" / "index.html"
        trials = [dataclasses.replace(trial, architecture=architecture) for trial in trials]
        if best:
            best = dataclasses.replace(best, architecture=architecture)
        report.write(
            path, trials, search=search, benchmark=benchmark, retrained=retrained, best=best
        )
        return Page(path.read_text("utf-8"))

    return write


def complete(number, **changes):
    values = {
        "state": TrialState.COMPLETE,
        "metrics": {MAP: 0.3 + number / 1000, "params": 2_500_000, "multiply_adds": 920_000_000},
        "latency_ms": 12.0 + number,
        "reward": 0.1 + number / 10000,
        "started": START,
        "finished": START + datetime.timedelta(seconds=90.5),
    }
    return Trial(number, (), "", f"key {number}", 0, **(values | changes))


def failed(number, error):
    return Trial(number, (), "", f"key {number}", 0, state=TrialState.FAILED, error=error)


def texts(page, tag):
    return page.texts.get(tag, [])


def test_a_whole_report(page):
    trials = [complete(0), complete(1), failed(2, "the loss is NaN"), complete(3, duplicate_of=1)]
    parsed = page(
        trials,
        trials[1],
        {"median_ms": 17.25, "model_bytes": 9_876_543, "provenance": {"cpu": "a CPU"}},
        {MAP: 0.4125},
        seed=7,
        search_space="mnasfpn",
        cardinality=187 * 10**30,
        image_size=[320, 320],
        versions={"tensorflow": "2.20.0"},
    )
    assert texts(parsed, "h1") == ["mnasfpn search"]
    assert "4 trials · 3 complete · 1 failed · 1 duplicates" in texts(parsed, "p")
    assert texts(parsed, "h2") == [
        "Trial 1",
        "Accuracy and latency",
        "Reward",
        "Different architectures",
        "Hypervolume",
        "The best cell",
        "Trials",
        "Failures",
        "About this search",
        "Retrained",
        "Benchmark",
    ]
    shown = set(texts(parsed, "dd"))
    assert {"0.1001", "0.3010", "13 ", "920 ", "2.5 ", "0.4125", "17.25 ", "9.88 "} <= shown
    assert {"7", "1.87e+32", "2.20.0", "a CPU"} <= shown
    assert "40×40×48" in texts(parsed, "text")
    assert len(parsed.figures) == 4
    assert len(parsed.ids) == len(set(parsed.ids))


def test_rows(page):
    trials = [complete(0), complete(1, duplicate_of=0, started=None), failed(2, "NaN")]
    parsed = page(trials, trials[0])
    assert [row for row in parsed.rows if len(row) == 10] == [
        ["1", "complete", "0.3010", "13.000", "920.0", "2.500", "0.1001", "0", "", ""],
        ["0", "complete", "0.3000", "12.000", "920.0", "2.500", "0.1000", "", "90.5", ""],
        ["2", "failed", "", "", "", "", "", "", "", "NaN"],
    ]


def test_nothing_is_loaded_from_anywhere(page):
    assert page([complete(0)], complete(0)).loaded == []


def test_what_comes_from_outside_is_escaped(page):
    trials = [complete(0), failed(1, EVIL)]
    parsed = page(
        trials,
        trials[0],
        {"median_ms": 1.0, EVIL: EVIL, "provenance": {EVIL: EVIL}},
        {MAP: 0.1, EVIL: 0.5},
        search_space=EVIL,
        versions={EVIL: EVIL},
    )
    assert not any("alert" in script for script in texts(parsed, "script"))
    assert texts(parsed, "b") == [EVIL]
    assert EVIL in texts(parsed, "dt")
    assert EVIL in texts(parsed, "dd")
    # The figure, plotly.js and the page's own.
    assert len(texts(parsed, "script")) == 3


@pytest.mark.parametrize("trials", [[], [failed(0, "x"), failed(1, "x")]])
def test_without_a_result(page, trials):
    parsed = page(trials)
    assert texts(parsed, "h2")[0] == "No result yet"
    assert parsed.figures == []
    assert "The best cell" not in texts(parsed, "h2")
    assert texts(parsed, "b") == ["x"] * bool(trials)


def test_one_trial(page):
    parsed = page([complete(0)], complete(0))
    assert len(parsed.figures) == 1
    assert "Failures" not in texts(parsed, "h2")


def test_running_trials_are_listed_last(page):
    running = Trial(0, (), "", "key", 0, state=TrialState.RUNNING, latency_ms=3.0)
    parsed = page([running, complete(1)], complete(1))
    assert [row[:2] for row in parsed.rows if len(row) == 10] == [
        ["1", "complete"],
        ["0", "running"],
    ]


def test_of_very_many_trials_the_best_are_listed(page):
    trials = [
        complete(i, latency_ms=12.0 + i % 50) if i % 20 else failed(i, f"error {i % 3}")
        for i in range(10_000)
    ]
    parsed = page(trials, trials[-1])
    rows = [row for row in parsed.rows if len(row) == 10]
    assert [row[0] for row in rows[:2]] == ["9999", "9998"]
    assert [row[1] for row in rows] == ["complete"] * 200 + ["failed"] * 200
    assert any(
        text.startswith("The 200 best of 9,500 trials and 200 of 500 failed ones.")
        for text in texts(parsed, "p")
    )
    assert parsed.figures[0]["data"][0]["type"] == "scattergl"
