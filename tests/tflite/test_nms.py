"""mnasdet/tflite/nms.py: TFLite's post-processing finds what ours finds."""

import numpy as np
import pytest
import tf_keras
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from mnasdet.detectors.post_processing import PostProcessing
from mnasdet.tflite import graph_file, nms
from mnasdet.tflite.convert import convert
from mnasdet.tflite.interpreter import TfliteModel, load

NUM_ANCHORS, NUM_CLASSES = 60, 4

ALL_DIFFERENT = PostProcessing(
    score_threshold=0.05,
    iou_threshold=0.4,
    max_detections_per_class=5,
    max_detections=12,
    score_converter="softmax",
    logit_scale=1.7,
    box_scales=(8.0, 9.0, 4.0, 3.0),
    box_clip_range=(-2.0, 3.0),
)


@pytest.fixture(scope="module")
def heads():
    """A graph whose picture, [anchors, 3, 3], has the raw predictions of an anchor in each row."""
    image = tf_keras.Input((NUM_ANCHORS, 3, 3), name="image")
    rows = tf_keras.layers.Reshape((NUM_ANCHORS, 9))(image)
    model = tf_keras.Model(
        image,
        {
            "box_encodings": rows[..., :4],
            "class_predictions_with_background": rows[..., 4:],
        },
    )
    return convert(model)


@pytest.fixture(scope="module")
def anchors():
    rng = np.random.default_rng(0)
    centres, sizes = (
        rng.uniform(0.2, 0.8, (NUM_ANCHORS, 2)),
        rng.uniform(0.1, 0.5, (NUM_ANCHORS, 2)),
    )
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def with_suppression(heads, anchors):
    def graph(post_processing, anchors=anchors):
        model = graph_file.read(heads)
        nms.append(model, post_processing, anchors, NUM_CLASSES)
        return graph_file.write(model)

    return graph


@pytest.mark.parametrize(
    "post_processing",
    [
        PostProcessing(),
        PostProcessing(class_agnostic=True, max_detections=7, iou_threshold=0.5),
        PostProcessing(score_converter="identity", score_threshold=0.2, max_detections=20),
        ALL_DIFFERENT,
    ],
    ids=["defaults", "class agnostic", "identity", "all different"],
)
def test_finds_what_tensorflow_finds(with_suppression, anchors, post_processing):
    raw = np.random.default_rng(1).normal(0, 2, (3, NUM_ANCHORS, 9)).astype(np.float32)
    found = TfliteModel(with_suppression(post_processing)).predict(
        raw.reshape(3, NUM_ANCHORS, 3, 3)
    )
    expected = post_processing(raw[..., :4], raw[..., 4:], anchors)
    counts = expected["num_detections"].numpy()
    assert counts.min() > 3
    np.testing.assert_array_equal(found["num_detections"], counts)
    for image, count in enumerate(counts):
        for name, of_keras in expected.items():
            if name == "num_detections":
                continue
            got = found[name][image, :count]
            # TFLite counts classes from 0 and leaves boxes as they are.
            got = np.clip(got, 0, 1) if name == "detection_boxes" else got
            got = got + 1 if name == "detection_classes" else got
            np.testing.assert_allclose(got, of_keras[image, :count], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "post_processing",
    [
        PostProcessing(max_detections=4, score_threshold=0.3),
        PostProcessing(max_detections=4, score_converter="softmax"),
        PostProcessing(max_detections=4, class_agnostic=True),
    ],
    ids=["regular", "softmax", "fast"],
)
def test_looks_at_the_locations_with_the_best_scores(with_suppression, anchors, post_processing):
    """Forty for four detections. The background's scores, the highest of all, do not count."""
    raw = np.random.default_rng(2).normal(0, 2, (NUM_ANCHORS, 9)).astype(np.float32)
    raw[:, 4] += 9
    graph = with_suppression(post_processing)
    found = TfliteModel(graph).predict(raw.reshape(1, NUM_ANCHORS, 3, 3))
    scores = np.exp(raw[:, 4:])
    if post_processing.score_converter == "softmax":
        scores = scores / scores.sum(axis=1, keepdims=True)
    best = np.argsort(-scores[:, 1:].max(axis=1))[:40]
    expected = post_processing(raw[None, best, :4], raw[None, best, 4:], anchors[best])
    assert found["num_detections"] == expected["num_detections"] == 4
    np.testing.assert_allclose(found["detection_scores"], expected["detection_scores"], rtol=1e-5)
    np.testing.assert_allclose(
        np.clip(found["detection_boxes"], 0, 1), expected["detection_boxes"], atol=1e-5
    )
    np.testing.assert_array_equal(found["detection_classes"] + 1, expected["detection_classes"])
    subgraph = schema.Model.GetRootAs(graph).Subgraphs(0)
    last = subgraph.Operators(subgraph.OperatorsLength() - 1)
    shapes = [subgraph.Tensors(last.Inputs(i)).ShapeAsNumpy().tolist() for i in range(3)]
    assert shapes == [[1, 40, 4], [1, 40, NUM_CLASSES + 1], [40, 4]]


