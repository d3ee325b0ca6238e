"""Losses against numpy in float64, eager and inside tf.function."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.detectors import box_coder, losses
from mnasdet.detectors.losses import DetectionLoss, HardExampleMiner
from mnasdet.detectors.targets import BACKGROUND, IGNORED
from mnasdet.protos import ssd_pb2

# From where float32 can tell sigmoids from 0 and 1 to where float32 overflows in a careless form.
LOGITS = np.concatenate([np.linspace(-12, 12, 25), [-1e4, -200, -90, -40, 40, 90, 200, 1e4]])


@pytest.fixture(params=[False, True], ids=["eager", "tf.function"])
def run(request):
    """Calls a function of tensors as it is, or inside tf.function."""

    def call(function, *arguments):
        tensors = [tf.constant(x) for x in arguments]
        return (tf.function(function) if request.param else function)(*tensors)

    return call


def value_and_gradient(loss, run, predictions, targets):
    def evaluate(predictions, targets):
        with tf.GradientTape() as tape:
            tape.watch(predictions)
            value = loss(predictions, targets)
        return value, tape.gradient(value, predictions)

    return run(evaluate, np.asarray(predictions, np.float32), np.asarray(targets, np.float32))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    return np.exp(-softplus(-x))


def numpy_focal(logits, target, alpha, gamma):
    """Value and gradient, both in float64; log p = -softplus(-x), log (1 - p) = -softplus(x)."""
    x = logits if target else -logits  # p_t = sigmoid(x)
    weight = 1.0 if alpha is None else (alpha if target else 1 - alpha)
    wrong, right = sigmoid(-x), sigmoid(x)
    value = weight * wrong**gamma * softplus(-x)
    # d/dx of (1 - p_t)^gamma * -log p_t, by hand.
    slope = -weight * wrong**gamma * (gamma * right * softplus(-x) + wrong)
    return value, slope if target else -slope


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (None, 0.0), (0.75, 1.5)])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_focal_loss_and_its_gradient(alpha, gamma, target, run):
    value, gradient = value_and_gradient(
        lambda x, t: losses.sigmoid_focal_loss(x, t, alpha, gamma),
        run,
        LOGITS[:, None],
        np.full((len(LOGITS), 1), target),
    )
    expected, slope = numpy_focal(LOGITS, target, alpha, gamma)
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-37)
    np.testing.assert_allclose(gradient[:, 0], slope, rtol=2e-5, atol=1e-37)


def test_focal_loss_passes_on_what_comes_from_above():
    logits, targets = tf.constant([[1.0, -2.0], [0.5, 0.0]]), tf.constant([[0.0, 1.0], [1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.sigmoid_focal_loss(logits, targets) * tf.constant([3.0, 0.0])
    expected = [
        [3 * numpy_focal(np.float64(1), 0, 0.25, 2)[1], 3 * numpy_focal(-2.0, 1, 0.25, 2)[1]],
        [0.0, 0.0],
    ]
    np.testing.assert_allclose(tape.gradient(loss, logits), expected, rtol=1e-5)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_sigmoid_cross_entropy(target, run):
    value, gradient = value_and_gradient(
        losses.sigmoid_cross_entropy, run, LOGITS[:, None], np.full((len(LOGITS), 1), target)
    )
    np.testing.assert_allclose(value, softplus(LOGITS * (1 - 2 * target)), rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(gradient[:, 0], sigmoid(LOGITS) - target, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("hard", [False, True])
def test_bootstrapped_sigmoid(hard, run):
    alpha = 0.9
    logits = np.array([[-3.0, 0.5], [2.0, -0.25], [90.0, -90.0]])
    targets = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    value, gradient = value_and_gradient(
        lambda x, t: losses.bootstrapped_sigmoid(x, t, alpha, hard), run, logits, targets
    )
    own = (logits > 0).astype(float) if hard else sigmoid(logits)
    mixture = alpha * targets + (1 - alpha) * own
    expected = -(mixture * -softplus(-logits) + (1 - mixture) * -softplus(logits)).sum(axis=1)
    through_target = 0 if hard else -logits * (1 - alpha) * sigmoid(logits) * sigmoid(-logits)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(
        gradient, sigmoid(logits) - mixture + through_target, rtol=1e-4, atol=1e-6
    )


def test_softmax_cross_entropy(run):
    logits = np.array([[1.0, 2.0, -1.0], [300.0, -300.0, 0.0], [1.0, 1.0, 1.0]])
    targets = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    value, gradient = value_and_gradient(
        lambda x, t: losses.softmax_cross_entropy(x, t, logit_scale=2.0), run, logits, targets
    )
    # In logits halved: log(e^.5 + e^1 + e^-.5) - 1 for the first, 150 - 0 for the second; a target
    # of zeros costs nothing.
    first = np.log(np.exp([0.5, 1.0, -0.5]).sum()) - 1.0
    np.testing.assert_allclose(value, [first, 150.0, 0.0], rtol=1e-6)
    p = np.exp(logits[0] / 2) / np.exp(logits[0] / 2).sum()
    np.testing.assert_allclose(gradient[0], (p - targets[0]) / 2, rtol=1e-5)
    np.testing.assert_allclose(gradient[1], [0.5, 0.0, -0.5], atol=1e-6)


def test_localization_losses_by_hand(run):
    codes, targets = [[1.0, 1.5, 0.0, 3.0]], [[1.0, 1.0, 1.0, 0.0]]  # Off by 0, 0.5, -1 and 3.
    for loss, expected, slope in (
        (losses.smooth_l1, 0.125 + 0.5 + 2.5, [0.0, 0.5, -1.0, 1.0]),
        (lambda x, t: losses.smooth_l1(x, t, 2.0), 0.125 + 0.5 + 4.0, [0.0, 0.5, -1.0, 2.0]),
        (losses.l1, 4.5, [0.0, 1.0, -1.0, 1.0]),
        (losses.l2, 0.125 + 0.5 + 4.5, [0.0, 0.5, -1.0, 3.0]),
    ):
        value, gradient = value_and_gradient(loss, run, codes, targets)
        np.testing.assert_allclose(value, [expected])
        np.testing.assert_allclose(gradient, [slope])


def batch():
    class_targets = tf.constant([[1, BACKGROUND, IGNORED, 2]])
    box_targets = tf.zeros([1, 4, 4])
    box_encodings = tf.constant(np.full((1, 4, 4), 0.5), tf.float32)
    class_logits = tf.constant(np.full((1, 4, 3), -2.0), tf.float32)
    return box_encodings, class_logits, box_targets, class_targets


def divided(loss):
    """The losses of a whole batch, as the learner divides them."""
    return lambda *batch: [one.total / tf.maximum(one.normalizer, 1.0) for one in loss(*batch)]


def test_normalised_by_matches_and_code_size(run):
    loss = DetectionLoss(losses.sigmoid_cross_entropy)
    localization, classification = run(divided(loss), *batch())
    # Two positive anchors with four errors of 0.5 each: 2 * 4 * 0.125 / 2 matches / 4.
    assert float(localization) == pytest.approx(0.125)
    # Three counted anchors of three logits: two logits have target 1, the background slot never.
    assert float(classification) == pytest.approx((2 * softplus(2.0) + 7 * softplus(-2.0)) / 2)


def test_the_offset_of_the_matches_counts_once_for_every_image(run):
    loss = DetectionLoss(losses.sigmoid_cross_entropy, match_offset=0.5)
    whole = [tf.concat([one, one], axis=0) for one in batch()]
    localization, _ = run(divided(loss), *whole)
    # Four positive anchors with four errors of 0.5, and 0.5 for each of the two images.
    assert float(localization) == pytest.approx(4 * 4 * 0.125 / (4 + 2 * 0.5) / 4)
    # However a batch is split, the sum over its parts is the same.
    parts = [loss(*batch())[0] for _ in range(2)]
    assert float(sum(part.normalizer for part in parts)) == float(loss(*whole)[0].normalizer) == 5


def test_weights_and_no_normalisation(run):
    loss = DetectionLoss(
        losses.sigmoid_cross_entropy,
        losses.l1,
        classification_weight=3.0,
        localization_weight=5.0,
        negative_weight=0.5,
        normalize_by_matches=False,
        normalize_by_code_size=False,
    )
    localization, classification = run(divided(loss), *batch())
    assert float(localization) == pytest.approx(5 * 2 * 4 * 0.5)
    # Three of the seven wrong logits are the negative anchor's.
    expected = 3 * (2 * softplus(2.0) + (4 + 0.5 * 3) * softplus(-2.0))
    assert float(classification) == pytest.approx(expected)


def test_background_as_a_class_of_its_own(run):
    loss = DetectionLoss(
        losses.softmax_cross_entropy, background_as_zeros=False, normalize_by_matches=False
    )
    encodings, _, targets, classes = batch()
    logits = np.array([[[0, 1, 0], [2, 0, 0], [5, 5, 5], [0, 0, 3]]], np.float32)
    # Slots 1, 0 and 2 are right; the ignored anchor costs nothing.
    right = [np.log(np.exp(row).sum()) - row.max() for row in logits[0, [0, 1, 3]]]
    assert float(run(divided(loss), encodings, logits, targets, classes)[1]) == pytest.approx(
        sum(right)
    )


def test_no_object_at_all_is_no_division_by_zero():
    encodings, logits, targets, classes = batch()
    localization, classification = divided(DetectionLoss())(
        encodings, logits, targets, tf.zeros_like(classes)
    )
    assert float(localization) == 0.0
    assert np.isfinite(classification)


def test_expected_sampling_by_hand(run):
    classes = np.array([[1, 0, 0, 0, IGNORED], [0, 0, 0, 0, 0], [2, 1, 2, 1, 3]], np.int32)
    weights = run(lambda x: losses.expected_sampling(x, 3.0, 2.0), classes)
    # 3 * 1 / (5 - 1) for the background of the first image; 2 / 5 where there are no positives.
    np.testing.assert_allclose(weights, [[1, *[0.75] * 4], [0.4] * 5, [1] * 5], rtol=1e-6)


def test_random_negatives_keep_the_share(run):
    tf.random.set_seed(0)  # Other tests may have made TensorFlow deterministic.
    classes = np.zeros((3, 40), np.int32)
    classes[0, :4], classes[0, 20:30] = 1, IGNORED
    classes[1, 5] = 2
    kept = run(lambda x: losses.random_negatives(x, 0.25), classes).numpy()
    assert set(np.unique(kept)) <= {0.0, 1.0}
    assert (kept[classes > 0] == 1).all()
    assert (kept[classes == IGNORED] == 0).all()
    # Three negatives for every positive; none without.
    np.testing.assert_array_equal((kept * (classes == 0)).sum(axis=1), [12, 3, 0])


def test_random_negatives_are_another_choice_each_time_and_every_one_in_the_end():
    tf.random.set_seed(1)
    classes = tf.constant([[1] + [0] * 9])
    draws = np.stack([losses.random_negatives(classes, 0.25)[0] for _ in range(40)])
    assert (draws.sum(axis=1) == 4).all()
    assert (draws.mean(axis=0)[1:] > 0.1).all()
    assert (draws.mean(axis=0)[1:] < 0.7).all()


def test_random_negatives_permanence():
    # Seeded runs of old draw differently when this changes: only on purpose, and in CHANGELOG.md.
    tf.random.set_seed(0)
    kept = losses.random_negatives(tf.constant([[1, 0, 0, 0, 0, 2, 0, 0, 0, 0]]), 0.5)
    assert np.flatnonzero(kept[0]).tolist() == [0, 1, 5, 9]


def numpy_iou(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = np.prod(np.maximum(sides, 0))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def numpy_miner(miner, localization, classification, boxes, classes):
    """The OD API's steps for one image, one after the other."""
    total = miner.localization_weight * localization + miner.classification_weight * classification
    order = [i for i in np.argsort(-total, kind="stable") if classes[i] != IGNORED]
    kept = []
    for i in order:
        if all(numpy_iou(boxes[i], boxes[j]) <= miner.iou_threshold for j in kept):
            kept.append(i)
    if miner.num_hard_examples:
        kept = kept[: miner.num_hard_examples]
    if miner.max_negatives_per_positive:
        positives = sum(classes[i] > 0 for i in kept)
        allowed = max(miner.max_negatives_per_positive * positives, miner.min_negatives)
        negatives = [i for i in kept if classes[i] == 0][:allowed]
        kept = [i for i in kept if classes[i] > 0] + negatives
    return np.isin(np.arange(len(total)), kept).astype(np.float32)


