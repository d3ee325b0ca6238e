"""Networks as one Keras layer: names, training, precision, files, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet.errors import LayerError
from mnasdet.keras import GraphLayer, MnasFPN
from mnasdet.networks.hyperparams import Kernel

# A cell for levels 4 and 5.
CELL = [
    {"input": [0, 1], "level": 5, "expanded_channels": 16},
    {"input": [0, 2], "level": 4, "expanded_channels": 8, "merge": "SQUEEZE_EXCITE"},
]


@tf_keras.utils.register_keras_serializable("test")
class Block(GraphLayer):
    """A convolution with L2, batch normalisation, dropout."""

    def network(self, b, inputs):
        (x,) = inputs
        x = b.conv2d(x, 4, 3, strides=2, kernel=Kernel(l2=0.5), name="stem/conv")
        x = b.batch_norm(x, momentum=0.5, epsilon=1e-3, name="stem/batch_norm")
        return b.dropout(x, 0.5, name="dropout")


@tf_keras.utils.register_keras_serializable("test")
class Subclassed(tf_keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = Block(name="block")
        self.pool = tf_keras.layers.MaxPooling2D()
        self.pyramid = small_pyramid("p")

    def call(self, image):
        c4 = self.block(image)
        return self.pyramid([c4, self.pool(c4)])


def small_pyramid(name):
    return MnasFPN(8, 1, block=CELL, min_level=4, max_level=5, name=name)


def functional():
    image = tf_keras.Input((16, 16, 3))
    c4 = Block(name="block")(image)
    c5 = tf_keras.layers.MaxPooling2D(name="c5")(c4)
    return tf_keras.Model(image, small_pyramid("p")([c4, c5]))


def subclassed():
    model = Subclassed()
    model(images())
    return model


def images(size=16):
    return np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


def randomize(model):
    """Gives all weights values by which a layer that was not loaded would show."""
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 1, w.shape).astype(w.dtype) for w in model.get_weights()])


def test_each_is_one_layer_and_its_variables_have_its_name():
    inputs = [tf_keras.Input((size, size, 4)) for size in (8, 4)]
    features = small_pyramid("first")(inputs)
    model = tf_keras.Model(inputs, small_pyramid("second")(features))
    assert [layer.name for layer in model.layers][2:] == ["first", "second"]
    names = [variable.name for variable in model.variables]
    assert "first/cell_0/block_2/input_0/conv/kernel:0" in names
    assert "second/cell_0/block_2/input_0/conv/kernel:0" in names
    assert len(set(names)) == len(names)
    shapes = [tuple(output.shape) for output in model.outputs]
    assert shapes == [(None, 8, 8, 8), (None, 4, 4, 8)]


def test_names_do_not_depend_on_who_builds_the_layer():
    layer = Block(name="block")
    layer.build((None, 16, 16, 3))
    assert layer.weights[0].name == "block/stem/conv/kernel:0"


def test_training_freezing_and_losses():
    layer = Block()
    x = images()
    layer(x, training=True)
    kernel, _, _, mean, _ = layer.weights
    assert len(layer.trainable_weights) == 3
    np.testing.assert_allclose(layer.losses, [0.5 * np.sum(np.square(kernel))], rtol=1e-5)
    moved = np.array(mean)
    assert np.any(moved)
    np.testing.assert_array_equal(layer(x), layer(x))
    np.testing.assert_array_equal(mean, moved)
    assert np.any(layer(x, training=True) != layer(x, training=True))
    layer.trainable = False
    moved = np.array(mean)
    layer(x, training=True)
    np.testing.assert_array_equal(mean, moved)
    assert not layer.trainable_weights


def test_fit_trains_all_but_the_frozen_layer():
    frozen, trained = Block(trainable=False), Block()
    model = tf_keras.Sequential([frozen, trained, tf_keras.layers.Flatten()])
    model.compile("sgd", "mse")
    model.build((None, 16, 16, 3))
    before = [frozen.get_weights(), trained.get_weights()]
    loss = model.fit(images(), np.ones((2, 64), np.float32), verbose=0).history["loss"][0]
    assert loss > sum(np.square(layer[0]).sum() / 2 for layer in before)
    for weight, old in zip(frozen.get_weights(), before[0], strict=True):
        np.testing.assert_array_equal(weight, old)
    for weight, old in zip(trained.get_weights(), before[1], strict=True):
        assert np.all(weight != old)


def test_features_may_come_in_a_dictionary():
    features = {f"c{level}": np.ones((1, 64 >> level, 64 >> level, 4), "f") for level in (4, 5)}
    layer = small_pyramid("p")
    in_dictionary = layer(features)
    for output, expected in zip(in_dictionary, layer(list(features.values())), strict=True):
        np.testing.assert_array_equal(output, expected)


def test_a_layer_frozen_before_it_is_built_is_frozen():
    layer = Block(trainable=False)
    layer(images())
    assert not layer.trainable_weights
    layer.trainable = True
    assert len(layer.trainable_weights) == 3


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    layer = MnasFPN(8, 1, block=CELL, min_level=4, max_level=5, dtype=policy)
    features = [np.ones((1, size, size, 4), np.float32) for size in (8, 4)]
    with tf.GradientTape() as tape:
        outputs = layer(features, training=True)
        loss = tf.add_n([tf.reduce_sum(tf.cast(x, tf.float32) ** 2) for x in outputs])
    assert {x.dtype.name for x in outputs} == {policy.removeprefix("mixed_")}
    assert {variable.dtype.name for variable in layer.variables} == {"float32"}
    gradients = tape.gradient(loss, layer.trainable_variables)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert MnasFPN.from_config(layer.get_config()).dtype_policy.name == policy


@pytest.mark.parametrize(
    ("make", "file"),
    [
        (functional, "model.keras"),
        (functional, "model.h5"),
        (functional, "saved_model"),
        (subclassed, "model.keras"),
        (subclassed, "saved_model"),
    ],
)
def test_a_saved_model_gives_the_same(make, file, tmp_path):
    model = make()
    randomize(model)
    model.save(tmp_path / file)
    loaded = tf_keras.models.load_model(tmp_path / file)
    kinds = [type(layer) for layer in loaded.layers]
    assert kinds == [type(layer) for layer in model.layers]
    for weight, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert len(loaded.losses) == len(model.losses) > 0
    for output, expected in zip(loaded(images()), model(images()), strict=True):
        np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("file", ["weights.h5", "model.weights.h5", "checkpoint"])
def test_saved_weights_give_the_same(file, tmp_path):
    model, other = functional(), functional()
    randomize(model)
    model.save_weights(tmp_path / file)
    other.load_weights(tmp_path / file)
    for output, expected in zip(other(images()), model(images()), strict=True):
        np.testing.assert_array_equal(output, expected)


def test_weights_by_name_go_to_the_layer_of_that_name(tmp_path):
    model = functional()
    randomize(model)
    model.save_weights(tmp_path / "weights.h5")
    features = [tf_keras.Input((size, size, 4)) for size in (8, 4)]
    other = tf_keras.Model(features, small_pyramid("p")(features))
    other.load_weights(tmp_path / "weights.h5", by_name=True)
    expected_weights = model.get_layer("p").get_weights()
    for weight, expected in zip(other.get_weights(), expected_weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_a_model_made_of_a_config_is_the_same():
    model = functional()
    model.get_layer("block").trainable = False
    other = tf_keras.Model.from_config(model.get_config())
    names = [variable.name for variable in model.trainable_variables]
    assert [variable.name for variable in other.trainable_variables] == names
    assert len(other.variables) == len(model.variables) > len(names)


def test_sequential_and_the_shape_without_a_call():
    model = tf_keras.Sequential([Block(), Block()])
    model.build((None, 16, 8, 3))
    assert model.output_shape == (None, 4, 2, 4)
    pyramid = small_pyramid("p")
    shapes = pyramid.compute_output_shape([(7, 8, 8, 3), (7, 4, 4, 3)])
    assert [tuple(shape) for shape in shapes] == [(7, 8, 8, 8), (7, 4, 4, 8)]
    assert not pyramid.built


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: Block(name="a")(keras.Input((16, 16, 3))),
            'Block "a" takes tensors of tf_keras, not of Keras 3; make the model with '
            '"import tf_keras" in place of "import keras"',
        ),
        (
            lambda: Block(name="a")(tf_keras.Input((None, 16, 3))),
            'Block "a": input 0 is [None, None, 16, 3]; [batch, height, width, channels] is '
            "needed, all but the batch known, as of tf_keras.Input((320, 320, 3))",
        ),
        (
            lambda: Block(name="a").compute_output_shape((2, 16, None, 3)),
            'Block "a": input 0 is [2, 16, None, 3]; [batch, height, width, channels] is needed, '
            "all but the batch known, as of tf_keras.Input((320, 320, 3))",
        ),
        (
            lambda: Block(name="a")(3.0),
            'Block "a": input 0 is of unknown shape; [batch, height, width, channels] is needed, '
            "all but the batch known, as of tf_keras.Input((320, 320, 3))",
        ),
    ],
)
def test_tensors_that_no_layer_takes(make, expected):
    with pytest.raises(LayerError) as error:
        make()
    assert str(error.value) == expected


def test_another_size_is_refused():
    layer = Block(name="a")
    layer(images())
    with pytest.raises(LayerError) as error:
        layer(images(32))
    assert str(error.value) == (
        'Block "a" was built for 16x16x3, not for 32x32x3; make one layer for each size, with '
        "set_weights(other.get_weights())"
    )
