"""What TFLite metadata says of an exported detector."""

from __future__ import annotations

import dataclasses

import mnasdet
from mnasdet.detectors.detector import Detector
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.tflite import metadata
from mnasdet.tflite.metadata import AXIS_LABELS, VALUE_LABELS, Tensor

# Of what the normalisation x * 2 / 255 - 1 is (x - mean) / std.
MEAN = STD = 127.5

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


def describe(detector: Detector, *, nms: bool, input_type: str, labels: bool) -> metadata.Model:
    """The metadata of a detector's graph, tensors in the graph's order.

    Args:
      nms: it gives detections, not the raw predictions.
      input_type: float32 or uint8.
      labels: there is a label map.
    """
    pixels = input_type == "uint8"
    image = Tensor(
        "image",
        "RGB pixels, " + ("0 to 255." if pixels else "normalised to -1 to 1."),
        content=metadata.image(*detector.image_size),
        # Of a quantised input, too, those of the network in float32.
        normalization=(MEAN, STD),
        limits=(0.0, 255.0) if pixels else (-1.0, 1.0),
    )
    outputs = list(_DETECTIONS if nms else _raw(detector))
    if labels:
        kind = VALUE_LABELS if nms else AXIS_LABELS
        outputs[1] = dataclasses.replace(outputs[1], labels=kind)
    return metadata.Model(
        name="mnasdet detector",
        description="Finds objects of "
        f"{detector.num_classes} classes in images of {detector.image_size[0]} rows and "
        f"{detector.image_size[1]} columns.",
        version=mnasdet.__version__,
        inputs=[image],
        outputs=outputs,
    )


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
