"""An Android device for tests: what adbd does on one, spoken over TCP to the real adb client.

Commands run in /bin/sh of this machine; paths below /data/local/tmp and /sys lead into the phone's
own folder, and `getprop` and `dumpsys` are scripts there.
"""

import contextlib
import os
import queue
import shutil
import socket
import stat
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

_CONNECT, _AUTHENTICATE, _OPEN = b"CNXN", b"AUTH", b"OPEN"
_OKAY, _CLOSE, _WRITE = b"OKAY", b"CLSE", b"WRTE"
# From this version of the protocol on, nobody looks at checksums.
_VERSION = 0x01000001
_MAX_DATA = 1 << 18
_TOKEN, _PUBLIC_KEY = 1, 3
_STDOUT, _EXIT = 1, 3

PROPERTIES = {
    "ro.product.manufacturer": "Acme",
    "ro.product.model": "Phone 7",
    "ro.soc.model": "AC7",
    "ro.board.platform": "roadrunner",
    "ro.build.version.release": "14",
    "ro.build.fingerprint": "acme/phone7:14/release-keys",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
}
BATTERY = "Current Battery Service state:\\n  AC powered: true\\n  level: 87\\n  temperature: 305"


def require_adb():
    """Skips the test where adb is missing, but not where tests have to be complete."""
    if shutil.which("adb"):
        return
    if os.environ.get("CI"):
        pytest.fail("no adb: apt-get install adb")
    pytest.skip("no adb: apt-get install adb")


def run_adb(*words):
    return subprocess.run(["adb", *words], capture_output=True, text=True, timeout=30)


class Phone:
    """A device that adb can connect to.

    Attributes:
      serial: host:port.
      tmp: the folder that /data/local/tmp is.
      free_bytes: of its disk.
      authorised: whether its user has accepted this computer.
      answers: whether it answers to a new connection at all.
      shell_hangs: commands never end.
      features: what it says that it can do; without shell_v2 it is one from before Android 7.
    """

    def __init__(self, folder, features="shell_v2"):
        self.features = features
        self.free_bytes = 1 << 30
        self.authorised = self.answers = True
        self.shell_hangs = False
        self._folder = Path(folder)
        self.tmp = self._folder / "data/local/tmp"
        self._furnish()
        self._connections = []
        self.switch_on()

    def switch_on(self, port=0):
        self._listener = socket.create_server(("127.0.0.1", port))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def switch_off(self):
        """Breaks all connections. Processes go on, as on a phone whose cable is pulled."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def switch_on_again(self):
        self.switch_on(int(self.serial.rpartition(":")[2]))

    def set_temperature(self, celsius, zone="cpu-0-0"):
        folder = self._folder / "sys/class/thermal" / f"thermal_zone-{zone}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "type").write_text(f"{zone}\n")
        (folder / "temp").write_text(f"{round(1000 * celsius)}\n")

    def _furnish(self):
        self.tmp.mkdir(parents=True)
        self.set_temperature(31.5)
        # No temperature: the battery's state of charge.
        self.set_temperature(87, zone="soc")
        for core, governor in enumerate(["schedutil", "schedutil", "performance"]):
            folder = self._folder / f"sys/devices/system/cpu/cpu{core}/cpufreq"
            folder.mkdir(parents=True)
            (folder / "scaling_governor").write_text(f"{governor}\n")
        lines = "\n".join(f"[{name}]: [{value}]" for name, value in PROPERTIES.items())
        self._add_program("getprop", f"cat <<'END'\n{lines}\nEND\n")
        self._add_program("dumpsys", f"printf '{BATTERY}\\n'\n")

    def _add_program(self, name, body):
        path = self._folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}")
        path.chmod(0o755)

    def here(self, text):
        """A path or a command of the phone for this machine."""
        for name in ("/data/local/tmp", "/sys/"):
            text = text.replace(name, f"{self._folder}{name}")
        return text

    def start(self, command):
        """A process of the phone's."""
        return subprocess.Popen(
            ["/bin/sh", "-c", self.here(command)],
            cwd=self._folder,
            env=os.environ | {"PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _accept(self, listener):
        while True:
            try:
                connection = _Connection(self, listener.accept()[0])
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    """The device's end of one connection: messages of a header of six numbers and some data."""

    def __init__(self, phone, connection):
        self._phone = phone
        self._socket = connection
        self._lock = threading.Lock()
        self._streams = {}

    def close(self):
        with contextlib.suppress(OSError):  # the other side may have been first
            self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, command, first, second, data=b""):
        word = int.from_bytes(command, "little")
        header = struct.pack("<6I", word, first, second, len(data), 0, word ^ 0xFFFFFFFF)
        with self._lock:
            self._socket.sendall(header + data)

    def serve(self):
        with self._socket:
            try:
                while True:
                    header = struct.unpack("<6I", self._receive(24))
                    data = self._receive(header[3])
                    self._answer(header[0].to_bytes(4, "little"), header[1], header[2], data)
            except OSError:
                pass
            for stream in self._streams.values():
                stream.closed()

    def _receive(self, size):
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def _answer(self, command, first, second, data):
        if command == _CONNECT:
            self._greet()
        elif command == _AUTHENTICATE and first != _PUBLIC_KEY:
            # It knows no key; a public key waits for its user's consent.
            self.send(_AUTHENTICATE, _TOKEN, 0, bytes(20))
        elif command == _OPEN:
            stream = _Stream(self, len(self._streams) + 1, first)
            self._streams[stream.number] = stream
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=_serve, args=(self._phone, stream, service)).start()
        elif command == _OKAY:
            self._streams[second].ready.release()
        elif command == _WRITE:
            self._streams[second].incoming.put(data)
            self.send(_OKAY, second, first)
        elif command == _CLOSE:
            self._streams[second].closed()

    def _greet(self):
        if not self._phone.answers:
            return
        if not self._phone.authorised:
            self.send(_AUTHENTICATE, _TOKEN, 0, bytes(20))
            return
        banner = f"device::ro.product.model=Phone_7;features={self._phone.features}"
        self.send(_CONNECT, _VERSION, _MAX_DATA, banner.encode())


