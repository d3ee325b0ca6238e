"""Kernels of few distinct values, which compress well (Han et al., "Deep Compression", 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from tensorflow_model_optimization.python.core.clustering.keras.cluster_config import (
    GradientAggregation,
)
from tensorflow_model_optimization.python.core.clustering.keras.clustering_algorithm import (
    ClusteringAlgorithm,
)
from tensorflow_model_optimization.python.core.clustering.keras.clustering_centroids import (
    KmeansPlusPlusCentroidsInitialisation,
)

from mnasdet.training.pruning import kernels

# A variable that is trained, and its gradient.
Update = tuple[tf.Variable, tf.Tensor]


class Clusters:
    """Trains values, and which weight has which, in place of kernels: tfmot's algorithm without its
    wrappers. The network's own kernels always hold clustered weights, so that there is nothing to
    be stripped.

    Attributes:
      originals: by the kernel's name: a weight has the value that is nearest to its original.
      centroids: likewise, the values.
    """

    def __init__(self, variables: Sequence[tf.Variable], num_clusters: int):
        """Clusters the kernels of convolutions among `variables`, those that are trained, as they
        are now. Kernels of no more than `num_clusters` weights stay as they are."""
        self._kernels = {
            name: kernel
            for name, kernel in kernels(variables).items()
            if kernel.shape.num_elements() > num_clusters
        }
        self.originals = {name: tf.Variable(kernel) for name, kernel in self._kernels.items()}
        self.centroids = {
            name: tf.Variable(
                KmeansPlusPlusCentroidsInitialisation(
                    tf.convert_to_tensor(kernel), num_clusters
                ).get_cluster_centroids()
            )
            for name, kernel in self._kernels.items()
        }
        self.apply()

    def trained(self, variables: Sequence[tf.Variable]) -> list[tf.Variable]:
        """Returns the variables that an optimizer updates in place of `variables`."""
        clustered = {kernel.ref() for kernel in self._kernels.values()}
        others = [variable for variable in variables if variable.ref() not in clustered]
        return [*others, *self.originals.values(), *self.centroids.values()]

    def updates(self, updates: Sequence[Update]) -> list[Update]:
        """Returns the gradients of the `trained` variables from those of the network's variables.

        A value has the mean of its weights' gradients, an original that of its weight.
        """
        gradients = {variable.ref(): gradient for variable, gradient in updates}
        of_values, of_originals = [], []
        for name, kernel in self._kernels.items():
            gradient = gradients.pop(kernel.ref())
            values, original = self.centroids[name], self.originals[name]
            algorithm = ClusteringAlgorithm(values, GradientAggregation.AVG)
            nearest = _nearest(original, values)
            with tf.GradientTape() as tape:
                clustered = algorithm.get_clustered_weight(nearest, original)
            of_value, of_original = tape.gradient(clustered, [values, original], gradient)
            of_values.append((values, tf.convert_to_tensor(of_value)))
            of_originals.append((original, of_original))
        others = [(ref.deref(), gradient) for ref, gradient in gradients.items()]
        return [*others, *of_originals, *of_values]

    def apply(self) -> None:
        """Gives the kernels their values; to be called after every update."""
        for name, kernel in self._kernels.items():
            values = self.centroids[name]
            kernel.assign(tf.gather(values, _nearest(self.originals[name], values)))


def _nearest(weights: tf.Variable, values: tf.Variable) -> tf.Tensor:
    """Returns the index of the value nearest to each weight.

    tfmot's own takes memory for the distance of every weight from every value.
    """
    order = tf.argsort(values)
    ascending = tf.gather(values, order)
    limits = (ascending[1:] + ascending[:-1]) / 2
    place = tf.searchsorted(limits, tf.reshape(weights, [-1]))
    return tf.reshape(tf.gather(order, place), weights.shape)
