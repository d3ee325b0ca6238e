"""Builds mnasdet: compiles protos/*.proto into mnasdet/protos and maps the two folders that sit
beside the package in the source tree, scripts/ and configs/, into it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PACKAGES = sorted(".".join(p.parent.parts) for p in Path("mnasdet").rglob("__init__.py"))
SCRIPTS = sorted(
    p.stem
    for p in Path("scripts").glob("*.py")
    if p.stem not in ("__init__", "command", "device_flags")
)


def compile_protos(output_root: Path) -> list[str]:
    """Writes output_root/mnasdet/protos/*_pb2.py with their stubs; returns the modules' paths."""
    from grpc_tools import protoc

    names = sorted(p.name for p in (ROOT / "protos").glob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            "-Imnasdet/protos=protos",
            f"--python_out={output_root}",
            f"--pyi_out={output_root}",
        ]
        + [f"mnasdet/protos/{name}" for name in names]
    )
    if status:
        raise SystemExit(f"protoc failed with status {status}")
    return [str(output_root / "mnasdet" / "protos" / f"{Path(name).stem}_pb2.py") for name in names]


def copy_protos(output_root: Path) -> list[str]:
    """Copies the .proto files, which document every field of a config; returns their paths."""
    folder = output_root / "mnasdet" / "protos"
    return [shutil.copy(path, folder) for path in sorted((ROOT / "protos").glob("*.proto"))]


class BuildPy(build_py):
    """Puts the protos, also compiled, into the wheel; into the source tree of an editable install
    the compiled ones only."""

    def run(self):
        super().run()
        output_root = ROOT if self.editable_mode else Path(self.build_lib)
        output_root.mkdir(parents=True, exist_ok=True)
        self.of_protos = compile_protos(output_root)
        if not self.editable_mode:
            self.of_protos += copy_protos(output_root)

    def get_outputs(self, include_bytecode=True):
        return super().get_outputs(include_bytecode) + getattr(self, "of_protos", [])


setup(
    packages=[*PACKAGES, "mnasdet.scripts", "mnasdet.configs"],
    package_dir={"mnasdet.scripts": "scripts", "mnasdet.configs": "configs"},
    package_data={
        "mnasdet.configs": ["*.config", "architectures/*.textproto"],
        "mnasdet.reporting": ["*.css", "*.js"],
        "mnasdet.training.warm_start": [
            "name_maps/*.textproto",
            "name_maps/shared/*.textproto",
        ],
    },
    entry_points={
        "console_scripts": [
            f"mnasdet-{name.replace('_', '-')} = mnasdet.scripts.{name}:cli" for name in SCRIPTS
        ]
    },
    cmdclass={"build_py": BuildPy},
)
