"""SavedModels of detectors, from the export to the evaluation."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from mnasdet import config, deployment, files, models
from mnasdet.data import label_map
from mnasdet.data.records import Record, ShardedWriter
from mnasdet.errors import UserError
from mnasdet.evaluation import detection
from mnasdet.evaluation.coco import MAP, METRICS
from mnasdet.evaluation.detection_evaluator import DetectionEvaluator
from mnasdet.evaluation.evaluate import evaluate_pipeline, judged_on
from mnasdet.saved_model import loaded
from mnasdet.training import checkpoints
from tests import harness
from tests.integration.commands import run

NAMES = {number: f"class {number}" for number in range(1, 11)}

# Sizes of the pictures. Most differ from the network's input, so those are padded.
SIZES = [(40, 70), (90, 60), (64, 64), (33, 100)]
IDS = [501, 17, 44, 9]

_RESIZER = "fixed_shape_resizer { height: 64 width: 64 }"
_PADDING = (
    "keep_aspect_ratio_resizer { min_dimension: 48 max_dimension: 64 pad_to_max_dimension: true }"
)


def picture(number):
    """A smooth picture: what resizing makes of noise hangs on every bit."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8))
    height, width = SIZES[number]
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_records(path, objects):
    """Writes the pictures.

    Args:
      objects: of each picture, boxes (ymin, xmin, ymax, xmax), normalised, and classes.
    """
    with ShardedWriter(path, 1) as writer:
        for number, (boxes, classes) in enumerate(objects):
            height, width = SIZES[number]
            sides = boxes[:, 2:] - boxes[:, :2]
            writer.write(
                Record(
                    source_id=str(IDS[number]),
                    filename=f"{number}.png",
                    encoded=encoded(picture(number)),
                    image_format="png",
                    height=height,
                    width=width,
                    boxes=boxes.astype(np.float32),
                    class_ids=classes,
                    class_names=[],
                    area=(sides.prod(axis=1) * height * width).astype(np.float32),
                    is_crowd=np.zeros(len(boxes), bool),
                    difficult=np.zeros(len(boxes), bool),
                )
            )
    return writer.paths[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved_model")


@pytest.fixture(scope="module")
def trained(folder, tiny_config):
    """The pipeline, and a detector whose layers all have a say; its checkpoint is in train/.

    Three objects of each picture are what it finds in it, a little off.
    """
    assert _RESIZER in tiny_config
    label_map.save(folder / "label_map.pbtxt", NAMES)
    nothing = np.zeros((0, 4)), np.zeros(0, int)
    given = {"label_map": str(folder / "label_map.pbtxt"), "readers": ("eval_input_reader",)}
    (folder / "tiny.config").write_text(tiny_config.replace(_RESIZER, _PADDING))
    path = write_records(folder / "blank.record", [nothing] * len(SIZES))
    pipeline = config.load(folder / "tiny.config", eval_input=[path], **given)
    tf.keras.utils.set_random_seed(0)
    detector = models.build(config.resolve(pipeline))
    harness.enliven(harness.Network([], detector.model, detector, pipeline))
    weights = checkpoints.variables_by_name(detector.model)
    blank = {name: tf.Variable(tf.zeros_like(variable)) for name, variable in weights.items()}
    # The averages count.
    held = {checkpoints.WEIGHTS: blank, checkpoints.AVERAGES: weights}
    tf.train.Checkpoint(**held).save(str(folder / "train" / "ckpt"))

    objects = []
    for number, (height, width) in enumerate(SIZES):
        found = detection.detect(picture(number), detector.blueprint.resizer, detector.predict)
        boxes = found.boxes[:3] / [height, width, height, width]
        shift = np.minimum(0.1 * (boxes[:, 2:] - boxes[:, :2]), 1 - boxes[:, 2:])
        objects.append((boxes + np.tile(shift, 2), found.classes[:3]))
    path = write_records(folder / "val.record", objects)
    pipeline = config.load(folder / "tiny.config", eval_input=[path], **given)
    (folder / "pipeline.config").write_text(text_format.MessageToString(pipeline))
    return pipeline, detector


@pytest.fixture(scope="module")
def exported(trained, folder):
    """The folder of an export, by the command."""
    done = run(
        "export_saved_model",
        f"--pipeline_config_path={folder / 'pipeline.config'}",
        f"--checkpoint_dir={folder / 'train'}",
        f"--output_dir={folder / 'exported'}",
        "--input_type=encoded_image_string_tensor",
        "--format=json",
    )
    description = json.loads(done.stdout)
    held = files.read_json(folder / "exported" / "export.json", "description")
    assert held == description
    assert description["signatures"]["image_tensor"]["input"] == {
        "name": "input_tensor",
        "shape": [None, None, None, 3],
        "dtype": "uint8",
    }
    return folder / "exported"


@pytest.fixture(scope="module")
def model(exported):
    return tf.saved_model.load(str(exported / "saved_model"))


def test_the_folder_has_what_belongs_to_the_model(exported, trained):
    names = {"saved_model", "export.json", "pipeline.config", "label_map.pbtxt"}
    assert {path.name for path in exported.iterdir()} == names
    assert label_map.load(exported / "label_map.pbtxt") == NAMES
    assert config.load(exported / "pipeline.config", readers=()) == trained[0]


def test_outputs_have_the_od_apis_names_and_shapes(model, trained):
    _, detector = trained
    anchors = len(detector.anchors)
    pixels = tf.constant(np.stack([picture(2)] * 3))
    outputs = model.signatures["image_tensor"](input_tensor=pixels)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "detection_boxes": (3, 100, 4),
        "detection_scores": (3, 100),
        "detection_classes": (3, 100),
        "num_detections": (3,),
        "detection_anchor_indices": (3, 100),
        "detection_multiclass_scores": (3, 100, 11),
        "raw_detection_boxes": (3, anchors, 4),
        "raw_detection_scores": (3, anchors, 11),
    }
    assert {value.dtype for value in outputs.values()} == {tf.float32}


