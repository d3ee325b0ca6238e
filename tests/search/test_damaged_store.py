"""An SQLite file that a disk, a copy or a bug of others has changed."""

import contextlib
import random
import sqlite3
import time

import pytest

from mnasdet.errors import UserError
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore, list_searches, now
from tests.search.store_errors import user_error

NUM_DAMAGES = 500


def trials():
    return [
        Trial(
            number,
            (number, 1),
            f"name: 'trial {number}' " + "backbone { mobilenet_v2 {} } " * 20,
            f"key {number}",
            number,
            state=TrialState.COMPLETE,
            metrics={"mAP": number / 7},
            cost=1.0 + number,
            reward=number / 9,
            worker="process 1",
            started=now(),
            finished=now(),
        )
        for number in range(40)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file with two searches, its trials and its content."""
    path = tmp_path_factory.mktemp("whole") / "trials.db"
    expected = trials()
    for name in ("mine", "other"):
        store = TrialStore(path, name)
        store.add(expected)
        store.describe({"seed": 1, "identity": {"config": "text " * 50}})
        store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path, expected, path.read_bytes()


def damaged(content, generator):
    content = bytearray(content)
    place = generator.randrange(len(content))
    match generator.randrange(4):
        case 0:
            content[place] ^= 1 << generator.randrange(8)
        case 1:
            content[place : place + 64] = generator.randbytes(64)
        case 2:
            page = place // 4096 * 4096
            content[page : page + 4096] = bytes(4096)
        case 3:
            del content[place:]
    return bytes(content)


def test_no_damage_gives_another_trial_or_a_traceback(whole, tmp_path, caplog):
    _, expected, content = whole
    generator = random.Random(7)
    by_number = {trial.number: trial for trial in expected}
    refused, lost = [], 0
    for number in range(NUM_DAMAGES):
        path = tmp_path / f"{number}.db"
        path.write_bytes(damaged(content, generator))
        caplog.clear()
        try:
            begun = time.monotonic()
            store = TrialStore(path, "mine", create=False)
            read = store.trials()
            for trial in read:
                assert trial == by_number[trial.number]
            if len(read) < len(expected):
                lost += 1
                # A trial whose number was damaged is named by that.
                assert len(caplog.messages) == len(expected) - len(read)
            assert store.description() == {"seed": 1, "identity": {"config": "text " * 50}}
            store.close()
            list_searches(path)
        except UserError as error:
            refused.append(str(error))
        assert time.monotonic() - begun < 10
        path.unlink()
    # Both kinds are met, and much of what is damaged is the other search.
    assert len(refused) > 50
    assert {len(message.splitlines()) for message in refused} == {1}
    assert lost > 10


def test_a_damaged_row_is_named_and_the_others_are_read(whole, tmp_path, caplog):
    _, expected, content = whole
    path = tmp_path / "trials.db"
    path.write_bytes(content)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE trials SET reward = 0.75 WHERE number = 3 AND search_id = 1")
        connection.execute("UPDATE trials SET metrics = x'ff' WHERE number = 5 AND search_id = 1")
        connection.execute("UPDATE trials SET started = 'noon' WHERE number = 7 AND search_id = 1")
        connection.commit()
    store = TrialStore(path, "mine")
    assert store.trials() == [t for t in expected if t.number not in (3, 5, 7)]
    named = [message.removeprefix(f"{path}: ").split(" (")[0] for message in caplog.messages]
    assert named == [f"trial {number} is damaged" for number in (3, 5, 7)]
    with pytest.raises(UserError, match=r"trial 3 is damaged \(its checksum is another\)"):
        store.trial(3)
    with pytest.raises(UserError, match="trial 3 is damaged"):
        store.update(expected[3], note="must not make it sound")
    # A search drops such rows, for their trials to be made again.
    store.trials(drop_damaged=True)
    store.add([expected[3], expected[5], expected[7]])
    assert store.trials() == expected
    store.close()


def test_a_file_whose_pages_are_damaged_is_refused(whole, tmp_path):
    path = tmp_path / "trials.db"
    path.write_bytes(whole[2][: len(whole[2]) // 2])
    for open_store in (lambda: TrialStore(path, "mine"), lambda: list_searches(path)):
        with user_error("is damaged: |malformed"):
            open_store()
