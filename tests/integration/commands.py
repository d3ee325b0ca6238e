"""Runs the commands as a user does.

A command is a process of its own. `run` forks it from one that has loaded TensorFlow, which takes
most of the seconds that a short command needs; `command` is for the tests that have to start
Python itself, with a terminal, a signal or another folder.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.integration.loaded"])


def command(script, *arguments):
    """The words of `python scripts/SCRIPT.py ARGUMENTS`."""
    return [sys.executable, f"scripts/{script}.py", *arguments]


def run(script, *arguments, status=0):
    """The finished command, its output as text.

    Args:
      status: the exit status that it has to have. With any other, or with a traceback where the
        user could mend the trouble, the test fails and shows standard error.
    """
    words = command(script, *arguments)[1:]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = _processes.Process(
            target=_become, args=(words, _sent(output), _sent(errors), dict(os.environ))
        )
        process.start()
        process.join()
        done = subprocess.CompletedProcess(
            words, process.exitcode, *(_written(file) for file in (output, errors))
        )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def _sent(file):
    """A file as another process can open it."""
    return multiprocessing.reduction.DupFd(file.fileno())


def _written(file):
    file.seek(0)
    return file.read().decode()


def _become(words, output, errors, environment):
    """Makes this process the command."""
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in ((1, output), (2, errors)):
        os.dup2(file.detach(), number)
    sys.argv = words
    sys.path[0] = str(ROOT / "scripts")
    # As Python does, which calls its first file by the whole path.
    runpy.run_path(str(ROOT / words[0]), run_name="__main__")
