"""The findings of a benchmark as a table in HTML: a few figures, the rest folded away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from mnasdet.reporting import page

_COLUMNS = ("file", "median ms", "fastest ms", "10 to 90 % ms", "size", "judged")


def content(benchmark: Mapping[str, Any] | None) -> Markup:
    """Returns the table of a benchmark.json; nothing without one.

    A group in it that has a median of its own is the benchmark of another file.
    """
    if not benchmark:
        return Markup()
    header = Markup().join(
        Markup('<th scope="col"{}>{}</th>').format(_kind(name), name) for name in _COLUMNS
    )
    rows = Markup().join(_row(name, timing) for name, timing in _timings(benchmark))
    return Markup(
        '{}<div class="wide"><table class="stack"><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>"
        "<details><summary>all that was measured</summary>{}</details>"
    ).format(page.note(_conditions(benchmark)), header, rows, page.details(benchmark))


def _timings(benchmark: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    graph = benchmark.get("provenance", {}).get("graph")
    yield PurePath(graph).name if graph else "detect.tflite", benchmark
    for name, group in benchmark.items():
        if isinstance(group, Mapping) and "median_ms" in group:
            yield name, group


def _row(name: str, timing: Mapping[str, Any]) -> Markup:
    spread = [_ms(timing.get(key)) for key in ("p10_ms", "p90_ms")]
    size = timing.get("model_bytes")
    judged = {True: "noisy: its runs do not agree", False: "steady", None: "–"}[timing.get("noisy")]
    cells = [
        _ms(timing.get("median_ms")),
        _ms(timing.get("min_ms")),
        " to ".join(spread),
        f"{size / 1e6:.2f} MB" if size else "–",
    ]
    shown = Markup().join(
        Markup('<td data-name="{}">{}</td>').format(column, cell)
        for column, cell in zip(_COLUMNS[1:-1], cells, strict=True)
    )
    return Markup('<tr><td class="text">{}</td>{}<td class="text">{}</td></tr>').format(
        name, shown, judged
    )


def _ms(value: float | None) -> str:
    return "–" if value is None else page.latency(value)


def _conditions(benchmark: Mapping[str, Any]) -> str:
    """Returns the device, the runs and the date in a sentence."""
    provenance = benchmark.get("provenance", {})
    device = " ".join(
        str(provenance[key])
        for key in ("manufacturer", "model", "soc", "cpu")
        if provenance.get(key)
    )
    where = {"host": "On the machine that the search ran on", "adb": "On a phone"}.get(
        str(provenance.get("device")), "Measured"
    )
    parts = [f"{where} ({device})" if device else where]
    if threads := provenance.get("num_threads"):
        parts.append(f"{threads} thread{'s' * (threads != 1)}")
    if runs := benchmark.get("num_runs"):
        parts.append(f"{runs} runs")
    parts += [str(provenance[key]) for key in ("runtime", "date") if provenance.get(key)]
    return ", ".join(parts) + "."


def _kind(name: str) -> Markup:
    return Markup(' class="text"') if name in ("file", "judged") else Markup()
