"""TFLite's own post-processing, TFLite_Detection_PostProcess, after a detector's raw predictions.

As the OD API's export has it: an operation that TensorFlow lacks stands in the graph as an empty
function that says what it implements. It becomes a graph of its own here, which is put after the
network's: whatever that is quantised to, scores and boxes stay float32. As one graph, int8 would
leave 256 different scores.

The operation's time grows with the scores above its threshold, and a config's threshold, which is
for COCO's metrics, lets nearly all of them through. So a file gets a threshold of its own, and the
operation only the locations with the best scores, and their best scores. With 90 classes, 6885
anchors and the config's 1e-8 it took 260 ms after a network of 8 ms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from flatbuffers import flexbuffers

from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.detectors.post_processing import PostProcessing
from mnasdet.tflite import graph_file
from mnasdet.tflite.convert import quiet
from mnasdet.tflite.interpreter import NMS_OUTPUTS

OPERATION = "TFLite_Detection_PostProcess"

# The names that the OD API's converter gave the tensors: apps look for them.
TENSOR_NAMES = dict(
    zip(NMS_OUTPUTS, [OPERATION, *(f"{OPERATION}:{i}" for i in (1, 2, 3))], strict=True)
)

# Class by class, or over all classes and with the best class only of every location.
TYPES = ("regular", "fast")

# Costs no mAP on the digits nor on blood cells, where 0.2 costs 0.002 and 0.010. The fast type
# costs 0.031 and 0.003: it drops the second class of a location, and objects of two classes that
# overlap.
DEFAULT_SCORE_THRESHOLD = 0.02

# Several locations find the same object. That many for each detection bound the operation's time,
# whatever is in the picture. Half as many cost 0.001 of mAP on blood cells.
_CANDIDATES_PER_DETECTION = 10

# A network that is unsure has most classes of each of them above the threshold: 22 ms for 90
# classes, 1 ms with this bound. It is that many scores for each detection, of the best tenth of the
# candidates: to sort the scores of all would take half of the suppression's time.
_SCORES_PER_DETECTION = 3
_SORTED_SHARE = 10


def of_file(
    post_processing: PostProcessing,
    score_threshold: float | None = None,
    nms_type: str | None = None,
) -> PostProcessing:
    """Returns the post-processing that a file with suppression has.

    Args:
      post_processing: the config's.
      score_threshold: if left out, `DEFAULT_SCORE_THRESHOLD`, or the config's where that is higher.
      nms_type: one of `TYPES`; if left out, fast where the config is class agnostic.
    """
    if score_threshold is None:
        score_threshold = max(DEFAULT_SCORE_THRESHOLD, post_processing.score_threshold)
    fast = post_processing.class_agnostic if nms_type is None else nms_type == "fast"
    return dataclasses.replace(
        post_processing, score_threshold=score_threshold, class_agnostic=fast
    )


def describe(post_processing: PostProcessing, num_anchors: int) -> dict[str, int | float | str]:
    """Returns what export.json says of a file's suppression."""
    return {
        "type": "fast" if post_processing.class_agnostic else "regular",
        "score_threshold": _shortest(post_processing.score_threshold),
        "iou_threshold": _shortest(post_processing.iou_threshold),
        "max_detections": post_processing.max_detections,
        "num_candidates": num_candidates(post_processing, num_anchors),
    }


def _shortest(number: float) -> float:
    """Returns 0.6 for the float32 nearest to it, as which a config has it."""
    # Through its own digits: float(np.float32(0.6)) is 0.6000000238418579.
    return float(str(np.float32(number)))


def num_candidates(post_processing: PostProcessing, num_anchors: int) -> int:
    """Returns how many locations the suppression looks at, those with the best scores."""
    return min(num_anchors, _CANDIDATES_PER_DETECTION * post_processing.max_detections)


