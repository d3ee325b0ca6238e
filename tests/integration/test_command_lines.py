"""Tests the flags, the help and the output of every command."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.integration.commands import ROOT, command, run

# As pip's entry points start a command.
INSTALLED = "import sys; from mnasdet.scripts.{} import cli; sys.argv[0] = 'mnasdet-x'; cli()"


def installed(name, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", INSTALLED.format(name), *arguments],
        capture_output=True,
        text=True,
        **options,
    )


def errors(name, *arguments):
    """The lines on standard error of a command that fails and prints nothing else."""
    done = run(name, *arguments, status=1)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("train", "--pipeline_config_path, --model_dir"),
        ("export_tflite", "--pipeline_config_path, --checkpoint_dir, --output_dir"),
        ("create_coco_tf_record", "--images_dir, --output_path, --annotations"),
        ("scale_frontier", "--search_dir, --model_dir"),
        ("trials", "--store"),
        ("benchmark_tflite", "--graph"),
    ],
)
def test_missing_flags_are_named_all_at_once_and_marked_in_the_help(name, missing):
    assert errors(name) == [f"error: missing: {missing}; --help describes them"]
    text = " ".join(run(name, "--help").stdout.split())
    marked = re.findall(r"--(\w+): (?:(?! --\w+: ).)*?\(required\)", text)
    assert sorted(marked) == sorted(missing.replace("--", "").split(", "))


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("--model_dri=x", "model_dir"),
        ("--model-dir=x", "model_dir"),
        ("--checkpoint=x", "fine_tune_checkpoint"),
        ("--steps", "num_train_steps"),
    ],
)
def test_an_unknown_flag_names_the_nearest(typo, meant):
    given = ["--pipeline_config_path=x"] + ([] if meant == "model_dir" else ["--model_dir=x"])
    assert errors("train", *given, typo) == [f"error: no flag {typo}; did you mean --{meant}?"]


def test_all_that_is_wrong_with_the_flags_is_told_at_once():
    assert errors("train", "--xyzzy=1", "--noresum", "--label_map=") == [
        "error: 4 problems with the flags:",
        "  no flag --xyzzy=1; --help lists them",
        "  no flag --noresum; --help lists them",
        "  missing: --pipeline_config_path, --model_dir; --help describes them",
        "  --label_map is empty; leave it out or give it a value",
    ]


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--model_dir=", "--model_dir is empty"),
        ("--train_input=", "--train_input is empty; leave it out or give it a value"),
        ("--architecture=", "--architecture is empty; leave it out or give it a value"),
        ("--num_train_steps=many", "flag --num_train_steps=many: invalid literal for int()"),
        ("--format=xml", "flag --format=xml: value should be one of <text|json>"),
    ],
)
def test_a_value_that_is_none(flag, line):
    (printed,) = errors("train", "--pipeline_config_path=x", "--model_dir=x", flag)
    assert printed.startswith(f"error: {line}")


def test_a_flag_is_no_value_of_another_one():
    assert errors("train", "--pipeline_config_path=x", "--model_dir", "--seed=1") == [
        "error: --model_dir has no value; --seed=1 comes after it"
    ]


def test_versions_are_told_without_loading_anything():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "scripts/train.py", "--version"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.splitlines()[0] == f"mnasdet {metadata.version('mnasdet')}"
    for name in ("tensorflow", "tf-keras", "ai-edge-litert"):
        assert f"{name} {metadata.version(name)}\n" in done.stdout
    assert "tensorflow" not in done.stderr
    assert "numpy" not in done.stderr


def test_the_help_names_the_command_as_it_was_started():
    of_script = run("create_coco_tf_record", "--help").stdout
    of_wheel = installed("create_coco_tf_record", "--help").stdout
    assert "  python scripts/create_coco_tf_record.py --images_dir=" in of_script
    assert "  mnasdet-create-coco-tf-record --images_dir=" in of_wheel
    scripts = (path.stem for path in (ROOT / "scripts").glob("[a-z]*.py"))
    for name in set(scripts) - {"command", "device_flags"}:
        text = installed(name, "--help").stdout
        assert f"mnasdet-{name.replace('_', '-')} " in text
        assert "--format: <text|json>" in text
        assert "scripts/" not in text
        assert "python " not in text


def test_packaged_configs_are_found_from_anywhere(tmp_path):
    help_text = installed("train", "--help", cwd=tmp_path).stdout
    assert "\n  configs/quickstart.config" in help_text
    own = ROOT / "configs" / "quickstart.config"
    for name in ("configs/quickstart.config", "quickstart.config", "quickstart"):
        done = installed("describe_search_space", f"--pipeline_config_path={name}", cwd=tmp_path)
        assert "block_4/expanded_channels    32, 64, 96, 128\n" in done.stdout
        assert done.stderr.startswith(f"{name}: no such file here; {own} is used\n")
    # A file of the user's goes before it.
    (tmp_path / "quickstart.config").write_text(
        own.read_text().replace("expanded_channels: [32, 64, 96, 128]", "expanded_channels: [40]")
    )
    done = installed(
        "describe_search_space", "--pipeline_config_path=quickstart.config", cwd=tmp_path
    )
    assert "block_4/expanded_channels    40\n" in done.stdout
    assert done.stderr == ""


def test_a_config_that_is_nowhere_names_the_packaged_ones(tmp_path):
    (tmp_path / "mine.config").touch()
    for name, nearest in {"configs/quikstart.config": "configs/quickstart.config"}.items():
        done = installed("check_config", f"--pipeline_config_path={name}", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith(
            f"error: {name}: no such file; with mnasdet comes one of {nearest}, configs/"
        )
    done = installed("check_config", "--pipeline_config_path=mien.config", cwd=tmp_path)
    assert done.stderr.startswith("error: mien.config: no such file; did you mean mine.config?;")


def test_reading_the_first_lines_only_ends_no_work(tmp_path):
    """As `... 2>&1 | head -1` does: the reader goes while the command still writes."""
    folder = tmp_path / "images"
    folder.mkdir()
    annotated = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 8, "width": 8} for i in range(400)],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}],
    }
    from PIL import Image

    Image.new("RGB", (8, 8)).save(folder / "0.jpg")
    for i in range(1, 300):
        (folder / f"{i}.jpg").write_bytes((folder / "0.jpg").read_bytes())
    (tmp_path / "x.json").write_text(json.dumps(annotated))
    process = subprocess.Popen(
        command(
            "create_coco_tf_record",
            f"--images_dir={folder}",
            f"--annotations={tmp_path}/x.json",
            f"--output_path={tmp_path}/out/x.record",
        ),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(120) == 0
    assert (tmp_path / "out" / "x.record-00000-of-00001").stat().st_size > 0
    assert (tmp_path / "out" / "label_map.pbtxt").exists()


def test_work_that_fails_without_a_reader_has_status_1(tmp_path):
    near, far = os.pipe()
    os.close(near)
    done = subprocess.run(
        command("analyze", "--architecture=nowhere"), cwd=ROOT, stdout=far, stderr=far
    )
    os.close(far)
    assert done.returncode == 1


def test_a_pure_printer_without_a_reader_has_status_0():
    near, far = os.pipe()
    os.close(near)
    done = subprocess.run(
        command("analyze", "--list"), cwd=ROOT, stdout=far, stderr=subprocess.PIPE, text=True
    )
    os.close(far)
    assert (done.returncode, done.stderr) == (0, "")


def test_on_windows_one_line_says_where_it_runs(tmp_path):
    code = "import sys; sys.platform = 'win32'; " + INSTALLED.format("check_config")
    done = subprocess.run(
        [sys.executable, "-c", code, "--pipeline_config_path=quickstart"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "error: mnasdet runs on Linux and macOS; on Windows use it in WSL\n"


def test_records_are_summed_up_as_json(tmp_path):
    from PIL import Image

    Image.new("RGB", (9, 9)).save(tmp_path / "0.jpg")
    (tmp_path / "x.json").write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "0.jpg", "height": 9, "width": 9}],
                "annotations": [
                    {"id": i, "image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 4]}
                    for i in (1, 2, 3)
                ],
                "categories": [{"id": 1, "name": "cat"}],
            }
        )
    )
    done = run(
        "create_coco_tf_record",
        f"--images_dir={tmp_path}",
        f"--annotations={tmp_path}/x.json",
        f"--output_path={tmp_path}/out/x.record",
        "--format=json",
    )
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["boxes"], summary["skipped_boxes"]) == (1, 3, 0)
    assert [Path(path).name for path in summary["paths"]] == ["x.record-00000-of-00001"]


SLEEPING = """
"Sleeps."
import time
from mnasdet.scripts import command

def main():
    with command.resumable():
        print("ready", flush=True)
        time.sleep(600)

command.run(main)
"""


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGTERM, "stopped by SIGTERM"), (signal.SIGINT, "interrupted")],
)
def test_a_signal_says_how_to_go_on(number, reason):
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert told == f"error: {reason}; the same command with --resume goes on\n"
    assert process.returncode == 1
