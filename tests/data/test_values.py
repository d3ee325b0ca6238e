import math

import pytest

from mnasdet.data import values


@pytest.mark.parametrize("value", [7, 7.0, "7", "7.0", " 7 ", "+7"])
def test_whole_numbers(value):
    assert values.whole(value) == 7
    assert values.identity(value) == 7
    assert values.number(value) == 7


NO_WHOLE = [None, "", "x", 7.5, "7.5", True, math.nan, math.inf, [7], "1_0", "٧", "9" * 5000]


@pytest.mark.parametrize("value", NO_WHOLE)
def test_what_is_no_whole_number(value):
    with pytest.raises(ValueError):
        values.whole(value)


@pytest.mark.parametrize("value", [None, "", "1,5", "inf", math.inf, math.nan, False, 10**400, []])
def test_what_is_no_number(value):
    with pytest.raises(ValueError):
        values.number(value)


def test_numbers():
    assert [values.number(value) for value in ("1.5", ".5", "2e1", -3)] == [1.5, 0.5, 20, -3]


@pytest.mark.parametrize("value", ["0", "false", "False", 0, 0.0, False, None, "", math.nan])
def test_flags_that_are_not_set(value):
    assert values.flag(value) is False


@pytest.mark.parametrize("value", ["1", "true", "TRUE", 1, 1.0, True])
def test_flags_that_are_set(value):
    assert values.flag(value) is True


@pytest.mark.parametrize("value", ["yes", 2, -1, "2", 0.5, [0], {}])
def test_what_is_no_flag(value):
    with pytest.raises(ValueError, match="expected 0, 1, true or false"):
        values.flag(value)


def test_ids():
    assert values.identity("img_7") == "img_7"
    assert [values.identity(value) for value in (None, "", [1], True)] == [None] * 4


def test_sizes():
    assert values.size("240", 320.0) == (240, 320)
    for nothing in (None, 0, -1, "", math.nan):
        assert values.size(240, nothing) is None
    with pytest.raises(ValueError, match="width is '320px', expected a number of pixels"):
        values.size(240, "320px")


def test_shown_values_are_short_and_printable():
    assert values.shown("Käse") == "Käse"
    assert values.shown("a\nb") == r"'a\nb'"
    assert values.shown("\ud800").encode()
    assert len(values.shown("x" * 5000)) == 80
