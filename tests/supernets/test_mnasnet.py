"""The supernet of MnasNet, alone and under a pyramid: every path computes what its network does."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format

from mnasdet import config, models
from mnasdet.evaluation.evaluate import evaluate_pipeline
from mnasdet.models import network_of
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search import one_shot
from mnasdet.search_spaces import factory
from mnasdet.supernets.judge import Judge
from mnasdet.supernets.shared_network import SharedNetwork
from mnasdet.training import checkpoints, training_data

# At strides 4 to 32, SAME padding has a rest.
SIZE, NUM_CLASSES = (72, 40), 3

BACKBONE = """
  min_depth: 8
  backbone { mnasnet {
    stem_channels: 8 last_channels: 24
    block { channels: 8 repeats: 2 }
    block { channels: 16 stride: 2 }
    block { channels: 16 repeats: 2 stride: 2 expansion: 3 }
    block { channels: 16 stride: 2 }
    block { channels: 24 repeats: 2 stride: 2 se_ratio: 0.25 }
  } }
"""

# Every kind of choice; two widths of a block are equal to the one before, so that some inputs are
# pooled and not projected.
OPS = (
    "ops: [CONV, SEPARABLE, MBCONV] expansions: [2, 3] skips: [POOL, IDENTITY, NONE, AVERAGE_POOL]"
)
MNASNET = """
  searched_blocks: [%s] %s kernel_sizes: [3, 5] se_ratios: [0, 0.25]
  width_factors: [0.5, 1, 1.5] depth_offsets: [-1, 0]
"""

ANCHORS = "anchor_generator { ssd_anchor_generator { num_layers: %d } }"
SEPARABLE_PREDICTOR = """
  box_predictor { convolutional_box_predictor {
    use_depthwise: true kernel_size: 3 use_dropout: false
    conv_hyperparams { activation: RELU_6 batch_norm { scale: false } }
  } }
"""
MNASFPN = """
  feature_pyramid { mnasfpn {
    min_level: 3 max_level: 6 channels: 16 repeats: 1
    block { input: 0 input: 2 level: 3 expanded_channels: 8 }
    block { input: 1 input: 4 level: 4 expanded_channels: 16 }
    block { input: 2 input: 3 level: 5 expanded_channels: 8 }
    block { input: 3 input: 6 level: 6 expanded_channels: 8 }
  } }
"""

# The rest of an architecture; with "joint" its pyramid is searched as well.
KINDS = {
    "classifier": "classifier {}",
    # The predictor reads features of the backbone: of an expansion as well.
    "ssdlite": "feature_pyramid { ssd_layers { channels: 16 } }" + ANCHORS % 3,
    # The pyramid reads the last convolution.
    "fpnlite": "feature_pyramid { fpn { min_level: 3 max_level: 6 channels: 16 "
    "variant: OBJECT_DETECTION_API separable: true } }" + ANCHORS % 4,
    "joint": MNASFPN + ANCHORS % 4,
}
PYRAMIDS = """
  mnasfpn { channels: [8, 16] expanded_channels: [8, 16] kernel_sizes: [3, 5] repeats: 1
    num_internal_blocks: 1 }
