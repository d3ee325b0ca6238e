"""The charts of a search, as plotly figures.

Their colours are readable on light and on dark ground; the page brings the rest of the theme.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from mnasdet.reporting import page, proposals
from mnasdet.search import results
from mnasdet.search.axes import DEFAULT, Axes
from mnasdet.search.chain import SINGLE, Chain
from mnasdet.search.frontier import pareto
from mnasdet.search.trials.trial_store import Trial, TrialState
from mnasdet.search_spaces.space import SearchSpace

_TRIAL, _LATE, _LINE, _BEST = "#8b95a5", "#2bb3a3", "#3b82f6", "#e08a1e"

# Name and symbol of each stage of a search that has two.
_STAGES = (("first stage", "circle"), ("second stage", "diamond"))
_CHAINED_NOTE = " Lines go from where a group of the second stage starts to the group's own front."

# Beyond this, SVG points make a browser sluggish and WebGL draws them, smaller ones. What lies on
# top of them has to be WebGL's as well.
_MOST_SVG_POINTS = 1000

_HOVER_CHARACTERS = 44

# Trials before the first and after the last one, for steps that lie there.
_ROOM = 0.5

# Trials whose number is shown in whole ticks.
_MOST_SMALL = 12


class Chart(NamedTuple):
    """`note` says in words what there is to see."""

    title: str
    note: str
    figure: go.Figure


def charts(
    trials: Sequence[Trial],
    best: Trial | None,
    strings: Mapping[int, str],
    space: SearchSpace | None = None,
    axes: Axes = DEFAULT,
    chain: Chain = SINGLE,
) -> list[Chart]:
    """Returns all charts, accuracy and latency first.

    Those that grow with the trials need two complete ones.

    Args:
      trials: by number.
      strings: architecture strings by trial number, at least of the best and the frontier.
      space: of the first stage's trials; without it there is no entropy.
      axes: of the search.
      chain: its stages.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not complete:
        return []
    drawn = [
        Chart(
            "Accuracy and latency",
            "Greener trials are later ones. Drag to zoom, double-click to go back; a click on a "
            f"trial shows its row.{_CHAINED_NOTE * chain.is_chained}",
            _frontier(trials, complete, best, strings, axes, chain),
        )
    ]
    if len(complete) == 1:
        return drawn
    # Rewards of two stages do not compare.
    rewarded = chain.final(complete)
    of_stage = " of the second stage" if chain.stage(rewarded[0]) > 1 else ""
    drawn.append(
        Chart("Reward", f"Of every trial{of_stage}, and the best so far.", _rewards(rewarded))
    )
    # Each group of a second stage has decisions of its own.
    sampled = chain.of_stage(trials, 1)
    if space and len(sampled) >= proposals.LEAST_TRIALS:
        window = proposals.window_of(len(sampled))
        note = (
            f"Of the choices in the last {window} trials, averaged over the decisions: 1 where "
            "every choice is as frequent, 0 where all agree. Dotted: uniform sampling."
        )
        drawn.append(Chart("Entropy of the proposals", note, _entropy(sampled, space, window)))
    note = "The area under the frontier so far, out to the slowest trial."
    drawn.append(Chart("Hypervolume", note, _hypervolume(complete, axes)))
    note = "Networks among the trials. Dotted: all of them different."
    drawn.append(Chart("Different architectures", note, _unique(trials)))
    return drawn


