import pytest

from mnasdet.networks.cost import Cost
from mnasdet.protos import search_pb2
from mnasdet.search import limits

COST = Cost(params=2_000_000, multiply_adds=900_000_000)


@pytest.mark.parametrize(
    ("field", "enough", "too_little", "reason"),
    [
        ("max_params", 2_000_000, 1_999_999, "2,000,000 params are over limits.max_params"),
        (
            "max_multiply_adds",
            900_000_000,
            899_999_999,
            "900,000,000 multiply_adds are over limits.max_multiply_adds, 899,999,999",
        ),
        ("max_latency_ms", 25, 24.5, "25 ms are over limits.max_latency_ms, 24.5"),
    ],
)
def test_a_limit_is_allowed_and_more_is_not(field, enough, too_little, reason):
    def excess(value):
        return limits.from_config(search_pb2.Limits(**{field: value})).excess(COST, 25.0)

    assert excess(0) == excess(enough) == ""
    assert excess(too_little).startswith(reason)


def test_the_reason_has_the_unit_of_the_latency_source():
    limited = limits.from_config(search_pb2.Limits(max_latency_ms=0.8), "G multiply-adds")
    assert limited.excess(COST, 0.9) == ("0.9 G multiply-adds are over limits.max_latency_ms, 0.8")