@pytest.mark.parametrize("number", range(len(SIZES)))
def test_detections_are_those_of_the_checkpoint(model, trained, number):
    _, detector = trained
    pixels = picture(number)
    expected = detection.detect(pixels, detector.blueprint.resizer, detector.predict)
    outputs = model.signatures["image_tensor"](input_tensor=pixels[None])
    count = len(expected.scores)
    assert 10 < count == outputs["num_detections"].numpy()
    height, width = SIZES[number]
    boxes = outputs["detection_boxes"][0].numpy() * [height, width, height, width]
    np.testing.assert_allclose(boxes[:count], expected.boxes, atol=1e-3)
    np.testing.assert_allclose(outputs["detection_scores"][0, :count], expected.scores, atol=1e-6)
    np.testing.assert_array_equal(outputs["detection_classes"][0, :count], expected.classes)
    assert not outputs["detection_scores"][0, count:].numpy().any()


def test_pictures_are_detected_in_as_they_are(exported, trained):
    """As the command detect does."""
    _, detector = trained
    expected = detection.detect(picture(3), detector.blueprint.resizer, detector.predict)
    found = detection.detect(picture(3), None, deployment.saved_model_function("ssd", exported))
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_array_equal(found.classes, expected.classes)
    # In pixels.
    assert found.boxes.max() > max(SIZES[3]) / 2


def test_files_examples_and_floats_are_the_same_pictures(model):
    """Files of several sizes in one batch; `model` itself takes what serving_default does."""
    pictures = [picture(0), picture(1)]
    strings = [encoded(pixels) for pixels in pictures]
    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[one]))
                }
            )
        ).SerializeToString()
        for one in strings
    ]
    alone = [model.signatures["image_tensor"](input_tensor=pixels[None]) for pixels in pictures]
    floats = model.signatures["float_image_tensor"](
        input_tensor=pictures[1][None].astype(np.float32)
    )
    batches = [
        model.signatures["serving_default"](input_tensor=tf.constant(strings)),
        model.signatures["tf_example"](input_tensor=tf.constant(examples)),
        model(tf.constant(strings)),
    ]
    for name in ("detection_boxes", "detection_scores", "raw_detection_boxes"):
        for batch in batches:
            for number, one in enumerate(alone):
                np.testing.assert_allclose(batch[name][number], one[name][0], atol=1e-5)
        np.testing.assert_allclose(floats[name], alone[1][name], atol=1e-6)


def test_detections_are_taken_from_the_raw_outputs(model):
    outputs = model.signatures["image_tensor"](input_tensor=picture(0)[None])
    found = {name: value[0].numpy() for name, value in outputs.items()}
    count = int(found["num_detections"])
    anchors = found["detection_anchor_indices"][:count].astype(int)
    assert len(set(anchors.tolist())) > 10
    boxes = found["raw_detection_boxes"][anchors]
    np.testing.assert_allclose(np.clip(boxes, 0, 1), found["detection_boxes"][:count], atol=1e-6)
    scores = found["raw_detection_scores"][anchors]
    np.testing.assert_array_equal(scores, found["detection_multiclass_scores"][:count])
    classes = found["detection_classes"][:count].astype(int)
    np.testing.assert_array_equal(
        scores[np.arange(count), classes], found["detection_scores"][:count]
    )


def test_its_metrics_are_those_of_the_checkpoint(exported, trained, folder, tmp_path):
    pipeline, detector = trained
    expected = evaluate_pipeline(detector, pipeline)
    assert 0.2 < expected[MAP] < 0.95
    done = run(
        "evaluate",
        f"--pipeline_config_path={folder / 'pipeline.config'}",
        f"--saved_model_path={exported}",
        f"--detections_path={tmp_path / 'found.json'}",
        f"--report_dir={tmp_path / 'report'}",
        "--format=json",
    )
    metrics = json.loads(done.stdout)
    for name in METRICS:
        assert metrics[name] == pytest.approx(expected[name], abs=1e-6)
    results = json.loads((tmp_path / "found.json").read_text())
    assert {one["image_id"] for one in results} == set(IDS)
    numbers = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert numbers["metrics"] == metrics
    confusion = np.array(numbers["confusion_matrix"]["counts"])
    assert confusion[:-1].sum() == 3 * len(SIZES)
    html = (tmp_path / "report" / "index.html").read_text()
    for title in ("By class and size", "Precision and recall", "Confusion of classes"):
        assert f"<h2>{title}</h2>" in html
    assert html.count('<div class="example">') == len(SIZES)


