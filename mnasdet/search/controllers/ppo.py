"""Proximal policy optimisation with an LSTM policy: the controller of NASNet (Zoph et al., 2018,
appendix), which MnasNet and MnasFPN search with."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.protos import search_pb2
from mnasdet.search.controllers.controller import Result, generator
from mnasdet.search_spaces.space import Decision, SearchSpace, Tokens

# Uniform first weights, as the NASNet controller's.
_INITIAL_RANGE = 0.1
# A logit so low that its softmax is 0 and its gradient finite, which -inf would not be.
_MASKED = -1e9


class Policy(tf.Module):
    """A one-layer LSTM that makes the decisions one after the other.

    Every decision has a softmax of its own over the choices that the tokens so far allow, and an
    embedding of its choices, which is the next decision's input. Below, T is the number of
    decisions, V the most choices that one has, H the LSTM's units and B the batch.
    """

    def __init__(
        self, decisions: Sequence[Decision], hidden_units: int, rng: np.random.Generator
    ) -> None:
        super().__init__("policy")
        length, units = len(decisions), hidden_units
        width = max(len(decision.choices) for decision in decisions)
        self._decisions = decisions
        # True for the choices that exist: (T, V).
        self._exists = np.array([np.arange(width) < len(d.choices) for d in decisions])

        def variable(name: str, *shape: int) -> tf.Variable:
            values = rng.uniform(-_INITIAL_RANGE, _INITIAL_RANGE, shape)
            return tf.Variable(values, dtype=tf.float32, name=name)

        self.start = variable("start", 1, units)
        self.embedding = variable("embedding", length, width, units)
        self.kernel = variable("kernel", units, 4 * units)
        self.recurrent_kernel = variable("recurrent_kernel", units, 4 * units)
        self.bias = tf.Variable(tf.zeros([4 * units]), name="bias")
        self.softmax_kernel = variable("softmax_kernel", length, units, width)
        self.softmax_bias = tf.Variable(tf.zeros([length, width]), name="softmax_bias")

    def sample(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Samples by Gumbel noise, (B, T, V): the greatest logit + noise is a draw from a softmax.

        Returns:
          Tokens, (B, T), and the log probability of each, (T, B).
        """
        batch = tf.shape(noise)[0]
        noises = tf.unstack(noise, axis=1)
        embeddings = tf.unstack(self.embedding)
        kernels, biases = tf.unstack(self.softmax_kernel), tf.unstack(self.softmax_bias)
        x = tf.repeat(self.start, batch, axis=0)
        h = c = tf.zeros_like(x)
        tokens: list[tf.Tensor] = []
        logits: list[tf.Tensor] = []
        for t in range(len(self._decisions)):
            h, c = self._lstm(x @ self.kernel, h, c)
            logits.append(tf.where(self._mask(t, tokens), h @ kernels[t] + biases[t], _MASKED))
            tokens.append(tf.argmax(logits[t] + noises[t], axis=1, output_type=tf.int32))
            x = tf.gather(embeddings[t], tokens[t])
        log_probs = tf.nn.log_softmax(tf.stack(logits))
        return tf.stack(tokens, axis=1), tf.gather(log_probs, tf.stack(tokens), batch_dims=2)

    def log_probs(self, tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the log probabilities of tokens, (B, T), and the decisions' entropies; (T, B)."""
        by_decision = tf.unstack(tokens, axis=1)
        # Products with one-hot rows instead of gathers: their gradients sum in a fixed order.
        one_hot = tf.one_hot(by_decision, self._exists.shape[1])
        start = tf.repeat(self.start, tf.shape(tokens)[0], axis=0)
        inputs = tf.concat([start[tf.newaxis], (one_hot @ self.embedding)[:-1]], axis=0)
        h = c = tf.zeros_like(start)
        hidden = []
        for x in tf.unstack(inputs @ self.kernel):
            h, c = self._lstm(x, h, c)
            hidden.append(h)
        logits = tf.stack(hidden) @ self.softmax_kernel + self.softmax_bias[:, tf.newaxis]
        masks = [self._mask(t, by_decision) for t in range(len(self._decisions))]
        mask = tf.stack([tf.broadcast_to(mask, tf.shape(logits[0])) for mask in masks])
        log_probs = tf.nn.log_softmax(tf.where(mask, logits, _MASKED))
        entropy = -tf.reduce_sum(tf.exp(log_probs) * log_probs, axis=2)
        return tf.reduce_sum(one_hot * log_probs, axis=2), entropy

    def _lstm(self, x: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes one step; `x` is the input, already multiplied by the kernel: (B, 4H)."""
        i, f, g, o = tf.split(x + h @ self.recurrent_kernel + self.bias, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    def _mask(self, t: int, tokens: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the choices that tokens, (B,) each, leave of decision `t`: (B, V) or (V,)."""
        mask = self._exists[t]
        for earlier, table in self._decisions[t].narrowed_by:
            rows = np.array(table)
            padding = self._exists.shape[1] - rows.shape[1]
            mask &= tf.gather(np.pad(rows, ((0, 0), (0, padding))), tokens[earlier])
        return mask


def surrogate(
    log_probs: tf.Tensor, old_log_probs: tf.Tensor, advantages: tf.Tensor, clip_range: float
) -> tf.Tensor:
    """Computes PPO's clipped objective, to be maximised (Schulman et al., 2017, equation 7).

    Args:
      log_probs: of each decision, (T, B), by the policy; `old_log_probs` by the one that sampled.
      advantages: of each architecture, (B,): all its decisions share it.

    Returns:
      The sum over decisions, averaged over the batch.
    """
    ratio = tf.exp(log_probs - old_log_probs)
    clipped = tf.clip_by_value(ratio, 1 - clip_range, 1 + clip_range)
    objective = tf.minimum(ratio * advantages, clipped * advantages)
    return tf.reduce_mean(tf.reduce_sum(objective, axis=0))


class Ppo:
    """A `Controller` that learns after every `batch_size` results.

    The advantage of an architecture is its reward above a moving average of earlier batches'
    mean rewards. A failed trial counts as the worst reward of its batch; a batch in which all
    failed teaches nothing. Every proposal keeps the probabilities that it was sampled with: a
    batch is well-defined, however late its results.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        batch_size: int = 5,
        hidden_units: int = 100,
        learning_rate: float = 0.02,
        entropy_bonus: float = 1e-5,
        clip_range: float = 0.2,
        epochs: int = 2,
        baseline_decay: float = 0.95,
    ) -> None:
        """Args:
        seed: not negative; the same on any machine and whatever TensorFlow's own seed.
        batch_size: architectures of one update.
        entropy_bonus: weight of the summed entropies of the decisions.
        clip_range: how far from 1 a probability ratio still earns.
        epochs: steps on one batch.
        baseline_decay: share of the old baseline that an update keeps.
        """
        self.batch_size = batch_size
        self._seed = seed
        self._entropy_bonus = entropy_bonus
        self._clip_range = clip_range
        self._epochs = epochs
        self._baseline_decay = baseline_decay
        self._baseline: float | None = None
        self._num_proposed = 0
        # Proposals of the policy as it is: tokens and their log probabilities, (T,).
        self._ahead: deque[tuple[Tokens, np.ndarray]] = deque()
        # Log probabilities, (T,), of the proposals whose results are not in a full batch yet.
        self._log_probs: deque[np.ndarray] = deque()
        self._batch: list[Result] = []
        self._noise_shape = (len(space.decisions), max(len(d.choices) for d in space.decisions))
        # Hundreds of small operations: a GPU would only add a launch to each.
        with tf.device("CPU"):
            self._policy = Policy(space.decisions, hidden_units, np.random.default_rng(seed))
            self._optimizer = tf_keras.optimizers.Adam(learning_rate, jit_compile=False)
            self._optimizer.build(self._policy.trainable_variables)
        length, width = self._noise_shape
        # Traced once, for any number of proposals.
        self._sample = tf.function(
            self._sample_on_cpu,
            input_signature=[tf.TensorSpec([None, length, width])],
            autograph=False,
        )

    def propose(self, n: int) -> list[Tokens]:
        if n > len(self._ahead):
            # The policy stays as it is until a batch is full: one call for all that is left of it.
            self._sample_ahead(max(n - len(self._ahead), self.batch_size - len(self._batch)))
        proposals = [self._ahead.popleft() for _ in range(n)]
        self._num_proposed += n
        self._log_probs.extend(log_probs for _, log_probs in proposals)
        return [tokens for tokens, _ in proposals]

    def feedback(self, results: Sequence[Result]) -> None:
        for result in results:
            self._batch.append(result)
            if len(self._batch) == self.batch_size:
                self._learn()

    def _learn(self) -> None:
        """Learns from a full batch and begins the next."""
        batch, self._batch = self._batch, []
        # They were sampled by the policy as it was.
        self._ahead.clear()
        log_probs = [self._log_probs.popleft() for _ in batch]
        completed = [result.reward for result in batch if result.reward is not None]
        if not completed:
            return
        mean = float(np.mean(completed))
        # The first batch is its own baseline: a baseline of 0 would reward every choice in it.
        if self._baseline is None:
            self._baseline = mean
        # A failed trial must not be worth more than a bad one, and has no number of its own.
        worst = min(completed)
        rewards = [worst if result.reward is None else result.reward for result in batch]
        self._update(
            np.array([result.tokens for result in batch], np.int32),
            np.stack(log_probs, axis=1),
            np.array(np.array(rewards) - self._baseline, np.float32),
        )
        decay = self._baseline_decay
        self._baseline = decay * self._baseline + (1 - decay) * mean

    def _sample_ahead(self, count: int) -> None:
        # The seed alone, which is (seed, 0), made the weights.
        first = self._num_proposed + len(self._ahead) + 1
        noise = np.array(
            [
                generator(self._seed, number).gumbel(size=self._noise_shape)
                for number in range(first, first + count)
            ],
            np.float32,
        )
        tokens, log_probs = self._sample(noise)
        pairs = zip(map(tuple, tokens.numpy().tolist()), log_probs.numpy().T, strict=True)
        self._ahead.extend(pairs)

    def _sample_on_cpu(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.device("CPU"):
            return self._policy.sample(noise)

    @tf.function(autograph=False)
    def _update(self, tokens: tf.Tensor, old_log_probs: tf.Tensor, advantages: tf.Tensor) -> None:
        with tf.device("CPU"):

            def step(epoch: tf.Tensor) -> list[tf.Tensor]:
                self._gradient_step(tokens, old_log_probs, advantages)
                return [epoch + 1]

            tf.while_loop(lambda epoch: epoch < self._epochs, step, [0])

    def _gradient_step(
        self, tokens: tf.Tensor, old_log_probs: tf.Tensor, advantages: tf.Tensor
    ) -> None:
        variables = self._policy.trainable_variables
        with tf.GradientTape() as tape:
            log_probs, entropy = self._policy.log_probs(tokens)
            gain = surrogate(log_probs, old_log_probs, advantages, self._clip_range)
            mean_entropy = tf.reduce_mean(tf.reduce_sum(entropy, axis=0))
            loss = -gain - self._entropy_bonus * mean_entropy
        gradients = tape.gradient(loss, variables)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))


def from_config(config: search_pb2.PpoConfig, space: SearchSpace, seed: int) -> Ppo:
    return Ppo(
        space,
        seed=seed,
        batch_size=config.batch_size,
        hidden_units=config.hidden_units,
        learning_rate=config.learning_rate,
        entropy_bonus=config.entropy_bonus,
        clip_range=config.clip_range,
        epochs=config.epochs,
        baseline_decay=config.baseline_decay,
    )
