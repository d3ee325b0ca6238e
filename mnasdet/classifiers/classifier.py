"""Image classifiers: a Keras model, its loss and the way to classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.blueprint import Blueprint
from mnasdet.classifiers.network import LOGITS, classification_network
from mnasdet.evaluation.classification import TOP_1, ClassificationEvaluator
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import eval_pb2
from mnasdet.tasks import Loss

# The best classes that `predict` tells; top-5 is ImageNet's second metric.
NUM_BEST = 5

# Width of the frame that says in pictures for TensorBoard whether the class was found, over the
# image's side; its colours.
_FRAME = 0.04
_RIGHT, _WRONG = (0.1, 0.9, 0.2), (1.0, 0.3, 0.1)


@dataclass(frozen=True)
class Classifier:
    """A Task: an image classifier that can be trained, evaluated and exported.

    Attributes:
      blueprint: what it was built from.
      model: images [batch, height, width, 3], float32 in [-1, 1], to {"logits": [batch,
        num_classes]}; class id n is number n - 1.
    """

    blueprint: Blueprint
    model: tf_keras.Model

    objective = TOP_1

    @property
    def compiles(self) -> bool:
        """Returns whether XLA can compile the losses: a supernet's layers have no fixed size."""
        return not self.blueprint.subnets

    @property
    def image_size(self) -> tuple[int, int]:
        """Returns (height, width) in pixels."""
        return self.blueprint.image_size

    @property
    def num_classes(self) -> int:
        """Returns the number of classes; there is no background."""
        return self.blueprint.num_classes

    def targets(self, example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns image [height, width, 3] and class int32 from 1; with mixup also its share of the
        pair, float32, of Beta(alpha, alpha)."""
        targets = {key: example[key] for key in ("image", "class")}
        if alpha := self.blueprint.settings.mixup_alpha:
            targets["share"] = beta(alpha, example["seed"])
        return targets

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, Loss]:
        """Returns the cross entropy of the softmax, summed over the images."""
        settings = self.blueprint.settings
        images, labels = batch["image"], self._one_hot(batch["class"])
        if settings.mixup_alpha:
            images, labels = mixup(images, labels, batch["share"])
        logits = self.model(images, training=True)[LOGITS]
        labels = smoothed(labels, settings.label_smoothing)
        entropies = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
        num_images = tf.cast(tf.shape(logits)[0], tf.float32)
        return {"classification_loss": Loss(tf.reduce_sum(entropies), num_images)}

    def _one_hot(self, classes: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(classes - 1, self.num_classes)

    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns of images [batch, height, width, 3], float32 in [-1, 1], what `found` does."""
        return found(tf.nn.softmax(self.model(images, training=False)[LOGITS]))

    def evaluator(self, categories: Mapping[int, str]) -> ClassificationEvaluator:
        return ClassificationEvaluator(categories)

    def draw(
        self,
        batch: Mapping[str, tf.Tensor],
        predictions: Mapping[str, tf.Tensor],
        settings: eval_pb2.EvalConfig,
    ) -> tf.Tensor:
        """Draws a green frame where the best class is the right one, and else a red one."""
        images = (batch["image"] + 1) / 2
        height, width = self.image_size
        frame = np.ones((height, width, 1), bool)
        border = max(1, round(_FRAME * min(height, width)))
        frame[border:-border, border:-border] = False
        right = predictions["classes"][:, 0] == batch["class"]
        colors = tf.where(right[:, None], tf.constant([_RIGHT]), tf.constant([_WRONG]))
        return tf.where(frame, colors[:, None, None], images)


def found(probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns what probabilities [batch, num_classes] say.

    Returns:
      classes: [batch, 5] int32 ids from 1, the best first; fewer where there are fewer classes.
      scores: [batch, 5] their probabilities.
      probabilities: as they are.
    """
    scores, places = tf.math.top_k(probabilities, min(NUM_BEST, probabilities.shape[-1]))
    return {"classes": places + 1, "scores": scores, "probabilities": probabilities}


def smoothed(labels: tf.Tensor, share: float) -> tf.Tensor:
    """Spreads a share of labels [batch, num_classes] evenly over all classes."""
    return labels * (1.0 - share) + share / labels.shape[-1]


def mixup(images: tf.Tensor, labels: tf.Tensor, shares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each image, and its label, with the one at the batch's other end (Zhang et al., 2018,
    equation 1).

    Args:
      labels: [batch, num_classes].
      shares: [batch], of the image itself.
    """
    of_images, of_labels = shares[:, None, None, None], shares[:, None]
    return (
        of_images * images + (1.0 - of_images) * tf.reverse(images, [0]),
        of_labels * labels + (1.0 - of_labels) * tf.reverse(labels, [0]),
    )


def beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws from Beta(alpha, alpha); XLA cannot compile it."""
    # From two gammas. Those of a small alpha may be too small for float32: 0 of 0 is 0.
    draws = tf.random.stateless_gamma([2], seed, alpha)
    return tf.math.divide_no_nan(draws[0], draws[0] + draws[1])


def build(blueprint: Blueprint) -> Classifier:
    """Returns the classifier of a blueprint with fresh weights."""
    network = classification_network(
        blueprint.architecture, blueprint.image_size, blueprint.num_classes
    )
    (graph,) = network
    return Classifier(blueprint, keras_model(dict(graph.outputs), quantized=blueprint.quantized))
