"""mnasdet/tflite/adb.py: the real adb client and server, and phones of the tests' own."""

import shlex
import subprocess
import sys
import threading

import pytest

from mnasdet.errors import UserError
from mnasdet.tflite.devices import adb
from tests.tflite import adb_daemon
from tests.tflite.adb_daemon import PROPERTIES, run_adb

pytestmark = pytest.mark.usefixtures("adb_server")


@pytest.fixture
def device(phone):
    (found,) = adb.find()
    assert found.serial == phone.serial
    return found


def test_no_adb(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"^adb: not found on PATH; install .*\(Debian: adb\)$"):
        adb.find()


def test_no_device():
    with pytest.raises(UserError, match=r"^no Android device: connect one with USB debugging"):
        adb.find()


def test_two_devices_have_to_be_chosen_from(make_phone):
    one, other = make_phone(), make_phone()
    with pytest.raises(
        UserError, match=r"^2 Android devices: choose by --device=adb:SERIAL, "
    ) as e:
        adb.find()
    assert one.serial in str(e.value)
    assert other.serial in str(e.value)
    assert adb.find([other.serial]) == [adb.Device(other.serial)]
    assert [found.serial for found in adb.find([one.serial, other.serial])] == [
        one.serial,
        other.serial,
    ]


def test_unknown_serial_number(phone):
    with pytest.raises(UserError, match=f"^device X1: not connected; one of {phone.serial}$"):
        adb.find(["X1"])


def test_unauthorised_device(phone):
    phone.authorised = False
    run_adb("disconnect", phone.serial)
    run_adb("connect", phone.serial)
    message = f"^device {phone.serial}: unauthorized; accept this computer's key on its screen$"
    with pytest.raises(UserError, match=message):
        adb.find()


def test_offline_device(phone):
    phone.switch_off()
    with pytest.raises(UserError, match=f"^device {phone.serial}: offline; plug it in again"):
        adb.find()
    phone.switch_on_again()


@pytest.mark.parametrize("features", ["shell_v2", ""])
def test_shell_hands_over_output_and_status(make_phone, features):
    make_phone(features=features)
    (device,) = adb.find()
    word = "a  'b\" $HOME; exit 1\\"
    command = f"printf '%s\\n' {shlex.quote(word)}; echo error >&2; exit 3"
    assert device.shell(command) == (3, f"{word}\nerror\n")
    assert device.shell("true") == (0, "")
    assert len(device.shell("seq 100000")[1]) > 500_000


def test_properties(device):
    assert device.properties() == PROPERTIES


def test_push_copies(device, phone, tmp_path):
    source = tmp_path / "a b"
    source.write_bytes(bytes(range(256)) * 5000)
    device.push([source], "/data/local/tmp/c d", 30)
    copy = phone.tmp / "c d"
    assert copy.read_bytes() == source.read_bytes()
    copy.unlink()


def test_push_to_a_full_disk(device, phone, tmp_path):
    phone.free_bytes = 10
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    with pytest.raises(UserError, match=r": cannot copy a to it: .*No space left on device"):
        device.push([tmp_path / "a"], "/data/local/tmp/a", 30)


def test_hanging_shell_is_an_error(device, phone):
    phone.shell_hangs = True
    with pytest.raises(UserError, match=r"^device \S+: adb shell hangs, no end within 0\.5 s$"):
        device.shell("true", timeout_seconds=0.5)


def test_device_that_comes_back_is_asked_again(device, phone):
    threading.Timer(0.5, phone.switch_off).start()
    threading.Timer(1.0, phone.switch_on_again).start()
    assert device.shell("sleep 0.9; echo done") == (0, "done\n")


def test_device_that_stays_away_is_an_error(device, phone, monkeypatch):
    monkeypatch.setattr(adb, "_RECONNECT_SECONDS", 0.5)
    phone.switch_off()
    with pytest.raises(adb.DeviceLost, match=r"lost the connection, and not back within 0\.5 s$"):
        device.shell("true")
    phone.switch_on_again()


def test_a_device_is_borrowed_once_at_a_time():
    one, other = adb.Device("usb:1"), adb.Device("../2")
    with adb.borrowed([one, other]) as first:
        assert first == one
        with adb.borrowed([one, other]) as second:
            assert second == other
            with (
                pytest.raises(UserError, match=r"^device usb:1, \.\./2: not free within 0\.1 s$"),
                adb.borrowed([one, other], timeout_seconds=0.1),
            ):
                pass
        with adb.borrowed([other]):
            pass


def test_the_borrower_waits_for_another_process():
    device = adb.Device("shared")
    code = (
        "from mnasdet.tflite.devices import adb\n"
        "with adb.borrowed([adb.Device('shared')]): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        threading.Timer(0.5, holder.kill).start()
        with adb.borrowed([device], timeout_seconds=30):
            assert holder.wait() == -9


@pytest.mark.parametrize(("ci", "outcome"), [("true", "Failed"), ("", "Skipped")])
def test_without_adb_tests_are_skipped_but_not_on_ci(monkeypatch, tmp_path, ci, outcome):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(BaseException, match="no adb: apt-get install adb") as raised:
        adb_daemon.require_adb()
    assert type(raised.value).__name__ == outcome


def test_nothing_here_loads_tensorflow():
    code = "import mnasdet.tflite.devices.android, sys; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
