"""Plain lines on the terminal."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Run in a process of its own: it changes standard output and error.
_LOGS = """
from absl import flags, logging
from mnasdet import terminal
terminal.set_up()
flags.FLAGS.mark_as_parsed()

def logged_from(path, level, text):
    code = compile(f"logging.{level}({text!r})", path, "exec")
    exec(code, {"logging": logging})

logged_from(terminal.__file__, "info", "step 50")
logged_from(terminal.__file__.replace("mnasdet/terminal.py", "scripts/train.py"), "info", "here")
logged_from(terminal.__file__, "warning", "slow")
logged_from(terminal.__file__, "error", "lost")
logged_from("/lib/tensorflow/saver.py", "info", "Sharding callback duration: 3 microseconds")
logged_from("/lib/tensorflow/saver.py", "warning", "old")
print("done")
"""


def test_progress_is_plain_and_warnings_say_what_they_are():
    done = subprocess.run(
        [sys.executable, "-c", _LOGS], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stderr.splitlines() == [
        "step 50",
        "here",
        "warning: slow",
        "error: lost",
        "warning: old",
    ]
    assert done.stdout == "done\n"


def test_a_closed_stream_stays_closed():
    code = "from mnasdet import terminal; terminal.set_up(); print(1)"
    words = ["sh", "-c", f"exec {sys.executable} -c '{code}' >&-"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_streams_keep_encoding_and_order():
    code = "from mnasdet import terminal; terminal.set_up(); print('×'); print('ü', end='')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    assert done.stdout == "×\nü".encode()