"""


def space_of(kind, searched, further="", ops=OPS):
    head = "" if kind == "classifier" else SEPARABLE_PREDICTOR
    base = text_format.Parse(BACKBONE + KINDS[kind] + head, architecture_pb2.Architecture())
    mnasnet = f"mnasnet {{ {MNASNET % (searched, ops)} }}"
    text = f"joint {{ {mnasnet} {PYRAMIDS} }}" if kind == "joint" else mnasnet
    config = text_format.Parse(f"{text} {further}", search_pb2.SearchSpaceConfig())
    return factory.from_config(config, base)


def drawn(space, count):
    """Networks that together have every choice of the space, and a generator."""
    rng = np.random.default_rng(3)
    return [space.decode(space.sample(rng)) for _ in range(count)], rng


def shared_network(space, rng, networks):
    """A supernet with random weights, also of its normalisations."""
    model = SharedNetwork(networks, SIZE, NUM_CLASSES)
    for weight in model.weights:
        noise = 0.2 * rng.normal(size=weight.shape).astype(np.float32)
        weight.assign(np.abs(weight + noise) if "variance" in weight.name else weight + noise)
    return model


def with_weights(architecture, weights):
    """The network by itself, and its variables by name."""
    (graph,) = network_of(architecture, SIZE, NUM_CLASSES)
    plain = keras_model(dict(graph.outputs))
    variables = {variable.name.removesuffix(":0"): variable for variable in plain.variables}
    # A pyramid has blocks that nothing reads.
    assert all(name.startswith("feature_pyramid") for name in weights.keys() - variables.keys())
    for name, variable in variables.items():
        variable.assign(weights[name])
    return plain, variables


@pytest.mark.parametrize(
    ("kind", "searched", "further"),
    [
        ("classifier", "", ""),
        ("ssdlite", "4, 5", ""),
        ("fpnlite", "3, 5", ""),
        ("joint", "4, 5", "depth_multipliers: 0.5"),
    ],
)
def test_a_path_computes_and_learns_as_its_network(kind, searched, further):
    space = space_of(kind, searched, further)
    networks, rng = drawn(space, 60)
    model = shared_network(space, rng, networks)
    images = tf.constant(rng.uniform(-1, 1, (3, *SIZE, 3)).astype(np.float32))
    for architecture in networks[:2]:
        path = tf.constant(model.path(architecture))
        plain, variables = with_weights(architecture, model.weights_of(architecture))
        for training in (False, True):
            found = model.of_path(images, path, training=training)
            for name, expected in plain(images, training=training).items():
                np.testing.assert_allclose(found[name], expected, atol=2e-4, rtol=2e-4)
        moved = model.weights_of(architecture)
        for name, variable in variables.items():
            np.testing.assert_allclose(moved[name], variable, atol=1e-4, rtol=1e-4, err_msg=name)


def test_a_step_of_the_traced_graph_is_the_networks_own():
    # Fewer choices are traced faster.
    space = space_of("classifier", "5", ops="ops: [CONV, MBCONV] expansions: 2 skips: [POOL, NONE]")
    networks, rng = drawn(space, 60)
    model = shared_network(space, rng, networks)
    images = tf.constant(rng.uniform(-1, 1, (3, *SIZE, 3)).astype(np.float32))

    def step(run, weights):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(run()["logits"]))
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            if gradient is not None:
                weight.assign_sub(0.01 * gradient)

    @tf.function(autograph=False)
    def shared_step(path):
        step(lambda: model.of_path(images, path, training=True), model.trainable_variables)

    for architecture in networks[:3]:
        plain, variables = with_weights(architecture, model.weights_of(architecture))
        shared_step(tf.constant(model.path(architecture)))
        step(lambda plain=plain: plain(images, training=True), plain.trainable_variables)
        moved = model.weights_of(architecture)
        for name, variable in variables.items():
            np.testing.assert_allclose(moved[name], variable, atol=2e-4, rtol=2e-3, err_msg=name)


CLASSIFIER = f"""
  model {{
    architecture {{ {BACKBONE} classifier {{}} }}
    classification {{
      num_classes: 10 image_resizer {{ fixed_shape_resizer {{ height: 32 width: 32 }} }}
    }}
  }}
  train_config {{
    batch_size: 8 num_steps: 1
    optimizer {{ momentum_optimizer {{
      learning_rate {{ constant_learning_rate {{ learning_rate: 0.01 }} }}
    }} }}
  }}
  train_input_reader {{
    features: IMAGE_CLASS digits_input_reader {{ num_images: 16 image_size: 32 }}
  }}
  eval_config {{ batch_size: 8 }}
  eval_input_reader {{
    features: IMAGE_CLASS shuffle: false
    digits_input_reader {{ split: VALIDATION num_images: 32 image_size: 32 }}
  }}
  search_config {{
    search_space {{ mnasnet {{ searched_blocks: 5 ops: MBCONV skips: NONE kernel_sizes: [3, 5] }} }}
    controller {{ random {{}} }} reward {{ accuracy {{}} }} latency {{ multiply_adds {{}} }}
    executor {{ this_process {{}} }}
    one_shot {{ num_networks: 10 train_config {{
      batch_size: 8 num_steps: 1
      optimizer {{ momentum_optimizer {{
        learning_rate {{ constant_learning_rate {{ learning_rate: 0.01 }} }}
      }} }}
    }} }}
  }}
"""


@pytest.fixture
def pipeline(tmp_path):
    (tmp_path / "classifier.config").write_text(CLASSIFIER)
    return config.load(tmp_path / "classifier.config")


def test_the_supernet_has_every_choice_of_the_space(pipeline):
    pipeline.search_config.search_space.mnasnet.CopyFrom(search_pb2.MnasNetSpaceConfig())
    base = config.resolve(pipeline).architecture
    space = factory.from_config(pipeline.search_config.search_space, base)
    pipeline.search_config.one_shot.num_networks = 2
    networks = one_shot.supernet(pipeline).subnets.architectures
    met = [set(tokens) for tokens in zip(*map(space.encode, networks), strict=True)]
    assert met == [set(range(len(decision.choices))) for decision in space.decisions]


def test_the_part_of_a_classifier_is_the_networks_checkpoint(pipeline, tmp_path, monkeypatch):
    task = models.build(one_shot.supernet(pipeline))
    batches = training_data.training_set(task, pipeline, seed=0)
    judge = Judge(task, pipeline, [batch["image"] for batch in batches.take(2)])
    monkeypatch.setattr(one_shot, "_judge", lambda serialized: judge)
    # The averages of an untrained normalisation are of no network.
    task.model.moving_averages()[0][0].assign_add(tf.fill([1, 8], 100.0))
    architecture = task.blueprint.subnets.architectures[5]
    judged = one_shot.metrics(pipeline, architecture)
    one_shot.save_part(pipeline, architecture, tmp_path / "part")
    plain = models.build(config.resolve(pipeline, architecture))
    checkpoints.load_weights(plain.model, tmp_path / "part")
    assert evaluate_pipeline(plain, pipeline) == pytest.approx(judged, abs=1e-4)
    # Taken anew from the images, the stem's averages are those of its own output.
    norm = plain.model.get_layer("backbone/stem/batch_norm")
    stem = tf_keras.Model(plain.model.input, norm.input)
    means = [tf.reduce_mean(stem(images), (0, 1, 2)) for images in judge._images]
    np.testing.assert_allclose(norm.moving_mean, np.mean(means, 0), atol=1e-4)
