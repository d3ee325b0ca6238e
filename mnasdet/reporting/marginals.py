"""Which choices the proposals make, decision by decision, in the course of a search."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly import colors

from mnasdet.reporting import page, proposals
from mnasdet.search_spaces.space import Choice, Decision, Tokens

# Points in time; each window overlaps half of the next.
_MOST_WINDOWS = 60

# Of choices that are words; numbers go from dark to light.
_WORD_COLORS = ("#3b82f6", "#e08a1e", "#159a6b", "#b25fd1", "#d9534f", "#8b95a5")
_SETTLED, _OPEN = "#2563eb", "rgba(139,149,165,0.12)"
_SCALE = f"linear-gradient(90deg, {_OPEN}, {_SETTLED})"

# Pixels of the overview.
_ROW, _AXIS = 15, 60


@dataclass(frozen=True)
class _Course:
    """Windows of trials, W, by the decisions, D, and their choices, K.

    Attributes:
      last: [W], the number of the last trial of each.
      window: trials of one.
      entropy: [W, D] in [0, 1].
      shares: [W, D, K].
    """

    last: list[int]
    window: int
    entropy: np.ndarray
    shares: np.ndarray


def section(tokens: Sequence[Tokens], decisions: Sequence[Decision]) -> str:
    """Of all proposals in their order; "" for less than a few or where nothing is decided.

    An overview of all decisions comes first. Those of one kind, such as the kernel sizes of all
    blocks, are shown when they are selected.
    """
    kinds = _kinds(decisions)
    if len(tokens) < proposals.LEAST_TRIALS or not kinds:
        return ""
    course = _course(tokens, decisions)
    options = "".join(f"<option>{escape(kind)}</option>" for kind in kinds)
    panels = [f'<div class="panel">{_overview(course, decisions, kinds)}</div>']
    panels += [
        f'<div class="panel" hidden>{_details(course, decisions, members)}</div>'
        for members in kinds.values()
    ]
    return page.section(
        "Decisions over time",
        f'<p class="soft small">Over the {course.window} trials up to each. A decision is settled '
        "when all of them agree on it and open when they make every choice equally often.</p>"
        '<label class="picker">Decisions <select><option>all, how settled they are</option>'
        f"{options}</select></label>{''.join(panels)}",
    )


def kind_of(name: str) -> str:
    """What decisions of all blocks or cells have in common: "block_4/merge" is a "merge",
    "backbone/block_1/op" a "backbone/op"."""
    return re.sub(r"(block|cell)_\d+/", "", name)


def _kinds(decisions: Sequence[Decision]) -> dict[str, list[int]]:
    """Indices of the decisions that have a choice, by their kinds."""
    kinds: dict[str, list[int]] = {}
    for index, decision in enumerate(decisions):
        if len(decision.choices) > 1:
            kinds.setdefault(kind_of(decision.name), []).append(index)
    return kinds


def _course(tokens: Sequence[Tokens], decisions: Sequence[Decision]) -> _Course:
    window = max(proposals.window_of(len(tokens)), 2 * len(tokens) // _MOST_WINDOWS)
    count = min(_MOST_WINDOWS, len(tokens) - window + 1)
    last = np.linspace(window - 1, len(tokens) - 1, count).round().astype(int).tolist()
    sliding = proposals.SlidingEntropy(decisions, window)
    entropy, shares = [], []
    for number, proposal in enumerate(tokens):
        sliding.add(proposal)
        if number == last[len(shares)]:
            entropy.append(sliding.by_decision())
            shares.append(sliding.shares())
    return _Course(last, window, np.array(entropy), np.array(shares))


def _overview(
    course: _Course, decisions: Sequence[Decision], kinds: dict[str, list[int]]
) -> str:
    """A row a decision, those of a kind together: how settled it is."""
    rows = [index for members in kinds.values() for index in members]
    leading = course.shares[:, rows].argmax(axis=2).T
    share = course.shares[:, rows].max(axis=2).T
    told = [
        [
            f"{decisions[index].choices[choice]} ({part:.0%})"
            for choice, part in zip(leading[row], share[row], strict=True)
        ]
        for row, index in enumerate(rows)
    ]
    figure = page.figure("up to trial", "")
    figure.add_trace(
        go.Heatmap(
            x=course.last,
            y=[decisions[index].name for index in rows],
            z=(1 - course.entropy[:, rows].T).round(3).tolist(),
            zmin=0,
            zmax=1,
            text=told,
            xgap=1,
            ygap=1,
            colorscale=[[0, _OPEN], [1, _SETTLED]],
            showscale=False,
            hovertemplate="<b>%{y}</b><br>up to trial %{x}: mostly %{text}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", tickfont={"size": 10}, dtick=1, showgrid=False)
    figure.update_xaxes(showgrid=False)
    height = _ROW * len(rows) + _AXIS
    legend = f'<p class="scale">open<i style="background:{_SCALE}"></i>settled</p>'
    return legend + page.chart(
        "How settled each decision is", figure, "chart overview", height
    )


def _details(course: _Course, decisions: Sequence[Decision], members: Sequence[int]) -> str:
    """A small chart a decision: the share of each of its choices."""
    palette = _palette([choice for index in members for choice in decisions[index].choices])
    legend = "".join(
        f'<li><i style="background:{color}"></i>{escape(str(choice))}</li>'
        for choice, color in palette.items()
    )
    charts = "".join(
        f"<figure><figcaption>{escape(decisions[index].name)}</figcaption>"
        f"{_shares(course, decisions[index], index, palette)}</figure>"
        for index in members
    )
    return f'<ul class="legend">{legend}</ul><div class="small-charts">{charts}</div>'


def _palette(choices: Sequence[Choice]) -> dict[Choice, str]:
    """A colour for every choice of a kind: numbers ascend, behind them words."""
    numbers = sorted({choice for choice in choices if not isinstance(choice, str)})
    words = dict.fromkeys(choice for choice in choices if isinstance(choice, str))
    places = np.linspace(0.08, 0.95, len(numbers)).tolist()
    scale = colors.sample_colorscale("Viridis", places) if numbers else []
    palette: dict[Choice, str] = dict(zip(numbers, scale, strict=True))
    for place, word in enumerate(words):
        palette[word] = _WORD_COLORS[place % len(_WORD_COLORS)]
    return palette


def _shares(course: _Course, decision: Decision, index: int, palette: dict[Choice, str]) -> str:
    figure = page.figure("", "")
    for token, choice in enumerate(decision.choices):
        figure.add_trace(
            go.Scatter(
                x=course.last,
                y=(100 * course.shares[:, index, token]).round(1).tolist(),
                name=str(choice),
                mode="lines",
                stackgroup="shares",
                line={"width": 0.5, "color": palette[choice]},
                fillcolor=palette[choice],
                hovertemplate="%{y:.0f} %",
            )
        )
    figure.update_layout(hovermode="x unified", margin={"l": 4, "r": 4, "t": 4, "b": 4})
    figure.update_yaxes(range=[0, 100], tickvals=[0, 50, 100], ticksuffix=" %", fixedrange=True)
    figure.update_xaxes(nticks=4, showgrid=False)
    return page.chart(decision.name, figure, "chart mini")
