"""The interfaces that training, evaluation and search need of a detector or a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mnasdet.blueprint import Blueprint

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras


class Loss(NamedTuple):
    """A loss of some examples.

    Losses of parts of a batch are added, both members, and divided once: so no task needs to know
    how a batch is split over replicas.

    Attributes:
      total: the sum over the examples.
      normalizer: what the sum is divided by, at least 1; 0 for a sum that stays one.
    """

    total: tf.Tensor
    normalizer: tf.Tensor | float


class Evaluator(Protocol):
    """Collects predictions of an evaluation set and judges them once, at the end."""

    def add(self, batch: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds the images of a batch, with what `Task.predict` says of them."""
        ...

    def metrics(
        self,
        *,
        per_category: bool = False,
        all_per_category: bool = False,
        with_baseline: bool = False,
    ) -> dict[str, float]:
        """Returns the metrics by name, `Task.objective` among them.

        Args:
          per_category: add the metric of every class; all_per_category: all that there are.
          with_baseline: add what a model reaches that does not look at the image.

        Raises:
          DataError: no image was added.
        """
        ...


class Task(Protocol):
    """Something that learns from examples.

    Attributes:
      blueprint: what it was built from.
      model: it has every weight, by name, in its layers. A one-stage detector's and a classifier's
        takes images [batch, height, width, 3], float32 in [-1, 1], to the raw outputs. That of a
        two-stage detector has an input for each of its graphs and is never called as a whole.
      objective: the metric that counts; more is better.
      compiles: XLA can compile the losses.
    """

    @property
    def blueprint(self) -> Blueprint: ...

    @property
    def model(self) -> tf_keras.Model: ...

    @property
    def objective(self) -> str: ...

    @property
    def compiles(self) -> bool: ...

    def targets(self, example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns what training needs of one example, the image included; called by tf.data."""
        ...

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, Loss]:
        """Returns the losses of a batch of `targets`, by name, from a forward pass in training."""
        ...

    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the model finds in images, as people and evaluators read it."""
        ...

    def evaluator(self, categories: Mapping[int, str]) -> Evaluator:
        """Returns a new evaluator.

        Args:
          categories: class id, from 1, to name.
        """
        ...

    def draw(
        self, batch: Mapping[str, tf.Tensor], predictions: Mapping[str, tf.Tensor], settings: Any
    ) -> tf.Tensor:
        """Returns images [batch, height, width, 3] in [0, 1] that show predictions and truth.

        Args:
          settings: the EvalConfig.
        """
        ...
