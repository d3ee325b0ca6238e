"""The choices of a supernet in training: the probabilities of its operations over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from plotly import colors

from mnasdet import config
from mnasdet.reporting import page
from mnasdet.search.differentiable import records
from mnasdet.search.differentiable.records import Probabilities
from mnasdet.training.run_files import ARCHITECTURE_FILE

_COLORS = colors.qualitative.D3

_SETTLED, _OPEN = "#2563eb", "rgba(139,149,165,0.12)"

# Pixels of a row of a heat map, and of its axis.
_ROW, _AXIS = 18, 80


@dataclass
class _Course:
    """The mean probabilities of a part's operations over its layers, by operation.

    Attributes:
      points: (step, probability), counted on over the rounds of a screening.
    """

    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def section(folder: Path) -> Markup:
    """Returns the charts of a supernet's folder; nothing where there is no supernet."""
    if not (folder / records.PROBABILITIES_FILE).exists():
        return Markup()
    screened = _small(_screening(folder / records.SCREENING))
    trained = _small(_courses([folder]))
    last = _last(records.probabilities(folder))
    return Markup().join(
        [
            page.section(
                "Screening",
                page.note(
                    "The probability of each operation, averaged over the layers, step by step and "
                    "round after round. The line of an operation ends where it was dropped."
                )
                + screened
                if screened
                else Markup(),
            ),
            page.section(
                "Supernet",
                page.note("The same while the supernet was trained, and in each layer at the end.")
                + trained
                + last,
            ),
        ]
    )


def _screening(folder: Path) -> dict[str, _Course]:
    courses: dict[str, _Course] = {}
    of_part: dict[str, list[Path]] = {}
    for name, found in records.rounds(folder).items():
        of_part.setdefault(found["part"], []).append(folder / name)
    for part, folders in of_part.items():
        courses |= {name: course for name, course in _courses(folders).items() if name == part}
    return courses


def _courses(folders: Sequence[Path]) -> dict[str, _Course]:
    """Returns the courses of trainings that follow one another, by part."""
    courses: dict[str, _Course] = {}
    start = 0
    for folder in folders:
        architecture = config.load_trained_architecture(folder / ARCHITECTURE_FILE)
        entries = records.history(folder / records.HISTORY_FILE)
        for entry in entries:
            layers: dict[str, dict[str, list[float]]] = {}
            for place, row in records.by_place(architecture, entry["probabilities"]).items():
                if len(row) > 1:
                    part = layers.setdefault(place.partition("/")[0], {})
                    for op, probability in row.items():
                        part.setdefault(op, []).append(probability)
            for name, ops in layers.items():
                points = courses.setdefault(name, _Course()).points
                for op, found in ops.items():
                    mean = float(np.mean(found))
                    points.setdefault(op, []).append((start + entry["step"], mean))
        start += entries[-1]["step"] if entries else 0
    return courses


def _small(courses: dict[str, _Course]) -> Markup:
    """Returns one chart for each part, side by side."""
    drawn = []
    for part, course in courses.items():
        figure = page.figure("step", "probability", legend=True)
        for number, (op, points) in enumerate(course.points.items()):
            figure.add_trace(
                go.Scatter(
                    x=[step for step, _ in points],
                    y=[round(probability, 4) for _, probability in points],
                    name=op,
                    mode="lines",
                    line={"width": 2, "color": _COLORS[number % len(_COLORS)]},
                    hovertemplate=Markup("{} %{{y:.3f}}, step %{{x}}<extra></extra>").format(op),
                )
            )
        title = part.replace("_", " ")
        drawn.append(page.section(title, page.chart(title, figure)))
    row = Markup().join(drawn)
    return Markup('<div class="row">{}</div>').format(row) if row else Markup()


def _last(probabilities: Probabilities) -> Markup:
    """Returns the probabilities at the end: a row for each layer, a column for each operation."""
    layers = {place: row for place, row in probabilities.items() if len(row) > 1}
    if not layers:
        return Markup()
    ops = list(dict.fromkeys(op for row in layers.values() for op in row))
    figure = page.figure("", "")
    figure.add_trace(
        go.Heatmap(
            x=ops,
            y=list(layers),
            z=[
                [None if op not in row else round(row[op], 4) for op in ops]
                for row in layers.values()
            ],
            zmin=0,
            zmax=1,
            colorscale=[[0, _OPEN], [1, _SETTLED]],
            showscale=False,
            hovertemplate=Markup("%{y}: %{x} %{z:.3f}<extra></extra>"),
        )
    )
    figure.update_yaxes(autorange="reversed")
    return page.chart("probabilities at the end", figure, height=_ROW * len(layers) + _AXIS)
