"""Python programs that are forked from a process which has loaded TensorFlow.

To load it takes most of the seconds that a short program needs.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from multiprocessing.reduction import DupFd
from pathlib import Path

ROOT = Path(__file__).parents[1]

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.loaded"])


class Forked:
    """A running `python WORDS...` in the project's folder, with the methods of subprocess.Popen.

    Args:
      words: a script and its arguments, or -m, a module and its arguments.
      output, errors: files for what it prints; those of the tests if left out.
      env: the environment; that of the tests if left out.
      start_new_session: whether it leads a process group of its own.
    """

    def __init__(self, words, *, output=None, errors=None, env=None, start_new_session=False):
        files = [file and DupFd(file.fileno()) for file in (output, errors)]
        begun, begins = _processes.Pipe(duplex=False)
        self._process = _processes.Process(
            target=_become, args=(words, files, dict(env or os.environ), start_new_session, begins)
        )
        self._process.start()
        self.pid = self._process.pid
        # A group that is not there yet could not be killed.
        begins.close()
        begun.recv()

    @property
    def returncode(self):
        return self.poll()

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self._process.kill()
        self.wait()


def _become(words, files, environment, new_session, begins):
    """Makes this process the program."""
    if new_session:
        os.setsid()
    begins.send(None)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in enumerate(files, start=1):
        if file:
            os.dup2(file.detach(), number)
    if words[0] == "-m":
        sys.path[0], sys.argv = str(ROOT), words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str((ROOT / words[0]).parent), words
        # As Python does, which calls its first file by the whole path.
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
