"""The report in a real browser: it draws, works offline and complains of nothing."""

import dataclasses
import datetime
import json
import re
import subprocess
from html import escape, unescape

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.evaluation.baseline import BASELINE_AP50, BASELINE_MAP
from mnasdet.evaluation.coco import AP50, BY_CATEGORY, MAP
from mnasdet.protos import search_pb2
from mnasdet.reporting import latency_plot, report
from mnasdet.reporting import page as pages
from mnasdet.reporting.judgement import Judgement
from mnasdet.reporting.pictures import Example, Threshold
from mnasdet.search import results
from mnasdet.search.trials.trial_store import Trial, TrialState
from mnasdet.search_spaces import factory
from mnasdet.tflite.latency.latency_breakdown import LayerLatency
from tests.reporting.browser import FLAGS, browser, show

START = datetime.datetime(2026, 1, 5, 10)


@pytest.fixture(scope="module")
def space():
    """Backbone and cell: more than 90 decisions."""
    choices = search_pb2.SearchSpaceConfig()
    choices.joint.SetInParent()
    return factory.from_config(choices, config.load_architecture("mobilenet_v2_mnasfpn"))


def trials(space, count):
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        tokens = space.sample(rng)
        architecture = text_format.MessageToString(space.decode(tokens))
        made.append(Trial(number, tokens, architecture, "", number, **outcome(number, rng)))
    return made


def outcome(number, rng):
    latency = float(10 + 10 * rng.random())
    common = {"cost": latency, "started": START, "finished": START}
    if number % 11 == 5:
        return common | {"state": TrialState.FAILED, "error": f"the loss is NaN at step {number}"}
    if number % 13 == 7:
        error = f"{latency:.4g} ms are over limits.max_latency_ms, 15"
        return common | {"state": TrialState.REJECTED, "error": error}
    accuracy = float(0.2 + latency / 100 + 0.1 * rng.random())
    return common | {
        "state": TrialState.COMPLETE,
        "reward": accuracy * (latency / 15) ** -0.3,
        "accuracy": accuracy,
        "metrics": {MAP: accuracy, "params": 2_500_000, "multiply_adds": 920_000_000},
    }


def example():
    boxes = np.array([[0.2, 0.2, 0.6, 0.5], [0.5, 0.6, 0.9, 0.9]])
    image = np.zeros((60, 80, 3), np.uint8)
    scores = np.array([0.9, 0.4])
    return Example(image, boxes, np.array([1, 2]), scores, boxes[:1], np.array([1]), {1: "cat"})


def judged():
    metrics = {MAP: 0.4, AP50: 0.6, BASELINE_MAP: 0.1, BASELINE_AP50: 0.3}
    metrics |= {BY_CATEGORY + f"class {number}": number / 100 for number in range(30)}
    return Judgement([example()], Threshold(0.3, 0.5, 40), metrics, 0.02, 40, 70)


@pytest.fixture(scope="module")
def page(space, tmp_path_factory):
    """Everything that a report may have."""
    path = tmp_path_factory.mktemp("report") / "index.html"
    made = trials(space, 60)
    report.write(
        path,
        made,
        search={"search_space": "joint", "image_size": [320, 320]},
        space=space,
        retrained={MAP: 0.4},
        benchmark={"median_ms": 12.0, "model_bytes": 10_000_000},
        measured_ms={trial.number: 1.03 * trial.cost for trial in results.frontier(made)},
        judged=judged(),
    )
    return path


def drawn(dom):
    """How many charts there are in the page, and how many of them are drawn."""
    charts = re.findall(r'<div class="(chart\b[^"]*)"', dom)
    return len(charts), sum("js-plotly-plot" in kind for kind in charts)


def test_the_page_is_drawn_offline_without_complaint(page, tmp_path):
    script = (
        'document.title = JSON.stringify(performance.getEntriesByType("resource")'
        '.filter((entry) => !entry.name.startsWith("data:")).map((entry) => entry.name))'
    )
    shown = show(page, tmp_path, script=script)
    assert shown.console == []
    # The frontier, four small ones, the overview of the decisions and two on latency.
    assert drawn(shown.dom)[1] == 8
    assert shown.dom.count('<g class="xaxislayer-above">') >= 8
    # Nothing was asked for.
    assert json.loads(re.search("<title>(.*?)</title>", shown.dom)[1]) == []
    # Light ground, and something on it from top to bottom.
    assert tuple(shown.pixels[5, 5]) == (246, 247, 249)
    for band in np.array_split(shown.pixels, 10):
        assert band.std() > 4


def test_the_browser_forbids_a_page_to_load_anything(tmp_path):
    path = tmp_path / "index.html"
    path.write_text(pages.html("A page", "<p>Text</p>"), "utf-8")
    shown = show(path, tmp_path, script='fetch("https://example.com").catch(() => 0)')
    assert "violates the following Content Security Policy" in shown.console[0]


def test_a_name_that_is_a_script_is_text(tmp_path):
    """Plotly makes links and styles of what it takes for HTML."""
    evil = '<a href="javascript:document.title=1">a</a><img src=x onerror="document.title=1"><b>b&c'
    path = tmp_path / "plot.html"
    layers = [LayerLatency(evil, "head", evil, 1.0), LayerLatency("b", evil, "c", 2.0)]
    path.write_text(latency_plot.html(evil, layers, 0.0), "utf-8")
    script = """
      setTimeout(() => {
        const [stacked, running] = document.querySelectorAll(".js-plotly-plot");
        Plotly.Fx.hover(stacked, [{curveNumber: 0, pointNumber: 0}]);
        const text = (selector) => [...document.querySelectorAll(selector)].map((element) =>
          element.textContent.trim());
        document.title = JSON.stringify([
          document.querySelectorAll("body a, body img, [style*=javascript]").length,
          text("h1, .ytick text, .legendtext").filter((shown) => shown.includes("onerror")),
          text(".hoverlayer .nums, .hoverlayer text")[0],
        ]);
      }, 500);
    """
    shown = show(path, tmp_path, script=script)
    assert shown.console == []
    found, texts, hover = json.loads(unescape(re.search("<title>(.*?)</title>", shown.dom)[1]))
    assert found == 0
    # The heading, an axis' label and the legend.
    assert texts == [evil, evil, evil]
    assert hover.startswith(evil + evil)


