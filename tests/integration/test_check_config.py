"""scripts/check_config.py as a command."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from mnasdet.data.records import Record, ShardedWriter
from tests.integration.commands import ROOT, run
from tests.od_api_configs import config_text

COCO = ROOT / "configs" / "mnasfpn_mobilenet_v2_320x320_coco.config"
SEARCH = ROOT / "configs" / "mnasfpn_search_coco.config"


def check_config(path, *arguments, status=0):
    return run("check_config", f"--pipeline_config_path={path}", *arguments, status=status)


def write_records(path, num_images, class_id=1, name="person"):
    """Writes records of one small picture with one box."""
    picture = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(picture, "JPEG")
    record = Record(
        source_id="a",
        filename="a.jpg",
        encoded=picture.getvalue(),
        image_format="jpeg",
        height=16,
        width=16,
        boxes=np.array([[0, 0, 0.5, 0.5]], np.float32),
        class_ids=np.array([class_id]),
        class_names=[name],
        area=np.array([64], np.float32),
        is_crowd=np.array([False]),
        difficult=np.array([False]),
    )
    with ShardedWriter(path, 1) as writer:
        for _ in range(num_images):
            writer.write(record)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records for a batch of the COCO config, and a label map with gaps up to its 90 ids."""
    folder = tmp_path_factory.mktemp("records")
    write_records(folder / "train.record", 1024)
    write_records(folder / "val.record", 1)
    (folder / "label_map.pbtxt").write_text(
        'item { id: 1 name: "person" } item { id: 90 name: "toothbrush" }'
    )
    return folder


@pytest.fixture
def inputs(folder):
    """The flags that name the data."""
    return [
        f"--train_input={folder}/train.record*",
        f"--eval_input={folder}/val.record-00000-of-00001",
        f"--label_map={folder}/label_map.pbtxt",
    ]


def test_says_what_the_coco_config_builds(inputs):
    done = check_config(COCO, *inputs)
    lines = done.stdout.splitlines()
    assert lines[0] == "ok"
    text = " ".join(done.stdout.split())
    assert "image size: 320x320" in text
    # The paper's 2.50 M and 0.92 B (table 1).
    assert "params: 2,503,047 trainable params: 2,455,655 multiply adds: 918,578,800" in text
    assert "learning rate: from 0.026666 to 4 in 5000 steps, cosine to 0 at 50000" in text


def test_json_is_all_there_is_on_standard_output(inputs):
    done = check_config(SEARCH, *inputs, "--format=json")
    summary = json.loads(done.stdout)
    assert summary["num_steps"] == 34777
    assert summary["batch_size"] == 64
    assert summary["learning_rate"] == (
        "linearly from 0, 0.04 from step 1739, 0.004 from step 27822"
    )
    assert sum(part["params"] for part in summary["parts"].values()) == summary["params"]
    assert summary["structure"].startswith(
        "mobilenet_v2/mnasfpn_c48_r4_L4(C4+C5)f256k3.L3(C3+B0)f128k3.L4(B1+B0)f128k3."
    )
    assert summary["optimizer"] == "momentum"
    # Appendix A.1's formula, evaluated exactly (unordered pairs of inputs).
    assert summary["cardinality"] == 2**9 * 4**5 * 24 * 3112013520000 * 3**9 * 6 * 7**9


def test_a_config_of_the_od_api(tmp_path, inputs):
    path = tmp_path / "ssd.config"
    path.write_text(config_text("ssd_mobilenet_v2"))
    text = " ".join(check_config(path, *inputs).stdout.split())
    assert "structure: mobilenet_v2/ssd_layers_c512,256,256,128/ssd_k1 " in text
    assert "image size: 300x300" in text
    assert "optimizer: rms_prop" in text
    assert "learning rate: 0.004, times 0.95 every 800720 steps" in text


def test_lists_all_problems(tmp_path, inputs):
    path = tmp_path / "my.config"
    text = COCO.read_text().replace("batch_size: 1024", "batch_size: 0")
    path.write_text(text.replace("num_classes: 90", "num_classes: 0"))
    done = check_config(path, *inputs, status=1)
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == f"error: 3 problems in {path}:"
    assert "model.ssd.num_classes is 0; at least 1 is allowed" in done.stderr
    assert "train_config.batch_size is 0; at least 1 is allowed" in done.stderr


def test_names_the_flags_of_what_is_not_configured():
    done = check_config(COCO, status=1)
    for flag in ("train_input", "eval_input", "label_map"):
        assert f"; --{flag} sets it" in done.stderr


def test_one_line_for_a_misspelt_field(tmp_path):
    path = tmp_path / "my.config"
    path.write_text(COCO.read_text().replace("num_classes:", "num_class:"))
    done = check_config(path, status=1)
    assert len(done.stderr.splitlines()) == 1
    assert ':5: no field "num_class" in Ssd; did you mean "num_classes"?' in done.stderr


def test_says_no_to_more_classes_than_the_label_map_has(tmp_path, inputs):
    one = tmp_path / "one.pbtxt"
    one.write_text('item { id: 1 name: "person" }')
    done = check_config(COCO, *inputs[:2], f"--label_map={one}", status=1)
    (line,) = done.stderr.splitlines()
    assert f"model.ssd.num_classes is 90; {one} has ids up to 1" in line


def test_says_no_to_a_folder_in_place_of_its_files(folder, inputs):
    done = check_config(COCO, f"--train_input={folder}", *inputs[1:], status=1)
    (line,) = done.stderr.splitlines()
    assert f'is "{folder}", a folder; name its files, as in "{folder}/*.record*"' in line


def test_says_no_to_what_training_would_not_read(tmp_path, inputs):
    """All at once: a record with another label map's id, and a checkpoint of another program."""
    write_records(tmp_path / "b.record", 1, class_id=2, name="bicycle")
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    path = tmp_path / "my.config"
    path.write_text(
        COCO.read_text().replace(
            "num_steps: 50000", f'num_steps: 50000 fine_tune_checkpoint: "{tmp_path}/model.h5"'
        )
    )
    records = f"--eval_input={tmp_path}/b.record*"
    done = check_config(path, inputs[0], records, inputs[2], status=1)
    assert done.stdout == ""
    # Bad records are also named one by one in the log.
    lines = done.stderr.splitlines()
    first, *others = lines[[line.startswith("error:") for line in lines].index(True) :]
    assert first == f"error: 2 problems in the data of {path}:"
    assert others[0].startswith(f"  {tmp_path}/b.record-00000-of-00001: record 0 (image 'a'): ")
    assert "id 2" in others[0]
    assert others[1].startswith(
        f"  train_config.fine_tune_checkpoint: {tmp_path}/model.h5: is a damaged Keras file: "
    )


def test_a_model_that_is_not_here_is_one_line(tmp_path):
    path = tmp_path / "efficientdet.config"
    text = config_text("ssd_mobilenet_v2_fpn_keras").replace(
        "type: 'ssd_mobilenet_v2_fpn_keras'",
        "type: 'ssd_efficientnet-b0_bifpn_keras' bifpn { min_level: 3 max_level: 7 }",
    )
    path.write_text(text)
    (line,) = check_config(path, status=1).stderr.splitlines()
    assert "EfficientDet is not here; nearest: ssd_mobilenet_v2_fpn_keras" in line
