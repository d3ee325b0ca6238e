"""Which choices the proposals make, decision by decision, in the course of a search."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from plotly import colors

from mnasdet.reporting import page, proposals
from mnasdet.search_spaces.space import Choice, Decision, Tokens

# Points in time; each window overlaps half of the next.
_MOST_WINDOWS = 60

# Colours of choices that are words; numbers go from dark to light.
_WORD_COLORS = ("#3b82f6", "#e08a1e", "#159a6b", "#b25fd1", "#d9534f", "#8b95a5")
_SETTLED, _OPEN = "#2563eb", "rgba(139,149,165,0.12)"
_SCALE = f"linear-gradient(90deg, {_OPEN}, {_SETTLED})"

# Pixels of an overview; the names of more rows are left out where there is little room.
_ROW, _AXIS = 15, 60
_MOST_SHORT_ROWS = 16

# Trials that a small chart has room for ticks of.
_MOST_SMALL_TICKS = 6


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


def section(tokens: Sequence[Tokens], decisions: Sequence[Decision]) -> Markup:
    """Returns what all proposals chose, in their order; nothing for less than a few or where
    nothing is decided.

    An overview comes first. The choices of one kind of decision, such as the kernel sizes of all
    blocks, are shown when it is selected.
    """
    kinds = _kinds(decisions)
    if len(tokens) < proposals.LEAST_TRIALS or not kinds:
        return Markup()
    course = _course(tokens, decisions)
    each = {decisions[index].name: [index] for members in kinds.values() for index in members}
    panels = {
        "by kind": _overview(course, decisions, kinds),
        "all": _overview(course, decisions, each),
    }
    panels |= {kind: _details(course, decisions, members) for kind, members in kinds.items()}
    options = Markup().join(Markup("<option>{}</option>").format(name) for name in panels)
    shown = Markup().join(
        Markup('<div class="panel"{}>{}</div>').format(" hidden" * (place > 0), panel)
        for place, panel in enumerate(panels.values())
    )
    note = (
        f"Over the {course.window} trials up to each. A decision is settled when all of them agree "
        "on it and open when they make every choice equally often. A click shows the choices."
    )
    picker = Markup('<label class="picker">Decisions <select>{}</select></label>').format(options)
    return page.section("Decisions over time", page.note(note) + picker + shown)


def kind_of(name: str) -> str:
    """Returns the kind of a decision, which all blocks or cells share.

    "block_4/merge" is a "merge", "backbone/block_1/op" a "backbone/op".
    """
    return re.sub(r"(block|cell)_\d+/", "", name)


def _kinds(decisions: Sequence[Decision]) -> dict[str, list[int]]:
    """Returns the indices of the decisions that have a choice, by their kinds."""
    kinds: dict[str, list[int]] = {}
    for index, decision in enumerate(decisions):
        if len(decision.choices) > 1:
            kinds.setdefault(kind_of(decision.name), []).append(index)
    return kinds


def _course(tokens: Sequence[Tokens], decisions: Sequence[Decision]) -> _Course:
    # Twice as wide as the steps between windows: no proposal falls between two of them.
    window = max(proposals.window_of(len(tokens)), 2 * len(tokens) // _MOST_WINDOWS)
    count = min(_MOST_WINDOWS, len(tokens) - window + 1)
    last = np.linspace(window - 1, len(tokens) - 1, count).round().astype(int).tolist()
    sliding = proposals.SlidingEntropy(decisions, window)
    entropy: list[np.ndarray] = []
    shares: list[np.ndarray] = []
    for number, proposal in enumerate(tokens):
        sliding.add(proposal)
        if number == last[len(shares)]:
            entropy.append(sliding.by_decision())
            shares.append(sliding.shares())
    return _Course(last, window, np.array(entropy), np.array(shares))


def _overview(
    course: _Course, decisions: Sequence[Decision], rows: Mapping[str, Sequence[int]]
) -> Markup:
    """Returns a chart of how settled the decisions of each row are on average."""
    settled = [1 - course.entropy[:, members].mean(axis=1) for members in rows.values()]
    figure = page.figure("up to trial", "")
    figure.add_trace(
        go.Heatmap(
            x=course.last,
            y=list(rows),
            z=np.round(settled, 3).tolist(),
            zmin=0,
            zmax=1,
            text=[_told(course, decisions, members) for members in rows.values()],
            xgap=1,
            ygap=1,
            colorscale=[[0, _OPEN], [1, _SETTLED]],
            showscale=False,
            hovertemplate=Markup("<b>%{y}</b><br>up to trial %{x}: %{text}<extra></extra>"),
        )
    )
    figure.update_yaxes(autorange="reversed", tickfont={"size": 10}, dtick=1, showgrid=False)
    figure.update_xaxes(showgrid=False)
    page.count_trials(figure, course.last[0], course.last[-1])
    legend = Markup('<p class="scale">open<i style="background:{}"></i>settled</p>').format(_SCALE)
    kind = "chart overview" + " long" * (len(rows) > _MOST_SHORT_ROWS)
    height = _ROW * len(rows) + _AXIS
    return legend + page.chart("How settled decisions are", figure, kind, height)


def _told(course: _Course, decisions: Sequence[Decision], members: Sequence[int]) -> list[str]:
    """Tells the most frequent choice of every window, or several decisions' mean entropy."""
    if len(members) > 1:
        means = course.entropy[:, members].mean(axis=1)
        return [f"entropy {mean:.2f} on average of {len(members)}" for mean in means]
    shares = course.shares[:, members[0]]
    choices = decisions[members[0]].choices
    return [
        f"{choices[choice]} in {share:.0%}"
        for choice, share in zip(shares.argmax(axis=1), shares.max(axis=1), strict=True)
    ]


