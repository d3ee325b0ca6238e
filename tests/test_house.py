"""The rules of the house: floors, light imports."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground. A file imports from its own folder and from floors below.
FLOORS = [
    ["protos", "passwords"],
    ["errors"],
    ["remote"],
    ["text_files", "cores", "gpus", "terminal", "architectures", "base_codes", "operation_names"],
    ["search_stages"],
    ["files", "text_faults", "message_differences"],
    ["text_proto", "architecture_string", "feature_extractors"],
    ["config_checks", "packaged"],
    ["search_spaces", "networks", "data"],
    ["blueprint", "includes"],
    ["config", "tasks"],
    ["evaluation"],
    ["backbones", "feature_pyramids"],
    ["heads"],
    ["detectors", "classifiers", "keras"],
    ["supernets"],
    ["models"],
    ["tflite", "saved_model"],
    ["timing"],
    ["training", "deployment"],
    ["search"],
    ["reporting"],
    ["scripts"],
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def sources():
    return sorted((ROOT / "mnasdet").rglob("*.py")) + sorted((ROOT / "scripts").glob("*.py"))


def imported(path):
    """The names below mnasdet that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "mnasdet":
            yield from (alias.name for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnasdet."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("mnasdet."):
                    yield alias.name.split(".")[1]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_floors_below(path):
    parts = path.relative_to(ROOT).parts
    own = "scripts" if parts[0] == "scripts" else parts[1].removesuffix(".py")
    if own == "__init__":
        assert list(imported(path)) == []
        return
    for other in imported(path):
        assert own == other or FLOOR[other] < FLOOR[own], f"{own} imports {other}"


def imports_of(folder):
    """The dotted modules of mnasdet that the files of a folder import, each with the file."""
    for path in sorted((ROOT / "mnasdet" / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnasdet"):
                for alias in node.names:
                    yield f"{node.module}.{alias.name}", str(path.relative_to(ROOT / "mnasdet"))


def test_training_knows_no_kind_of_model():
    kinds = ("mnasdet.detectors", "mnasdet.classifiers")
    assert [found for found in imports_of("training") if found[0].startswith(kinds)] == []


def test_only_evaluation_and_detectors_know_mean_average_precision():
    coco = "mnasdet.evaluation.coco"
    importing = {path.split("/")[0] for module, path in imports_of("") if module.startswith(coco)}
    assert importing <= {"evaluation", "detectors"}


def module_graph():
    """The modules of mnasdet, each with those that it imports, wherever in the file."""
    root = ROOT / "mnasdet"
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in names.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnasdet"):
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    graph[name].add(inner if inner in names else node.module)
    return graph


def test_no_modules_import_one_another_in_a_circle():
    graph = module_graph()
    assert len(graph) > 200
    while leaves := [name for name, imports in graph.items() if not imports & graph.keys()]:
        for name in leaves:
            del graph[name]
    # The modules left are in an import cycle, or import one that is.
    assert sorted(graph) == []


def loaded_modules(code):
    code += "; import sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(result.stdout.split())


def test_importing_mnasdet_loads_nothing_heavy():
    heavy = {"tensorflow", "tf_keras", "sklearn", "plotly", "sqlalchemy", "numpy"}
    assert not heavy & loaded_modules("import mnasdet")


def test_configs_and_spaces_need_no_tensorflow():
    code = "import mnasdet.config, mnasdet.search_spaces.factory, mnasdet.detectors.network"
    assert "tensorflow" not in loaded_modules(code)


SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize(
    "name", [s for s in SCRIPTS if s not in ("__init__", "command", "device_flags")]
)
def test_help_has_an_example_and_loads_no_tensorflow(name):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", f"scripts/{name}.py", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0
    assert f"python scripts/{name}.py" in result.stdout
    assert "tensorflow" not in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["scripts/check_config.py"],
        # As the entry point does.
        ["-c", "from mnasdet.scripts.check_config import cli; cli()"],
    ],
)
def test_help_lists_the_flags_that_commands_share(command):
    result = subprocess.run(
        [sys.executable, *command, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    for name in ("pipeline_config_path", "train_input", "format"):
        assert f"  --{name}: " in result.stdout


def test_every_promise_names_a_test_that_is_there():
    promises = (ROOT / "docs" / "reliability.md").read_text()
    # `tests/a/test_b.py::test_c`, or `::test_d` of the same file, or a whole file.
    named = re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", promises)
    assert len(named) > 60
    file = ""
    for path, test in named:
        file = path or file
        assert f"def {test}(" in (ROOT / file).read_text() or not test, f"{file}::{test}"


def test_a_search_whose_children_train_elsewhere_needs_no_tensorflow():
    assert "tensorflow" not in loaded_modules("import mnasdet.search.search")


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (
            "amoebanet|amoebanet_d|AmoebaNetD",
            {
                "mnasdet/backbones/amoebanet.py",
                "mnasdet/backbones/factory.py",
                "mnasdet/config_checks/backbones.py",
                "mnasdet/architecture_string/kinds.py",
                "mnasdet/keras/backbones.py",
                "mnasdet/keras/factory.py",
                "mnasdet/keras/__init__.py",
                "protos/architecture.proto",
            },
        ),
        (
            "nsga2|Nsga2Config",
            {
                "mnasdet/search/controllers/nsga2.py",
                "mnasdet/search/controllers/factory.py",
                "mnasdet/config_checks/search.py",
                "protos/search.proto",
            },
        ),
    ],
)
def test_a_backbone_and_a_controller_are_known_to_few_files(words, files):
    """As docs/architecture.md counts them."""
    pattern = re.compile(rf"\b({words})\b")
    known = [*sources(), *(ROOT / "protos").glob("*.proto")]
    found = {
        str(path.relative_to(ROOT))
        for path in known
        if not path.name.endswith("_pb2.py") and pattern.search(path.read_text())
    }
    assert found == files
