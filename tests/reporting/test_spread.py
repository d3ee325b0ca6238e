import pytest

from mnasdet.reporting import spread
from mnasdet.search.trials.trial_store import Trial, TrialState


def trials(*accuracies):
    return [
        Trial(n, (), "", str(n), 0, state=TrialState.COMPLETE, accuracy=value, reward=value)
        for n, value in enumerate(accuracies)
    ]


# Their standard deviation is 0.02.
CHILDREN = trials(0.28, 0.3, 0.32)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (0.02, "differ by hardly more than the noise of one"),
        (0.0134, "differ by hardly more than the noise of one"),  # 1.49 times.
        (0.005, "differ by 4.0 times as much"),
        (0.0, "times as much"),
    ],
)
def test_by_the_noise_of_seeds(seeds, said):
    told = spread.verdict(CHILDREN, noise={"std": seeds}, standard_error=1.0)
    assert told.startswith("The mAP of 3 different children has a standard deviation of 0.0200")
    assert f"over seeds {seeds:.4f} (measure_proxy)" in told
    assert said in told


def test_by_the_choice_of_pictures():
    told = spread.verdict(CHILDREN, noise={"std": None}, standard_error=0.019, num_images=1100)
    assert "a standard error of 0.0190 by the choice of these 1,100 pictures" in told
    assert "hardly more than the noise" in told
    assert told.endswith(
        "What the seed of a training does is unknown: mnasdet-measure-proxy tells."
    )


def test_noise_unknown():
    assert spread.verdict(CHILDREN).endswith("Noise unknown: mnasdet-measure-proxy tells.")


def test_duplicates_and_failures_are_no_children():
    two = trials(0.2, 0.4)
    failed = Trial(2, (), "", "2", 0, state=TrialState.FAILED)
    twin = Trial(3, (), "", "0", 0, state=TrialState.COMPLETE, accuracy=0.2, duplicate_of=0)
    assert spread.verdict([*two, failed, twin]) == ""
