"""Names are text in every page, whatever they are."""

import ast
import dataclasses
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from google.protobuf import text_format
from markupsafe import Markup

from mnasdet import config
from mnasdet.evaluation.coco import BY_CATEGORY, MAP, class_metric
from mnasdet.evaluation.confusion import ConfusionMatrix
from mnasdet.evaluation.curves import Curves
from mnasdet.models import network_of
from mnasdet.networks.cost import cost_sheet
from mnasdet.reporting import evaluation_page, latency_plot, layered_graph, page, report
from mnasdet.reporting.layered_graph import Box
from mnasdet.scripts import analyze
from mnasdet.search.trials.trial_store import TrialState
from mnasdet.search_spaces.space import Decision
from mnasdet.tflite.latency.latency_breakdown import LayerLatency
from mnasdet.tflite.latency.latency_table import LatencyTable
from mnasdet.tflite.latency.layers import layers
from tests.reporting.coins import Coins
from tests.reporting.test_report import EXAMPLE, JUDGED, complete, failed, rejected

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>&{{7*7}}'
# As long, since labels have places by their widths, and a path of as many parts.
TAME = re.sub("[^/]", "x", EVIL)

REPORTING = Path(report.__file__).parent


class Read(HTMLParser):
    """Collects what a browser finds in a page, and replaces a name in it by a word in capitals."""

    def __init__(self, text, name):
        super().__init__()
        self.found, self.figures, self._name, self._in_json = [], [], name, False
        self.feed(text)
        self.close()

    def _shown(self, text):
        return text.replace(self._name, "NAME").replace(Path(self._name).name, "BASENAME")

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, [(key, self._shown(value or "")) for key, value in attributes]))
        self._in_json = ("type", "application/json") in attributes

    def handle_endtag(self, tag):
        self.found.append(f"/{tag}")

    def handle_data(self, data):
        if self._in_json:
            self.figures.append(self._read(json.loads(data)))
        else:
            self.found.append(self._shown(data))

    def _read(self, value, key=""):
        """A figure with its texts as plotly shows them."""
        if isinstance(value, dict):
            return {name: self._read(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self._read(item) for item in value]
        if not isinstance(value, str) or key == "hovertemplate":
            return value
        assert not re.search("[<>]", value.replace("<br>", ""))
        return self._shown(html.unescape(value))


class NamedDecisions(Coins):
    def __init__(self, name):
        super().__init__()
        choices = (name, f"{name}2")
        self.decisions = (Decision(f"block_1/{name}", choices), Decision(name, choices))


@pytest.fixture(scope="module")
def architecture():
    return config.load_architecture("mobilenet_v2_mnasfpn")


def written_report(name, architecture, folder):
    architecture.name = architecture.source = name
    text = text_format.MessageToString(architecture)
    trials = [complete(0), complete(1, note=name, worker=name), failed(2, name), rejected(3, name)]
    trials += [dataclasses.replace(failed(4, name), state=TrialState.PENDING)]
    benchmark = {"median_ms": 1.0, "provenance": {"graph": f"a/{name}", "device": "adb"}}
    benchmark["provenance"] |= {"model": name, "runtime": name, name: name}
    report.write(
        folder / "index.html",
        [dataclasses.replace(t, architecture=text, tokens=(t.number % 2, 0)) for t in trials],
        search={"search_space": name, "versions": {name: name}, name: {name: name}},
        space=NamedDecisions(name),
        retrained={MAP: 0.1, name: 0.5},
        benchmark=benchmark | {name: name, f"a{name}": {"median_ms": 2.0, name: name}},
        measured_ms={0: 12.0, 1: 12.5},
        measured_note=name,
        judged=dataclasses.replace(
            JUDGED,
            examples=[dataclasses.replace(EXAMPLE, class_names={1: name})],
            metrics=JUDGED.metrics | {BY_CATEGORY + name: 0.25},
        ),
        facts={"reward": name, "evaluation set": name, "latency": name, "command": name},
    )
    return (folder / "index.html").read_text("utf-8")


def analyzed_plot(name, architecture, folder):
    """Returns the page that analyze --plot writes."""
    architecture.name = name
    path, table, plot = folder / "a.textproto", folder / "t.textproto", folder / "plot.html"
    path.write_text(text_format.MessageToString(architecture))
    found = layers(cost_sheet(network_of(architecture, (320, 320), 90).outputs))
    LatencyTable({"device": "host"}, {layer.key: 1.0 for layer in found}).save(table)
    with flagsaver.flagsaver():
        flags.FLAGS(
            ["analyze", f"--architecture={path}", f"--latency_table={table}", f"--plot={plot}"]
        )
        analyze.main()
    return plot.read_text("utf-8")


def evaluation(name, architecture, folder):
    """Returns the page that evaluate --report_dir writes."""
    recalls, precisions = np.linspace(0, 1, 101), np.full((1, 10, 101), 0.5)
    curves = Curves([name], np.arange(0.5, 1.0, 0.05).tolist(), recalls, precisions, precisions)
    metrics = JUDGED.metrics | {BY_CATEGORY + name: 0.25, class_metric(MAP, name): 0.25}
    judged = dataclasses.replace(
        JUDGED,
        examples=[dataclasses.replace(EXAMPLE, class_names={1: name})],
        metrics=metrics,
    )
    confusion = ConfusionMatrix([name], np.ones((2, 2), np.int64), 0.5, 0.5)
    path = evaluation_page.write(folder, name, judged, curves, confusion)
    return path.read_text("utf-8")


def profile_plot(name, architecture, folder):
    """The layers of a profile have names of others."""
    return latency_plot.html(name, [LayerLatency(name, name, name, 1.0)], 0.5)


def drawing(name, architecture, folder):
    boxes = [Box("end", name, name, 0, 0), Box(name, name, name, 0, 1)]
    edges = [layered_graph.Edge(*boxes)]
    return layered_graph.svg(boxes, edges, name=name, title=name)


def chart(name, architecture, folder):
    figure = page.figure(name, name)
    figure.add_bar(x=[name], y=[1], text=[name], name=name, customdata=[[name]])
    return page.html(name, page.chart(name, figure, name))


@pytest.mark.parametrize(
    "write", [written_report, analyzed_plot, evaluation, profile_plot, drawing, chart]
)
def test_a_name_changes_nothing_but_text(write, architecture, tmp_path):
    evil, tame = (Read(write(name, architecture, tmp_path), name) for name in (EVIL, TAME))
    assert evil.found == tame.found
    assert evil.figures == tame.figures
    assert "NAME" in json.dumps([evil.found, evil.figures])


def test_a_body_that_is_no_markup_is_text():
    assert "<body>&lt;b&gt;<script>" in page.html("A page", "<b>")
    assert page.section("A", "<b>") == "<section><h2>A</h2>&lt;b&gt;</section>"


def test_a_text_of_a_chart_is_html_only_where_it_is_markup():
    figure = page.figure("", "").add_bar(x=["a<b\nc"], y=[1], text=np.array(["<i>", "c"]))
    figure.update_traces(hovertemplate=Markup("<b>{}</b>").format("&"))
    (data,) = re.findall('json">(.*?)</script>', page.chart("", figure))
    (trace,) = json.loads(data)["data"]
    assert (trace["x"], trace["text"]) == (["a&lt;b<br>c"], ["&lt;i&gt;", "c"])
    assert trace["hovertemplate"] == "<b>&amp;</b>"


# The files of the package itself, plotly's own, and JSON, whose "<" are escaped.
OWN = {
    'importlib.resources.files("mnasdet.reporting").joinpath(name).read_text("utf-8")',
    "get_plotlyjs()",
    'data.replace("<", "\\\\u003c")',
}


@pytest.mark.parametrize("path", sorted(REPORTING.glob("*.py")), ids=lambda path: path.stem)
def test_markup_is_made_of_constants(path):
    """No name can be taken for HTML where tags are only in constants that are given to Markup."""
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    marked = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Markup" and node.args:
            (argument,) = node.args
            assert (
                isinstance(argument, ast.Constant)
                or ast.get_source_segment(source, argument) in OWN
            ), f"{path}:{node.lineno}"
            marked.add(argument)
        if isinstance(node, ast.Expr):  # A docstring.
            marked.add(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in marked:
            assert not re.search("<[a-z/]", node.value), f"{path}:{node.lineno}"
