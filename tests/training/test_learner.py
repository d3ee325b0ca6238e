"""One training step on a tiny network, whatever the config asks for."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format
from tf_keras import layers

from mnasdet.blueprint import Blueprint
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.detectors import losses
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.detectors.one_stage import Detector, freeze_batch_norm
from mnasdet.detectors.post_processing import PostProcessing
from mnasdet.detectors.targets import BACKGROUND, IGNORED
from mnasdet.errors import CheckpointError, ConfigError
from mnasdet.protos import architecture_pb2, ssd_pb2, train_pb2
from mnasdet.training import checkpoints, runtime
from mnasdet.training.learner import Learner, trained_variables

CLASSES, SIDE = 3, 8
ANCHORS = np.array(
    [[y, x, y + 0.5, x + 0.5] for y in np.arange(4) / 5 for x in np.arange(4) / 5], np.float32
)

SSD = """
    encode_background_as_zeros: true
    loss {
      classification_loss { weighted_sigmoid_focal { alpha: 0.25 } }
      localization_loss { weighted_smooth_l1 {} }
    }
"""
CONSTANT = "learning_rate { constant_learning_rate { learning_rate: 0.1 } }"
TRAIN = f"optimizer {{ momentum_optimizer {{ {CONSTANT} }} }}"


def blueprint(ssd=""):
    settings = text_format.Merge(ssd, text_format.Parse(SSD, ssd_pb2.Ssd()))
    architecture = architecture_pb2.Architecture()
    return Blueprint("ssd", architecture, ImageResizer((SIDE, SIDE)), CLASSES, settings)


def detector(ssd="", num_exits=1):
    """Two convolutions with batch normalisation, and a predictor for every exit."""
    image = tf_keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(
        4, 3, strides=2, padding="same", name="backbone/conv", kernel_regularizer="l2"
    )(image)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5, name="backbone/batch_norm")(x))
    exits = []
    for number in range(num_exits):
        exits.append({})
        scope = f"box_predictor/exit_{number}" if number else "box_predictor"
        for name, values in ((BOX_ENCODINGS, 4), (CLASS_LOGITS, 1 + CLASSES)):
            y = layers.Conv2D(values, 1, name=f"{scope}/{name}/conv")(x)
            exits[-1][name] = layers.Reshape((len(ANCHORS), values))(y)
    last, *earlier = exits
    model = tf_keras.Model(image, {**last, **({"earlier": earlier} if earlier else {})})
    built = Detector(blueprint(ssd), model, ANCHORS, PostProcessing())
    if built.blueprint.settings.freeze_batchnorm:
        freeze_batch_norm(model)
    return built


def batch(size=4):
    rng = np.random.default_rng(0)
    choices = [BACKGROUND, BACKGROUND, BACKGROUND, IGNORED, 1, 2, 3]
    return {
        "image": tf.constant(rng.uniform(-1, 1, (size, SIDE, SIDE, 3)), tf.float32),
        "class_targets": tf.constant(rng.choice(choices, (size, len(ANCHORS))), tf.int32),
        "box_targets": tf.constant(rng.normal(0, 1, (size, len(ANCHORS), 4)), tf.float32),
    }


def learner(ssd="", train="", num_exits=1, **arguments):
    runtime.seed_everything(0)
    return Learner(
        detector(ssd, num_exits),
        text_format.Merge(train, text_format.Parse(TRAIN, train_pb2.TrainConfig())),
        **arguments,
    )


def values(learner):
    return {v.name.removesuffix(":0"): v.numpy() for v in learner.model.variables}


def moved(before, after):
    """The names of the variables that changed; all have to be finite."""
    assert all(np.isfinite(value).all() for value in after.values())
    return {name for name in before if (before[name] != after[name]).any()}


ALL = {
    "backbone/conv/kernel",
    "backbone/conv/bias",
    "backbone/batch_norm/gamma",
    "backbone/batch_norm/beta",
    "backbone/batch_norm/moving_mean",
    "backbone/batch_norm/moving_variance",
    *(
        f"box_predictor/{output}/conv/{part}"
        for output in (BOX_ENCODINGS, CLASS_LOGITS)
        for part in ("kernel", "bias")
    ),
}
# Batch normalisation takes it away again.
WITHOUT_EFFECT = {"backbone/conv/bias"}

CLASSIFICATION = [
    "weighted_sigmoid {}",
    "weighted_softmax { logit_scale: 0.5 }",
    "bootstrapped_sigmoid { alpha: 0.8 }",
    "weighted_sigmoid_focal { gamma: 1.5 }",
]
LOCALIZATION = ["weighted_l2 {}", "weighted_smooth_l1 { delta: 0.5 }", "l1_localization_loss {}"]
SELECTION = [
    "",
    "hard_example_miner { iou_threshold: 0.9 max_negatives_per_positive: 3 }",
    "hard_example_miner { num_hard_examples: 0 iou_threshold: 1 loss_type: CLASSIFICATION }",
    "random_example_sampler { positive_sample_fraction: 0.3 }",
    "expected_loss_weights: EXPECTED_SAMPLING",
]


@pytest.mark.parametrize(
    ("classification", "localization", "selection"),
    itertools.product(CLASSIFICATION, LOCALIZATION, SELECTION),
)
def test_every_loss_trains(classification, localization, selection):
    softmax = "softmax" in classification
    ssd = f"""
        encode_background_as_zeros: {str(not softmax).lower()} negative_class_weight: 0.5
        loss {{
          classification_loss {{ {classification} }} localization_loss {{ {localization} }}
          {selection}
        }}
    """
    training = learner(ssd)
    before = values(training)
    found = training.update(batch())
    assert np.isfinite([float(value) for value in found.values()]).all()
    assert moved(before, values(training)) >= ALL - WITHOUT_EFFECT
    assert training.update.experimental_get_tracing_count() == 1


OPTIMIZERS = ["momentum_optimizer { %s }", "rms_prop_optimizer { %s }", "adam_optimizer { %s }"]
SCHEDULES = {
    "constant_learning_rate { learning_rate: 0.25 }": [0.25, 0.25, 0.25],
    """exponential_decay_learning_rate {
      initial_learning_rate: 0.5 decay_steps: 2 decay_factor: 0.5
    }""": [0.5, 0.5, 0.25],
    "manual_step_learning_rate { schedule { step: 1 learning_rate: 0.5 } }": [0.002, 0.5, 0.5],
    """cosine_decay_learning_rate {
      learning_rate_base: 0.5 total_steps: 2 warmup_steps: 0
    }""": [0.5, 0.25, 0.0],
}


@pytest.mark.parametrize(
    ("optimizer", "schedule"), itertools.product(OPTIMIZERS, SCHEDULES.items())
)
def test_every_optimizer_trains_with_every_schedule_in_one_trace(optimizer, schedule):
    text, rates = schedule
    training = learner(train=f"optimizer {{ {optimizer % f'learning_rate {{ {text} }}'} }}")
    before = values(training)
    for rate in rates:
        assert float(training.update(batch())["learning_rate"]) == pytest.approx(rate, abs=1e-7)
    assert training.step == 3
    assert moved(before, values(training)) >= ALL - WITHOUT_EFFECT
    assert training.update.experimental_get_tracing_count() == 1


def test_a_step_goes_down_the_gradient():
    training = learner()
    data = batch()
    losses = [float(training.update(data)["Loss/total_loss"]) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_regularization_loss_only_where_it_is_wanted():
    kernel = values(learner())["backbone/conv/kernel"]
    with_it, without = learner(), learner(train="add_regularization_loss: false")
    one, other = with_it.update(batch()), without.update(batch())
    # Keras' "l2" is 0.01 times the sum of squares.
    assert float(one["Loss/regularization_loss"]) == pytest.approx(0.01 * (kernel**2).sum())
    assert float(other["Loss/regularization_loss"]) == 0.0
    assert float(one["Loss/total_loss"]) == pytest.approx(
        float(other["Loss/total_loss"]) + float(one["Loss/regularization_loss"])
    )
    step = values(without)["backbone/conv/kernel"] - values(with_it)["backbone/conv/kernel"]
    np.testing.assert_allclose(step, 0.1 * 0.02 * kernel, atol=1e-6)


def test_gradients_are_clipped_by_their_global_norm():
    free, clipped = learner(), learner(train="gradient_clipping_by_norm: 0.5")
    before = values(free)
    free.update(batch())
    clipped.update(batch())
    trainable = [v.name.removesuffix(":0") for v in free.model.trainable_variables]

    def step(learner):
        after = values(learner)
        return np.concatenate([(after[name] - before[name]).ravel() for name in trainable])

    norm = np.linalg.norm(step(free)) / 0.1
    assert norm > 0.5
    np.testing.assert_allclose(step(clipped), step(free) * 0.5 / norm, atol=1e-6)


def test_only_biases_of_convolutions_are_multiplied():
    plain, multiplied = learner(), learner(train="bias_grad_multiplier: 3")
    before = values(plain)
    plain.update(batch())
    multiplied.update(batch())
    for name in ALL - {"backbone/conv/bias"}:
        step, other = (values(which)[name] - before[name] for which in (plain, multiplied))
        factor = 3.0 if name.endswith("conv/bias") else 1.0
        np.testing.assert_allclose(other, factor * step, rtol=1e-4, atol=1e-6)


def divided_losses(raw, data):
    loss = losses.from_config(blueprint().settings, ANCHORS)
    pairs = loss(raw[BOX_ENCODINGS], raw[CLASS_LOGITS], data["box_targets"], data["class_targets"])
    matches = (data["class_targets"].numpy() > BACKGROUND).sum()
    return [float(pair.total) / matches for pair in pairs]


def test_frozen_batch_normalisation_uses_its_averages_and_keeps_them():
    training = learner(ssd="freeze_batchnorm: true")
    before = values(training)
    data = batch()
    expected = divided_losses(training.model(data["image"], training=False), data)
    found = training.update(data)
    assert float(found["Loss/localization_loss"]) == pytest.approx(expected[0])
    assert float(found["Loss/classification_loss"]) == pytest.approx(expected[1])
    normalisation = {name for name in ALL if "batch_norm" in name}
    assert moved(before, values(training)) == ALL - normalisation


@pytest.mark.parametrize(
    ("train", "is_trained"),
    [
        ('freeze_variables: "^backbone"', lambda name: name.startswith("box_predictor")),
        (
            'freeze_variables: "bias$" freeze_variables: "beta"',
            lambda name: not name.endswith(("bias", "beta")),
        ),
        ('update_trainable_variables: "predictor/box"', lambda name: "predictor/box" in name),
        (
            'update_trainable_variables: "conv/" freeze_variables: "kernel"',
            lambda name: name.endswith("conv/bias"),
        ),
    ],
)
def test_frozen_variables_stay_as_they_are(train, is_trained):
    training = learner(train=train)
    before = values(training)
    training.update(batch())
    # The averages of batch normalisation go on: freeze_batchnorm would stop them.
    expected = {name for name in ALL if "moving" in name or is_trained(name)}
    assert moved(before, values(training)) | WITHOUT_EFFECT == expected | WITHOUT_EFFECT
    assert training.update.experimental_get_tracing_count() == 1


def test_frozen_variables_need_no_slots():
    training = learner(train='update_trainable_variables: "box_predictor/box"')
    slots = [v.name for v in training._optimizer.variables() if "momentum" in v.name]
    assert len(slots) == 2


def test_patterns_that_cannot_be_meant():
    model = detector().model
    with pytest.raises(
        ConfigError,
        match=r'train_config.freeze_variables has "FeatureExtractor", which no variable\'s name '
        r'contains; a name is "backbone/conv/kernel", for example',
    ):
        trained_variables(model, freeze=["backbone", "FeatureExtractor"])
    with pytest.raises(ConfigError, match="update_trainable_variables has"):
        trained_variables(model, update=["nowhere"])
    with pytest.raises(ConfigError, match="leave nothing to train"):
        trained_variables(model, update=["backbone"], freeze=["."])


def test_deep_supervision_takes_the_mean_over_all_exits():
    training = learner(num_exits=2)
    before, data = values(training), batch()
    raw = training.model(data["image"], training=True)
    of_exits = [divided_losses(one, data) for one in (raw, *raw["earlier"])]
    expected = np.mean(of_exits, axis=0)
    found = training.update(data)
    assert float(found["Loss/localization_loss"]) == pytest.approx(expected[0], rel=1e-5)
    assert float(found["Loss/classification_loss"]) == pytest.approx(expected[1], rel=1e-5)
    exit_kernels = {name for name in before if "exit_1" in name and "kernel" in name}
    assert len(exit_kernels) == 2
    assert moved(before, values(training)) >= exit_kernels


def test_a_checkpoint_goes_on_where_it_was(tmp_path):
    train = f"optimizer {{ rms_prop_optimizer {{ {CONSTANT} }} }}"
    first, second = learner(train=train), learner(train=train)
    for _ in range(3):
        first.update(batch())
    path = first.checkpoint.save(str(tmp_path / "ckpt"))
    second.checkpoint.restore(path).assert_consumed()
    for training in (first, second):
        training.update(batch())
    assert second.step == 4
    for name, value in values(first).items():
        np.testing.assert_array_equal(values(second)[name], value)


def test_averages_that_are_asked_for_later_start_from_the_weights(tmp_path):
    before = learner()
    before.update(batch())
    before.checkpoint.write(str(tmp_path / "ckpt-1"))
    after = learner(keep_averages=True)
    checkpoints.restore(after.checkpoint, after.model, tmp_path)
    assert after.step == 1
    with after.averaged_weights():
        averages = values(after)
    assert moved(averages, values(before)) == moved(averages, values(after)) == set()
    # Nothing else may be missing.
    other = learner(train="optimizer { adam_optimizer {} }")
    with pytest.raises(CheckpointError, match="has not the state of this optimizer"):
        checkpoints.restore(other.checkpoint, other.model, tmp_path)


def trained_values(learner):
    return {v.name: v.numpy() for v in learner.model.trainable_variables}


def test_after_a_bad_step_the_weights_stay_those_before_it():
    training = learner(ssd="freeze_batchnorm: true")
    training.update(batch())
    before = trained_values(training)
    bad = {**batch(), "image": batch()["image"] * np.inf}
    for data in (bad, batch(), bad):
        training.update(data)
    assert moved(before, trained_values(training)) == set()
    assert training.step == 4
    assert training.bad_step == 2
    assert training.fault() == "the loss became NaN or infinite at step 2"
    assert training.first_bad_tensor(bad) == "the input image"
    assert training.first_bad_tensor(batch()) == ""
    training.model.get_layer("backbone/conv").bias.assign([np.inf] * 4)
    assert training.first_bad_tensor(batch()) == "the weight backbone/conv/bias"


@pytest.mark.parametrize("clip", ["", "gradient_clipping_by_norm: 10"])
def test_a_bad_gradient_of_a_sound_loss_is_noticed(clip):
    # The slope of a root at 0, which training never gets to but for this.
    training = learner(train=clip)
    kernel = training.model.get_layer("backbone/conv").kernel
    training.model.add_loss(lambda: tf.reduce_sum(tf.sqrt(kernel - kernel)))
    before = trained_values(training)
    found = training.update(batch())
    assert np.isfinite(found["Loss/total_loss"])
    assert moved(before, trained_values(training)) == set()
    assert training.fault() == "a gradient became NaN or infinite at step 1"
    assert training.first_bad_tensor(batch()) == "the gradient of backbone/conv/kernel"


@pytest.mark.parametrize("parts", [1, 2])
def test_a_training_that_goes_on_draws_what_it_would_have_drawn(tmp_path, parts):
    def made():
        sampling = "loss { random_example_sampler { positive_sample_fraction: 0.8 } }"
        return learner(sampling, f"parallel_parts: {parts}")

    def loss(training, number):
        seeds = tf.constant([[0, 4 * number + i] for i in range(4)], tf.int64)
        return float(training.update({**batch(), "seed": seeds})["Loss/total_loss"])

    first, again, other = made(), made(), made()
    loss(first, 1)
    path = first.checkpoint.write(str(tmp_path / "ckpt-1"))
    for training in (again, other):
        training.checkpoint.read(path).assert_consumed()
    assert loss(first, 2) == loss(again, 2) != loss(other, 3)


def test_permanence_of_a_seeded_step():
    # Seeded runs of old train differently when this changes: only on purpose, and in CHANGELOG.md.
    training = learner(ssd="loss { random_example_sampler { positive_sample_fraction: 0.3 } }")
    losses = [float(training.update(batch())["Loss/total_loss"]) for _ in range(3)]
    np.testing.assert_allclose(losses, [3.9328, 2.9688, 2.1640], rtol=1e-4)


FREEZE = 'freeze_until { variables: "^backbone" step: 2 }'


def test_frozen_variables_and_averages_keep_still_for_the_first_steps():
    training = learner(train=FREEZE)
    backbone = {name for name in ALL if name.startswith("backbone")}
    for step in range(4):
        before = values(training)
        training.update(batch())
        expected = ALL - WITHOUT_EFFECT if step >= 2 else ALL - backbone
        assert moved(before, values(training)) - WITHOUT_EFFECT == expected


def test_frozen_batch_normalisation_normalises_by_its_averages():
    training = learner(train=FREEZE)
    data = batch()
    for is_training in (False, False, True):
        expected = divided_losses(training.model(data["image"], training=is_training), data)
        found = training.update(data)
        assert float(found["Loss/localization_loss"]) == pytest.approx(expected[0])
        assert float(found["Loss/classification_loss"]) == pytest.approx(expected[1])


def test_averages_go_on_where_only_kernels_are_frozen():
    training = learner(train='freeze_until { variables: "kernel$" step: 2 }')
    before = values(training)
    training.update(batch())
    kernels = {name for name in ALL if name.endswith("kernel")}
    assert moved(before, values(training)) | WITHOUT_EFFECT == ALL - kernels


def test_a_training_that_freezes_first_goes_on_where_it_was(tmp_path):
    train = FREEZE + f"optimizer {{ adamw_optimizer {{ {CONSTANT} weight_decay: 0.1 }} }}"
    whole = learner(train=train)
    for step in (1, 2, 3, 4):
        whole.update(batch())
        whole.checkpoint.write(str(tmp_path / f"ckpt-{step}"))
    # Before, at and after the end of the freezing.
    for killed_at in (1, 2, 3):
        second = learner(train=train)
        second.checkpoint.read(str(tmp_path / f"ckpt-{killed_at}")).assert_consumed()
        for _ in range(killed_at, 4):
            second.update(batch())
        for name, value in values(whole).items():
            np.testing.assert_array_equal(values(second)[name], value)


def test_xla_compiles_the_frozen_steps_as_well():
    plain, compiled = learner(train=FREEZE), learner(train=FREEZE, jit_compile=True)
    for _ in range(4):
        losses = [float(one.update(batch())["Loss/total_loss"]) for one in (plain, compiled)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_rate_factors_are_those_of_the_variables_they_name():
    train = """
        optimizer { momentum_optimizer { momentum_optimizer_value: 0 } }
        rate_factors { variables: "^backbone/conv" factor: 0.25 }
        rate_factors { variables: "^backbone" variables: "bias$" factor: 0.5 }
    """
    plain, changed = learner(), learner(train=train)
    before = values(plain)
    for training in (plain, changed):
        training.update(batch())
    for name in ALL - WITHOUT_EFFECT:
        step, other = (values(which)[name] - before[name] for which in (plain, changed))
        factor = 1.0
        if "moving" not in name and (name.startswith("backbone") or name.endswith("bias")):
            factor = 0.25 if name.startswith("backbone/conv") else 0.5
        np.testing.assert_allclose(other, factor * step, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            'rate_factors { variables: "^head" factor: 2 }',
            r'train_config.rate_factors\[0\].variables has "\^head", which no variable\'s name '
            'contains; a name is "backbone/conv/kernel", for example',
        ),
        (
            'freeze_until { variables: "^head" step: 1 }',
            r'train_config.freeze_until.variables has "\^head"',
        ),
        (
            'freeze_until { variables: "." step: 3 }',
            "freeze_until leaves nothing to train in the first 3 steps",
        ),
    ],
)
def test_patterns_of_fine_tuning_that_cannot_be_meant(train, message):
    with pytest.raises(ConfigError, match=message):
        learner(train=train)


def test_weight_decay_beside_a_regularizer_is_said(caplog):
    decay = f"optimizer {{ momentum_optimizer {{ {CONSTANT} weight_decay: 0.01 }} }}"
    learner(train=decay + " add_regularization_loss: false")
    assert caplog.text == ""
    learner(train=decay)
    assert "kernels shrink twice: by the optimizer's weight_decay, 0.01" in caplog.text