def mined(seed, anchors=60, images=3):
    """Losses, encodings of boxes that often overlap, and class targets."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.2, 0.8, (6, 2))[rng.integers(0, 6, (images, anchors))]
    centres = centres + rng.normal(0, 0.02, centres.shape)
    boxes = np.concatenate([centres - 0.1, centres + 0.1], axis=-1).astype(np.float32)
    boxes[0, 1] = boxes[0, 0]
    classes = rng.choice([0, 0, 0, 0, 0, 1, IGNORED], (images, anchors)).astype(np.int32)
    classes[-1] = 0
    counted = classes != IGNORED
    localization = rng.uniform(0, 2, classes.shape) * (classes > 0)
    classification = rng.uniform(0, 1, classes.shape) * counted
    prior = np.tile([0.4, 0.4, 0.6, 0.6], (anchors, 1)).astype(np.float32)
    encodings = box_coder.encode(boxes, prior, box_coder.DEFAULT_SCALES).numpy()
    losses_ = localization.astype(np.float32), classification.astype(np.float32)
    return prior, boxes, losses_, encodings, classes


@pytest.mark.parametrize("iou_threshold", [0.3, 0.7, 0.99, 1.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (2.0, 0.5)])
@pytest.mark.parametrize(
    ("examples", "ratio", "least"), [(0, 3, 0), (64, 0, 0), (7, 0, 0), (25, 3, 3), (3000, 1, 10)]
)
def test_miner_against_numpy(iou_threshold, weights, examples, ratio, least):
    prior, boxes, (localization, classification), encodings, classes = mined(0)
    miner = HardExampleMiner(prior, examples, iou_threshold, *weights, ratio, least)
    picked = miner(localization, classification, encodings, classes)
    for i in range(len(classes)):
        expected = numpy_miner(miner, localization[i], classification[i], boxes[i], classes[i])
        np.testing.assert_array_equal(picked[i], expected)


def test_miner_in_the_loss(run):
    prior, boxes, _, encodings, classes = mined(1)
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (*classes.shape, 2)).astype(np.float32)
    targets = rng.normal(0, 1, encodings.shape).astype(np.float32)
    miner = HardExampleMiner(prior, 20, 0.9, 0.0, 1.0, 3, 3)
    loss = DetectionLoss(losses.sigmoid_cross_entropy, miner=miner, normalize_by_code_size=False)

    def evaluate(encodings, logits, targets, classes):
        with tf.GradientTape() as tape:
            tape.watch((encodings, logits))
            values = divided(loss)(encodings, logits, targets, classes)
        return values, tape.gradient(values, (encodings, logits))

    values, gradients = run(evaluate, encodings, logits, targets, classes)
    one_hot = np.eye(2)[np.maximum(classes, 0)] * (classes > 0)[..., None]
    classification = softplus(logits * (1 - 2 * one_hot)).sum(-1) * (classes != IGNORED)
    off = np.abs(encodings - targets)
    localization = np.where(off < 1, off**2 / 2, off - 0.5).sum(-1) * (classes > 0)
    picked = np.stack(
        [
            numpy_miner(miner, localization[i], classification[i], boxes[i], classes[i])
            for i in range(len(classes))
        ]
    )
    # All positives count in the normalisation, the picked ones in the sum.
    matches = (classes > 0).sum()
    assert float(values[0]) == pytest.approx((localization * picked).sum() / matches, rel=1e-5)
    assert float(values[1]) == pytest.approx((classification * picked).sum() / matches, rel=1e-5)
    np.testing.assert_array_equal(np.any(gradients[0], axis=-1), (picked > 0) & (classes > 0))
    np.testing.assert_array_equal(np.any(gradients[1], axis=-1), picked > 0)


def ssd(text):
    return text_format.Parse(text, ssd_pb2.Ssd())


PRIOR = np.array([[0.0, 0.0, 1.0, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("text", "function", "arguments"),
    [
        ("weighted_sigmoid {}", losses.sigmoid_cross_entropy, {}),
        (
            "weighted_softmax { logit_scale: 2 }",
            losses.softmax_cross_entropy,
            {"logit_scale": 2.0},
        ),
        (
            "bootstrapped_sigmoid { alpha: 0.5 hard_bootstrap: true }",
            losses.bootstrapped_sigmoid,
            {"alpha": 0.5, "hard": True},
        ),
        (
            "weighted_sigmoid_focal { gamma: 1.5 }",
            losses.sigmoid_focal_loss,
            {"alpha": None, "gamma": 1.5},
        ),
        (
            "weighted_sigmoid_focal { alpha: 0.75 }",
            losses.sigmoid_focal_loss,
            {"alpha": 0.75, "gamma": 2.0},
        ),
    ],
)
def test_classification_losses_from_config(text, function, arguments):
    loss = losses.from_config(ssd(f"loss {{ classification_loss {{ {text} }} }}"), PRIOR)
    assert getattr(loss.classification, "func", loss.classification) is function
    assert getattr(loss.classification, "keywords", {}) == arguments


@pytest.mark.parametrize(
    ("text", "function", "arguments"),
    [
        ("weighted_l2 {}", losses.l2, {}),
        ("l1_localization_loss {}", losses.l1, {}),
        ("weighted_smooth_l1 { delta: 0.5 }", losses.smooth_l1, {"delta": 0.5}),
    ],
)
def test_localization_losses_from_config(text, function, arguments):
    loss = losses.from_config(ssd(f"loss {{ localization_loss {{ {text} }} }}"), PRIOR)
    assert getattr(loss.localization, "func", loss.localization) is function
    assert getattr(loss.localization, "keywords", {}) == arguments


def test_weights_and_normalisation_from_config():
    loss = losses.from_config(
        ssd("""
            negative_class_weight: 0.5 encode_background_as_zeros: true
            normalize_loss_by_num_matches: false normalize_loc_loss_by_codesize: true
            loss { classification_weight: 2 localization_weight: 3 }
        """),
        PRIOR,
    )
    assert (loss.classification_weight, loss.localization_weight) == (2.0, 3.0)
    assert loss.negative_weight == 0.5
    assert loss.background_as_zeros
    assert not loss.normalize_by_matches
    assert loss.normalize_by_code_size
    assert loss.miner is None
    assert not loss.samplers
    # The OD API's defaults.
    bare = losses.from_config(ssd(""), PRIOR)
    assert not bare.background_as_zeros
    assert bare.normalize_by_matches
    assert not bare.normalize_by_code_size


@pytest.mark.parametrize(
    ("loss_type", "weights"),
    [("BOTH", (3.0, 2.0)), ("CLASSIFICATION", (0.0, 1.0)), ("LOCALIZATION", (1.0, 0.0))],
)
def test_miner_from_config(loss_type, weights):
    miner = losses.from_config(
        ssd(f"""
            box_coder {{ faster_rcnn_box_coder {{ height_scale: 7 }} }}
            loss {{
              classification_weight: 2 localization_weight: 3
              hard_example_miner {{
                num_hard_examples: 3000 iou_threshold: 0.99 loss_type: {loss_type}
                max_negatives_per_positive: 3 min_negatives_per_image: 4
              }}
            }}
        """),
        PRIOR,
    ).miner
    assert (miner.localization_weight, miner.classification_weight) == weights
    assert miner.iou_threshold == pytest.approx(0.99)
    assert (miner.num_hard_examples, miner.max_negatives_per_positive) == (3000, 3)
    assert miner.min_negatives == 4
    assert miner.box_scales == (10.0, 10.0, 7.0, 5.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss { random_example_sampler { positive_sample_fraction: 0.5 } }", {1: 2}),
        (
            "loss { expected_loss_weights: EXPECTED_SAMPLING desired_negative_sampling_ratio: 2 }",
            {1: 1, 2 / 3: 3},
        ),
        (
            "use_expected_classification_loss_under_sampling: true "
            "desired_negative_sampling_ratio: 2",
            {1: 1, 2 / 3: 3},
        ),
    ],
)
def test_samplers_from_config(text, expected):
    (sampler,) = losses.from_config(ssd(text), PRIOR).samplers
    weights = sampler(tf.constant([[1, 0, 0, 0]])).numpy()
    for weight, times in expected.items():
        assert np.isclose(weights, weight).sum() == times
