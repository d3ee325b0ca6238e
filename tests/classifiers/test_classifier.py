import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet import config, models
from mnasdet.blueprint import Blueprint
from mnasdet.classifiers import classifier as classifiers
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.evaluation.classification import TOP_1
from mnasdet.protos import classification_pb2, eval_pb2

SIZE = (32, 48)


def blueprint(num_classes=7, **settings):
    return Blueprint(
        kind="classification",
        architecture=config.load_architecture("mnasnet_small"),
        resizer=ImageResizer(SIZE),
        num_classes=num_classes,
        settings=classification_pb2.Classification(num_classes=num_classes, **settings),
    )


@pytest.fixture(scope="module")
def classifier():
    tf_keras.utils.set_random_seed(0)
    return models.build(blueprint())


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(-1, 1, (4, *SIZE, 3)).astype(np.float32)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def with_logits(monkeypatch, classifier, logits, **settings):
    """The classifier of other settings, whose network gives logits whatever it sees."""
    seen = []

    def model(images, training):
        seen.append((images, training))
        return {"logits": tf.constant(logits, tf.float32)}

    return classifiers.Classifier(blueprint(**settings), model), seen


def test_it_is_what_models_builds(classifier):
    assert isinstance(classifier, classifiers.Classifier)
    assert classifier.model.output_shape == {"logits": (None, 7)}
    assert classifier.objective == TOP_1
    assert classifier.compiles


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy(monkeypatch, classifier, images, smoothing):
    logits = np.random.default_rng(1).normal(size=(4, 7))
    task, seen = with_logits(monkeypatch, classifier, logits, label_smoothing=smoothing)
    classes = np.array([1, 7, 3, 3])
    (loss,) = task.losses({"image": images, "class": classes}).values()
    # 1 - smoothing for the class itself, and the rest for all of them evenly.
    targets = np.full((4, 7), smoothing / 7)
    targets[range(4), classes - 1] += 1 - smoothing
    expected = -(targets * np.log(softmax(logits))).sum()
    np.testing.assert_allclose(loss.total, expected, rtol=1e-5)
    assert loss.normalizer == 4
    assert seen[0][1] is True


def test_mixup_blends_images_and_labels(monkeypatch, classifier, images):
    logits = np.random.default_rng(1).normal(size=(4, 7))
    task, seen = with_logits(monkeypatch, classifier, logits, mixup_alpha=0.2)
    shares, classes = np.array([1.0, 0.25, 0.5, 0.0], np.float32), np.array([1, 7, 3, 2])
    batch = {"image": images, "class": classes, "share": tf.constant(shares)}
    (loss,) = task.losses(batch).values()
    expected = sum(
        -share * entropy[one - 1] - (1 - share) * entropy[other - 1]
        for share, entropy, one, other in zip(
            shares, np.log(softmax(logits)), classes, classes[::-1], strict=True
        )
    )
    np.testing.assert_allclose(loss.total, expected, rtol=1e-5)
    blended = seen[0][0]
    np.testing.assert_allclose(blended[0], images[0])
    np.testing.assert_allclose(blended[1], 0.25 * images[1] + 0.75 * images[2], atol=1e-6)
    np.testing.assert_allclose(blended[3], images[0])


def test_shares_of_mixup_are_of_beta_and_come_from_the_seed():
    def shares(alpha):
        seeds = tf.data.Dataset.range(1000).map(lambda number: tf.stack([7, number]))
        return np.array(
            list(seeds.map(lambda seed: classifiers.beta(alpha, seed)).as_numpy_iterator())
        )

    for alpha in (0.2, 2.0):
        drawn = shares(alpha)
        np.testing.assert_array_equal(drawn, shares(alpha))
        assert drawn.mean() == pytest.approx(0.5, abs=0.04)
        # The variance of Beta(a, a).
        assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert np.isfinite(shares(1e-3)).all()


def test_targets(classifier):
    example = {
        "image": tf.zeros([*SIZE, 3]),
        "class": tf.constant(3),
        "seed": tf.constant([1, 2], tf.int64),
        "boxes": tf.zeros([0, 4]),
    }
    assert set(classifier.targets(example)) == {"image", "class"}
    with_mixup = classifiers.Classifier(blueprint(mixup_alpha=0.2), classifier.model)
    assert set(with_mixup.targets(example)) == {"image", "class", "share"}


def test_predict(classifier, images):
    found = {name: value.numpy() for name, value in classifier.predict(images).items()}
    expected = softmax(classifier.model(images, training=False)["logits"].numpy())
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-5)
    best = np.argsort(-expected, axis=1)[:, :5]
    np.testing.assert_array_equal(found["classes"], best + 1)
    np.testing.assert_allclose(found["scores"], np.take_along_axis(expected, best, 1), rtol=1e-5)


def test_of_three_classes_three_are_told():
    found = classifiers.found(tf.constant([[0.1, 0.7, 0.2]]))
    assert found["classes"].numpy().tolist() == [[2, 3, 1]]


def test_drawn_frames_say_whether_the_class_is_right(classifier, images):
    drawn = classifier.draw(
        {"image": images, "class": tf.constant([1, 2, 3, 4])},
        {"classes": tf.constant([[1, 2], [1, 2], [3, 1], [5, 4]])},
        eval_pb2.EvalConfig(),
    ).numpy()
    colours = drawn[:, 0, 0]
    assert [row.argmax() for row in colours] == [1, 0, 1, 0]
    np.testing.assert_allclose(drawn[:, 10, 10], (images[:, 10, 10] + 1) / 2, atol=1e-6)


def test_xla_compiles_the_losses(images):
    task = models.build(blueprint(label_smoothing=0.1, mixup_alpha=0.2))
    batch = {"image": images, "class": tf.constant([1, 2, 3, 4]), "share": tf.constant([0.5] * 4)}
    tf_keras.utils.set_random_seed(0)
    eager = task.losses(batch)["classification_loss"].total
    compiled = tf.function(task.losses, jit_compile=True)(batch)["classification_loss"].total
    np.testing.assert_allclose(compiled, eager, rtol=1e-3)


def test_parts_of_a_batch_add_up_to_the_whole(images):
    """Batch normalisation apart, which is of each part."""
    logits = tf.constant(np.random.default_rng(1).normal(size=(4, 7)), tf.float32)
    classes = tf.constant([1, 2, 3, 4])

    def loss(rows):
        task = classifiers.Classifier(blueprint(), lambda *_, **__: {"logits": logits[rows]})
        return task.losses({"image": images[rows], "class": classes[rows]})["classification_loss"]

    parts = [loss(slice(0, 1)), loss(slice(1, 4))]
    whole = loss(slice(0, 4))
    total, normalizer = (sum(part[place] for part in parts) for place in range(2))
    np.testing.assert_allclose(total / normalizer, whole.total / whole.normalizer, rtol=1e-6)
