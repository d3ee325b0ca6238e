"""Quantised, pruned and clustered training of a tiny network: what the learner adds to
tests/networks/test_fake_quantization.py, test_pruning.py and test_clustering.py."""

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.detectors.one_stage import Detector
from mnasdet.detectors.post_processing import PostProcessing
from mnasdet.networks.builder import Builder
from mnasdet.networks.hyperparams import Initializer, Kernel
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import train_pb2
from mnasdet.training import checkpoints, runtime
from mnasdet.training.learner import Learner
from mnasdet.training.warm_start import load
from tests.training.test_learner import ANCHORS, CLASSES, SIDE, TRAIN, batch, blueprint, moved

NORMAL = Initializer("normal", 0.3)
PRUNING = "pruning { final_sparsity: 0.75 end_step: 4 frequency: 2 }"
CLUSTERING = "weight_clustering { num_clusters: 4 }"


def network():
    b = Builder()
    x = b.conv2d(
        b.input((SIDE, SIDE, 3)), 4, 3, strides=2, kernel=Kernel(NORMAL, 1e-3), name="backbone/conv"
    )
    x = b.batch_norm(x, momentum=0.5, epsilon=0.001, name="backbone/batch_norm")
    x = b.activation(x, "relu6", name="backbone/relu6")
    outputs = {}
    for name, values in ((BOX_ENCODINGS, 4), (CLASS_LOGITS, 1 + CLASSES)):
        y = b.conv2d(x, values, 1, use_bias=True, kernel=Kernel(NORMAL), name=f"{name}/conv")
        outputs[name] = b.reshape(y, (len(ANCHORS), values), name=f"{name}/flat")
    return outputs


def learner(train="", quantized=False, **arguments):
    runtime.seed_everything(0)
    model = keras_model(network(), quantized=quantized)
    return Learner(
        Detector(blueprint(), model, ANCHORS, PostProcessing()),
        text_format.Parse(TRAIN + train, train_pb2.TrainConfig()),
        **arguments,
    )


def values(learner):
    named = checkpoints.variables_by_name(learner.model)
    return {name: variable.numpy() for name, variable in named.items()}


def trained(learner, steps):
    for _ in range(steps):
        learner.update(batch())
        learner.average(learner.step)
    return learner


def kernels(learner):
    return {name: value for name, value in values(learner).items() if name.endswith("/kernel")}


@pytest.mark.parametrize(
    ("quantized", "train", "arguments"),
    [
        (True, "", {"quantization_delay": 2}),
        (True, PRUNING, {"quantization_delay": 3, "keep_averages": True}),
        (False, CLUSTERING, {}),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, quantized, train, arguments):
    expected = trained(learner(train, quantized, **arguments), 4)
    first = trained(learner(train, quantized, **arguments), 2)
    path = first.checkpoint.save(str(tmp_path / "ckpt"))
    resumed = learner(train, quantized, **arguments)
    resumed.checkpoint.restore(path).assert_consumed()
    trained(resumed, 2)
    for name, value in values(expected).items():
        np.testing.assert_array_equal(values(resumed)[name], value, err_msg=name)
    for name, average in expected._averages.items():
        np.testing.assert_array_equal(resumed._averages[name], average, err_msg=name)


def test_up_to_the_delay_training_is_that_of_the_plain_network():
    plain = trained(learner(), 2)
    quantized = learner(quantized=True, quantization_delay=2)
    before = values(quantized)
    trained(quantized, 2)
    after = values(quantized)
    for name, value in values(plain).items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    # The ranges, ahead of the first rounding, are those of real batches. A relu6 has no minimum.
    ranges = {name for name in after if "/range/" in name}
    assert ranges - moved(before, after) == {"backbone/relu6/range/min"}
    # Then training is another one.
    trained(plain, 1)
    trained(quantized, 1)
    assert any((values(quantized)[name] != value).any() for name, value in kernels(plain).items())


def test_rounded_training_lowers_the_loss_and_moves_every_kernel():
    quantized = learner(quantized=True)
    before = values(quantized)
    losses = [float(quantized.update(batch())["Loss/total_loss"]) for _ in range(10)]
    assert losses[-1] < 0.9 * losses[0]
    assert set(kernels(quantized)) <= moved(before, values(quantized))


def test_the_weights_of_a_plain_network_load_into_a_quantised_one(tmp_path):
    plain = trained(learner(), 1)
    path = plain.checkpoint.save(str(tmp_path / "ckpt"))
    quantized = learner(quantized=True)
    report = load.load(quantized.model, path)
    assert len(report.matched) == len(values(plain))
    for name, value in values(plain).items():
        np.testing.assert_array_equal(values(quantized)[name], value, err_msg=name)
    # There is nothing to evaluate before ranges are known.
    with pytest.raises(checkpoints.CheckpointError, match="range/min is missing, which tr"):
        checkpoints.load_weights(quantized.model, path)


def test_kernels_are_as_sparse_as_asked_for_and_so_are_their_averages():
    pruned = trained(learner(PRUNING, keep_averages=True), 5)
    sizes = {"backbone/conv/kernel": 108, f"{BOX_ENCODINGS}/conv/kernel": 16}
    found = kernels(pruned)
    for name, size in sizes.items():
        assert np.sum(found[name] == 0) == 0.75 * size
        np.testing.assert_array_equal(pruned._averages[name].numpy() == 0, found[name] == 0)
    # The saved network is a plain one.
    assert set(values(pruned)) == set(values(learner()))


def test_kernels_have_as_many_values_as_asked_for():
    clustered = learner(CLUSTERING)
    before = kernels(clustered)
    trained(clustered, 3)
    for name, kernel in kernels(clustered).items():
        assert len(np.unique(kernel)) <= 4, name
        assert (kernel != before[name]).any()
    assert len(np.unique(kernels(clustered)["backbone/conv/kernel"])) == 4
    assert set(values(clustered)) == set(values(learner()))


def test_what_is_frozen_is_not_compressed():
    frozen = learner(PRUNING + 'freeze_variables: "backbone"')
    trained(frozen, 4)
    assert np.all(kernels(frozen)["backbone/conv/kernel"] != 0)


def test_clustering_lowers_the_loss():
    clustered = learner(CLUSTERING)
    losses = [float(clustered.update(batch())["Loss/total_loss"]) for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]
    assert all(np.isfinite(kernel).all() for kernel in kernels(clustered).values())