def test_looks_at_the_best_scores_of_these_locations(with_suppression):
    """Twelve for four detections. All boxes are one, so one is found of each class with a score
    among them: three classes have twelve at the four best locations, the fourth has a lower one."""
    raw = np.zeros((NUM_ANCHORS, 9), np.float32)
    raw[:, 5:8] = np.linspace(0.9, 0.6, NUM_ANCHORS)[:, None]
    raw[0, 8] = 0.5
    post_processing = PostProcessing(max_detections=4, score_converter="identity")
    model = with_suppression(post_processing, np.tile([[0.2, 0.2, 0.6, 0.6]], (NUM_ANCHORS, 1)))
    found = TfliteModel(model).predict(raw.reshape(1, NUM_ANCHORS, 3, 3))
    assert found["num_detections"] == 3
    assert sorted(found["detection_classes"][0, :3]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("config", "arguments", "expected"),
    [
        ({}, {}, (0.02, False)),
        ({"score_threshold": 0.3}, {}, (0.3, False)),
        ({"score_threshold": 0.3}, {"score_threshold": 0.0}, (0.0, False)),
        ({"class_agnostic": True}, {}, (0.02, True)),
        ({"class_agnostic": True}, {"nms_type": "regular"}, (0.02, False)),
        ({}, {"nms_type": "fast", "score_threshold": 0.5}, (0.5, True)),
    ],
)
def test_a_file_has_a_suppression_of_its_own(config, arguments, expected):
    own = nms.of_file(PostProcessing(iou_threshold=0.4, **config), **arguments)
    assert (own.score_threshold, own.class_agnostic) == expected
    assert own.iou_threshold == 0.4


def test_two_boxes_one_of_them_suppressed(heads):
    """By hand: two anchors overlap by 0.81, a third lies elsewhere."""
    anchors = np.full((NUM_ANCHORS, 4), [0.9, 0.9, 1.0, 1.0], np.float32)
    anchors[:3] = [[0, 0, 0.5, 0.5], [0.05, 0, 0.5, 0.45], [0.6, 0.6, 0.8, 1.0]]
    rows = np.zeros((NUM_ANCHORS, 9), np.float32)
    rows[:3, 6] = [0.6, 0.9, 0.7]  # scores of the second class
    rows[2, :4] = [10, 0, 0, 5 * np.log(0.5)]  # one height down, half as wide
    model = graph_file.read(heads)
    nms.append(
        model, PostProcessing(score_converter="identity", score_threshold=0.1), anchors, NUM_CLASSES
    )
    found = TfliteModel(graph_file.write(model)).predict(rows.reshape(1, NUM_ANCHORS, 3, 3))
    assert found["num_detections"] == 2
    np.testing.assert_allclose(found["detection_scores"][0, :2], [0.9, 0.7], rtol=1e-6)
    np.testing.assert_array_equal(found["detection_classes"][0, :2], [1, 1])
    np.testing.assert_allclose(
        found["detection_boxes"][0, :2], [[0.05, 0, 0.5, 0.45], [0.8, 0.7, 1.0, 0.9]], atol=1e-6
    )


def test_last_operation_has_the_attributes_of_the_config(with_suppression, anchors):
    graph = with_suppression(ALL_DIFFERENT)
    model = schema.Model.GetRootAs(graph)
    subgraph = model.Subgraphs(0)
    last = subgraph.Operators(subgraph.OperatorsLength() - 1)
    assert model.OperatorCodes(last.OpcodeIndex()).CustomCode() == b"TFLite_Detection_PostProcess"
    assert flexbuffers.Loads(last.CustomOptionsAsNumpy().tobytes()) == {
        "max_detections": 12,
        "max_classes_per_detection": 1,
        "detections_per_class": 5,
        "use_regular_nms": True,
        "nms_score_threshold": pytest.approx(0.05),
        "nms_iou_threshold": pytest.approx(0.4),
        "num_classes": NUM_CLASSES,
        "y_scale": 8.0,
        "x_scale": 9.0,
        "h_scale": 4.0,
        "w_scale": 3.0,
    }
    coded = subgraph.Tensors(last.Inputs(2))
    values = model.Buffers(coded.Buffer()).DataAsNumpy().view(np.float32).reshape(-1, 4)
    low, high = anchors[:, :2], anchors[:, 2:]
    np.testing.assert_allclose(values, np.hstack([(low + high) / 2, high - low]), atol=1e-7)


def test_outputs_are_those_of_the_od_api(with_suppression):
    interpreter = load(with_suppression(PostProcessing(max_detections=7)), 1, "graph")
    outputs = interpreter.get_output_details()
    assert [(x["name"], tuple(x["shape"])) for x in outputs] == [
        ("TFLite_Detection_PostProcess", (1, 7, 4)),
        ("TFLite_Detection_PostProcess:1", (1, 7)),
        ("TFLite_Detection_PostProcess:2", (1, 7)),
        ("TFLite_Detection_PostProcess:3", (1,)),
    ]
    assert interpreter.get_signature_list()["serving_default"]["outputs"] == [
        "detection_boxes", "detection_classes", "detection_scores", "num_detections",
    ]  # fmt: skip


def test_runtime_version_is_that_of_the_newest_part(heads, anchors):
    model = graph_file.read(heads)
    (number,) = (x.buffer for x in model.metadata if x.name == b"min_runtime_version")
    model.buffers[number].data = np.frombuffer(b"1.5.0".ljust(16, b"\0"), np.uint8)
    nms.append(model, PostProcessing(score_converter="identity"), anchors, NUM_CLASSES)
    assert graph_file.runtime_version(model) == "1.5.0"
    model = graph_file.read(heads)
    model.buffers[number].data = np.frombuffer(b"1.5.0".ljust(16, b"\0"), np.uint8)
    nms.append(model, PostProcessing(score_converter="sigmoid"), anchors, NUM_CLASSES)
    assert graph_file.runtime_version(model) == "1.14.0"  # LOGISTIC's