def append(
    model: graph_file.schema.ModelT,
    post_processing: PostProcessing,
    anchors: np.ndarray,
    num_classes: int,
) -> None:
    """Makes detections the outputs of a detector's graph.

    Args:
      model: gives the raw predictions.
      post_processing: the file's own, of `of_file`.
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax), normalised.
      num_classes: without the background.
    """
    attributes = _attributes(post_processing, num_classes)
    tail = graph_file.read(_graph(post_processing, anchors, num_classes, attributes))
    # The converter passes on those alone that it knows: without detections_per_class.
    tail.subgraphs[0].operators[-1].customOptions = list(flexbuffers.Dumps(attributes))
    tensors = graph_file.append(model, tail)
    graph_file.set_outputs(model, dict(zip(NMS_OUTPUTS, tensors, strict=True)), TENSOR_NAMES)


def _graph(
    post_processing: PostProcessing,
    anchors: np.ndarray,
    num_classes: int,
    attributes: dict[str, int | float | bool],
) -> bytes:
    """Returns a TFLite graph of float32: raw predictions to detections."""
    count = post_processing.max_detections
    candidates = num_candidates(post_processing, len(anchors))

    @tf.function(experimental_implements=_signature(attributes), autograph=False)
    def operation(box_encodings, scores, anchors):
        return [tf.zeros(shape) for shape in ((1, count, 4), (1, count), (1, count), (1,))]

    def detect(box_encodings, class_logits):
        encodings, scores = post_processing.prepare(box_encodings, class_logits)
        coded = tf.constant(centres_and_sizes(anchors))
        if candidates < len(anchors):
            # `scores[0, :, 1:]` in its place takes TFLite a hundred times as long.
            best = tf.reduce_max(scores[..., 1:], axis=-1)[0]
            _, kept = tf.math.top_k(best, candidates)
            encodings, scores = (tf.gather(x, kept, axis=1) for x in (encodings, scores))
            coded = tf.gather(coded, kept)
            if not post_processing.class_agnostic:
                scores = _best(scores, candidates // _SORTED_SHARE, _SCORES_PER_DETECTION * count)
        found = operation(encodings, scores, coded)
        return dict(zip(NMS_OUTPUTS, found, strict=True))

    signature = [
        tf.TensorSpec((1, len(anchors), 4), name=BOX_ENCODINGS),
        tf.TensorSpec((1, len(anchors), num_classes + 1), name=CLASS_LOGITS),
    ]
    function = tf.function(detect, signature, autograph=False).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    # To the converter, suppression is a custom operation.
    converter.allow_custom_ops = True
    with quiet():
        return converter.convert()


def _best(scores: tf.Tensor, num_sorted: int, count: int) -> tf.Tensor:
    """Makes those of [1, candidates, 1 + classes] 0 that are below so many of the first ones."""
    first = tf.reshape(scores[:, :num_sorted, 1:], [-1])
    if count >= first.shape[0]:
        return scores
    least = tf.math.top_k(first, count).values[-1]
    return tf.where(scores >= least, scores, 0.0)


def centres_and_sizes(anchors: np.ndarray) -> np.ndarray:
    """Returns [anchors, 4] (y, x, height, width) of corners, as the operation takes them."""
    low, high = anchors[:, :2], anchors[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1).astype(np.float32)


def _attributes(post_processing: PostProcessing, num_classes: int) -> dict[str, int | float | bool]:
    scales: Sequence[float] = post_processing.box_scales
    return {
        "max_detections": post_processing.max_detections,
        "max_classes_per_detection": 1,
        "detections_per_class": post_processing.max_detections_per_class,
        "use_regular_nms": not post_processing.class_agnostic,
        "nms_score_threshold": post_processing.score_threshold,
        "nms_iou_threshold": post_processing.iou_threshold,
        "num_classes": num_classes,
        "y_scale": scales[0],
        "x_scale": scales[1],
        "h_scale": scales[2],
        "w_scale": scales[3],
    }


def _signature(attributes: dict[str, int | float | bool]) -> str:
    """Returns a NameAttrList in text format."""
    words = [f'name: "{OPERATION}"']
    for key, value in attributes.items():
        kind = {bool: "b", int: "i", float: "f"}[type(value)]
        text = str(value).lower()
        words.append(f'attr {{ key: "{key}" value {{ {kind}: {text} }} }}')
    return " ".join(words)
