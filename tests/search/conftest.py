"""The databases that the trial store is tested on."""

import pytest

from tests.search.postgresql import running_server


@pytest.fixture(scope="session")
def postgresql():
    with running_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    """Returns the location of a trial store that does not exist yet."""
    if request.param == "sqlite":
        return tmp_path / "trials.db"
    return request.getfixturevalue("postgresql").new_database()