def test_other_classes_than_those_of_the_model_are_refused(exported, folder, tmp_path):
    """Their metrics would be wrong and plausible."""
    swapped = {1: NAMES[2], 2: NAMES[1], **{n: name for n, name in NAMES.items() if n > 2}}
    (tmp_path / "swapped.pbtxt").write_text(label_map.to_text(swapped))
    done = run(
        "evaluate",
        f"--pipeline_config_path={folder / 'pipeline.config'}",
        f"--saved_model_path={exported}",
        f"--label_map={tmp_path / 'swapped.pbtxt'}",
        status=1,
    )
    assert "class 1 is 'class 1' in the model, 'class 2' in the label map" in done.stderr


class _Stranger(tf.Module):
    """Has the OD API's signature, and finds one box in every picture: its left half."""

    def __init__(self, dtype):
        super().__init__()
        shape = [1] if dtype == tf.string else [1, None, None, 3]
        self.function = tf.function(self._detect, [tf.TensorSpec(shape, dtype, "input_tensor")])

    def _detect(self, input_tensor):
        if input_tensor.dtype == tf.string:
            input_tensor = tf.io.decode_image(input_tensor[0], 3, expand_animations=False)[None]
        pixels = tf.cast(input_tensor, tf.float32)
        # The brightest pixel is the score: the pictures arrive as they are.
        score = tf.reduce_max(pixels) / 255.0
        return {
            "detection_boxes": tf.constant([[[0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0]]]),
            "detection_scores": tf.reshape(tf.stack([score, 0.0]), [1, 2]),
            "detection_classes": tf.constant([[2.0, 1.0]]),
            "num_detections": tf.constant([1.0]),
            "raw_detection_scores": tf.zeros([1, 7, 4]),
        }


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32, tf.string])
def test_models_of_the_od_api_are_evaluated(trained, folder, tmp_path, dtype):
    pipeline, _ = trained
    stranger = _Stranger(dtype)
    tf.saved_model.save(stranger, str(tmp_path / "saved_model"), stranger.function)
    half = np.array([[0.0, 0.0, 1.0, 0.5]])
    path = write_records(tmp_path / "half.record", [(half, np.array([2]))] * len(SIZES))
    copy = type(pipeline)()
    copy.CopyFrom(pipeline)
    copy.eval_input_reader[0].tf_record_input_reader.input_path[:] = [path]
    predict = deployment.saved_model_function("ssd", tmp_path)
    evaluator = judged_on(copy, DetectionEvaluator(NAMES), predict, None)
    assert evaluator.metrics()[MAP] == pytest.approx(1.0)
    scores = [found["score"] for found in evaluator.coco.detections]
    assert scores == pytest.approx([picture(number).max() / 255 for number in range(len(SIZES))])


def test_a_set_without_objects_is_written_without_metrics(trained, folder, tmp_path):
    path = tmp_path / "found.json"
    stranger = _Stranger(tf.uint8)
    tf.saved_model.save(stranger, str(tmp_path / "model"), stranger.function)
    done = run(
        "evaluate",
        f"--pipeline_config_path={folder / 'pipeline.config'}",
        f"--eval_input={folder}/blank.record*",
        f"--saved_model_path={tmp_path / 'model'}",
        f"--detections_path={path}",
    )
    results = json.loads(path.read_text())
    assert {one["image_id"] for one in results} == set(IDS)
    assert done.stdout == (
        f"{path}: {len(results)} detections, {len(SIZES)} images\n"
        "no metrics: the evaluation set has no objects to find\n"
    )


def save(path, outputs):
    module = tf.Module()
    spec = tf.TensorSpec([1, None, None, 3], tf.uint8, "input_tensor")
    module.function = tf.function(lambda input_tensor: outputs, [spec], autograph=False)
    tf.saved_model.save(module, str(path), module.function)


def test_other_models_are_refused(tmp_path):
    with pytest.raises(UserError, match="has no saved_model.pb; name the folder of a SavedModel"):
        loaded.detection_function(tmp_path)
    save(tmp_path / "classifier", {"probabilities": tf.constant([[0.2, 0.8]])})
    with pytest.raises(UserError, match="gives probabilities; a detector has detection_boxes"):
        loaded.detection_function(tmp_path / "classifier")
    found = loaded.class_function(tmp_path / "classifier")(tf.zeros([1, 4, 5, 3], tf.uint8))
    assert found["classes"].numpy().tolist() == [[2, 1]]
    (tmp_path / "classifier" / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(UserError, match="TensorFlow cannot load it"):
        loaded.class_function(tmp_path / "classifier")
