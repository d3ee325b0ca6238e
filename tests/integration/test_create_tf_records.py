"""scripts/create_coco_tf_record.py, create_pascal_tf_record.py and create_yolo_tf_record.py."""

import functools
import io
import json
import resource
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.integration.commands import ROOT, command, run

convert_coco = functools.partial(run, "create_coco_tf_record")


@pytest.fixture
def data(tmp_path):
    """Two pictures of noise; the second one's box leaves the image by a third."""
    images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (1, 2)]
    annotations = [
        {"id": i, "image_id": i, "category_id": 3, "bbox": [20 * i, 0, 30, 40]} for i in (1, 2)
    ]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cat"}],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    for i in (1, 2):
        file = io.BytesIO()
        noise = np.random.default_rng(i).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(noise).save(file, "PNG")
        (tmp_path / f"{i}.png").write_bytes(file.getvalue())
        left = 20 * i
        (tmp_path / f"{i}.xml").write_text(
            f"<annotation><filename>{i}.png</filename><object><name>cat</name><bndbox>"
            f"<xmin>{left}</xmin><ymin>0</ymin><xmax>{left + 30}</xmax><ymax>40</ymax>"
            "</bndbox></object></annotation>"
        )
    return tmp_path


def coco_flags(data):
    return [f"--images_dir={data}", f"--annotations={data / 'x.json'}"]


def test_coco(data):
    done = convert_coco(*coco_flags(data), f"--output_path={data}/out/x.record", "--num_shards=2")
    assert done.stdout == (
        f"wrote 2 images with 2 boxes to {data}/out/x.record-00000-of-00002 .. "
        f"{data}/out/x.record-00001-of-00002; left out 0 images and 0 boxes; boxes cut at the edge "
        "of their image by more than a quarter: 1\n"
    )
    assert "id: 3" in (data / "out" / "label_map.pbtxt").read_text()


def test_holdout(data):
    """One of the two pictures is in the second set, which has as many shards as it needs."""
    flags = [*coco_flags(data), "--num_shards=2", "--holdout=1"]
    done = convert_coco(*flags, f"--output_path={data}/out/x.record")
    assert done.stdout.startswith(
        f"wrote 1 images with 1 boxes to {data}/out/x.record-00000-of-00002 .. "
        f"{data}/out/x.record-00001-of-00002; held out 1 images with 1 boxes, which are in "
        f"{data}/out/x_holdout.record-00000-of-00001; left out 0 images and 0 boxes"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--holdout=1", "--holdout_fraction=0.5"],
            "give either --holdout or --holdout_fraction",
        ),
        (["--seed=3"], "--seed draws the images of --holdout; give that, too"),
    ],
)
def test_flags_of_a_holdout_that_contradict_one_another(data, flags, message):
    done = convert_coco(*coco_flags(data), f"--output_path={data}/out/x.record", *flags, status=1)
    assert done.stderr == f"error: {message}\n"


def test_lost_boxes(data):
    """A picture that loses its box is left out; two of three boxes are too many but for a flag."""
    path = data / "x.json"
    content = json.loads(path.read_text())
    content["annotations"].append(content["annotations"][0] | {"id": 3, "category_id": 9})
    content["annotations"][1]["bbox"] = [70, 0, 5, 5]
    path.write_text(json.dumps(content))
    done = convert_coco(
        *coco_flags(data), f"--output_path={data}/out/x.record", "--max_lost_boxes=0.7"
    )
    assert "wrote 1 images with 1 boxes to" in done.stdout
    assert "left out 1 images and 2 boxes" in done.stdout
    assert "image id 2 (2.png): annotation id 2: box [ymin 0, xmin 70" in done.stderr


def test_pascal_classes_with_a_typo(data):
    done = run(
        "create_pascal_tf_record",
        f"--images_dir={data}",
        f"--annotations_dir={data}",
        "--classes=cta",
        f"--output_path={data}/out/x.record",
        status=1,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: 2 of 2 boxes would be lost")
    assert "class 'cat' is unknown; expected one of cta; unknown classes: 'cat' 2 times" in last
    assert list((data / "out").iterdir()) == []


def test_yolo(data):
    (data / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (data / "classes.txt").write_text("cat\n")
    done = run(
        "create_yolo_tf_record",
        f"--images_dir={data}",
        f"--classes_file={data}/classes.txt",
        f"--output_path={data}/out/x.record",
    )
    assert done.stdout == (
        f"wrote 2 images with 1 boxes to {data}/out/x.record-00000-of-00001; left out 0 images and "
        "0 boxes; 1 images have no box and are background; 1 images have no txt file\n"
    )


def test_pascal_fatal(data):
    (data / "2.xml").write_text((data / "2.xml").read_text().replace(">70<", ">700<"))
    done = run(
        "create_pascal_tf_record",
        f"--images_dir={data}",
        f"--annotations_dir={data}",
        "--classes=dog,cat",
        f"--output_path={data}/out/x.record",
        "--bad_records=fatal",
        status=1,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {data}/2.xml (2.png): object 1: box [ymin 0, xmin 40")
    assert list((data / "out").iterdir()) == []


def test_output_below_a_file(data):
    done = convert_coco(*coco_flags(data), f"--output_path={data}/x.json/x.record", status=1)
    assert done.stderr.splitlines()[-1].startswith(f"error: {data}/x.json")


def test_full_disk(data):
    # A file that may not grow any more fails as on a full disk.
    done = subprocess.run(
        command("create_coco_tf_record", *coco_flags(data), f"--output_path={data}/out/x.record"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"error: {data}/out/x.record: the records cannot be written: "
    )
    assert list((data / "out").iterdir()) == []


@pytest.mark.parametrize(
    "script", ["create_coco_tf_record", "create_pascal_tf_record", "create_yolo_tf_record"]
)
def test_help(script):
    done = run(script, "--help")
    assert "--output_path" in done.stdout
    assert f"python scripts/{script}.py" in done.stdout
