"""The controller that a config names."""

from __future__ import annotations

from mnasdet.errors import ConfigError
from mnasdet.protos import search_pb2
from mnasdet.search.controllers import random_search
from mnasdet.search.controllers.controller import Controller
from mnasdet.search_spaces.space import SearchSpace


def from_config(config: search_pb2.ControllerConfig, space: SearchSpace, seed: int) -> Controller:
    """Raises ConfigError for a config without controller."""
    name = config.WhichOneof("controller_oneof")
    if name == "ppo":
        from mnasdet.search.controllers import ppo  # Loads TensorFlow.

        return ppo.from_config(config.ppo, space, seed)
    if name == "random":
        return random_search.from_config(config.random, space, seed)
    raise ConfigError("controller is empty; use one of ppo, random")
