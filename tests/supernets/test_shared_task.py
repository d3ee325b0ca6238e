"""A task of many networks: which of them a step trains, and at which image size."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet import config, models
from mnasdet.architectures import input_size
from mnasdet.networks import random_draws
from mnasdet.search import one_shot
from mnasdet.supernets.judge import Judge
from mnasdet.training import training_data

SIZES = [(64, 64), (96, 96)]


@pytest.fixture(scope="module")
def shared(tiny_config, tmp_path_factory):
    """A supernet of networks of two image sizes as a task, with its config and a batch."""
    path = tmp_path_factory.mktemp("shared") / "tiny.config"
    path.write_text(tiny_config)
    pipeline = config.load(path)
    search = pipeline.search_config
    search.search_space.image_sizes.extend(height for height, _ in SIZES)
    search.one_shot.num_networks = 6
    search.one_shot.train_config.CopyFrom(pipeline.train_config)
    assert config.check(pipeline) == []
    task = models.build(one_shot.supernet(pipeline))
    rng = np.random.default_rng(0)
    for weight in task.model.weights:
        noise = 0.1 * rng.normal(size=weight.shape).astype(np.float32)
        weight.assign(np.abs(weight + noise) if "variance" in weight.name else weight + noise)
    return pipeline, task, next(iter(training_data.training_set(task, pipeline, seed=0)))


def drawn(task, number):
    with random_draws.seeded(tf.constant([7, number])):
        return int(task._drawn())


def plain_task(pipeline, task, architecture):
    """The network by itself, with its part of the weights."""
    plain = models.build(config.resolve(pipeline, architecture))
    weights = task.model.weights_of(architecture)
    for variable in plain.model.variables:
        variable.assign(weights[variable.name.removesuffix(":0")])
    return plain


def test_a_step_draws_one_network_by_the_seed_of_its_examples(shared):
    _, task, _ = shared
    count = len(task.blueprint.subnets.architectures)
    numbers = [drawn(task, number) for number in range(100)]
    assert set(numbers) == set(range(count))
    assert numbers == [drawn(task, number) for number in range(100)]


def test_a_sandwich_draws_the_smallest_and_the_largest(shared, monkeypatch):
    _, task, _ = shared
    monkeypatch.setattr(task, "_sandwich", 1.0)
    assert {drawn(task, number) for number in range(12)} == {0, 1}


def test_all_sizes_have_the_same_weights(shared):
    _, task, _ = shared
    small, large = (each.model for each in task.of_sizes.values())
    assert {id(variable) for variable in small.variables} == {
        id(variable) for variable in large.variables
    }
    assert list(task.of_sizes) == SIZES
    assert task.blueprint.image_size == SIZES[-1]


def test_a_step_has_the_losses_of_its_network_at_its_size(shared):
    pipeline, task, batch = shared
    networks = task.blueprint.subnets.architectures
    losses = tf.function(task.losses, autograph=False)
    seen = set()
    for seed in range(40):
        own = networks[drawn(task, seed)]
        if input_size(own) in seen:
            continue
        seen.add(input_size(own))
        plain = plain_task(pipeline, task, own)
        # The network's own training example, except that its images had another size before.
        (example,) = training_data.batches(task, pipeline, 0, 0, plain.targets).take(1)
        image = tf.image.resize(batch["image"], input_size(own))
        expected = plain.losses({**example, "image": image})
        with random_draws.seeded(tf.constant([7, seed])):
            found = losses.python_function(batch)
        for name, loss in expected.items():
            np.testing.assert_allclose(found[name].total, loss.total, rtol=1e-4)
            assert float(found[name].normalizer) == float(loss.normalizer)
    assert seen == set(SIZES)


def test_a_network_is_judged_at_its_own_size(shared):
    pipeline, task, batch = shared
    judge = Judge(task, pipeline, [batch["image"]])
    for size in SIZES:
        own = next(
            each for each in task.blueprint.subnets.architectures if input_size(each) == size
        )
        judge.metrics(own)
        images = tf.image.resize(batch["image"], size)
        expected = plain_task(pipeline, task, own).model(images)
        found = task.of(own).model(images)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=2e-4, rtol=2e-4)
