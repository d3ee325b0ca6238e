import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import DataError
from mnasdet.evaluation.baseline import BASELINE_MAP
from mnasdet.evaluation.coco import MAP
from mnasdet.evaluation.detection_evaluator import DetectionEvaluator
from mnasdet.evaluation.evaluate import evaluation_set, first_images, judged
from mnasdet.protos import input_reader_pb2, pipeline_pb2

CATEGORIES = {1: "cell"}


def batch(boxes, extents, height=480, width=640):
    """One image a box, as `evaluation_dataset` makes them, with room for two boxes."""
    count = len(boxes)
    padded = np.zeros((count, 2, 4), np.float32)
    padded[:, 0] = boxes
    sides = np.array(boxes)[:, 2:] - np.array(boxes)[:, :2]
    return {
        "image": np.zeros((count, 8, 8, 3), np.float32),
        "boxes": padded,
        "classes": np.array([[1, 0]] * count),
        "is_crowd": np.zeros((count, 2), bool),
        "area": np.repeat(sides.prod(axis=1)[:, None] * height * width, 2, axis=1),
        "num_boxes": np.ones(count, np.int32),
        "extent": np.array(extents, np.float32),
        "height": np.array([height] * count),
        "width": np.array([width] * count),
    }


def detections(boxes, scores, num_detections=None):
    """Returns detections of class 1: all boxes of every image, with these scores."""
    boxes = np.array(boxes, np.float32)
    return {
        "detection_boxes": boxes,
        "detection_scores": np.array(scores, np.float32),
        "detection_classes": np.ones(boxes.shape[:2], np.float32),
        "num_detections": np.array(num_detections or [boxes.shape[1]] * len(boxes)),
    }


def evaluate(detect, dataset, categories, **kind):
    return judged(DetectionEvaluator(categories), detect, dataset).metrics(**kind)


def resizer(pipeline):
    return ImageResizer.from_proto(pipeline.model.ssd.image_resizer)


@pytest.mark.parametrize("extent", [(1.0, 1.0), (0.75, 1.0), (1.0, 0.5)])
def test_detections_are_brought_back_to_the_image(extent):
    box = np.array([0.1, 0.2, 0.5, 0.5]) * [*extent, *extent]
    found = detections([[box]], [[0.9]])
    metrics = evaluate(lambda images: found, [batch([box], [extent])], CATEGORIES)
    assert metrics[MAP] == pytest.approx(1.0)
    # In the image's own pixels: 0.4 * 480 by 0.3 * 640 are large, whatever the padding.
    assert metrics["DetectionBoxes_Precision/mAP (large)"] == pytest.approx(1.0)
    assert metrics["DetectionBoxes_Precision/mAP (medium)"] == -1


def test_what_reaches_into_the_padding_is_cut_off():
    # The image is the upper half of the input and the object fills it; what was found, the input.
    found = detections([[[0, 0, 1, 1]]], [[0.9]])
    truth = batch([[0, 0, 0.5, 1]], [(0.5, 1.0)])
    assert evaluate(lambda images: found, [truth], CATEGORIES)[MAP] == pytest.approx(1.0)


def test_what_was_found_in_the_padding_does_not_count():
    box = [0.1, 0.2, 0.4, 0.6]
    found = detections([[[0.6, 0.2, 0.9, 0.6], box]], [[0.99, 0.5]])
    half = evaluate(lambda images: found, [batch([box], [(1.0, 1.0)])], CATEGORIES)
    assert half[MAP] == pytest.approx(0.5)
    whole = evaluate(lambda images: found, [batch([box], [(0.5, 1.0)])], CATEGORIES)
    assert whole[MAP] == pytest.approx(1.0)


def test_only_as_many_detections_count_as_there_are():
    box = [0.1, 0.2, 0.4, 0.6]
    found = detections([[box, [0.5, 0.5, 0.9, 0.9]]], [[0.5, 0.9]], num_detections=[1])
    metrics = evaluate(lambda images: found, [batch([box], [(1.0, 1.0)])], CATEGORIES)
    assert metrics[MAP] == pytest.approx(1.0)


def test_an_empty_set_is_an_error():
    with pytest.raises(DataError, match="has no images"):
        evaluate(lambda images: {}, [], CATEGORIES)


