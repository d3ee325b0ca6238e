"""The HTML report of a search: one file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mnasdet import files
from mnasdet.architecture_string.conversion import to_string
from mnasdet.architectures import from_trial
from mnasdet.evaluation import baseline, metric_text
from mnasdet.protos import architecture_pb2
from mnasdet.reporting import (
    accuracy_table,
    benchmark_table,
    frontier_table,
    graphs,
    latency_check,
    marginals,
    page,
    pictures,
    reasons,
    spread,
    supernet_charts,
    trial_table,
)
from mnasdet.reporting.charts import Chart, charts
from mnasdet.reporting.judgement import Judgement
from mnasdet.reporting.latency_check import Latency
from mnasdet.search import axes, chain, order, results
from mnasdet.search.axes import Axes
from mnasdet.search.trials.trial_store import Trial, TrialState
from mnasdet.search_spaces.space import SearchSpace

# Trials whose architecture strings the charts show, best reward first: a string takes a millisecond
# to make.
_MOST_STRINGS = 2000


def write(
    path: Path,
    trials: Sequence[Trial],
    *,
    search: Mapping[str, Any],
    space: SearchSpace | None = None,
    retrained: Mapping[str, float] | None = None,
    benchmark: Mapping[str, Any] | None = None,
    measured_ms: Mapping[int, float] | None = None,
    measured_note: str = "",
    judged: Judgement | None = None,
    facts: Mapping[str, str] | None = None,
    noise: Mapping[str, Any] | None = None,
    supernet: Path | None = None,
) -> None:
    """Writes the report, however far the search has come. What is not given is left out.

    Args:
      path: of the HTML file.
      trials: by number.
      search: search.json; shown as it is. Its image_size, (height, width), sizes the drawings, and
        it names the stages, the metric and the unit of the cost, to which measurements compare only
        in ms.
      space: of the first stage's trials, for what its decisions were over time.
      retrained: metrics.json of the trial with the best reward; `benchmark` its benchmark.json.
      measured_ms: latencies by trial number, of some trials.
      measured_note: what to know of them.
      judged: what the best model does on the evaluation set.
      facts: names and values of the search's settings, from `facts.of_search`.
      noise: of the proxy task, "noise" of measure_proxy's proxy_quality.json.
      supernet: the folder of the supernet whose networks the trials are.
    """
    chained = chain.from_description(search)
    trials = chained.aligned(trials)
    final = chained.final(trials)
    best = results.best(final) if any(trial.reward is not None for trial in final) else None
    members = results.frontier(trials)
    strings = _strings(trials, members)
    size, weighed = search.get("image_size"), axes.from_description(search)
    facts = facts or {}
    drawings = {t.number: graphs.small(_parsed(t), size, f"trial-{t.number}-cell") for t in members}
    latencies = latency_check.latencies(trials, measured_ms if weighed.unit == "ms" else None)
    frontier = frontier_table.table(members, strings, drawings, latencies, weighed)
    drawn = charts(trials, best, strings, space, weighed, chained)
    told = spread.verdict(
        trials,
        noise=noise,
        standard_error=judged.standard_error if judged else None,
        num_images=judged.num_images if judged else 0,
        metric=weighed.accuracy,
    )
    found = latencies.get(best.number) if best else None
    metrics = {**(retrained or {}), **(judged.metrics if judged else {})}
    body = [
        _header(trials, search, facts),
        _winner(
            best, strings, found, benchmark, retrained, judged, weighed, facts.get("latency", "")
        ),
        _frontier(drawn, frontier, told),
        pictures.section(judged.examples, judged.threshold) if judged else Markup(),
        page.section("Retrained", accuracy_table.content(metrics, _set(judged), weighed.accuracy)),
        page.section("Benchmark", benchmark_table.content(benchmark)),
        _small_charts(drawn),
        supernet_charts.section(supernet) if supernet else Markup(),
        _decisions(chained.of_stage(trials, 1), space),
        page.section("Deeper and wider", _order(search)),
        latency_check.section(list(latencies.values()), measured_note),
        *(graphs.sections(_parsed(best), size) if best else []),
    ]
    if trials:
        rows = trial_table.table(trials, best, strings, weighed, chained)
        body.append(page.section("Trials", rows))
    body.append(page.section("Failures", reasons.html(trials, TrialState.FAILED)))
    body.append(page.section("Rejected", _rejected(trials)))
    body.append(page.section("About this search", _about(trials, search, facts)))
    files.write(path, page.html("mnasdet search", Markup().join(body)))


def _decisions(trials: Sequence[Trial], space: SearchSpace | None) -> Markup:
    """Returns the decisions of the first stage: each group of a second one has others."""
    return marginals.section([t.tokens for t in trials], space.decisions) if space else Markup()


def _order(search: Mapping[str, Any]) -> Markup:
    """Returns how far smaller networks were the worse and the cheaper ones, stage by stage."""
    found = search.get("order", [])
    return Markup().join(
        page.note(f"Stage {stage}: {text}" if len(found) > 1 else text)
        for stage, text in ((entry["stage"], order.from_json(entry).text) for entry in found)
    )


def _strings(trials: Sequence[Trial], members: Sequence[Trial]) -> dict[int, str]:
    """Returns architecture strings by number; of very many trials, the most looked at alone."""
    rewarded = [trial for trial in trials if trial.reward is not None]
    rewarded.sort(key=lambda trial: -(trial.reward or 0.0))
    named = [*rewarded[:_MOST_STRINGS], *members, *trial_table.rows(trials)]
    return {trial.number: _string(trial.architecture) for trial in named}


@lru_cache(maxsize=2**14)
def _string(architecture: str) -> str:
    return to_string(from_trial(architecture))


def _parsed(trial: Trial) -> architecture_pb2.Architecture:
    return from_trial(trial.architecture)


def _header(trials: Sequence[Trial], search: Mapping[str, Any], facts: Mapping[str, str]) -> Markup:
    counts = {name: f"{count:,} {name}" for name, count in results.counts(trials).items() if count}
    space = search.get("search_space", "Architecture")
    lines = [" · ".join(counts.values()) or "no trials", _dates(trials)]
    lines += [f"{name}: {facts[name]}" for name in ("reward", "evaluation set") if name in facts]
    told = Markup().join(Markup('<p class="soft">{}</p>').format(line) for line in lines if line)
    return Markup('<header><p class="eyebrow">mnasdet</p><h1>{} search</h1>{}</header>').format(
        space, told
    )


def _dates(trials: Sequence[Trial]) -> str:
    """Returns the dates from the first start to the last end; "" while no trial is finished."""
    starts = [trial.started for trial in trials if trial.started]
    ends = [trial.finished for trial in trials if trial.finished]
    # A search that has just begun has starts and no end.
    if not starts or not ends:
        return ""
    first, last = min(starts), max(ends)
    end = f"{last:%H:%M}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M}"
    return f"{first:%Y-%m-%d %H:%M} to {end} UTC"


def _about(trials: Sequence[Trial], search: Mapping[str, Any], facts: Mapping[str, str]) -> Markup:
    """Returns what it was asked to do, and search.json folded away."""
    asked = {**facts, **({"trials from": _dates(trials)} if _dates(trials) else {})}
    versions = search.get("versions")
    if isinstance(versions, Mapping):
        asked["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    # The whole config is a file of its own.
    held = page.details({name: value for name, value in search.items() if name != "identity"})
    if held:
        held = Markup("<details><summary>search.json</summary>{}</details>").format(held)
    return page.details(asked) + held


def _set(judged: Judgement | None) -> str:
    if judged is None:
        return ""
    return (
        f"On the evaluation set: {judged.num_images:,} pictures, {judged.num_objects:,} objects "
        "(crowds left out)."
    )


def _winner(
    best: Trial | None,
    strings: Mapping[int, str],
    latency: Latency | None,
    benchmark: Mapping[str, Any] | None,
    retrained: Mapping[str, float] | None,
    judged: Judgement | None,
    weighed: Axes,
    source: str,
) -> Markup:
    if best is None:
        return page.section("No result yet", Markup("<p>No trial is complete.</p>"))
    in_search = best.cost or 0.0
    found = {
        "reward": f"{best.reward:.4f}",
        f"{weighed.accuracy}, proxy task": f"{best.accuracy:.4f}",
        **({"latency, in the search": _ms(in_search)} if weighed.unit == "ms" else {}),
        "multiply-adds": _large(best.metrics.get("multiply_adds")),
        "parameters": _large(best.metrics.get("params")),
    }
    confirmed = {}
    if retrained:
        confirmed[f"{weighed.accuracy}, retrained"] = metric_text.text(
            weighed.objective, retrained[weighed.objective]
        )
    if latency:
        confirmed["latency, on the frontier"] = _ms(latency.measured)
    if benchmark:
        confirmed["latency, trained file"] = _ms(benchmark["median_ms"])
        graph = str(benchmark.get("provenance", {}).get("graph", ""))
        file = "SavedModel" if graph.endswith("saved_model") else "TFLite file"
        confirmed[file] = _large(benchmark.get("model_bytes")) + Markup("<small>B</small>")
    notes = []
    if weighed.unit == "ms":
        measured = latency.measured if latency else None
        notes.append(latency_check.note(in_search, measured, benchmark, source))
    if judged and baseline.verdict(judged.metrics) and baseline.is_level(judged.metrics):
        notes.append(baseline.verdict(judged.metrics))
    told = Markup().join(page.note(text) for text in notes if text)
    return Markup(
        '<section class="winner"><p class="eyebrow">Best reward</p><h2>Trial {}</h2>{}{}{}'
        "<code>{}</code></section>"
    ).format(best.number, page.tiles(found), page.tiles(confirmed), told, strings[best.number])


def _ms(value: float) -> Markup:
    return Markup("{} <small>ms</small>").format(page.latency(value))


def _large(value: float | None) -> Markup:
    """Returns three digits and what they count: "1.25 <small>M</small>"."""
    if value is None:
        return Markup("–")
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return Markup("{:.3g} <small>{}</small>").format(value / factor, unit)
    return Markup("{:.3g} ").format(value)


def _frontier(drawn: Sequence[Chart], members: Markup, told: str) -> Markup:
    """Returns the first chart, what its spread is worth, and the table of the frontier's
    members."""
    if not drawn:
        return Markup()
    chart = drawn[0]
    large = page.chart(chart.title, chart.figure, "chart large")
    spread_note = page.note(told) if told else Markup()
    return page.section(chart.title, page.note(chart.note) + large + spread_note + members)


def _small_charts(drawn: Sequence[Chart]) -> Markup:
    """Returns the others, side by side."""
    sections = Markup().join(
        page.section(chart.title, page.note(chart.note) + page.chart(chart.title, chart.figure))
        for chart in drawn[1:]
    )
    return Markup('<div class="row">{}</div>').format(sections) if sections else Markup()


def _rejected(trials: Sequence[Trial]) -> Markup:
    why = reasons.html(trials, TrialState.REJECTED)
    return page.note("Over a limit of the search, and never trained.") + why if why else why
