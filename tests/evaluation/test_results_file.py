"""Detections as COCO's JSON of results, judged by pycocotools alone."""

import json
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mnasdet.data import coco, conversion
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import DataError
from mnasdet.evaluation import results_file
from mnasdet.evaluation.coco import METRICS, CocoEvaluator, class_metric
from mnasdet.evaluation.detection_evaluator import DetectionEvaluator
from mnasdet.evaluation.evaluate import judged_on
from mnasdet.protos import pipeline_pb2

NAMES = {1: "person", 4: "motorcycle", 90: "toothbrush"}
HEIGHT, WIDTH = 480, 640

# Ids with gaps, not in order.
IDS = [139, 87038, 776, 5529, 580197, 285, 1000, 2153]


@pytest.fixture(scope="module")
def annotations():
    """A small data set as COCO has it: all sizes, areas of masks, crowds, images with nothing."""
    rng = np.random.default_rng(3)
    content = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in IDS],
        "categories": [{"id": i, "name": name} for i, name in NAMES.items()],
        "annotations": [],
    }
    for image_id in IDS[:-1]:
        for _ in range(9):
            width, height = rng.choice([20.0, 60.0, 180.0]) * rng.uniform(0.5, 1.5, 2)
            x, y = rng.uniform(0, [WIDTH - width, HEIGHT - height])
            content["annotations"].append(
                {
                    "id": 1000 + 7 * len(content["annotations"]),
                    "image_id": image_id,
                    "category_id": int(rng.choice(list(NAMES))),
                    "bbox": [x, y, width, height],
                    "area": width * height * rng.uniform(0.4, 1.0),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
    return content


@pytest.fixture(scope="module")
def judged(annotations):
    """An evaluator with detections near the objects, of the wrong class at times, and elsewhere."""
    rng = np.random.default_rng(4)
    evaluator = CocoEvaluator(NAMES)
    scale = np.array([HEIGHT, WIDTH] * 2)
    for number, image in enumerate(annotations["images"]):
        own = [one for one in annotations["annotations"] if one["image_id"] == image["id"]]
        x, y, width, height = np.array([one["bbox"] for one in own]).reshape(-1, 4).T
        # As records keep them.
        boxes = (np.stack([y, x, y + height, x + width], axis=1) / scale).astype(np.float32)
        classes = np.array([one["category_id"] for one in own], int)
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        near = boxes + sides * rng.normal(0, 0.08, boxes.shape)
        wrong = rng.random(len(own)) < 0.1
        elsewhere = rng.uniform(0, 0.5, (6, 4))
        elsewhere[:, 2:] += 0.4
        found = np.concatenate([near, near[::3], elsewhere])
        found_classes = np.concatenate([np.where(wrong, 4, classes), classes[::3], [1] * 6])
        if number == 2:  # An image in which nothing is found.
            found, found_classes = np.zeros((0, 4)), np.zeros(0, int)
        evaluator.add(
            HEIGHT,
            WIDTH,
            boxes,
            classes,
            np.array([one["area"] for one in own], np.float32),
            np.array([one["iscrowd"] for one in own], bool),
            np.clip(found, 0, 1).astype(np.float32),
            found_classes,
            rng.random(len(found)).astype(np.float32),
            f"{image['id']:012}",
        )
    return evaluator


def evaluation(annotations, path, **params):
    """pycocotools' own reading of both files."""
    truth = COCO()
    truth.dataset = annotations
    truth.createIndex()
    found = COCOeval(truth, truth.loadRes(str(path)), "bbox")
    for name, value in params.items():
        setattr(found.params, name, value)
    found.evaluate()
    found.accumulate()
    found.summarize()
    return found


def test_pycocotools_finds_the_printed_metrics(annotations, judged, tmp_path):
    path = tmp_path / "results.json"
    results_file.write(path, judged)
    metrics = judged.metrics(all_per_category=True)
    stats = evaluation(annotations, path).stats
    assert [metrics[name] for name in METRICS] == pytest.approx(stats.tolist(), abs=1e-6)
    # Something of all kinds was measured, and neither all right nor all wrong.
    assert all(0.05 < value < 0.95 for value in stats)
    for category, name in NAMES.items():
        of_class = evaluation(annotations, path, catIds=[category]).stats
        own = [metrics[class_metric(metric, name)] for metric in METRICS]
        assert own == pytest.approx(of_class.tolist(), abs=1e-6)


def test_a_data_set_of_its_own_annotations_is_judged_as_by_them(annotations, judged, tmp_path):
    """From COCO's files to records, through a padded input, to COCO's file of results."""
    (tmp_path / "images").mkdir()
    named = [image | {"file_name": f"{image['id']}.png"} for image in annotations["images"]]
    for image in named:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / image["file_name"])
    (tmp_path / "instances.json").write_text(json.dumps(annotations | {"images": named}))
    names, images, _ = coco.read(tmp_path / "instances.json")
    conversion.convert(
        images,
        total=len(images),
        images_dir=tmp_path / "images",
        names=names,
        output_path=tmp_path / "val.record",
        num_shards=1,
        label_map_output=tmp_path / "label_map.pbtxt",
        skip_bad=False,
    )
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.eval_config.batch_size = 3
    reader = pipeline.eval_input_reader.add(label_map_path=str(tmp_path / "label_map.pbtxt"))
    reader.tf_record_input_reader.input_path.append(f"{tmp_path}/val.record*")
    found = defaultdict(list)
    for one in judged.detections:
        x, y, width, height = one["bbox"]
        box = np.array([y, x, y + height, x + width]) / ([HEIGHT, WIDTH] * 2)
        # The picture has three quarters of the input's height.
        found[one["image_id"]].append((box * [0.75, 1, 0.75, 1], one))
    places = iter(range(1, len(IDS) + 1))

    def predict(batch):
        assert batch.shape[1:] == (80, 80, 3)
        outputs = {
            "detection_boxes": np.zeros((len(batch), 100, 4), np.float32),
            "detection_scores": np.zeros((len(batch), 100), np.float32),
            "detection_classes": np.zeros((len(batch), 100), np.float32),
            "num_detections": np.zeros(len(batch), np.int32),
        }
        for row, place in zip(range(len(batch)), places, strict=False):
            outputs["num_detections"][row] = len(found[place])
            for number, (box, one) in enumerate(found[place]):
                outputs["detection_boxes"][row, number] = box
                outputs["detection_scores"][row, number] = one["score"]
                outputs["detection_classes"][row, number] = one["category_id"]
        return outputs

    resizer = ImageResizer((80, 80), min_dimension=60)
    evaluator = judged_on(pipeline, DetectionEvaluator(names), predict, resizer)
    path = tmp_path / "results.json"
    results_file.write(path, evaluator.coco)
    stats = evaluation(annotations, path).stats
    metrics = evaluator.metrics()
    assert [metrics[name] for name in METRICS] == pytest.approx(stats.tolist(), abs=1e-6)
    assert stats == pytest.approx([judged.metrics()[name] for name in METRICS], abs=1e-6)


def test_boxes_are_in_pixels_and_ids_are_the_data_sets(judged, tmp_path):
    path = tmp_path / "results.json"
    results_file.write(path, judged)
    results = json.loads(path.read_text())
    assert {one["image_id"] for one in results} == set(IDS) - {776}
    assert {one["category_id"] for one in results} <= NAMES.keys()
    assert max(one["bbox"][0] + one["bbox"][2] for one in results) > HEIGHT
    assert all(set(one) == {"image_id", "category_id", "bbox", "score"} for one in results)


def of_images(*source_ids):
    evaluator = CocoEvaluator(NAMES)
    for source_id in source_ids:
        nothing = np.zeros((0, 4))
        box, one = np.array([[0.1, 0.25, 0.5, 0.75]]), np.ones(1)
        evaluator.add(HEIGHT, WIDTH, nothing, [], [], [], box, one, 0.5 * one, source_id)
    return evaluator


def test_a_result_by_hand():
    assert list(results_file.results(of_images("42"))) == [
        {"image_id": 42, "category_id": 1, "bbox": [160.0, 48.0, 320.0, 192.0], "score": 0.5}
    ]


@pytest.mark.parametrize("names", [("2007_000032", "17"), ("1_2", "3"), ("a/b", "c"), ("٣", "4")])
def test_ids_that_are_no_numbers_are_written_as_they_are(names):
    assert [one["image_id"] for one in results_file.results(of_images(*names))] == list(names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("1", ""), "image 2 of the evaluation set has neither"),
        (("7", "8", "7"), "2 images of the evaluation set have the image/source_id 7"),
        (("7", "007"), "2 images of the evaluation set have the image/source_id 7"),
        (("a", "a"), "2 images of the evaluation set have the image/source_id a"),
    ],
)
def test_images_that_results_cannot_name(names, message):
    with pytest.raises(DataError, match=message):
        list(results_file.results(of_images(*names)))
