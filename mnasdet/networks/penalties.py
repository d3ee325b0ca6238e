"""The terms that the loss of a supernet's choices has beside the detector's (Guo et al.,
"Hit-Detector", 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from mnasdet.networks.choices import ChoiceCosts


def expected_cost(alphas: Mapping[str, tf.Variable], costs: ChoiceCosts) -> tf.Tensor:
    """Returns the mean cost of the networks that are drawn with the choices' probabilities.

    That is equation 7 with probabilities in alpha's place, with which it is the cost of a network
    where each choice is made. The paper leaves open which of the two it means.

    Args:
      alphas: [candidates] logits of each choice, by the choice's name.
    """
    terms = [
        tf.reduce_sum(tf.nn.softmax(alpha) * tf.constant(costs.of_candidates[name], alpha.dtype))
        for name, alpha in alphas.items()
    ]
    # The fixed part moves no alpha. With it the value is the cost of a network.
    return tf.add_n(terms) + tf.constant(costs.fixed, terms[0].dtype)


def column_norms(alphas: Sequence[tf.Variable]) -> tf.Tensor:
    """Returns the norms of the operations' probabilities over the layers, [operations].

    They are the scores of operations. Of probabilities and not of logits: those start at zero,
    where a norm has no gradient, and the norm of a logit is large where it is far below zero, too.

    Args:
      alphas: [operations] logits of each layer, of the same operations in the same order.
    """
    probabilities = tf.nn.softmax(tf.stack([tf.convert_to_tensor(alpha) for alpha in alphas]))
    return tf.sqrt(tf.reduce_sum(tf.square(probabilities), axis=0))


def column_sparsity(alphas: Sequence[tf.Variable]) -> tf.Tensor:
    """Returns the smallest of `column_norms`: equation 4 without its factor."""
    # Only the weakest operation has a gradient: it is pushed out, and the loss judges the others.
    return tf.reduce_min(column_norms(alphas))
