"""Android devices through the `adb` client that is on PATH.

Every call ends in bounded time. A device that drops off is waited for and asked again, so
whatever is sent to one has to be harmless when it is done twice.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from absl import logging

from mnasdet.errors import UserError, nearest
from mnasdet.tflite.devices import locks

# An answer that takes longer is none: for adb itself and for commands that only look.
_ANSWER_SECONDS = 30.0
# After the loss of a device: how often, and how long until it is back.
_RETRIES = 2
_RECONNECT_SECONDS = 30.0
_POLL_SECONDS = 0.2

# The device's own refusals: to connect again would not help.
_REFUSED = re.compile("No space left|Read-only file|Permission denied|Is a directory")
_STATUS = "mnasdet-status="
_REMEDIES = {
    "unauthorized": "accept this computer's key on its screen",
    "offline": "plug it in again, or run adb reconnect offline",
}
T = TypeVar("T")


class DeviceLost(UserError):
    """The connection to a device broke."""


@dataclass(frozen=True)
class Device:
    serial: str

    def shell(self, command: str, timeout_seconds: float = _ANSWER_SECONDS) -> tuple[int, str]:
        """Runs a command of the device's shell.

        Args:
          command: its words quoted where they need it. Run again if the device drops off.

        Returns:
          The exit status; standard output and standard error together.

        Raises:
          UserError: no end within the time.
          DeviceLost: the device is gone and does not come back.
        """
        # Before Android 7 adb does not hand over the status; and where it is missing from the
        # output, the connection broke.
        script = f"( {command}\n) 2>&1; s=$?; echo; echo {_STATUS}$s"

        def run() -> tuple[int, str]:
            done = self._adb("shell", script, timeout_seconds=timeout_seconds)
            output, found, status = done.stdout.rpartition(f"\n{_STATUS}")
            if not found or not status.strip().isdigit():
                raise DeviceLost(f"{self}: lost the connection; adb says {_complaint(done.stderr)}")
            return int(status), output

        return self._persistently(run)

    def push(self, sources: Sequence[Path], target: str, timeout_seconds: float) -> None:
        """Copies a file to `target`, a path on the device, or several into the folder `target`.

        Raises:
          UserError: the device cannot take it, or as `shell`.
          DeviceLost: as `shell`.
        """
        names = ", ".join(source.name for source in sources)

        def run() -> None:
            done = self._adb("push", *map(str, sources), target, timeout_seconds=timeout_seconds)
            if not done.returncode:
                return
            # Versions of adb differ in where they print it.
            complaint = _complaint(done.stdout + done.stderr)
            if _REFUSED.search(complaint):
                raise UserError(f"{self}: cannot copy {names} to it: {complaint}")
            raise DeviceLost(f"{self}: lost the connection; adb says {complaint}")

        self._persistently(run)

    def properties(self) -> dict[str, str]:
        """Returns what `getprop` lists, by name."""
        return dict(re.findall(r"^\[(.+?)\]: \[(.*?)\]\r?$", self.shell("getprop")[1], re.M))

    def _persistently(self, call: Callable[[], T]) -> T:
        for _ in range(_RETRIES):
            try:
                return call()
            except DeviceLost as error:
                logging.warning("%s; connecting again", error)
                self._reconnect()
        return call()

    def _reconnect(self) -> None:
        over_network = ":" in self.serial
        if over_network:
            # By itself adb tries again every ten seconds only.
            _adb("disconnect", self.serial)
        else:
            self._adb("reconnect")
        deadline = time.monotonic() + _RECONNECT_SECONDS
        while time.monotonic() < deadline:
            if over_network:
                _adb("connect", self.serial)
            if self._adb("get-state").stdout.strip() == "device":
                return
            time.sleep(_POLL_SECONDS)
        raise DeviceLost(
            f"{self}: lost the connection, and not back within {_RECONNECT_SECONDS:g} s"
        )

    def _adb(
        self, *words: str, timeout_seconds: float = _ANSWER_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        return _adb("-s", self.serial, *words, timeout_seconds=timeout_seconds, who=str(self))

    def __str__(self) -> str:
        return f"device {self.serial}"


def find(serials: Sequence[str] = ()) -> list[Device]:
    """Returns the devices of these serial numbers; without any, the only one that is connected.

    Raises:
      UserError: adb is missing; none, or several to choose from; one that cannot be used.
    """
    states = _states()
    if not states:
        raise UserError(
            "no Android device: connect one with USB debugging switched on, or run adb connect"
        )
    if not serials and len(states) > 1:
        raise UserError(
            f"{len(states)} Android devices: choose by --device=adb:SERIAL, {nearest('', states)}"
        )
    for serial in serials or states:
        if serial not in states:
            raise UserError(f"device {serial}: not connected; {nearest(serial, states)}")
        if states[serial] != "device":
            remedy = _REMEDIES.get(states[serial])
            raise UserError(
                f"device {serial}: {states[serial]}" + (f"; {remedy}" if remedy else "")
            )
    return [Device(serial) for serial in serials or states]


@contextmanager
def borrowed(devices: Sequence[Device], timeout_seconds: float = 3600.0) -> Iterator[Device]:
    """Yields one of the devices, for this thread alone among all processes of this user.

    It is the first that is free, waited for if need be.

    Raises:
      UserError: none became free within the time.
    """
    by_serial = {device.serial: device for device in devices}
    with locks.first_free(list(by_serial), timeout_seconds) as serial:
        yield by_serial[serial]


def _states() -> dict[str, str]:
    """Returns serial number to state, "device" where it can be used."""
    done = _adb("devices")
    if done.returncode:
        raise UserError(f"adb devices: {_complaint(done.stderr)}")
    rows = (line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    return {serial: state.split(";")[0].strip() for serial, state in rows}


def _adb(
    *words: str, timeout_seconds: float = _ANSWER_SECONDS, who: str = "adb"
) -> subprocess.CompletedProcess[str]:
    program = shutil.which("adb")
    if program is None:
        raise UserError("adb: not found on PATH; install Android's platform tools (Debian: adb)")
    try:
        return subprocess.run(
            [program, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired:
        command = shlex.join(words[2:3] if words[0] == "-s" else words[:1])
        raise UserError(
            f"{who}: adb {command} hangs, no end within {timeout_seconds:g} s"
        ) from None


def _complaint(output: str) -> str:
    """Returns the line of adb's output that says what went wrong, or the last one."""
    lines = output.strip().splitlines() or ["nothing"]
    return repr(next((line for line in lines if "error:" in line), lines[-1])[:300])
