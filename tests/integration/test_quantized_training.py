"""graph_rewriter in the config, train, export: an int8 graph; as commands, on a few digits."""

import json

import pytest

from mnasdet import config
from mnasdet.evaluation.coco import MAP
from tests.harness import operations_with_types
from tests.integration.commands import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quantized")


@pytest.fixture(scope="module")
def pipeline_path(tiny_config, folder):
    without_search = tiny_config[: tiny_config.index("search_config {")]
    path = folder / "quantized.config"
    path.write_text(
        without_search
        + "graph_rewriter { quantization { delay: 4 weight_bits: 8 activation_bits: 8 } }"
    )
    return path


def test_from_training_to_an_int8_graph(pipeline_path, folder):
    pipeline = f"--pipeline_config_path={pipeline_path}"
    run("train", pipeline, f"--model_dir={folder}/run")
    export = ["export_tflite", pipeline, f"--checkpoint_dir={folder}/run/best"]
    result = run(*export, f"--output_dir={folder}/no", status=1)
    assert "quantization is none; a detector that was trained with graph" in result.stderr
    run(*export, f"--output_dir={folder}/out", "--quantization=int8")
    plain = folder / "plain.config"
    plain.write_text(pipeline_path.read_text().partition("graph_rewriter")[0])
    export[1] = f"--pipeline_config_path={plain}"
    result = run(*export, f"--output_dir={folder}/no", status=1)
    assert "learns; the config has no graph_rewriter" in result.stderr
    described = json.loads((folder / "out" / "export.json").read_text())
    graph = (folder / "out" / "detect.tflite").read_bytes()
    operations = operations_with_types(graph)
    assert [op for op in operations if op[1] != {"int8"}] == [("DEQUANTIZE", {"float32"})] * 2
    # Some steps of the outputs' 255.
    assert 0 < max(described["parity"]["max_abs_difference"].values()) < 0.5

    from mnasdet import deployment, models
    from mnasdet.evaluation.evaluate import evaluate_pipeline

    loaded = config.load(pipeline_path)
    task = models.build(config.resolve(loaded))
    predict = deployment.predict_function(task.blueprint, folder / "out" / "detect.tflite")
    found = evaluate_pipeline(task, loaded, predict)
    trained = json.loads((folder / "run" / "metrics.json").read_text())
    assert found[MAP] == pytest.approx(trained[MAP], abs=0.01)
