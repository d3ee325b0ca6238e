"""Rewards: one number from accuracy and latency."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from mnasdet.errors import ConfigError
from mnasdet.protos import search_pb2

# From mAP (0 to 1) and latency in ms, which is positive.
Reward: TypeAlias = Callable[[float, float], float]


def mnasfpn(mean_ap: float, latency_ms: float, *, exponent: float = -0.3) -> float:
    """MnasFPN, equation 4; the exponent of section 4.2."""
    return mean_ap * latency_ms**exponent


def mnasnet(
    mean_ap: float,
    latency_ms: float,
    *,
    target_latency_ms: float,
    alpha: float = -0.07,
    beta: float = -0.07,
) -> float:
    """MnasNet, equations 2 and 3: `alpha` up to the target, `beta` above it."""
    exponent = alpha if latency_ms <= target_latency_ms else beta
    return mean_ap * (latency_ms / target_latency_ms) ** exponent


def from_config(config: search_pb2.RewardConfig) -> Reward:
    """Raises ConfigError for a config without reward, or a target latency that is not positive."""
    name = config.WhichOneof("reward_oneof")
    if name == "mnasfpn":
        exponent = config.mnasfpn.exponent
        return lambda mean_ap, latency_ms: mnasfpn(mean_ap, latency_ms, exponent=exponent)
    if name == "mnasnet":
        target, alpha, beta = (
            config.mnasnet.target_latency_ms,
            config.mnasnet.alpha,
            config.mnasnet.beta,
        )
        if not target > 0:
            raise ConfigError(
                f"reward.mnasnet.target_latency_ms is {target}; use the wanted latency in ms"
            )
        return lambda mean_ap, latency_ms: mnasnet(
            mean_ap, latency_ms, target_latency_ms=target, alpha=alpha, beta=beta
        )
    raise ConfigError("reward is empty; use one of mnasfpn, mnasnet")
