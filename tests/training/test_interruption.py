"""Signals that ask a training to stop."""

import signal
import threading

import pytest

from mnasdet.training.interruption import stop_request


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_taken_down_and_told(number, caplog):
    caplog.set_level("INFO", logger="absl")
    before = signal.getsignal(number)
    with stop_request() as request:
        assert request.signal_name is None
        signal.raise_signal(number)
        assert request.signal_name == signal.Signals(number).name
    assert f"{request.signal_name}: ending after this step" in caplog.text
    assert signal.getsignal(number) is before


def test_the_second_ctrl_c_is_obeyed():
    with pytest.raises(KeyboardInterrupt), stop_request():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_worker_goes_on_ignoring_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_request() as request:
            signal.raise_signal(signal.SIGINT)
            assert request.signal_name is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def work():
        with stop_request():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