def test_dark_and_narrow_with_everything_opened_and_clicked(page, tmp_path):
    script = """
      const select = document.querySelector(".picker select");
      for (const option of [...select.options]) {
        select.value = option.value;
        select.dispatchEvent(new Event("change"));
      }
      const slider = document.querySelector("input.score");
      slider.value = 0.95;
      slider.dispatchEvent(new Event("input"));
      for (const button of document.querySelectorAll("th button")) button.click();
      for (const details of document.querySelectorAll("details")) details.open = true;
      const overview = document.querySelector(".overview");
      setTimeout(() => overview.emit("plotly_click", {points: [{y: "backbone/kernel_size"}]}), 99);
    """
    shown = show(page, tmp_path, width=500, dark=True, script=script)
    assert shown.console == []
    assert tuple(shown.pixels[5, 5]) == (18, 22, 29)
    charts, done = drawn(shown.dom)
    assert charts == done > 90
    # The click has shown one panel and hidden the others.
    panels = shown.dom.split('<div class="panel"')[1:]
    (seen,) = [panel for panel in panels if panel.startswith(">")]
    assert drawn(seen) == (7, 7)
    scored = re.findall(r'<g class="([^"]*)" data-score', shown.dom)
    assert scored == ["wrong low", "right low"]


def test_the_score_shows_what_is_missed(page, tmp_path):
    script = """
      const slider = document.querySelector("input.score");
      const states = [0.3, 0.95].map((score) => {
        slider.value = score;
        slider.dispatchEvent(new Event("input"));
        return document.querySelector("[data-found]").getAttribute("class");
      });
      document.title = JSON.stringify(states);
    """
    shown = show(page, tmp_path, script=script)
    # The cat is found with 0.9.
    assert json.loads(re.search("<title>(.*?)</title>", shown.dom)[1]) == ["missed low", "missed"]


def test_a_telephone_shows_all_of_it(page, tmp_path):
    """Only what scrolls by itself is wider than 375 pixels. Browsers have no windows that narrow,
    but frames."""
    script = """
      const wide = [...document.querySelectorAll("body *")].filter((element) =>
        element.getBoundingClientRect().right > innerWidth + 1 &&
        !element.closest(".wide, .js-plotly-plot, details:not([open])"));
      const whole = ".wide:has(.stack, .members), .tiles, .details";
      const cut = [...document.querySelectorAll(whole)].filter(
        (element) => element.scrollWidth > element.clientWidth + 1);
      parent.document.title = JSON.stringify(
        [innerWidth, document.documentElement.scrollWidth, wide.length, cut.length]);
    """
    inner = page.read_text("utf-8").replace("</body>", f"<script>{script}</script></body>")
    outer = tmp_path / "outer.html"
    outer.write_text(
        '<!DOCTYPE html><html><head><title></title></head><body style="margin:0">'
        f'<iframe width="375" height="4000" srcdoc="{escape(inner)}"></iframe></body></html>',
        "utf-8",
    )
    shown = show(outer, tmp_path, width=600)
    width, scrolled, wide, cut = json.loads(re.search("<title>(.*?)</title>", shown.dom)[1])
    assert width == 375
    assert scrolled <= 375
    assert (wide, cut) == (0, 0)


def test_paper_has_every_chart_and_column(page, tmp_path):
    printed = tmp_path / "page.pdf"
    script = """
      dispatchEvent(new Event("beforeprint"));
      const widths = [...document.querySelectorAll(".js-plotly-plot .main-svg")].map((svg) =>
        svg.getBoundingClientRect().width);
      document.title = JSON.stringify(Math.max(...widths));
    """
    shown = show(page, tmp_path, script=script)
    assert shown.console == []
    # A4 has 703 pixels between margins of 12 mm.
    assert 300 < json.loads(re.search("<title>(.*?)</title>", shown.dom)[1]) <= 703
    subprocess.run(
        [
            browser(),
            *FLAGS,
            f"--user-data-dir={tmp_path / 'printer'}",
            f"--print-to-pdf={printed}",
            f"file://{page}",
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert printed.read_bytes().startswith(b"%PDF")


def test_many_trials_are_drawn_without_webgl(space, tmp_path):
    made = trials(space, 40)
    many = [dataclasses.replace(made[number % 40], number=number) for number in range(1500)]
    path = tmp_path / "many.html"
    report.write(path, many, search={}, space=space)
    without = """
      const get = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind) {
        return kind.includes("webgl") ? null : get.call(this, kind);
      };
    """
    text = path.read_text("utf-8")
    path.write_text(text.replace("<body>", f"<body><script>{without}</script>"), "utf-8")
    shown = show(path, tmp_path, height=1200)
    assert shown.console == []
    assert "WebGL is not supported" not in shown.dom
    assert shown.dom.count('<path class="point"') > 1000


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)]
)
def test_without_a_browser_tests_are_skipped_but_not_in_ci(monkeypatch, ci, outcome):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="apt-get install chromium"):
        browser()
