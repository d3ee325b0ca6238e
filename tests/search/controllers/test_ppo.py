import itertools

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.search.controllers.controller import Result
from mnasdet.search.controllers.ppo import Policy, Ppo, surrogate
from mnasdet.search.controllers.random_search import RandomSearch

UNITS = 5


@pytest.fixture(scope="module")
def policy(toy_space):
    """With weights large enough to tell right from wrong."""
    policy = Policy(toy_space.decisions, UNITS, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for variable in policy.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return policy


@pytest.fixture(scope="module")
def all_tokens(toy_space):
    product = itertools.product(range(3), range(3), range(3), range(4))
    return np.array([t for t in product if len(set(t[:3])) == 3])


def results(tokens, rewards):
    return [Result(*pair) for pair in zip(tokens, rewards, strict=True)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_probabilities(policy, space, tokens):
    """Returns the probabilities of each decision's choices for one token list; 0 if not allowed."""
    p = {v.name.split(":")[0]: v.numpy().astype(np.float64) for v in policy.trainable_variables}
    x, h, c = p["start"][0], np.zeros(UNITS), np.zeros(UNITS)
    rows = []
    for t, token in enumerate(tokens):
        gates = x @ p["kernel"] + h @ p["recurrent_kernel"] + p["bias"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        allowed = list(space.allowed(t, tokens[:t]))
        weights = np.zeros(4)
        weights[allowed] = np.exp(h @ p["softmax_kernel"][t] + p["softmax_bias"][t])[allowed]
        rows.append(weights / weights.sum())
        x = p["embedding"][t, token]
    return rows


def test_log_probs_and_entropy_against_numpy(policy, toy_space, all_tokens):
    log_probs, entropy = (tensor.numpy() for tensor in policy.log_probs(all_tokens))
    assert log_probs.shape == entropy.shape == (4, 24)
    for b, tokens in enumerate(all_tokens):
        for t, row in enumerate(numpy_probabilities(policy, toy_space, tokens)):
            assert log_probs[t, b] == pytest.approx(np.log(row[tokens[t]]), abs=1e-5)
            some = row[row > 0]
            assert entropy[t, b] == pytest.approx(-np.sum(some * np.log(some)), abs=1e-5)


def test_the_policy_is_a_distribution_over_the_space(policy, all_tokens):
    log_probs, _ = policy.log_probs(all_tokens)
    assert np.exp(np.sum(log_probs, axis=0)).sum() == pytest.approx(1, abs=1e-5)


def test_samples_follow_the_policy(policy, all_tokens):
    count = 20000
    noise = np.random.default_rng(0).gumbel(size=(count, 4, 4)).astype(np.float32)
    tokens, log_probs = policy.sample(tf.constant(noise))
    np.testing.assert_allclose(log_probs, policy.log_probs(tokens)[0], atol=1e-5)
    sampled = [tuple(row) for row in tokens.numpy()]
    probabilities = np.exp(np.sum(policy.log_probs(all_tokens)[0], axis=0))
    for tokens, probability in zip(all_tokens, probabilities, strict=True):
        deviation = np.sqrt(count * probability * (1 - probability))
        assert abs(sampled.count(tuple(tokens)) - count * probability) < 5 * deviation + 1


def test_surrogate_and_its_gradient_by_hand():
    old = np.log([[0.5, 0.5], [0.2, 0.2], [0.1, 0.4]])
    new = tf.Variable(np.log([[0.55, 0.55], [0.4, 0.4], [0.05, 0.2]]))
    advantages = tf.constant([2.0, -1.0], tf.float64)
    with tf.GradientTape() as tape:
        value = surrogate(new, old, advantages, 0.2)
    # Ratios 1.1, 2 and 0.5. A rise beyond 1.2 earns no more; a fall of what was good, or a rise of
    # what was bad, counts in full; a fall of what was bad counts down to 0.8.
    assert value.numpy() == pytest.approx(((1.1 + 1.2 + 0.5) * 2.0 + (1.1 + 2.0 + 0.8) * -1.0) / 2)
    # The derivative of the ratio by its logarithm is the ratio; none where clipped.
    np.testing.assert_allclose(
        tape.gradient(value, new), [[1.1, -0.55], [0.0, -1.0], [0.5, 0.0]], atol=1e-12
    )


def test_proposals_are_valid(toy_space):
    ppo = Ppo(toy_space)
    proposals = ppo.propose(200)
    assert len(set(proposals)) == 24
    for tokens in proposals:
        toy_space.validate(tokens)
        assert all(type(token) is int for token in tokens)


def test_proposals_do_not_depend_on_how_many_are_asked_for(toy_space):
    whole, parts = Ppo(toy_space, seed=2), Ppo(toy_space, seed=2)
    assert whole.propose(12) == [*parts.propose(5), *parts.propose(0), *parts.propose(7)]


def variables(ppo):
    return [*ppo._policy.trainable_variables, *ppo._optimizer.variables]


def test_learns_when_a_batch_is_full_however_feedback_comes(toy_space):
    whole, parts = Ppo(toy_space, batch_size=4), Ppo(toy_space, batch_size=4)
    known = [Result(tokens, tokens[3] / 3) for tokens in whole.propose(10)]
    parts.propose(10)
    whole.feedback(known)
    for result in known:
        parts.feedback([result])
    for a, b in zip(variables(whole), variables(parts), strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole._baseline == parts._baseline
    assert whole.propose(4) == parts.propose(4)


def test_late_results_are_weighed_by_the_policy_that_sampled_them(toy_space, monkeypatch):
    ppo = Ppo(toy_space, batch_size=2, learning_rate=0.05)
    proposals = ppo.propose(4)
    sampled = ppo._policy.log_probs(np.array(proposals[2:]))[0].numpy()
    ppo.feedback(results(proposals[:2], [0.9, 0.1]))
    seen = []
    monkeypatch.setattr(ppo, "_update", lambda *arguments: seen.append(arguments))
    ppo.feedback(results(proposals[2:], [0.5, 0.6]))
    ((tokens, old_log_probs, _),) = seen
    assert tokens.tolist() == [list(t) for t in proposals[2:]]
    np.testing.assert_allclose(old_log_probs, sampled, atol=1e-5)
    assert np.abs(ppo._policy.log_probs(tokens)[0] - sampled).max() > 0.01


def test_no_proposal_outlives_the_policy_that_sampled_it(toy_space):
    ppo = Ppo(toy_space, batch_size=2, learning_rate=0.05)
    first, second = ppo.propose(1) + ppo.propose(1)
    ppo.feedback(results([first], [0.9]))
    late = ppo.propose(1)
    ppo.feedback(results([second], [0.1]))
    (next_one,) = ppo.propose(1)
    sampled = np.array(ppo._log_probs)
    now = ppo._policy.log_probs(np.array([*late, next_one]))[0].numpy().T
    np.testing.assert_allclose(sampled[1], now[1], atol=1e-5)
    assert np.abs(sampled[0] - now[0]).max() > 0.01


def test_does_not_depend_on_tensorflows_seed(toy_space):
    tf.random.set_seed(1)
    first = Ppo(toy_space).propose(20)
    tf.random.set_seed(2)
    assert Ppo(toy_space).propose(20) == first


def test_first_update_moves_every_probability_as_its_advantage_says(toy_space):
    ppo = Ppo(toy_space, batch_size=2, learning_rate=0.01)
    good, bad = ppo.propose(2)
    before = np.sum(ppo._policy.log_probs(np.array([good, bad]))[0], axis=0)
    ppo.feedback(results([good, bad], [0.9, 0.1]))
    after = np.sum(ppo._policy.log_probs(np.array([good, bad]))[0], axis=0)
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_baseline_is_a_moving_average(toy_space):
    ppo = Ppo(toy_space, batch_size=2, baseline_decay=0.9)
    ppo.feedback(results(ppo.propose(2), [0.2, 0.4]))
    assert ppo._baseline == pytest.approx(0.3)
    ppo.feedback(results(ppo.propose(2), [0.6, 0.8]))
    assert ppo._baseline == pytest.approx(0.9 * 0.3 + 0.1 * 0.7)


def test_a_failed_trial_counts_as_the_worst_of_its_batch(toy_space):
    failed, worst = Ppo(toy_space, batch_size=3), Ppo(toy_space, batch_size=3)
    # A first batch of one mean sets both baselines: a failure does not enter them.
    for ppo in (failed, worst):
        ppo.feedback(results(ppo.propose(3), [0.5, 0.5, 0.5]))
    failed.feedback(results(failed.propose(3), [0.9, None, 0.1]))
    worst.feedback(results(worst.propose(3), [0.9, 0.1, 0.1]))
    for x, y in zip(failed._policy.variables, worst._policy.variables, strict=True):
        np.testing.assert_array_equal(x, y)
    assert failed._baseline == pytest.approx(0.5)


def test_a_batch_of_failures_teaches_nothing(toy_space):
    ppo, fresh = Ppo(toy_space, batch_size=2), Ppo(toy_space, batch_size=2)
    ppo.feedback(results(ppo.propose(2), [None, None]))
    assert ppo.propose(18) == fresh.propose(20)[2:]
    assert ppo._baseline is None


def test_beats_random_search(toy_space):
    """The share of decisions that are as in one token list."""
    target = (2, 0, 1, 3)

    def reward(tokens):
        return float(np.mean(np.equal(tokens, target)))

    ppo = Ppo(toy_space, learning_rate=0.01)
    means = []
    for _ in range(75):
        proposals = ppo.propose(20)
        rewards = [reward(tokens) for tokens in proposals]
        ppo.feedback(results(proposals, rewards))
        means.append(np.mean(rewards))
    at_random = np.mean([reward(tokens) for tokens in RandomSearch(toy_space).propose(1500)])
    assert at_random == pytest.approx(0.3125, abs=0.03)
    assert means[0] == pytest.approx(0.3125, abs=0.15)
    assert np.mean(means[-10:]) > 0.9


def test_proposals_are_permanent(toy_space):
    """A change here changes every search of an old seed: say so in the changelog, then take the
    new tokens over."""
    ppo = Ppo(toy_space, seed=0, batch_size=4, learning_rate=0.05, epochs=4)
    first = ppo.propose(4)
    ppo.feedback(results(first, [tokens[3] / 3 for tokens in first]))
    assert first == [(1, 0, 2, 3), (0, 2, 1, 2), (2, 0, 1, 1), (1, 2, 0, 0)]
    assert ppo.propose(4) == [(0, 2, 1, 3), (1, 0, 2, 3), (0, 2, 1, 2), (2, 1, 0, 3)]
