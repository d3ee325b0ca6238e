"""The outputs of a classifier's SavedModel."""

from __future__ import annotations

from mnasdet.classifiers.classifier import Classifier
from mnasdet.saved_model.server import Outputs


def classifier_outputs(classifier: Classifier) -> Outputs:
    """Returns a function to `Classifier.predict`: classes, scores and probabilities."""
    return lambda images, extents: classifier.predict(images)
