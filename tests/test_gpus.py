"""GPUs as nvidia-smi and CUDA_VISIBLE_DEVICES tell of them."""

import pytest

from mnasdet import gpus


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes a machine on which nvidia-smi is this shell script, or missing."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(script):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("script", "visible"),
    [
        ("echo Tesla T4; echo Tesla T4; echo NVIDIA A100", ["0", "1", "2"]),
        ("echo 'No devices were found'; exit 6", []),
        ("", []),
    ],
)
def test_all_gpus_of_the_machine_are_visible(machine, script, visible):
    machine(script)
    assert gpus.visible() == visible


def test_a_machine_without_the_driver_has_no_gpu(machine):
    assert gpus.visible() == gpus.listed() == []


@pytest.mark.parametrize(
    ("named", "visible"),
    [
        ("", []),
        ("-1", []),
        ("3", ["3"]),
        ("2, 0", ["2", "0"]),
        ("1,-1,0", ["1"]),
        ("GPU-8f2a,GPU-91bc", ["GPU-8f2a", "GPU-91bc"]),
    ],
)
def test_the_user_decides_which_are_visible(machine, monkeypatch, named, visible):
    machine("echo Tesla T4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible() == visible


@pytest.mark.parametrize(
    ("devices", "count", "shares"),
    [
        ([], 3, []),
        (["0"], 2, ["0", "0"]),
        (["4", "7"], 3, ["4", "7", "4"]),
        (["0", "1"], 2, ["0", "1"]),
        (["0", "1", "2", "3", "4"], 2, ["0,2,4", "1,3"]),
    ],
)
def test_no_gpu_is_idle_and_no_process_without_one(devices, count, shares):
    assert gpus.shared_out(devices, count) == shares