def test_the_set_is_resized_as_the_config_says():
    text = """
      model { ssd { image_resizer {
        keep_aspect_ratio_resizer { min_dimension: 24 max_dimension: 48 pad_to_max_dimension: true }
      } } }
      eval_config { batch_size: 3 }
      eval_input_reader { digits_input_reader { num_images: 4 image_size: 32 split: VALIDATION } }
    """
    pipeline = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    batches = list(evaluation_set(pipeline, resizer(pipeline)).as_numpy_iterator())
    assert [len(batch["image"]) for batch in batches] == [3, 1]
    # 32 x 32 pixels become 24 x 24, a quarter of the input.
    assert (batches[0]["extent"] == 0.5).all()
    assert batches[0]["boxes"].max() <= 0.5
    images = first_images(pipeline, resizer(pipeline), 4)
    assert images.shape == (4, 48, 48, 3)
    assert (images[:, 24:] == -1).all()
    assert (images[:, :, 24:] == -1).all()
    assert images[:, :24, :24].max() > -0.5


def test_images_of_the_training_set_are_not_augmented():
    text = """
      model { ssd { image_resizer { fixed_shape_resizer { height: 32 width: 32 } } } }
      train_config { data_augmentation_options { random_vertical_flip {} } }
      train_input_reader {
        digits_input_reader { num_images: 3 image_size: 32 split: VALIDATION }
        cache_decoded_images: true
      }
      eval_input_reader { digits_input_reader { num_images: 3 image_size: 32 split: VALIDATION } }
    """
    pipeline = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    pipeline.train_input_reader.shuffle = True
    images = first_images(pipeline, resizer(pipeline), 9, training=True)
    np.testing.assert_array_equal(images, first_images(pipeline, resizer(pipeline), 9))
    pipeline.train_input_reader.digits_input_reader.split = input_reader_pb2.DigitsInputReader.TRAIN
    others = first_images(pipeline, resizer(pipeline), 2, training=True)
    assert others.shape == (2, 32, 32, 3)
    assert (others != images[:2]).any()


def test_original_images_are_left_as_they_are():
    text = """
      eval_config { batch_size: 3 }
      eval_input_reader { digits_input_reader { num_images: 2 image_size: 40 split: VALIDATION } }
    """
    pipeline = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    batches = list(evaluation_set(pipeline, None).as_numpy_iterator())
    assert [batch["image"].shape for batch in batches] == [(1, 40, 40, 3)] * 2
    assert batches[0]["image"].dtype == np.uint8
    assert batches[0]["image"].max() > 200
    assert batches[0]["extent"].tolist() == [[1.0, 1.0]]


def warnings(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("crowd", "said"),
    [
        (None, "the evaluation set has no object: there is nothing to measure"),
        (True, "the evaluation set has no object that is not a crowd: "),
    ],
)
def test_a_set_without_objects_is_said_to_be_one(caplog, crowd, said):
    box = [0.1, 0.2, 0.4, 0.6]
    truth = batch([box], [(1.0, 1.0)])
    truth["num_boxes"] = np.array([0 if crowd is None else 1])
    truth["is_crowd"][:] = bool(crowd)
    metrics = evaluate(lambda images: detections([[box]], [[0.9]]), [truth], CATEGORIES)
    assert metrics[MAP] == -1.0
    assert len(warnings(caplog)) == 1
    assert warnings(caplog)[0].startswith(said)


def test_a_detector_that_finds_nothing_is_said_to_be_one(caplog):
    box = [0.1, 0.2, 0.4, 0.6]
    found = detections([[box]], [[0.9]], num_detections=[0])
    metrics = evaluate(lambda images: found, [batch([box], [(1.0, 1.0)])], CATEGORIES)
    assert metrics[MAP] == 0.0
    assert "found nothing in 1 images" in warnings(caplog)[0]


def test_the_baseline_is_only_there_where_it_is_asked_for():
    boxes = [[0.1, 0.2, 0.4, 0.6], [0.5, 0.2, 0.9, 0.6]]
    truth = batch(boxes, [(1.0, 1.0), (1.0, 1.0)])
    found = detections([[box] for box in boxes], [[0.9], [0.8]])
    assert BASELINE_MAP not in evaluate(lambda images: found, [truth], CATEGORIES)
    metrics = evaluate(lambda images: found, [truth], CATEGORIES, with_baseline=True)
    # One box hits one picture of two: the first, with precision 1 up to recall 0.5.
    assert metrics[BASELINE_MAP] == pytest.approx(51 / 101)
    assert metrics[MAP] > 0.99
