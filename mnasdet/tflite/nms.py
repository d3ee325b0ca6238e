"""TFLite's own post-processing, TFLite_Detection_PostProcess, behind a detector's raw predictions.

As the OD API's export has it: an operation that TensorFlow lacks stands in the graph as an empty
function that says what it implements. It becomes a graph of its own here, which is put behind the
network's: whatever that is quantised to, scores and boxes stay float32. As one graph, int8 would
leave 256 different scores.
"""

from __future__ import annotations

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


def append(
    model: graph_file.schema.ModelT,
    post_processing: PostProcessing,
    anchors: np.ndarray,
    num_classes: int,
) -> None:
    """Makes detections the outputs of a detector's graph.

    Args:
      model: gives the raw predictions.
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
    """A TFLite graph of float32: raw predictions to detections."""
    count = post_processing.max_detections

    @tf.function(experimental_implements=_signature(attributes), autograph=False)
    def operation(box_encodings, scores, anchors):
        return [tf.zeros(shape) for shape in ((1, count, 4), (1, count), (1, count), (1,))]

    def detect(box_encodings, class_logits):
        encodings, scores = post_processing.prepare(box_encodings, class_logits)
        found = operation(encodings, scores, tf.constant(centres_and_sizes(anchors)))
        return dict(zip(NMS_OUTPUTS, found, strict=True))

    signature = [
        tf.TensorSpec((1, len(anchors), 4), name=BOX_ENCODINGS),
        tf.TensorSpec((1, len(anchors), num_classes + 1), name=CLASS_LOGITS),
    ]
    function = tf.function(detect, signature, autograph=False).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.allow_custom_ops = True
    with quiet():
        return converter.convert()


def centres_and_sizes(anchors: np.ndarray) -> np.ndarray:
    """[anchors, 4] (y, x, height, width) of corners, as the operation takes them."""
    low, high = anchors[:, :2], anchors[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1).astype(np.float32)


def _attributes(post_processing: PostProcessing, num_classes: int) -> dict[str, int | float | bool]:
    scales: Sequence[float] = post_processing.box_scales
    return {
        "max_detections": post_processing.max_detections,
        "max_classes_per_detection": 1,
        "detections_per_class": post_processing.max_detections_per_class,
        # Class by class. The fast one takes the best class of every location: class agnostic.
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
    """A NameAttrList in text format."""
    words = [f'name: "{OPERATION}"']
    for key, value in attributes.items():
        kind = {bool: "b", int: "i", float: "f"}[type(value)]
        text = str(value).lower()
        words.append(f'attr {{ key: "{key}" value {{ {kind}: {text} }} }}')
    return " ".join(words)
