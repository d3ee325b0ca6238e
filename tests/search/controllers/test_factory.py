import pytest

from mnasdet.errors import ConfigError
from mnasdet.protos import search_pb2
from mnasdet.search.controllers import factory
from mnasdet.search.controllers.ppo import Ppo
from mnasdet.search.controllers.random_search import RandomSearch


def test_random(toy_space):
    config = search_pb2.ControllerConfig()
    config.random.batch_size = 7
    controller = factory.from_config(config, toy_space, seed=3)
    assert isinstance(controller, RandomSearch)
    assert controller.batch_size == 7
    assert controller.propose(5) == RandomSearch(toy_space, seed=3).propose(5)


def test_ppo(toy_space):
    config = search_pb2.ControllerConfig()
    config.ppo.batch_size = 2
    config.ppo.hidden_units = 8
    config.ppo.learning_rate = 0.05
    controller = factory.from_config(config, toy_space, seed=3)
    direct = Ppo(toy_space, seed=3, batch_size=2, hidden_units=8, learning_rate=0.05)
    assert controller.batch_size == 2
    results = [((0, 1, 2, 3), 1.0), ((2, 1, 0, 0), 0.0)] * 10
    controller.feedback(results)
    direct.feedback(results)
    assert controller.propose(20) == direct.propose(20)


def test_none(toy_space):
    with pytest.raises(ConfigError, match="controller is empty; use one of ppo, random"):
        factory.from_config(search_pb2.ControllerConfig(), toy_space, seed=0)
