"""The page about one detector on an evaluation set, and the same as numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from mnasdet import files
from mnasdet.evaluation import metric_text
from mnasdet.evaluation.confusion import BACKGROUND, ConfusionMatrix
from mnasdet.evaluation.curves import Curves
from mnasdet.reporting import accuracy_table, page, pictures
from mnasdet.reporting.judgement import Judgement

PAGE_FILE = "index.html"
NUMBERS_FILE = "evaluation.json"

# Lines of more classes cover each other; they can be switched on in the legend.
_MOST_LINES = 12
# Numbers in the cells of more classes are too small to read, and cells of still more to point at.
_MOST_NUMBERS, _MOST_CELLS = 16, 100
# Pixels of the chart of confusion: a row, the axis below, and the limits of all.
_ROW, _AXIS, _LEAST, _LARGEST = 34, 120, 260, 1100

_MEAN_LINE, _HALF = "#3b82f6", 0
# IoUs whose curves over all classes are drawn: places among 0.5, 0.55, ... 0.95.
_SHOWN_IOUS = (0, 2, 4, 5, 6, 8)
_COLORS = (
    "#e08a1e",
    "#2bb3a3",
    "#c2569a",
    "#7d8f2d",
    "#8767d6",
    "#d9534f",
    "#4a9ed1",
    "#a97142",
    "#5aa454",
    "#8b95a5",
    "#b8860b",
    "#6f7fd8",
)


def write(
    folder: Path,
    model: str,
    judged: Judgement,
    curves: Curves,
    confusion: ConfusionMatrix,
) -> Path:
    """Writes the page and the numbers into a folder, which is made if missing.

    Args:
      model: the checkpoint or the file that was evaluated.

    Returns:
      The page's path.
    """
    numbers = {
        "model": model,
        "metrics": judged.metrics,
        "precision_recall": curves.to_json(),
        "confusion_matrix": confusion.to_json(),
    }
    files.write(folder / NUMBERS_FILE, json.dumps(numbers) + "\n")
    sections = [
        _header(model, judged),
        page.section("Accuracy", _accuracy(judged)),
        page.section("By class and size", _classes(metric_text.table(judged.metrics))),
        page.section("Precision and recall", _curves(curves)),
        page.section("Confusion of classes", _confusion(confusion, judged)),
        pictures.section(judged.examples, judged.threshold, "What it finds"),
    ]
    path = folder / PAGE_FILE
    files.write(path, page.html("mnasdet evaluation", Markup().join(sections)))
    return path


def _header(model: str, judged: Judgement) -> Markup:
    counts = f"{judged.num_images:,} pictures, {judged.num_objects:,} objects (crowds left out)"
    told = Markup().join(Markup('<p class="soft">{}</p>').format(line) for line in (model, counts))
    return Markup('<header><p class="eyebrow">mnasdet</p><h1>Evaluation</h1>{}</header>').format(
        told
    )


def _accuracy(judged: Judgement) -> Markup:
    """Returns the metrics over all classes, and how sure mAP is."""
    # The classes have a table of their own.
    overall, by_class, _ = metric_text.groups(judged.metrics)
    own = {
        name: value
        for name, value in judged.metrics.items()
        if name.rpartition("/")[2] not in by_class
    }
    note = Markup()
    if judged.standard_error is not None:
        note = page.note(
            f"mAP {overall['mAP']} ± {judged.standard_error:.4f}: the standard error by the choice "
            "of the pictures. Another seed of the training is not in it."
        )
    return note + accuracy_table.content(own)


def _classes(rows: Mapping[str, Mapping[str, str]]) -> Markup:
    """Returns the table of all classes."""
    if not rows:
        return Markup()
    columns = list(next(iter(rows.values())))
    head = Markup().join(
        Markup("<th{}><button>{}</button></th>").format(
            Markup() if number else Markup(' class="text"'), name
        )
        for number, name in enumerate(["class", *columns])
    )
    body = Markup().join(_row(name, row) for name, row in rows.items())
    note = page.note(
        "AP over IoUs of 0.5 to 0.95, at 0.5 and at 0.75; AR1, AR10 and AR with 1, 10 and 100 "
        "detections a picture; s, m, l: objects under 32² pixels, up to 96², and larger ones. "
        "- means that there are none."
    )
    return note + Markup(
        '<div class="wide scroll"><table class="sortable"><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>"
    ).format(head, body)


def _row(name: str, row: Mapping[str, str]) -> Markup:
    cells = Markup().join(
        Markup('<td data-value="{}">{}</td>').format("" if value == "-" else value, value)
        for value in row.values()
    )
    return Markup('<tr><td class="text" data-value="{0}">{0}</td>{1}</tr>').format(name, cells)


def _curves(curves: Curves) -> Markup:
    """Returns two charts: each class at an IoU of 0.5, and all classes at several IoUs."""
    if not len(curves.names):
        return Markup()
    of_classes = page.figure("recall", "precision", legend=True)
    order = np.argsort(-curves.precisions[:, _HALF].mean(axis=1), kind="stable")
    for number, place in enumerate(order.tolist()):
        _add_line(
            of_classes,
            curves.names[place],
            curves.recalls,
            curves.precisions[place, _HALF],
            _COLORS[number % len(_COLORS)],
            scores=curves.scores[place, _HALF],
            hidden=number >= _MOST_LINES,
        )
    if len(curves.names) > 1:
        mean = curves.mean()[_HALF]
        _add_line(of_classes, "all classes", curves.recalls, mean, _MEAN_LINE, width=3.5)
    of_ious = page.figure("recall", "precision", legend=True)
    for number, place in enumerate(_SHOWN_IOUS):
        color = _COLORS[number]
        name = f"IoU {curves.ious[place]:.2f}"
        _add_line(of_ious, name, curves.recalls, curves.mean()[place], color)
    if len(curves.names) > _MOST_LINES:
        # On the side, where a long legend has a scroll bar.
        of_classes.update_layout(legend={"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"})
    for figure in (of_classes, of_ious):
        figure.update_xaxes(range=[0, 1.02])
        figure.update_yaxes(range=[0, 1.02])
    note = (
        "An object is found by a detection of its class with an IoU of 0.5 or more. Point at a "
        "curve for the score at which it is there; a click in the legend hides a class or shows it."
    )
    if len(curves.names) > _MOST_LINES:
        note += f" The {_MOST_LINES} classes with the highest AP50 are shown at first."
    return (
        page.note(note)
        + page.chart("Precision and recall of each class", of_classes, "chart large")
        + page.note("The mean over all classes, at several IoUs: the stricter, the lower.")
        + page.chart("Precision and recall at several IoUs", of_ious, "chart large")
    )


def _add_line(
    figure: go.Figure,
    name: str,
    recalls: np.ndarray,
    precisions: np.ndarray,
    color: str,
    *,
    scores: np.ndarray | None = None,
    width: float = 2,
    hidden: bool = False,
) -> None:
    hover = Markup("<b>%{fullData.name}</b><br>recall %{x:.2f}, precision %{y:.3f}")
    if scores is not None:
        hover += Markup("<br>from a score of %{text}")
    figure.add_trace(
        go.Scatter(
            x=np.round(recalls, 4).tolist(),
            y=np.round(precisions, 4).tolist(),
            text=None if scores is None else [f"{score:.2f}" for score in scores],
            mode="lines",
            name=name,
            line={"color": color, "width": width},
            visible="legendonly" if hidden else True,
            hovertemplate=hover + Markup("<extra></extra>"),
        )
    )


def _confusion(confusion: ConfusionMatrix, judged: Judgement) -> Markup:
    if not confusion.counts.any():
        return Markup()
    objects = confusion.counts.sum(axis=1)
    # The background comes last, whatever is in its row.
    frequent = np.argsort(-objects[:-1], kind="stable")[:_MOST_CELLS]
    shown = [*sorted(frequent.tolist()), len(confusion.names)]
    names = [[*confusion.names, BACKGROUND][place] for place in shown]
    counts = confusion.counts[np.ix_(shown, shown)]
    shares = counts / np.maximum(objects[shown], 1)[:, None]
    figure = page.figure("found", "true")
    figure.add_trace(
        go.Heatmap(
            # By number: two classes may have names that look alike.
            x=list(range(len(names))),
            y=list(range(len(names))),
            z=np.round(shares, 4).tolist(),
            text=[[str(count) if count else "" for count in row] for row in counts.tolist()],
            texttemplate="%{text}" if len(names) <= _MOST_NUMBERS else "",
            customdata=_hover(names, counts, objects[shown]),
            hovertemplate=Markup("%{customdata}<extra></extra>"),
            colorscale=[[0, "rgba(59,130,246,0.04)"], [1, "rgba(59,130,246,0.95)"]],
            zmin=0,
            zmax=1,
            showscale=False,
            xgap=1,
            ygap=1,
        )
    )
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
    figure.update_xaxes(**ticks)
    figure.update_yaxes(autorange="reversed", **ticks)
    height = min(max(_LEAST, _AXIS + _ROW * len(names)), _LARGEST)
    note = (
        f"Detections with a score from {confusion.score_threshold:.2f} on, best first; each takes "
        f"the object of any class that it overlaps most, with an IoU of {confusion.iou:g} or more. "
        "Rows are what is there, columns what it was taken for; the last column are missed objects "
        "and the last row detections of nothing. Colours are shares of a row."
    )
    if len(confusion.names) > _MOST_CELLS:
        note += f" The {_MOST_CELLS} classes with the most objects are shown."
    if confusion.score_threshold == judged.threshold.score and judged.threshold.f1:
        note += f" From this score on F1 is highest, {judged.threshold.f1:.2f}."
    return page.note(note) + page.chart("Confusion of classes", figure, height=height)


def _hover(names: Sequence[str], counts: np.ndarray, totals: np.ndarray) -> list[list[str]]:
    """Returns a sentence for every cell.

    Args:
      totals: of the rows.
    """

    def told(row: int, column: int) -> str:
        count, last = counts[row, column], len(names) - 1
        if row == last:
            return f"{count} detections of {names[column]} where there is none"
        of_row = f"{count} of {totals[row]} {names[row]}"
        return f"{of_row} missed" if column == last else f"{of_row} found as {names[column]}"

    places = range(len(names))
    return [[told(row, column) for column in places] for row in places]
