"""The controller that a config names."""

from __future__ import annotations

import importlib

from mnasdet.errors import ConfigError
from mnasdet.protos import search_pb2
from mnasdet.search.controllers.controller import NO_PRIOR, Controller, Prior
from mnasdet.search_spaces.space import SearchSpace

# The module of each, by its field in ControllerConfig; loaded when named, for PPO needs TensorFlow.
_MODULES = {
    "ppo": "ppo",
    "random": "random_search",
    "regularized_evolution": "regularized_evolution",
    "nsga2": "nsga2",
    "local_search": "local_search",
    "optuna": "optuna_tpe",
    "partial_order": "partial_order",
}

# The controllers that make use of what is known before the first trial.
_TAKE_PRIOR = ("partial_order",)


def from_config(
    config: search_pb2.ControllerConfig, space: SearchSpace, seed: int, prior: Prior = NO_PRIOR
) -> Controller:
    """Raises ConfigError for a config without controller."""
    name = config.WhichOneof("controller_oneof")
    if name is None:
        raise ConfigError(f"controller is empty; use one of {', '.join(_MODULES)}")
    module = importlib.import_module(f"mnasdet.search.controllers.{_MODULES[name]}")
    arguments = [prior] if name in _TAKE_PRIOR else []
    return module.from_config(getattr(config, name), space, seed, *arguments)
