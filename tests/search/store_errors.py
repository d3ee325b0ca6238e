"""Helpers for tests of a trial store's errors."""

import contextlib

import pytest

from mnasdet.errors import UserError
from mnasdet.search.trials.trial_store import Trial
from tests.search.postgresql import PASSWORD


def trial(number, **fields):
    return Trial(number, (1, 2), "name: 'a'", "k", number, **fields)


@contextlib.contextmanager
def user_error(match):
    """One line, without the password that all URLs here have."""
    with pytest.raises(UserError, match=match) as raised:
        yield
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert "cannot be used as a trial store" in message
    for secret in (PASSWORD, "se%2Fcr%40t%25word"):
        assert secret not in message
