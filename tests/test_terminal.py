"""Plain lines on the terminal."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mnasdet import terminal

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


@pytest.mark.parametrize(
    ("option", "unbuffered", "printed"),
    [("-u", "", "a line\n"), ("-B", "1", "a line\n"), ("-B", "", "")],
    ids=["-u", "PYTHONUNBUFFERED", "a pipe"],
)
def test_unbuffered_output_comes_line_by_line(option, unbuffered, printed):
    """Tests that a process which ends at once loses the output it has not written."""
    code = (
        "from mnasdet import terminal; terminal.set_up(); import os; print('a line'); "
        "print('half a line', end=''); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, option, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    assert done.stdout == printed


# A red title that rings, in a note; 0x9b is an ESC and a bracket in one; letters turned around.
EVIL = "\x1b[31m\x1b]0;owned\x07\x9b2J\x08\x7fabc\u202egnp.exe\u2066\ud800"
SHOWN = r"\x1b[31m\x1b]0;owned\x07\x9b2J\x08\x7fabc\u202egnp.exe\u2066\ud800"

_PRINTS = f"""
import json, sys
from absl import flags, logging
from tqdm import tqdm
from mnasdet import terminal
terminal.set_up()
flags.FLAGS.mark_as_parsed()
evil = {EVIL!a}
print("note:", evil, "\\rcell", "a\\tb")
print(json.dumps([evil, "\\r"]))
sys.stdout.writelines([evil, "\\n"])
print("error:", evil, file=sys.stderr)
logging.warning("left out: %s\\rdone", evil)
for _ in tqdm(range(2), desc=evil, mininterval=0):
    pass
print("\\rbar", end="", file=sys.stderr)
print("\\rbar 2\\rerror", file=sys.stderr)
raise ValueError(evil)
"""


def test_text_from_outside_does_nothing_to_the_terminal():
    done = subprocess.run([sys.executable, "-c", _PRINTS], capture_output=True, cwd=ROOT)
    out, err = done.stdout.decode(), done.stderr.decode()
    note, as_json, line = out.splitlines()
    assert note == f"note: {SHOWN} \\rcell a\tb"
    assert json.loads(as_json) == [EVIL, "\r"]
    assert line == SHOWN
    error, warning, bars, last, *trace = err.split("\n")
    assert error == f"error: {SHOWN}"
    assert warning == f"warning: left out: {SHOWN}\\rdone"
    # A progress bar is drawn over and over in its own line.
    assert len(bars.split("\r")) >= 3
    assert all(bar.startswith(f"{SHOWN}: ") for bar in bars.split("\r")[1:])
    assert last == "\rbar\rbar 2\\rerror"
    assert trace[-2] == f"ValueError: {SHOWN}"
    assert not re.search("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u202e\u2066]", out + err)


def test_one_line():
    assert terminal.one_line(" a\n b\u2028c\x1b[m\r\n") == r"a b c\x1b[m"
    assert terminal.printable("ü ↯ 猫 \u200d") == "ü ↯ 猫 \u200d"


# A command that prints, logs and draws progress for as long as its reader stays, and then works on.
_LONG_WORK = """
import sys
from pathlib import Path
from absl import logging
from tqdm import tqdm
from mnasdet.scripts import command

def main():
    for number in tqdm(range(3000), mininterval=0):
        print("printed", number)
        logging.info("logged %d", number)
        print("told", number, file=sys.stderr, flush=True)
    Path(sys.argv[0]).write_text("done")

folder = sys.argv.pop(1)
sys.argv[0] = folder + "/end"
command.run(main)
"""


def long_work(folder, redirection):
    """Runs it with its streams as a shell has them; the rest of its standard error comes back."""
    code = folder / "work.py"
    code.write_text(_LONG_WORK)
    line = f"{{ {sys.executable} {code} {folder}; echo $? >{folder}/status; }} {redirection}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT)
    ended = (folder / "end").exists()
    return ended, (folder / "status").read_text().strip(), done.stderr


@pytest.mark.parametrize(
    "redirection",
    [
        "| head -1",
        "2>&1 | head -1",
        "2> >(head -1)",
        "> >(head -1) 2> >(head -1)",
        "2>&-",
        ">&- 2>&-",
        "2>/dev/full",
    ],
)
def test_work_goes_on_when_nobody_reads(tmp_path, redirection):
    ended, status, told = long_work(tmp_path, redirection)
    assert ended
    assert status == "0"
    assert "Error" not in told
    assert "Exception ignored" not in told


def test_a_full_disk_under_standard_output_is_told_when_the_work_is_done(tmp_path):
    ended, status, told = long_work(tmp_path, ">/dev/full")
    assert ended
    assert status == "1"
    assert told.splitlines()[-1] == "error: standard output: No space left on device"
    assert "Traceback" not in told
    assert "Exception ignored" not in told


def test_a_character_that_the_terminal_does_not_have_is_escaped():
    code = "from mnasdet import terminal; terminal.set_up(); print('ü\\udc80')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stdout) == (0, "\\xfc\\udc80\n")


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    """TensorFlow writes to number 2, whatever that is."""
    code = (
        "from mnasdet import terminal; terminal.set_up(); import os; os._exit(open('x').fileno())"
    )
    (tmp_path / "x").touch()
    words = ["sh", "-c", f'exec "{sys.executable}" -c "{code}" <&- >&- 2>&-']
    assert subprocess.run(words, cwd=tmp_path).returncode > 2