def _frontier(
    trials: Sequence[Trial],
    complete: Sequence[Trial],
    best: Trial | None,
    strings: Mapping[int, str],
    axes: Axes,
    chain: Chain,
) -> go.Figure:
    members = results.frontier(trials)

    def marks(shown: Sequence[Trial]) -> dict:
        return {
            "x": [trial.cost for trial in shown],
            "y": [trial.accuracy for trial in shown],
            "customdata": [
                [trial.number, trial.reward, _wrapped(strings.get(trial.number, ""))]
                for trial in shown
            ],
            "hovertemplate": Markup(
                "<b>trial %{{customdata[0]}}</b><br>{} %{{y:.4f}}, %{{x:.4~g}} {}, "
                "reward %{{customdata[1]:.4f}}<br>%{{customdata[2]}}<extra></extra>"
            ).format(axes.accuracy, axes.unit),
        }

    many = len(complete) > _MOST_SVG_POINTS
    scatter = _scatter(complete)
    figure = page.figure(
        f"{axes.cost} (ms)" if axes.unit == "ms" else axes.cost, axes.accuracy, legend=True
    )
    # One scale for all stages.
    scale = {"cmin": complete[0].number, "cmax": complete[-1].number}
    if chain.is_chained:
        figure.add_trace(_descents(complete, chain, scatter))
    for stage, (name, symbol) in enumerate(_STAGES if chain.is_chained else _STAGES[:1], start=1):
        shown = chain.of_stage(complete, stage)
        figure.add_trace(
            scatter(
                mode="markers",
                name=name if chain.is_chained else "trials",
                marker={
                    **({"size": 4, "opacity": 0.5} if many else {"size": 8, "opacity": 0.75}),
                    "symbol": symbol,
                    "color": [trial.number for trial in shown],
                    **(scale if chain.is_chained else {}),
                    "colorscale": [[0, _TRIAL], [1, _LATE]],
                },
                **marks(shown),
            )
        )
    figure.add_trace(
        scatter(
            mode="lines+markers",
            name="frontier",
            line={"shape": "hv", "color": _LINE, "width": 2},
            marker={"size": 9, "color": _LINE},
            **marks(members),
        )
    )
    # The frontier goes on as far as there are trials: nothing slower is more accurate.
    largest = max(trial.cost or 0.0 for trial in complete)
    last = members[-1]
    _extend(figure, last.cost or 0.0, largest, last.accuracy or 0.0, _LINE, scatter)
    if best:
        figure.add_trace(
            scatter(
                mode="markers",
                name="best reward",
                marker={"size": 17, "symbol": "star", "color": _BEST},
                **marks([best]),
            )
        )
    return figure


def _descents(
    complete: Sequence[Trial], chain: Chain, scatter: type[go.Scatter] | type[go.Scattergl]
) -> go.Scatter | go.Scattergl:
    """Draws a line from each trial that a group starts from to the members of the group's front."""
    by_number = {trial.number: trial for trial in complete}
    groups: dict[int, list[Trial]] = {}
    for trial in chain.of_stage(complete, 2):
        parent = chain.parent(trial)
        if parent in by_number:
            groups.setdefault(parent, []).append(trial)
    lines = [
        (by_number[parent], child)
        for parent, children in groups.items()
        for child in results.frontier(children)
    ]
    return scatter(
        # None ends a line.
        x=[cost for pair in lines for cost in (pair[0].cost, pair[1].cost, None)],
        y=[accuracy for pair in lines for accuracy in (pair[0].accuracy, pair[1].accuracy, None)],
        mode="lines",
        name="from the first stage to the second",
        line={"color": _TRIAL, "width": 1},
        hoverinfo="skip",
    )


def _rewards(complete: Sequence[Trial]) -> go.Figure:
    numbers = [trial.number for trial in complete]
    rewards = [trial.reward or 0.0 for trial in complete]
    many = len(complete) > _MOST_SVG_POINTS
    scatter = _scatter(complete)
    figure = page.figure("trial", "reward")
    hover = Markup("trial %{x}: %{y:.4f}<extra></extra>")
    figure.add_trace(
        scatter(
            x=numbers,
            y=rewards,
            mode="markers",
            marker={
                "color": _TRIAL,
                **({"size": 3, "opacity": 0.4} if many else {"size": 6, "opacity": 0.75}),
            },
            hovertemplate=hover,
        )
    )
    figure.add_trace(
        scatter(
            x=numbers,
            y=list(accumulate(rewards, max)),
            mode="lines",
            line={"shape": "hv", "color": _BEST, "width": 2},
            hovertemplate="best up to " + hover,
        )
    )
    _extend(figure, numbers[-1], numbers[-1] + _ROOM, max(rewards), _BEST, scatter)
    return page.count_trials(figure, numbers[0], numbers[-1], _ROOM)


