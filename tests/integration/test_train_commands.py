"""train, evaluate, export, evaluate the export: as commands, on a few digits."""

import json

import pytest

from tests.integration.commands import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("train")


def test_from_training_to_the_exported_file(tiny_config, folder):
    path = folder / "tiny.config"
    path.write_text(tiny_config.replace("total_steps: 8", "total_steps: 10"))
    pipeline = f"--pipeline_config_path={path}"
    trained = json.loads(
        run("train", pipeline, f"--model_dir={folder}/run", "--format=json").stdout
    )
    assert trained["step"] == 8
    evaluated = json.loads(
        run("evaluate", pipeline, f"--checkpoint_dir={folder}/run", "--format=json").stdout
    )
    assert evaluated["DetectionBoxes_Precision/mAP"] == trained["DetectionBoxes_Precision/mAP"]
    run("export_tflite", pipeline, f"--checkpoint_dir={folder}/run", f"--output_dir={folder}/out")
    exported = json.loads((folder / "out" / "export.json").read_text())
    assert max(exported["parity"]["max_abs_difference"].values()) < 1e-3
    graph = f"--tflite_path={folder}/out/detect.tflite"
    of_tflite = json.loads(run("evaluate", pipeline, graph, "--format=json").stdout)
    for name in ("DetectionBoxes_Precision/mAP", "DetectionBoxes_Recall/AR@100"):
        assert of_tflite[name] == pytest.approx(evaluated[name], abs=0.002)
    again = run("train", pipeline, f"--model_dir={folder}/run", "--num_train_steps=10")
    assert "going on from" in again.stderr
    assert "step = 10" in again.stdout
    beyond = run("train", pipeline, f"--model_dir={folder}/run", "--num_train_steps=12", status=1)
    assert "total_steps is 10; train_config.num_steps is 12" in beyond.stderr


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("train", ["--pipeline_config_path=no.config", "--model_dir=x"], "error: no.config: "),
        (
            "evaluate",
            ["--pipeline_config_path=no.config"],
            "error: give one of --checkpoint_dir, --saved_model_path and --tflite_path",
        ),
        (
            "train",
            ["--pipeline_config_path=no.config", "--model_dir=x", "stray"],
            "error: unexpected argument 'stray'",
        ),
    ],
)
def test_mistakes_get_one_line(script, flags, message):
    result = run(script, *flags, status=1)
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
