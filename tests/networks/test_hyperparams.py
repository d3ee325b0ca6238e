import pytest
from google.protobuf import text_format

from mnasdet.networks.hyperparams import HE_NORMAL, BatchNorm, Initializer, Kernel, from_proto
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


@pytest.mark.parametrize(
    ("name", "activation"),
    [("NONE", "linear"), ("RELU", "relu"), ("RELU_6", "relu6"), ("SWISH", "swish")],
)
def test_every_activation(name, activation):
    assert read(f"activation: {name}").activation == activation


def test_variance_scaling():
    text = "initializer { variance_scaling_initializer { factor: 1 uniform: true mode: FAN_AVG } }"
    assert read(text).kernel.initializer == Initializer("uniform", scale=1.0, mode="fan_avg")
