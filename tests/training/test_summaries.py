"""Tests that faults of TensorBoard's files give one line of ours, not sixty of TensorFlow's."""

import pytest

from mnasdet.errors import UserError
from mnasdet.training.summaries import Summaries
from tests.full_disk import full_disk


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(UserError, match="tensorboard: is a file; a folder is needed here"):
        Summaries(tmp_path)


def test_a_full_disk_is_told_in_one_line(tmp_path):
    summaries = Summaries(tmp_path)
    values = {f"metric {number}": 0.5 for number in range(100)}
    with full_disk(2000), pytest.raises(UserError) as caught:
        for step in range(1000):
            summaries.scalars(step, values)
    assert str(caught.value).startswith(
        f"{tmp_path}/tensorboard: the events for TensorBoard cannot be written: "
    )
    assert "\n" not in str(caught.value)
    assert "[Op:" not in str(caught.value)
