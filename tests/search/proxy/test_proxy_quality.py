"""Statistics of a proxy task, against figures by hand and scipy's own."""

import json
import math
import warnings

import numpy as np
import pytest
from scipy import stats

from mnasdet.search.proxy import proxy_quality
from mnasdet.search.proxy.proxy_quality import kendall, noise, spearman, summary, verdict

NAN = math.nan
FIVE = np.array([0.1, 0.2, 0.3, 0.4, 0.5])


def test_rank_correlations_by_hand():
    swapped = FIVE[[1, 0, 3, 2, 4]]
    # Squared differences of ranks 1, 1, 1, 1, 0: 1 - 6 * 4 / (5 * 24).
    assert spearman(FIVE, swapped).value == pytest.approx(0.8)
    # Two of ten pairs are the other way round: (8 - 2) / 10.
    assert kendall(FIVE, swapped).value == pytest.approx(0.6)


def test_ties_share_a_rank():
    tied = np.array([0.1, 0.1, 0.3, 0.4])
    other = np.array([0.1, 0.2, 0.4, 0.3])
    # Ranks 1.5, 1.5, 3, 4 and 1, 2, 4, 3: covariance 3.5, squares 4.5 and 5.
    assert spearman(tied, other).value == pytest.approx(3.5 / math.sqrt(4.5 * 5))
    # One of six pairs is tied, four agree, one does not: tau-b is 3 / sqrt(5 * 6).
    assert kendall(tied, other).value == pytest.approx(3 / math.sqrt(30))


@pytest.mark.parametrize(
    ("correlation", "statistic"), [(spearman, stats.spearmanr), (kendall, stats.kendalltau)]
)
def test_the_interval_is_scipys_percentile_bootstrap(correlation, statistic):
    rng = np.random.default_rng(3)
    x = rng.normal(size=12)
    y = x + rng.normal(size=12)
    expected = stats.bootstrap(
        (x, y),
        lambda a, b: statistic(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = correlation(x, y)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.low < found.value < found.high
    assert found.note == ""


def test_resamples_of_equal_values_do_not_spoil_an_interval():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = spearman(FIVE[:4], FIVE[[1, 0, 2, 3]])
    assert -1 <= found.low < found.value < found.high <= 1


@pytest.mark.parametrize("correlation", [spearman, kendall])
@pytest.mark.parametrize(
    ("x", "y", "value", "note"),
    [
        (FIVE[:3], FIVE[:3], None, "3 architectures have both accuracies; at least 4 are needed"),
        (
            np.array([0.1, 0.2, NAN, 0.4, 0.5]),
            np.array([0.1, 0.2, 0.3, NAN, 0.5]),
            None,
            "3 architectures have both",
        ),
        (np.full(5, 0.25), FIVE, None, "every proxy accuracy is 0.25: there is no order"),
        (FIVE, np.zeros(5), None, "every long accuracy is 0: there is no order"),
        (FIVE, FIVE * 2, 1, "the order is the same for all 5: no interval can be estimated"),
        (FIVE, -FIVE, -1, "no interval"),
    ],
)
def test_what_has_no_correlation_or_interval_says_why(correlation, x, y, value, note):
    found = correlation(x, y)
    assert found.value == (None if value is None else pytest.approx(value))
    assert (found.low, found.high) == (None, None)
    assert note in found.note


def test_noise_by_hand():
    found = noise(np.array([[1.0, 3.0], [5.0, 7.0]]))
    # Within: (1 + 1 + 1 + 1) / 2; between: 2 * (2^2 + 2^2) / 1.
    assert found.std == pytest.approx(math.sqrt(2))
    assert found.degrees_of_freedom == 2
    assert found.intraclass_correlation == pytest.approx((16 - 2) / (16 + 2))
    # Student's t at 97.5 % with 2 degrees of freedom is 4.302653.
    assert found.resolvable_difference == pytest.approx(4.302653 * 2)
    assert found.note == ""


def test_noise_where_trainings_failed():
    found = noise(np.array([[1.0, 3.0], [NAN, 5.0], [NAN, NAN]]))
    # Within: 2 / 1; between: 2 * 1^2 + 1 * 2^2; the mean count is 3 - 5 / 3.
    assert found.std == pytest.approx(math.sqrt(2))
    assert found.degrees_of_freedom == 1
    assert found.intraclass_correlation == pytest.approx((6 - 2) / (6 + (4 / 3 - 1) * 2))


def test_noise_against_scipys_analysis_of_variance():
    accuracies = np.random.default_rng(1).normal(size=(6, 3)) + np.arange(6)[:, None]
    ratio = stats.f_oneway(*accuracies).statistic
    found = noise(accuracies)
    assert found.intraclass_correlation == pytest.approx((ratio - 1) / (ratio + 2))
    assert found.std == pytest.approx(math.sqrt(accuracies.var(axis=1, ddof=1).mean()))


def test_the_share_of_the_signal_is_recovered():
    rng = np.random.default_rng(2)
    # Variances 9 and 1.
    accuracies = rng.normal(0, 3, (4000, 1)) + rng.normal(0, 1, (4000, 3))
    found = noise(accuracies)
    assert found.intraclass_correlation == pytest.approx(0.9, abs=0.01)
    assert found.resolvable_difference == pytest.approx(1.96 * math.sqrt(2), abs=0.05)


def test_architectures_that_differ_less_than_seeds_have_no_signal():
    assert noise(np.array([[1.0, 3.0], [3.0, 1.0]])).intraclass_correlation == 0


@pytest.mark.parametrize(
    ("accuracies", "std", "note"),
    [
        ([[0.1], [0.2]], None, "no architecture was trained with two seeds"),
        ([[NAN, 0.1], [NAN, NAN]], None, "no architecture was trained with two seeds"),
        ([[0.1, 0.3], [NAN, NAN]], math.sqrt(0.02), "one architecture alone"),
        ([[0.2, 0.2], [0.2, 0.2]], 0, "all accuracies are equal"),
    ],
)
def test_noise_that_is_not_known_says_why(accuracies, std, note):
    found = noise(np.array(accuracies))
    assert found.std == (None if std is None else pytest.approx(std))
    assert found.intraclass_correlation is None
    assert note in found.note


def test_the_verdict():
    measured = noise(np.array([[1.0, 3.0], [5.0, 7.0]]))
    assert verdict(measured, np.array([2.0, 6.0, 12.0, NAN]), "mAP") == (
        "two architectures have to differ by 8.605 mAP for one proxy training each to tell them "
        "apart (95 %), as 1 of the 3 pairs here do"
    )
    assert verdict(measured, np.array([2.0]), "top-1").endswith("(95 %)")
    unknown = verdict(noise(np.array([[0.1], [0.2]])), np.array([0.1, 0.2]), "mAP")
    assert unknown.endswith("the noise is unknown; --num_seeds=2 or more measures it")


def test_a_summary_is_json():
    proxy = np.array([[0.1, 0.2], [0.3, NAN], [NAN, NAN], [0.5, 0.4], [0.35, 0.5]])
    long = np.array([0.2, 0.5, 0.6, 0.7, NAN])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = json.loads(json.dumps(summary(proxy, long, "mAP"), allow_nan=False))
    assert found["spearman"]["note"].startswith("3 architectures have both")
    assert found["noise"]["degrees_of_freedom"] == 3
    assert found["confidence"] == 0.9
    assert proxy_quality.means(proxy)[[0, 1, 3]] == pytest.approx([0.15, 0.3, 0.45])
