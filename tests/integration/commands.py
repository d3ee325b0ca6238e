"""Runs the commands as a user does.

A command is a process of its own. `start` and `run` fork it from one that has loaded TensorFlow;
`command` is for the tests that have to start Python itself, with a terminal or another folder.
"""

import subprocess
import sys
import tempfile

from tests.forked import ROOT, Forked

__all__ = ["ROOT", "command", "run", "start"]


def command(script, *arguments):
    """The words of `python scripts/SCRIPT.py ARGUMENTS`."""
    return [sys.executable, f"scripts/{script}.py", *arguments]


def start(script, *arguments, **settings):
    """The running command. `settings` are those of Forked."""
    return Forked(command(script, *arguments)[1:], **settings)


def run(script, *arguments, status=0):
    """The finished command, its output as text.

    Args:
      status: the exit status that it has to have. With any other, or with a traceback where the
        user could mend the trouble, the test fails and shows standard error.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        returned = start(script, *arguments, output=output, errors=errors).wait()
        done = subprocess.CompletedProcess(
            [script, *arguments], returned, *(_written(file) for file in (output, errors))
        )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def _written(file):
    file.seek(0)
    return file.read().decode()
