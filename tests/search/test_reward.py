import pytest

from mnasdet.errors import ConfigError
from mnasdet.protos import search_pb2
from mnasdet.search import reward


def test_mnasfpn():
    # 1024^-0.3 = 2^-3.
    assert reward.mnasfpn(0.24, 1024.0) == pytest.approx(0.03)
    assert reward.mnasfpn(0.5, 16.0, exponent=-0.5) == pytest.approx(0.125)
    assert reward.mnasfpn(0.0, 16.0) == 0.0


def test_mnasnet_soft_constraint_is_one_power_on_both_sides():
    # 2^-0.07 = 0.952638: twice the latency is worth 5 % accuracy.
    assert reward.mnasnet(0.8, 150.0, target=75.0) == pytest.approx(0.8 * 0.952638)
    assert reward.mnasnet(0.8, 37.5, target=75.0) == pytest.approx(0.8 / 0.952638)
    assert reward.mnasnet(0.8, 75.0, target=75.0) == 0.8


def test_mnasnet_hard_constraint():
    hard = {"target": 75.0, "alpha": 0.0, "beta": -1.0}
    assert reward.mnasnet(0.8, 10.0, **hard) == 0.8
    assert reward.mnasnet(0.8, 75.0, **hard) == 0.8
    assert reward.mnasnet(0.8, 300.0, **hard) == pytest.approx(0.2)


def test_tunas_is_as_far_from_the_target_either_way():
    # Half of 20 ms off: half of 0.07.
    for cost in (10.0, 30.0):
        assert reward.tunas(0.4, cost, target=20.0) == pytest.approx(0.365)
    assert reward.tunas(0.4, 20.0, target=20.0, beta=-1.0) == 0.4


def test_several_objectives_reward_accuracy():
    assert reward.multi_objective(0.4, 1.0) == reward.multi_objective(0.4, 1000.0) == 0.4


def test_accuracy_alone_is_a_reward_of_its_own():
    config = search_pb2.RewardConfig()
    config.accuracy.SetInParent()
    assert reward.from_config(config)(0.4, 1.0) == 0.4
    assert reward.from_config(config)(0.4, 1000.0) == 0.4


def test_from_config():
    config = search_pb2.RewardConfig()
    config.mnasfpn.SetInParent()
    assert reward.from_config(config)(0.24, 1024.0) == pytest.approx(0.03)
    config.mnasfpn.exponent = -0.5
    assert reward.from_config(config)(0.5, 16.0) == pytest.approx(0.125)
    config.mnasnet.target_latency_ms = 75
    assert reward.from_config(config)(0.8, 150.0) == pytest.approx(0.8 * 0.952638)
    config.mnasnet.alpha = 0
    config.mnasnet.beta = -1
    assert reward.from_config(config)(0.8, 10.0) == pytest.approx(0.8)
    assert reward.from_config(config)(0.8, 300.0) == pytest.approx(0.2)
    config.tunas.target_latency_ms = 20
    config.tunas.beta = -0.1
    assert reward.from_config(config)(0.4, 30.0) == pytest.approx(0.35)
    config.multi_objective.SetInParent()
    assert reward.from_config(config)(0.4, 30.0) == 0.4


def test_every_field_of_the_config_has_a_reward():
    for field in search_pb2.RewardConfig.DESCRIPTOR.oneofs_by_name["reward_oneof"].fields:
        config = search_pb2.RewardConfig()
        getattr(config, field.name).SetInParent()
        if "target_latency_ms" in field.message_type.fields_by_name:
            getattr(config, field.name).target_latency_ms = 20
        assert reward.from_config(config)(0.5, 20.0) > 0


def test_from_config_refuses_what_gives_no_reward():
    config = search_pb2.RewardConfig()
    with pytest.raises(ConfigError, match="reward is empty; use one of mnasfpn, mnasnet"):
        reward.from_config(config)
    config.mnasnet.alpha = 0
    with pytest.raises(ConfigError, match=r"reward.mnasnet.target_latency_ms is 0\.0"):
        reward.from_config(config)
    config.tunas.SetInParent()
    with pytest.raises(ConfigError, match=r"reward.tunas.target_latency_ms is 0\.0"):
        reward.from_config(config)
