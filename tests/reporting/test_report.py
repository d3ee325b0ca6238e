import dataclasses
import datetime
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.evaluation.baseline import BASELINE_AP50, BASELINE_MAP
from mnasdet.evaluation.coco import AP50, BY_CATEGORY, MAP
from mnasdet.reporting import report
from mnasdet.reporting.judgement import Judgement
from mnasdet.reporting.pictures import Example, Threshold
from mnasdet.search.trials.trial_store import Trial, TrialState
from tests.reporting.coins import Coins

EVIL = '<script>alert("&")</script>'
EXAMPLE = Example(
    np.zeros((4, 4, 3), np.uint8),
    np.array([[0.0, 0.0, 0.5, 0.5]]),
    np.array([1]),
    np.array([0.9]),
    np.zeros((0, 4)),
    np.zeros(0, int),
    {1: "cat"},
)
JUDGED = Judgement(
    examples=[EXAMPLE],
    threshold=Threshold(0.3, 0.5, 40),
    metrics={
        MAP: 0.4125,
        AP50: 0.6,
        "DetectionBoxes_Precision/mAP (large)": -1.0,
        BASELINE_MAP: 0.39,
        BASELINE_AP50: 0.61,
        BY_CATEGORY + "cat": 0.4375,
    },
    standard_error=0.02,
    num_images=40,
    num_objects=70,
)
START = datetime.datetime(2026, 1, 5, 10)
VOID = {"meta", "br", "input"}


