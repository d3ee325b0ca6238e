"""Prints what MediaPipe's ImageClassifier sees, as JSON. Runs in MediaPipe's own virtualenv.

python mediapipe_classes.py classify.tflite pictures.npy
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def main(graph: str, pictures: str) -> None:
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=graph))
    found = []
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for picture in np.load(pictures):
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
            categories = classifier.classify(image).classifications[0].categories
            found.append({category.category_name: category.score for category in categories})
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