def _entropy(trials: Sequence[Trial], space: SearchSpace, window: int) -> go.Figure:
    proposed = [trial.tokens for trial in trials]
    uniform = proposals.uniform_entropy(space, window)
    figure = page.figure("trial", "entropy")
    figure.add_trace(
        go.Scatter(
            x=[trials[0].number, trials[-1].number],
            y=[uniform, uniform],
            mode="lines",
            line={"color": _TRIAL, "width": 1.5, "dash": "dot"},
            hovertemplate=Markup("uniform sampling: %{y:.3f}<extra></extra>"),
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[trial.number for trial in trials[window - 1 :]],
            y=np.round(proposals.entropies(proposed, space.decisions, window), 4).tolist(),
            mode="lines",
            line={"color": _LINE, "width": 2},
            hovertemplate=Markup("up to trial %{x}: %{y:.3f}<extra></extra>"),
        )
    )
    page.count_trials(figure, trials[0].number, trials[-1].number)
    # Fixed: the entropies of two searches compare at a glance. The rest is for the line's width.
    return figure.update_yaxes(range=[0, 1.02])


def _unique(trials: Sequence[Trial]) -> go.Figure:
    seen: set[str] = set()
    unique = []
    for trial in trials:
        seen.add(trial.key)
        unique.append(len(seen))
    figure = page.figure("sampled", "different")
    sampled = list(range(1, len(trials) + 1))
    figure.add_trace(
        go.Scatter(
            x=sampled,
            y=sampled,
            mode="lines",
            line={"color": _TRIAL, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=sampled,
            y=unique,
            mode="lines",
            line={"color": _LINE, "width": 2},
            hovertemplate=Markup("%{y} different of %{x} sampled<extra></extra>"),
        )
    )
    if len(trials) <= _MOST_SMALL:
        # Plotly would put ticks between whole networks.
        figure.update_yaxes(dtick=1 if unique[-1] <= 6 else 2)
    return page.count_trials(figure, 1, len(trials))


def _hypervolume(complete: Sequence[Trial], axes: Axes) -> go.Figure:
    """Draws the area under the frontier so far, down to accuracy 0 and out to the largest cost."""
    reference = (0.0, max(trial.cost or 0.0 for trial in complete))
    members: list[tuple[float, float]] = []
    volumes = []
    for trial in complete:
        members.append((trial.accuracy or 0.0, trial.cost or 0.0))
        # Dominated points never come back: dropped at once, each step is short.
        members = [members[index] for index in pareto.frontier(members)]
        volumes.append(pareto.hypervolume(members, reference))
    figure = page.figure("trial", f"{axes.accuracy} × {axes.unit}")
    figure.add_trace(
        go.Scatter(
            x=[trial.number for trial in complete],
            y=volumes,
            mode="lines",
            line={"shape": "hv", "color": _LINE, "width": 2},
            hovertemplate=Markup("up to trial %{x}: %{y:.4~g}<extra></extra>"),
        )
    )
    first, last = complete[0].number, complete[-1].number
    _extend(figure, last, last + _ROOM, volumes[-1], _LINE)
    return page.count_trials(figure, first, last, _ROOM)


def _extend(
    figure: go.Figure,
    start: float,
    end: float,
    y: float,
    color: str,
    scatter: type[go.Scatter] | type[go.Scattergl] = go.Scatter,
) -> None:
    """Draws the level after the last step of a line of steps, which would end at the step."""
    if end > start:
        figure.add_trace(
            scatter(
                x=[start, end],
                y=[y, y],
                mode="lines",
                line={"color": color, "width": 2},
                hoverinfo="skip",
                showlegend=False,
            )
        )


def _scatter(points: Sequence[Trial]) -> type[go.Scatter] | type[go.Scattergl]:
    return go.Scattergl if len(points) > _MOST_SVG_POINTS else go.Scatter


def _wrapped(string: str) -> str:
    # Plain text: plotly copies everything several times, and Markup slowly.
    return "\n".join(textwrap.wrap(string, _HOVER_CHARACTERS))
