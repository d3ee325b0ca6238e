"""The TFLite file of a detector: its suppression, metadata and anchors."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import tf_keras

import mnasdet
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.detectors.one_stage import Detector
from mnasdet.tflite import metadata
from mnasdet.tflite import nms as suppression
from mnasdet.tflite.graph_file import schema
from mnasdet.tflite.interpreter import ANCHORS_FILE
from mnasdet.tflite.metadata import AXIS_LABELS, VALUE_LABELS, Tensor

# By these names Android's Task library and MediaPipe tell the outputs of the suppression apart.
_DETECTIONS = (
    Tensor(
        "location",
        "Boxes (ymin, xmin, ymax, xmax), 0 to 1; they may reach beyond the image.",
        content=metadata.bounding_box(),
        value_range=(2, 2),
    ),
    Tensor("category", "Classes from 0, the lines of the label map."),
    Tensor("score", "Scores, best first."),
    Tensor("number of detections", "How many of the others' entries count."),
)


@dataclasses.dataclass(frozen=True)
class DetectorFile:
    """An Exportable: a detector's raw predictions, or its detections.

    Attributes:
      detector: with the post-processing of the file.
      nms: the graph ends with non-maximum suppression and gives detections.
    """

    detector: Detector
    nms: bool = False

    @property
    def model(self) -> tf_keras.Model:
        return self.detector.model

    @property
    def image_size(self) -> tuple[int, int]:
        return self.detector.image_size

    @property
    def background(self) -> str | None:
        # Suppression gives the class's own number from 0; raw scores have the background in slot 0.
        return None if self.nms else "background"

    def finish(self, graph: schema.ModelT) -> None:
        if self.nms:
            detector = self.detector
            suppression.append(
                graph, detector.post_processing, detector.anchors, detector.num_classes
            )

    def metadata(self, *, input_type: str, labels: bool) -> metadata.Model:
        height, width = self.image_size
        outputs = list(_DETECTIONS if self.nms else _raw(self.detector))
        if labels:
            kind = VALUE_LABELS if self.nms else AXIS_LABELS
            outputs[1] = dataclasses.replace(outputs[1], labels=kind)
        return metadata.Model(
            name="mnasdet detector",
            description=f"Finds objects of {self.detector.num_classes} classes in images of "
            f"{height} rows and {width} columns.",
            version=mnasdet.__version__,
            inputs=[metadata.image_tensor(self.image_size, input_type)],
            outputs=outputs,
        )

    def files(self) -> dict[str, bytes]:
        if self.nms:
            return {}
        # Raw encodings are relative to the anchors; suppression has them inside the graph.
        anchors = io.BytesIO()
        np.save(anchors, self.detector.anchors)
        return {ANCHORS_FILE: anchors.getvalue()}

    def describe(self) -> dict[str, Any]:
        detector = self.detector
        described: dict[str, Any] = {"nms": self.nms, "num_classes": detector.num_classes}
        if self.nms:
            return described | {
                "suppression": suppression.describe(detector.post_processing, len(detector.anchors))
            }
        return described | {
            "anchors": {
                "file": ANCHORS_FILE,
                "shape": list(detector.anchors.shape),
                "coordinates": "ymin, xmin, ymax, xmax; normalised",
            },
            "box_coder_scales": list(detector.post_processing.box_scales),
        }


def detector_file(
    detector: Detector,
    *,
    nms: bool = False,
    nms_score_threshold: float | None = None,
    nms_type: str | None = None,
) -> DetectorFile:
    """Returns a detector's file.

    Args:
      nms_score_threshold, nms_type: of the suppression, as `nms.of_file` takes them.
    """
    if nms:
        post_processing = suppression.of_file(
            detector.post_processing, nms_score_threshold, nms_type
        )
        detector = dataclasses.replace(detector, post_processing=post_processing)
    return DetectorFile(detector, nms)


def _raw(detector: Detector) -> tuple[Tensor, Tensor]:
    scales = ", ".join(f"{scale:g}" for scale in detector.post_processing.box_scales)
    return (
        Tensor(
            BOX_ENCODINGS,
            "Boxes relative to the anchors: (y, x, height, width), offsets of the centres in "
            f"anchor sizes and logarithms of size ratios, times ({scales}).",
        ),
        Tensor(
            CLASS_LOGITS,
            f"Logits of the background and the classes; {detector.post_processing.score_converter} "
            "makes scores of them.",
        ),
    )
