import pytest

from mnasdet.errors import ConfigError
from mnasdet.protos import search_pb2
from mnasdet.search.controllers import factory
from mnasdet.search.controllers.controller import Prior, Result
from mnasdet.search.controllers.local_search import LocalSearch
from mnasdet.search.controllers.nsga2 import Nsga2
from mnasdet.search.controllers.optuna_tpe import OptunaTpe
from mnasdet.search.controllers.partial_order import PartialOrder
from mnasdet.search.controllers.ppo import Ppo
from mnasdet.search.controllers.random_search import RandomSearch
from mnasdet.search.controllers.regularized_evolution import RegularizedEvolution

# Fields of each config, the class and its arguments.
CONTROLLERS = [
    (
        {"ppo": {"batch_size": 2, "hidden_units": 8, "learning_rate": 0.05}},
        Ppo,
        {"batch_size": 2, "hidden_units": 8, "learning_rate": 0.05},
    ),
    ({"random": {}}, RandomSearch, {}),
    (
        {"regularized_evolution": {"population_size": 5, "tournament_size": 2}},
        RegularizedEvolution,
        {"population_size": 5, "tournament_size": 2},
    ),
    (
        {"nsga2": {"population_size": 5, "crossover_probability": 0.5}},
        Nsga2,
        {"population_size": 5, "crossover_probability": 0.5},
    ),
    ({"local_search": {"num_starts": 3}}, LocalSearch, {"num_starts": 3}),
    ({"optuna": {"num_startup_trials": 5}}, OptunaTpe, {"num_startup_trials": 5}),
    (
        {"partial_order": {"num_starts": 4, "trust": 0.5, "num_witnesses": 3}},
        PartialOrder,
        {"num_starts": 4, "trust": 0.5, "num_witnesses": 3},
    ),
]


def outcome(tokens):
    return Result(tokens, tokens[3] / 3, (tokens[3] / 3, -float(tokens[0])))


@pytest.mark.parametrize(("fields", "controller_class", "arguments"), CONTROLLERS)
def test_every_controller(toy_space, fields, controller_class, arguments):
    config = search_pb2.ControllerConfig(**fields)
    controller = factory.from_config(config, toy_space, seed=3)
    direct = controller_class(toy_space, seed=3, **arguments)
    assert type(controller) is controller_class
    for _ in range(10):
        proposals = controller.propose(2)
        assert direct.propose(2) == proposals
        for each in (controller, direct):
            each.feedback([outcome(tokens) for tokens in proposals])


def test_every_field_of_the_config_has_a_controller():
    oneof = search_pb2.ControllerConfig.DESCRIPTOR.oneofs_by_name["controller_oneof"]
    assert [field.name for field in oneof.fields] == [next(iter(c[0])) for c in CONTROLLERS]


def test_what_is_known_beforehand(toy_space):
    config = search_pb2.ControllerConfig(partial_order={})
    prior = Prior(starts=((0, 1, 2, 3), (2, 1, 0, 0)))
    controller = factory.from_config(config, toy_space, seed=3, prior=prior)
    assert controller.propose(2) == [(0, 1, 2, 3), (2, 1, 0, 0)]
    # The others begin as ever.
    config = search_pb2.ControllerConfig(random={})
    plain = factory.from_config(config, toy_space, seed=3).propose(4)
    assert factory.from_config(config, toy_space, seed=3, prior=prior).propose(4) == plain


def test_none(toy_space):
    with pytest.raises(ConfigError, match="controller is empty; use one of ppo, random, regul"):
        factory.from_config(search_pb2.ControllerConfig(), toy_space, seed=0)
