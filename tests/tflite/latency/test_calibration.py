"""mnasdet/tflite/calibration.py."""

import numpy as np
import pytest

from mnasdet.errors import UserError
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import Kernel
from mnasdet.tflite.latency.calibration import calibrate, fidelity, fit
from mnasdet.tflite.latency.latency_table import LatencyTable


def test_fit_finds_scale_and_constant():
    assert fit([[1.0], [2.0], [5.0]], [3.5, 5.5, 11.5]) == pytest.approx([2.0, 1.5])
    # 2 a + 3 b + 0.5
    features = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [4.0, 2.0]]
    assert fit(features, [2.5, 3.5, 5.5, 14.5]) == pytest.approx([2.0, 3.0, 0.5])


def test_fit_has_nothing_negative():
    # 2 a - 1 would do; of the factors alone the least (a - 1)^2 + (2 a / 3 - 1)^2 is at 15 / 13.
    assert fit([[1.0], [2.0]], [1.0, 3.0]) == pytest.approx([15 / 13, 0.0])


def test_fit_weighs_relative_errors():
    # For two networks with equal sums, 1 and 2 ms, p = 1.2 minimises (p - 1)^2 + (p / 2 - 1)^2.
    scale, constant_ms = fit([[1.0], [1.0], [3.0]], [1.0, 2.0, 3.0])
    assert scale + constant_ms == pytest.approx(1.2)
    assert 3 * scale + constant_ms == pytest.approx(3.0)


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 6])
def test_networks_that_are_alike_keep_the_layers_latencies(seed):
    # NAS-FPN networks of one width differ in small layers alone, over a constant rest.
    rng = np.random.default_rng(seed)
    small_ms = rng.uniform(85, 110, 40)
    layers_ms = 290 + small_ms + rng.normal(0, 0.2, 40)
    megabytes = rng.uniform(460, 500, 40)
    features, latencies_ms = np.column_stack([layers_ms, small_ms, megabytes]), 1.02 * layers_ms
    measured_ms = (latencies_ms * rng.normal(1, 0.012, 40))[:20]
    # Left to itself the noise takes all of it from the layers.
    assert fit(features[:20], measured_ms)[0] == 0
    *factors, constant_ms = fit(features[:20], measured_ms, lean=True)
    assert factors[0] == pytest.approx(1.02, abs=0.1)
    assert features[20:] @ factors + constant_ms == pytest.approx(latencies_ms[20:], rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_networks_that_differ_decide_the_scale(seed):
    rng = np.random.default_rng(seed)
    features = rng.uniform((20, 1, 10), (140, 20, 200), (50, 3))
    measured_ms = features @ (1.4, 0.2, 0.05) * rng.normal(1, 0.03, 50)
    scale = fit(features, measured_ms, lean=True)[0]
    assert scale == pytest.approx(fit(features, measured_ms)[0], rel=0.01)
    assert scale == pytest.approx(1.4, rel=0.05)


def test_fidelity_by_hand():
    agreement = fidelity([10.4, 21.6, 33.0, 40.0], [10.0, 20.0, 40.0, 30.0])
    assert agreement["num_networks"] == 4
    # Squared residuals 0.16 + 2.56 + 49 + 100 over 225 + 25 + 225 + 25.
    assert agreement["r2"] == pytest.approx(1 - 151.72 / 500)
    # Ranks 1 2 3 4 against 1 2 4 3: 1 - 6 * 2 / (4 * 15).
    assert agreement["spearman"] == pytest.approx(0.8)
    assert agreement["within_5_percent"] == 0.25
    assert agreement["within_10_percent"] == 0.5
    error = (0.04 + 0.08 + 0.175 + 1 / 3) / 4
    assert agreement["mean_absolute_percentage_error"] == pytest.approx(100 * error)
    assert (agreement["min_ms"], agreement["max_ms"]) == (10.0, 40.0)


@pytest.mark.filterwarnings("error")
def test_equal_predictions_give_no_order():
    assert fidelity([20.0, 20.0, 20.0], [10.0, 20.0, 30.0])["spearman"] == 0.0


def network(filters):
    """Four layers: a convolution, and the sum with itself, of one, and of four times as many."""
    b = Builder()
    x = b.input((64, 64, 3))
    xs = [
        b.conv2d(x, number, 3, kernel=Kernel(), name=f"conv_{number}")
        for number in (filters, 4 * filters)
    ]
    return [b.add(x, x, name=f"add_{i}") for i, x in enumerate(xs)]


def test_calibration_is_written(tmp_path):
    path = tmp_path / "table.textproto"
    # Float32 bytes: the image, kernels and their outputs, and for an addition three outputs. The
    # additions of 32 filters (1.6 MB) and more and the convolution to 64 (1.1 MB) are not small.
    filters = (2, 4, 8, 10, 16)
    megabytes = [4e-6 * (2 * 64 * 64 * 3 + 5 * 27 * n + 5 * 4 * 64 * 64 * n) for n in filters]
    latencies_ms = {2: 1.0, 4: 1.5, 8: 4.0, 10: 2.0, 16: 3.0, 32: 2.5, 40: 6.0, 64: 9.0}
    entries = {f"conv2d 64x64x3->{n} k3 s1": ms for n, ms in latencies_ms.items()}
    entries |= {f"add 64x64x{n} 64x64x{n}": 0.5 for n in latencies_ms}
    table = LatencyTable({}, entries, path=str(path))
    sheets = [cost_sheet(network(n)) for n in filters]
    layers_ms = [6.0, 5.5, 7.5, 9.0, 13.0]
    small_ms = [6.0, 5.5, 7.0, 8.5, 3.5]
    sums = list(zip(layers_ms, small_ms, megabytes, strict=True))
    assert [table.sums(sheet) for sheet in sheets] == [pytest.approx(terms) for terms in sums]
    measured_ms = [1.5 * ms + 0.5 * small + 10 * mb for ms, small, mb in sums]
    calibrate(table, sheets, measured_ms)
    loaded = LatencyTable.load(path)
    assert [
        loaded.scale, loaded.small_scale, loaded.ms_per_megabyte, loaded.constant_ms
    ] == pytest.approx([1.5, 0.5, 10, 0], abs=1e-9)  # fmt: skip
    assert [loaded.latency_ms(sheet) for sheet in sheets] == pytest.approx(measured_ms)
    for sheet, latency_ms in zip(sheets, measured_ms, strict=True):
        by_layer = loaded.layer_latencies_ms(sheet)
        assert sum(ms for _, ms in by_layer) == pytest.approx(latency_ms)
    with pytest.raises(UserError, match="the networks' latencies do not grow with those of their"):
        calibrate(table, sheets, [5.5, 4.5, 3.5, 2.5, 1.5])
