import json
import re

import pytest

from mnasdet.reporting import marginals
from mnasdet.search_spaces.space import Decision

DECISIONS = [
    Decision("channels", (16,)),
    Decision("block_4/merge", ("add", "squeeze_excite")),
    Decision("block_5/merge", ("add", "squeeze_excite")),
    Decision("block_4/kernel_size", (3, 5, 7)),
]

# Two trials a window. The first merge settles on "add", the second is always "squeeze_excite".
TOKENS = [(0, 0, 1, 0), (0, 1, 1, 1), (0, 0, 1, 2), (0, 0, 1, 2)]


def figures(html):
    """(name, plotly figure) of every chart."""
    found = re.findall(
        r'aria-label="([^"]*)"></div><script type="application/json">(.*?)</script>', html
    )
    return [(name, json.loads(data)) for name, data in found]


def test_overviews_by_kind_and_of_all_decisions():
    (_, kinds), (_, everything), *_ = figures(marginals.section(TOKENS, DECISIONS))
    assert kinds["data"][0]["y"] == ["merge", "kernel_size"]
    assert kinds["data"][0]["x"] == [1, 2, 3]
    # 1: settled. Of a window, one of three kernel sizes half of the time, then always the same.
    merge, kernel_size = kinds["data"][0]["z"]
    assert merge == [0.5, 0.5, 1.0]
    assert kernel_size == [pytest.approx(0.369)] * 2 + [1.0]
    assert everything["data"][0]["y"] == ["block_4/merge", "block_5/merge", "block_4/kernel_size"]
    assert everything["data"][0]["text"][0] == ["add in 50%", "add in 50%", "add in 100%"]


def test_shares_of_every_choice():
    charts = dict(figures(marginals.section(TOKENS, DECISIONS)))
    shares = {trace["name"]: trace["y"] for trace in charts["block_4/kernel_size"]["data"]}
    assert shares == {"3": [50, 0, 0], "5": [50, 50, 0], "7": [0, 50, 100]}
    assert {trace["stackgroup"] for trace in charts["block_4/merge"]["data"]} == {"shares"}
    assert "channels" not in charts


def test_one_panel_a_kind_behind_the_overviews():
    html = marginals.section(TOKENS, DECISIONS)
    options = re.findall("<option>(.*?)</option>", html)
    assert options == ["by kind", "all", "merge", "kernel_size"]
    assert re.findall(r'<div class="panel"( hidden)?>', html) == ["", *[" hidden"] * 3]
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == [
        "block_4/merge",
        "block_5/merge",
        "block_4/kernel_size",
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("block_12/merge", "merge"),
        ("cell_5/input_0", "input_0"),
        ("backbone/block_1/op", "backbone/op"),
        ("channels", "channels"),
    ],
)
def test_kinds(name, kind):
    assert marginals.kind_of(name) == kind


def test_a_choice_has_one_colour_in_all_charts_of_a_kind():
    decisions = [Decision("block_4/level", (3, 4, 5)), Decision("block_5/level", (4, 5, 3))]
    html = marginals.section([(0, 0), (1, 1), (2, 2), (0, 0)], decisions)
    colors = [
        {trace["name"]: trace["fillcolor"] for trace in chart["data"]}
        for _, chart in figures(html)[2:]
    ]
    assert colors[0] == colors[1]
    assert len(set(colors[0].values())) == 3


def test_long_courses_are_told_by_few_windows():
    tokens = [(0, i % 2, 0, i % 3) for i in range(10_000)]
    (_, kinds), *_ = figures(marginals.section(tokens, DECISIONS))
    assert len(kinds["data"][0]["x"]) == 60
    assert kinds["data"][0]["x"][-1] == 9999


@pytest.mark.parametrize(
    ("tokens", "decisions"), [(TOKENS[:3], DECISIONS), (TOKENS, DECISIONS[:1]), ([], [])]
)
def test_nothing_of_few_trials_or_without_choices(tokens, decisions):
    assert marginals.section(tokens, decisions) == ""
