import re

import pytest

from mnasdet.reporting import reasons
from mnasdet.search.trials.trial_store import Trial, TrialState


def trial(number, error, state=TrialState.FAILED):
    return Trial(number, (), "", "", 0, state=state, error=error)


def items(html):
    return [re.sub("<.*?>", "|", item) for item in re.findall("<li>(.*?)</li>", html)]


def test_reasons_that_differ_in_numbers_only_are_one():
    trials = [
        trial(0, "out of memory"),
        trial(1, "the loss is NaN at step 12"),
        trial(2, "the loss is NaN at step 7"),
        trial(3, None),
        trial(4, "not mine", TrialState.REJECTED),
    ]
    assert items(reasons.html(trials, TrialState.FAILED)) == [
        "|the loss is NaN at step 7 to 12|||2 trials: 1, 2|",
        "|out of memory|||trial 0|",
        "|unknown|||trial 3|",
    ]


@pytest.mark.parametrize(
    ("lines", "summary"),
    [
        (["1 of 2"], "1 of 2"),
        (
            ["1,200,000 params are over 1,000,000", "990 params are over 1,000,000"],
            "990 to 1,200,000 params are over 1,000,000",
        ),
        (["1e-3 s", "0.5 s", "2.25 s"], "1e-3 to 2.25 s"),
        (["at 10.0.0.1:80", "at 10.0.0.2:80"], "at 10.0.0.1 to 0.2:80"),
    ],
)
def test_summary(lines, summary):
    assert reasons.summary(lines) == summary


def test_trials_of_a_frequent_reason_are_cut_short():
    trials = [trial(number, "x") for number in range(100)]
    (item,) = items(reasons.html(trials, TrialState.FAILED))
    assert item.startswith("|x|||100 trials: 0, 1, ")
    assert item.endswith("39, …|")


def test_none():
    assert reasons.html([trial(0, "x")], TrialState.REJECTED) == ""


def test_what_comes_from_outside_is_escaped():
    assert "<i>" not in reasons.html([trial(0, "<i>")], TrialState.FAILED)