class Page(HTMLParser):
    """Checks that tags match; gathers what the tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.loaded, self.ids, self.figures = [], [], [], []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.texts: dict[str, list[str]] = {}
        self.size = len(text)
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
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
    published = config.load_architecture("mobilenet_v2_mnasfpn")
    published.ClearField("image_size")
    return text_format.MessageToString(published)


@pytest.fixture
def page(tmp_path, architecture):
    """Writes a report and parses it."""

    def write(trials, text=architecture, **arguments):
        path = tmp_path / "report" / "index.html"
        trials = [dataclasses.replace(trial, architecture=text) for trial in trials]
        report.write(path, trials, **({"search": {}} | arguments))
        return Page(path.read_text("utf-8"))

    return write


def complete(number, **changes):
    values = {
        "state": TrialState.COMPLETE,
        "metrics": {MAP: 0.3 + number / 1000, "params": 2_500_000, "multiply_adds": 920_000_000},
        "accuracy": 0.3 + number / 1000,
        "cost": 12.0 + number,
        "reward": 0.1 + number / 10000,
        "started": START,
        "finished": START + datetime.timedelta(seconds=90.5),
    }
    return Trial(number, (), "", f"key {number}", 0, **(values | changes))


def failed(number, error):
    return Trial(number, (), "", f"key {number}", 0, state=TrialState.FAILED, error=error)


def rejected(number, error):
    state = TrialState.REJECTED
    return Trial(number, (), "", f"key {number}", 0, state=state, error=error, cost=40.0)


def texts(page, tag):
    return page.texts.get(tag, [])


def test_a_whole_report(page):
    trials = [complete(0), complete(1), failed(2, "the loss is NaN"), complete(3, duplicate_of=1)]
    parsed = page(
        [dataclasses.replace(trial, tokens=(0, 1)) for trial in [*trials, rejected(4, "9 over 8")]],
        search={
            "seed": 7,
            "search_space": "mnasfpn",
            "cardinality": 187 * 10**30,
            "image_size": [320, 320],
            "versions": {"tensorflow": "2.20.0"},
        },
        space=Coins(),
        benchmark={
            "median_ms": 17.25,
            "model_bytes": 9_876_543,
            "provenance": {"cpu": "a CPU"},
        },
        retrained={MAP: 0.4125},
        measured_ms={0: 12.0, 1: 12.5},
        judged=JUDGED,
        facts={"reward": "tunas, target 8 ms", "command": "mnasdet-search --seed=7"},
    )
    assert texts(parsed, "h1") == ["mnasfpn search"]
    assert "5 trials · 3 complete · 1 failed · 1 rejected · 1 duplicates" in texts(parsed, "p")
    assert texts(parsed, "h2") == [
        "Trial 3",
        "Accuracy and latency",
        "What the best model finds",
        "Retrained",
        "Benchmark",
        "Reward",
        "Entropy of the proposals",
        "Hypervolume",
        "Different architectures",
        "Decisions over time",
        "Predicted and measured latency",
        "The best cell",
        "Trials",
        "Failures",
        "Rejected",
        "About this search",
    ]
    shown = set(texts(parsed, "dd"))
    assert {"0.1003", "0.3030", "15.00 ", "920 ", "2.5 ", "0.4125", "17.25 ", "9.88 "} <= shown
    assert {"7", "1.87e+32", "2.20.0", "a CPU"} <= shown
    assert {"tunas, target 8 ms", "mnasdet-search --seed=7", "tensorflow 2.20.0"} <= shown
    assert {"- (no large objects, over 96² pixels)", "0.4375"} <= shown
    notes = texts(parsed, "p")
    assert "2026-01-05 10:00 to 10:01 UTC" in notes
    assert "reward: tunas, target 8 ms" in notes
    assert any(note.startswith("Hardly better than one fixed box") for note in notes)
    assert any("all 40 pictures of the evaluation set F1 is highest, 0.50" in n for n in notes)
    assert "40×40×48" in texts(parsed, "text")
    # Five of the search, two overviews and a chart a decision, two on latency.
    assert len(parsed.figures) == 11
    assert len(parsed.ids) == len(set(parsed.ids))


def test_members_of_the_frontier(page):
    parsed = page([complete(0), complete(1)], measured_ms={1: 12.5})
    rows = [row for row in parsed.rows if len(row) == 6]
    assert [row[:5] for row in rows] == [
        ["0", "0.3000", "12.000", "", ""],
        ["1", "0.3010", "13.000", "12.500", "+4.0%"],
    ]
    assert rows[0][5].startswith("mobilenet_v2/mnasfpn_c48_r4_")
    # A drawing of each, collapsed, and that of the best.
    assert parsed.tags.count("details") == 2
    assert parsed.tags.count("svg") == 3


def test_every_latency_of_a_network_is_named(page):
    parsed = page(
        [complete(0)],
        measured_ms={0: 12.5},
        benchmark={"median_ms": 14.25, "num_runs": 100, "noisy": True},
        facts={"latency": "the sum over a table"},
    )
    assert (
        "One network, latency by latency: 12.00 ms in the search: the sum over a table. 12.50 ms "
        "on the frontier: the whole network with random weights, measured after the search, the "
        "fastest of several turns. 14.25 ms of the trained file: the median of 100 runs, which "
        "were noisy."
    ) in texts(parsed, "p")
    assert {"ms in the search", "measured ms"} <= {*texts(parsed, "th")}


def test_a_benchmark_is_a_row_for_every_file(page):
    parsed = page(
        [complete(0)],
        benchmark={
            "median_ms": 14.25,
            "min_ms": 9.5,
            "p10_ms": 9.75,
            "p90_ms": 21.0,
            "model_bytes": 2_504_025,
            "noisy": True,
            "provenance": {"device": "host", "cpu": "a CPU", "num_threads": 1},
            "detect_nms.tflite": {"median_ms": 15.5, "noisy": False},
        },
    )
    assert [row for row in parsed.rows if len(row) == 6 and row[0].startswith("detect")] == [
        [
            "detect.tflite",
            "14.25",
            "9.500",
            "9.750 to 21.00",
            "2.50 MB",
            "noisy: its runs do not agree",
        ],
        ["detect_nms.tflite", "15.50", "–", "– to –", "–", "steady"],
    ]
    assert "On the machine that the search ran on (a CPU), 1 thread." in texts(parsed, "p")
    assert "all that was measured" in texts(parsed, "summary")


def test_rows(page):
    trials = [
        complete(0),
        rejected(1, "9 over 8"),
        complete(2, duplicate_of=0, started=None),
        failed(3, "NaN"),
    ]
    parsed = page(trials)
    assert [row for row in parsed.rows if len(row) == 10] == [
        ["2", "complete", "0.3020", "14.000", "920.0", "2.500", "0.1002", "0", "", ""],
        ["0", "complete", "0.3000", "12.000", "920.0", "2.500", "0.1000", "", "90.5", ""],
        ["3", "failed", "", "", "", "", "", "", "", "NaN"],
        ["1", "rejected", "", "40.000", "", "", "", "", "", "9 over 8"],
    ]


def test_nothing_is_loaded_from_anywhere(page):
    loaded = page([complete(0)], judged=JUDGED).loaded
    assert [address.split(",")[0] for address in loaded] == [
        "data:image/jpeg;base64",
        "#picture-0",
    ]


def test_what_comes_from_outside_is_escaped(page):
    trials = [complete(0), failed(1, EVIL), rejected(2, EVIL)]
    parsed = page(
        trials,
        search={"search_space": EVIL, "versions": {EVIL: EVIL}},
        benchmark={"median_ms": 1.0, EVIL: EVIL, "provenance": {EVIL: EVIL}},
        retrained={MAP: 0.1, EVIL: 0.5},
        facts={"reward": EVIL, "evaluation set": f"{EVIL}: 1 file", "latency": EVIL},
        judged=dataclasses.replace(
            JUDGED,
            examples=[dataclasses.replace(EXAMPLE, class_names={1: EVIL})],
            metrics=JUDGED.metrics | {BY_CATEGORY + EVIL: 0.25},
        ),
    )
    assert not any("alert" in script for script in texts(parsed, "script"))
    assert texts(parsed, "b") == [EVIL] * 2
    assert f"{EVIL}: 1 file" in texts(parsed, "dd")
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


def test_before_the_best_is_retrained(page):
    parsed = page([complete(0), complete(1)])
    assert texts(parsed, "h2")[0] == "Trial 1"
    assert "Retrained" not in texts(parsed, "h2")


def test_one_trial(page):
    parsed = page([complete(0)])
    assert len(parsed.figures) == 1
    assert "Failures" not in texts(parsed, "h2")
    assert "Rejected" not in texts(parsed, "h2")


def test_running_trials_are_listed_last(page):
    running = Trial(0, (), "", "key", 0, state=TrialState.RUNNING, cost=3.0)
    parsed = page([running, complete(1)])
    assert [row[:2] for row in parsed.rows if len(row) == 10] == [
        ["1", "complete"],
        ["0", "running"],
    ]


def test_of_very_many_trials_the_best_are_listed(page):
    def trial(number):
        if number % 20 == 0:
            return failed(number, f"error {number % 3}")
        if number % 20 == 1:
            return rejected(number, f"{number} over 8")
        return complete(number, cost=12.0 + number % 50)

    trials = [dataclasses.replace(trial(n), tokens=(n % 2, n // 2 % 2)) for n in range(10_000)]
    parsed = page(trials, space=Coins())
    rows = [row for row in parsed.rows if len(row) == 10]
    assert [row[0] for row in rows[:2]] == ["9999", "9998"]
    states = [row[1] for row in rows]
    assert states == ["complete"] * 200 + ["failed"] * 200 + ["rejected"] * 200
    note = "Of 10,000 trials the 200 best, and as many of those that failed or were rejected."
    assert any(text.startswith(note) for text in texts(parsed, "p"))
    assert texts(parsed, "b") == ["error 0 to 2", "1 to 9981 over 8"]
    assert parsed.figures[0]["data"][0]["type"] == "scattergl"
    assert parsed.size < 12_000_000
    # Architectures are named where they are looked at most.
    hover = {data[0]: data[2] for data in parsed.figures[0]["data"][0]["customdata"]}
    assert hover[9999]
    assert not hover[3]


def test_the_image_size_that_is_searched_sizes_the_drawings(page, architecture):
    parsed = page([complete(0)], f"image_size: 256 {architecture}", search={"image_size": [64, 64]})
    assert "32×32×48" in texts(parsed, "text")


def test_multiply_adds_are_never_called_milliseconds(page):
    unit = "G multiply-adds"
    parsed = page([complete(0), complete(1)], search={"unit": unit}, measured_ms={0: 12.0})
    assert unit in texts(parsed, "th")
    assert unit in texts(parsed, "button")
    assert not {"ms", "measured ms"} & {*texts(parsed, "th"), *texts(parsed, "button")}
    charts = json.dumps(parsed.figures)
    assert f'"text": "{unit}"' in charts
    assert f'"text": "mAP \\u00d7 {unit}"' in charts
    assert not re.search(r"\bms\b", charts)
    assert "latency" not in texts(parsed, "dt")
    assert "Predicted and measured latency" not in texts(parsed, "h2")


def test_two_stages(page):
    """One front of both, though their costs are of two kinds."""
    trials = [complete(0, cost=30.0), complete(1, cost=40.0), complete(2, cost=0.5)]
    trials[2] = dataclasses.replace(trials[2], tokens=(0, 1))
    trials[2].metrics["multiply_adds"] = 500_000_000
    search = {
        "unit": "G multiply-adds",
        "stages": [{"first": 0, "unit": "ms"}, {"first": 2, "unit": "G multiply-adds"}],
        "groups": [1],
        "order": [
            {"stage": 1, "pairs": 4, "accuracy": 1, "cost": 0},
            {"stage": 2, "pairs": 8, "accuracy": 2, "cost": 1},
        ],
    }
    found = page(trials, search=search)
    lines, *_ = found.figures[0]["data"]
    # In billions of multiply-adds, from the trial that the group starts from.
    assert lines["x"] == [0.92, 0.5, None]
    header = [text for text in found.texts["button"] if text in ("trial", "stage", "state")]
    assert header == ["trial", "stage", "state"]
    rows = {row[0]: row[1] for row in found.rows if len(row) == 11}
    assert rows == {"0": "1", "1": "1", "2": "2"}
    assert "Trial 2" in found.texts["h2"]
    told = " ".join(found.texts["p"])
    assert "Stage 1: Of 4 pairs of trained children" in told
    assert "more accurate in 25.0% and cost more in 12.5%" in told