class _Stream:
    """One service's bytes. Each message waits for the other side's consent to the one before."""

    def __init__(self, connection, number, peer):
        self.number = number
        self.incoming = queue.Queue()
        self.ready = threading.Semaphore(1)
        self._connection = connection
        self._peer = peer
        self._rest = b""
        self._is_open = True

    def accept(self):
        self._connection.send(_OKAY, self.number, self._peer)

    def closed(self):
        self._is_open = False
        self.ready.release()
        self.incoming.put(b"")

    def read(self, size):
        while len(self._rest) < size:
            part = self.incoming.get()
            if not part:
                raise ConnectionError
            self._rest += part
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def write(self, data):
        self.ready.acquire()
        if not self._is_open:
            self.ready.release()
            raise ConnectionError
        self._connection.send(_WRITE, self.number, self._peer, data)

    def close(self):
        # Ahead of the end everything has to have arrived.
        self.ready.acquire()
        self._connection.send(_CLOSE, self.number, self._peer)


def _serve(phone, stream, service):
    name, _, argument = service.partition(":")
    try:
        stream.accept()
        if name == "sync":
            _sync(phone, stream)
        elif name.split(",")[0] in ("shell", "exec"):
            _shell(phone, stream, argument, framed="v2" in name.split(","))
        stream.close()
    except OSError:
        pass


def _shell(phone, stream, command, framed):
    while phone.shell_hangs:
        time.sleep(0.05)
    process = phone.start(command)
    try:
        while part := os.read(process.stdout.fileno(), 1 << 14):
            if framed:
                stream.write(struct.pack("<BI", _STDOUT, len(part)) + part)
            else:
                stream.write(part.replace(b"\n", b"\r\n"))
    finally:
        process.stdout.close()
        process.wait()
    if framed:
        stream.write(struct.pack("<BIB", _EXIT, 1, process.returncode & 0xFF))


def _sync(phone, stream):
    while True:
        command, size = struct.unpack("<4sI", stream.read(8))
        if command == b"QUIT":
            return
        argument = stream.read(size).decode()
        if command == b"STAT":
            stream.write(b"STAT" + struct.pack("<3I", *_status(phone.here(argument))))
        elif command == b"SEND":
            path, _, mode = argument.rpartition(",")
            _receive_file(phone, stream, Path(phone.here(path)), int(mode))


def _status(path):
    if not os.path.lexists(path):
        return 0, 0, 0
    found = os.lstat(path)
    return found.st_mode, found.st_size, int(found.st_mtime)


def _receive_file(phone, stream, path, mode):
    content = b""
    while True:
        command, size = struct.unpack("<4sI", stream.read(8))
        if command == b"DONE":
            break
        content += stream.read(size)
    if len(content) > phone.free_bytes:
        message = b"couldn't write: No space left on device"
        stream.write(b"FAIL" + struct.pack("<I", len(message)) + message)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(stat.S_IMODE(mode))
    stream.write(b"OKAY" + struct.pack("<I", 0))
