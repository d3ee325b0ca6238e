"""The backbones of the OD API's feature extractors, with the hyper-parameters that they have there,
unless the config overrides them."""

from __future__ import annotations

from google.protobuf import text_format

from mnasdet.protos import architecture_pb2

# Slim and Keras regularise differently: slim's L2 has a factor of 1/2, and TF1's MobileNets leave
# depthwise kernels alone where TF2's do not.
SLIM_MOBILENET = """
  initializer { truncated_normal_initializer { stddev: 0.09 } }
  regularizer { l2_regularizer { weight: 4e-5 } }
  batch_norm { decay: 0.9997 epsilon: 0.001 scale: true }
  activation: RELU_6
"""
KERAS_MOBILENET = f"{SLIM_MOBILENET} regularize_depthwise: true"
_SLIM_RESNET = """
  initializer { variance_scaling_initializer { factor: 2.0 } }
  batch_norm { decay: 0.997 epsilon: 1e-5 scale: true }
"""
_KERAS_RESNET = """
  initializer { variance_scaling_initializer { factor: 1.0 } }
  batch_norm { decay: 0.997 epsilon: 1e-5 scale: true }
"""
SLIM_RESNET = f"{_SLIM_RESNET} regularizer {{ l2_regularizer {{ weight: 1e-4 }} }}"
KERAS_RESNET = f"{_KERAS_RESNET} regularizer {{ l2_regularizer {{ weight: 2e-4 }} }}"

# Its two-stage detectors without a pyramid have no regularised backbone.
SLIM_RESNET_WITHOUT_DECAY = _SLIM_RESNET
KERAS_RESNET_WITHOUT_DECAY = _KERAS_RESNET

# Its ResNets stride in the first convolution of a bottleneck: under Keras as keras.applications has
# them, under slim because the pyramid takes the features ahead of their strides.
RESNET = "resnet {{ depth: {} strides_in_1x1: true }}"


def backbone(network: str, hyperparams: str) -> architecture_pb2.Backbone:
    """Returns the message of a network and its hyper-parameters, both text protos."""
    parsed = text_format.Parse(network, architecture_pb2.Backbone())
    if hyperparams:
        text_format.Parse(hyperparams, parsed.conv_hyperparams)
    return parsed
