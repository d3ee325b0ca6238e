"""Rewards: one number from accuracy and cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from mnasdet.errors import ConfigError
from mnasdet.protos import search_pb2

# Maps the accuracy (0 to 1) and the cost, which is positive, in the latency source's unit.
Reward: TypeAlias = Callable[[float, float], float]


def mnasfpn(accuracy: float, cost: float, *, exponent: float = -0.3) -> float:
    """Computes MnasFPN's reward, equation 4; the exponent of section 4.2."""
    return accuracy * cost**exponent


def mnasnet(
    accuracy: float,
    cost: float,
    *,
    target: float,
    alpha: float = -0.07,
    beta: float = -0.07,
) -> float:
    """Computes MnasNet's reward, equations 2 and 3: `alpha` up to the target, `beta` above it."""
    exponent = alpha if cost <= target else beta
    return accuracy * (cost / target) ** exponent


def tunas(accuracy: float, cost: float, *, target: float, beta: float = -0.07) -> float:
    """Computes TuNAS' absolute reward (Bender et al., 2020, section 3), best at the target."""
    return accuracy + beta * abs(cost / target - 1)


def multi_objective(accuracy: float, cost: float) -> float:
    """Returns the accuracy alone: a controller of several objectives weighs the cost itself."""
    return accuracy


def accuracy(accuracy: float, cost: float) -> float:
    """Returns the accuracy alone, as NAS-FPN's search does (Ghiasi et al., 2019, section 4.2)."""
    return accuracy


def from_config(config: search_pb2.RewardConfig) -> Reward:
    """Returns a config's reward. Raises ConfigError where there is none, or no positive target."""
    name = config.WhichOneof("reward_oneof")
    if name == "mnasfpn":
        return partial(mnasfpn, exponent=config.mnasfpn.exponent)
    if name == "mnasnet":
        return partial(
            mnasnet,
            target=_target(name, config.mnasnet),
            alpha=config.mnasnet.alpha,
            beta=config.mnasnet.beta,
        )
    if name == "tunas":
        return partial(tunas, target=_target(name, config.tunas), beta=config.tunas.beta)
    if name == "multi_objective":
        return multi_objective
    if name == "accuracy":
        return accuracy
    raise ConfigError(
        "reward is empty; use one of mnasfpn, mnasnet, tunas, multi_objective, accuracy"
    )


def _target(name: str, config: search_pb2.MnasNetReward | search_pb2.TunasReward) -> float:
    target = config.target_latency_ms
    if not target > 0:
        raise ConfigError(
            f"reward.{name}.target_latency_ms is {target}; use the wanted latency in ms"
        )
    return target
