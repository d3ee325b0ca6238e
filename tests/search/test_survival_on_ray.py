"""Whole searches on a Ray cluster whose nodes are lost, and which are killed themselves."""

import pytest

from tests.search import interruptions, ray_nodes, search_runs


@pytest.fixture(scope="module")
def cluster():
    with ray_nodes.two_nodes() as cluster:
        yield cluster


@pytest.mark.parametrize("controller", search_runs.CONTROLLERS)
def test_with_nodes_lost_and_killed_it_makes_the_trials_of_an_uninterrupted_one(
    controller, cluster, tmp_path
):
    def lose_a_node(process) -> bool:
        (worker,) = cluster.worker_nodes
        cluster.remove_node(worker, allow_graceful=False)
        cluster.add_node(**ray_nodes.NODE)
        return False

    expected = interruptions.uninterrupted(controller, tmp_path / "whole.db")
    steps = [lose_a_node, interruptions.kill_group] * 2
    store = tmp_path / "killed.db"
    assert interruptions.interrupted(controller, store, steps, cluster.address) == expected
