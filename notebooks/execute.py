"""Executes the notebooks beside it from the first cell to the last, each in a new folder.

  python notebooks/execute.py
  python notebooks/execute.py read_a_search

Prints the seconds of each, and ends with status 1 at the first cell that fails. The notebooks stay
as they are: what they print is not kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parent

# The longest that one cell may take.
_TIMEOUT_SECONDS = 600

# A shell command that fails ends no cell by itself.
_CHECK_COMMANDS = """
def _checked(command, _system=get_ipython().system):
    _system(command)
    if status := get_ipython().user_ns.get("_exit_code"):
        raise RuntimeError(f"status {status}: {command}")

get_ipython().system = _checked
"""


def execute(path: Path) -> None:
    """Executes a notebook.

    Raises:
      CellExecutionError: of the first cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_CHECK_COMMANDS))
    with tempfile.TemporaryDirectory(prefix=f"{path.stem}-") as folder:
        NotebookClient(
            notebook, timeout=_TIMEOUT_SECONDS, resources={"metadata": {"path": folder}}
        ).execute()


def main() -> int:
    # The commands of the virtualenv that runs this, activated or not.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    names = sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in names:
        start = time.monotonic()
        try:
            execute(FOLDER / f"{name}.ipynb")
        except CellExecutionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
