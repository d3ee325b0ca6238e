import pytest
from google.protobuf import text_format

from mnasdet.networks.hyperparams import (
    HE_NORMAL,
    BatchNorm,
    GroupNorm,
    Initializer,
    Kernel,
    from_proto,
)
from mnasdet.protos import hyperparams_pb2


def read(text):
    return from_proto(text_format.Parse(text, hyperparams_pb2.Hyperparams()))


def test_what_a_config_of_the_od_api_says():
    hyperparams = read(
        "activation: RELU_6 regularizer { l2_regularizer { weight: 4e-5 } } "
        "initializer { random_normal_initializer { stddev: 0.01 } } "
        "batch_norm { scale: true decay: 0.97 epsilon: 0.01 }"
    )
    assert hyperparams.activation == "relu6"
    # Slim's half is not in Keras' L2.
    initializer = Initializer("normal", pytest.approx(0.01))
    assert hyperparams.kernel == Kernel(initializer, pytest.approx(2e-5))
    assert hyperparams.depthwise_kernel == Kernel(initializer, 0)
    assert hyperparams.normalizer == BatchNorm(
        momentum=pytest.approx(0.97), epsilon=pytest.approx(0.01), center=True, scale=True
    )


def test_depthwise_kernels_are_regularised_where_the_config_says_so():
    text = "regularizer { l2_regularizer { weight: 4e-5 } } regularize_depthwise: true"
    assert read(text).depthwise_kernel.l2 == pytest.approx(2e-5)


def test_the_od_apis_defaults():
    """Without a batch_norm message there is a bias; with an empty one there is no factor."""
    empty = read("")
    assert empty.normalizer is None
    assert (empty.activation, empty.kernel) == ("relu", Kernel(HE_NORMAL, 0))
    normalizer = read("batch_norm { center: false }").normalizer
    assert (normalizer.center, normalizer.scale) == (False, False)


def test_the_other_normalisers_of_the_od_api():
    synchronized = read("sync_batch_norm { decay: 0.5 epsilon: 0.25 }").normalizer
    assert synchronized == BatchNorm(0.5, 0.25, center=True, scale=False, synchronized=True)
    assert not read("batch_norm {}").normalizer.synchronized
    # The OD API's message is empty: slim's 32 groups and 1e-6.
    assert read("group_norm {}").normalizer == GroupNorm(32, pytest.approx(1e-6))
    assert read("group_norm { groups: 8 epsilon: 0.5 }").normalizer == GroupNorm(8, 0.5)


def test_field_numbers_of_the_normalisers_are_the_od_apis():
    oneof = hyperparams_pb2.Hyperparams.DESCRIPTOR.oneofs_by_name["normalizer_oneof"]
    numbers = {field.name: field.number for field in oneof.fields}
    assert numbers == {"batch_norm": 5, "sync_batch_norm": 9, "group_norm": 7}


def test_weights_are_standardised_where_a_normalisation_follows():
    hyperparams = read("group_norm {} standardize_weights: true")
    assert hyperparams.kernel.standardized
    assert hyperparams.depthwise_kernel.standardized
    last = hyperparams.unnormalized
    assert last == read("").unnormalized
    assert last.normalizer is None
    assert not last.kernel.standardized
    assert not last.depthwise_kernel.standardized


@pytest.mark.parametrize(
    ("name", "activation"),
    [("NONE", "linear"), ("RELU", "relu"), ("RELU_6", "relu6"), ("SWISH", "swish")],
)
def test_every_activation(name, activation):
    assert read(f"activation: {name}").activation == activation


def test_variance_scaling():
    text = "initializer { variance_scaling_initializer { factor: 1 uniform: true mode: FAN_AVG } }"
    assert read(text).kernel.initializer == Initializer("uniform", scale=1.0, mode="fan_avg")