def _details(course: _Course, decisions: Sequence[Decision], members: Sequence[int]) -> Markup:
    """Returns a small chart a decision: the share of each of its choices."""
    palette = _palette([choice for index in members for choice in decisions[index].choices])
    legend = Markup().join(
        Markup('<li><i style="background:{}"></i>{}</li>').format(color, choice)
        for choice, color in palette.items()
    )
    charts = Markup().join(
        Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(
            decisions[index].name, _shares(course, decisions[index], index, palette)
        )
        for index in members
    )
    return Markup('<ul class="legend">{}</ul><div class="small-charts">{}</div>').format(
        legend, charts
    )


def _palette(choices: Sequence[Choice]) -> dict[Choice, str]:
    """Returns a colour for every choice of a kind: numbers ascend, words come after them."""
    numbers = sorted({choice for choice in choices if not isinstance(choice, str)})
    words = dict.fromkeys(choice for choice in choices if isinstance(choice, str))
    # Few numbers keep to the middle of the scale, whose ends are hard to see on light or dark
    # ground.
    spread = min(0.42, 0.2 * (len(numbers) - 1))
    places = np.linspace(0.5 - spread, 0.5 + spread, len(numbers)).tolist()
    scale = colors.sample_colorscale("Viridis", places) if numbers else []
    palette: dict[Choice, str] = dict(zip(numbers, scale, strict=True))
    for place, word in enumerate(words):
        palette[word] = _WORD_COLORS[place % len(_WORD_COLORS)]
    return palette


def _shares(course: _Course, decision: Decision, index: int, palette: dict[Choice, str]) -> Markup:
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
    figure.update_layout(hovermode="x unified")
    figure.update_yaxes(
        range=[0, 100], tickvals=[0, 50, 100], ticktext=["0", "50 %", "100 %"], fixedrange=True
    )
    figure.update_xaxes(nticks=4, showgrid=False)
    if course.last[-1] - course.last[0] <= _MOST_SMALL_TICKS:
        figure.update_xaxes(dtick=1)
    return page.chart(decision.name, figure, "chart mini")
