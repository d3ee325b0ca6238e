"""mnasdet/tflite/calibration.py."""

import pytest

from mnasdet.errors import UserError
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import HE_NORMAL
from mnasdet.tflite.calibration import calibrate, fidelity, fit
from mnasdet.tflite.latency_table import LatencyTable


def test_fit_finds_scale_and_constant():
    assert fit([[1.0], [2.0], [5.0]], [3.5, 5.5, 11.5]) == pytest.approx([2.0, 1.5])
    # 2 a + 3 b + 0.5
    features = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [4.0, 2.0]]
    assert fit(features, [2.5, 3.5, 5.5, 14.5]) == pytest.approx([2.0, 3.0, 0.5])


def test_fit_has_nothing_negative():
    # 2 a - 1 would do; of the factors alone the least (a - 1)^2 + (2 a / 3 - 1)^2 is at 15 / 13.
    assert fit([[1.0], [2.0]], [1.0, 3.0]) == pytest.approx([15 / 13, 0.0])


def test_fit_weighs_relative_errors():
    # Of two networks of one sum, 1 and 2 ms, the least (p - 1)^2 + (p / 2 - 1)^2 is at p = 1.2.
    scale, constant_ms = fit([[1.0], [1.0], [3.0]], [1.0, 2.0, 3.0])
    assert scale + constant_ms == pytest.approx(1.2)
    assert 3 * scale + constant_ms == pytest.approx(3.0)


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


def network(filters):
    b = Builder()
    x = b.conv2d(b.input((8, 8, 3)), filters, 3, initializer=HE_NORMAL, name="conv")
    return [x, b.add(x, x, name="add")]


def test_calibration_is_written(tmp_path):
    path = tmp_path / "table.textproto"
    key = "conv2d 8x8x3->{} k3 s1"
    entries = {key.format(4): 1.0, key.format(8): 2.0, key.format(16): 2.0}
    entries |= {f"add 8x8x{n} 8x8x{n}": 0.0 for n in (4, 8, 16)}
    table = LatencyTable({}, entries, path=str(path))
    sheets = [cost_sheet(network(filters)) for filters in (4, 8, 16)]
    # Of float32: the image, a kernel, its output, and three such of the addition.
    megabytes = [4e-6 * (8 * 8 * 3 + 27 * n + 4 * 8 * 8 * n) for n in (4, 8, 16)]
    assert [table.sums(sheet) for sheet in sheets] == [
        (layers_ms, pytest.approx(mb)) for layers_ms, mb in zip((1, 2, 2), megabytes, strict=True)
    ]
    measured_ms = [1.5 * ms + 100 * mb for ms, mb in zip((1, 2, 2), megabytes, strict=True)]
    calibrate(table, sheets, measured_ms)
    loaded = LatencyTable.load(path)
    assert [loaded.scale, loaded.ms_per_megabyte, loaded.constant_ms] == pytest.approx(
        [1.5, 100, 0]
    )
    assert [loaded.latency_ms(sheet) for sheet in sheets] == pytest.approx(measured_ms)
    for sheet, latency_ms in zip(sheets, measured_ms, strict=True):
        by_layer = loaded.layer_latencies_ms(sheet)
        assert sum(ms for _, ms in by_layer) == pytest.approx(latency_ms)
    with pytest.raises(UserError, match="the networks' latencies do not grow with those of their"):
        calibrate(table, sheets, [5.5, 3.5, 2.5])
