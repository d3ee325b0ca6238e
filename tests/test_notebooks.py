"""The notebooks as they are kept; `make notebooks` executes them."""

import re
from pathlib import Path

import nbformat
import pytest

from mnasdet import packaged

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCRIPTS = {path.stem.replace("_", "-") for path in (ROOT / "scripts").glob("*.py")}


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def repository():
    text = (ROOT / "pyproject.toml").read_text()
    if tomllib:
        return tomllib.loads(text)["project"]["urls"]["Repository"]
    return re.search(r'^Repository = "(.+)"', text, re.MULTILINE)[1]


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_it_is_valid_and_without_outputs(self, path):
        notebook = read(path)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                assert cell.outputs == []
                assert cell.execution_count is None

    def test_its_badge_opens_it(self, path):
        name = repository().removeprefix("https://github.com/")
        colab = f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{path.name}"
        assert f"({colab})" in read(path).cells[0].source

    def test_it_installs_the_repository(self, path):
        (line,) = [
            line for cell in read(path).cells for line in cell.source.splitlines() if "%pip" in line
        ]
        assert line.strip() == f'%pip install --quiet "mnasdet @ git+{repository()}"'

    def test_commands_configs_and_notebooks_are_there(self, path):
        source = "\n".join(cell.source for cell in read(path).cells)
        commands = set(re.findall(r"\bmnasdet-([a-z-]+)", source))
        assert commands
        assert commands <= SCRIPTS
        assert set(re.findall(r"configs/\w+\.config", source)) <= set(packaged.config_names())
        for linked in re.findall(r"\]\((\w+\.ipynb)\)", source):
            assert (path.parent / linked).exists()
