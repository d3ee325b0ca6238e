"""Prints what MediaPipe's ObjectDetector finds, as JSON. Runs in MediaPipe's own virtualenv.

python mediapipe_detections.py detect_nms.tflite pictures.npy
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def main(graph: str, pictures: str) -> None:
    options = vision.ObjectDetectorOptions(
        base_options=BaseOptions(model_asset_path=graph), score_threshold=0.3
    )
    found = []
    with vision.ObjectDetector.create_from_options(options) as detector:
        for picture in np.load(pictures):
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
            found.append([_as_json(detection) for detection in detector.detect(image).detections])
    print(json.dumps(found))


def _as_json(detection) -> dict:
    box, category = detection.bounding_box, detection.categories[0]
    return {
        "box": [box.origin_y, box.origin_x, box.origin_y + box.height, box.origin_x + box.width],
        "name": category.category_name,
        "score": category.score,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
