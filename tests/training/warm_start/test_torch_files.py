"""Files with the names of torchvision and timm start our networks."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from mnasdet.training.warm_start import load
from tests.training.warm_start import torch_networks as torch
from tests.training.warm_start.our_networks import OurNetwork, check_close

V2 = "mobilenet_v2 {}"
V3 = {size: f"mobilenet_v3 {{ size: {size.upper()} }}" for size in ("large", "small")}
V3_HIDDEN = {"large": 1280, "small": 1024}
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def resnet(depth):
    return functools.partial(torch.resnet, blocks=BLOCKS[depth], bottleneck=depth >= 50)


def mobilenet_v3(make, size):
    return functools.partial(make, size=size)


def timm(name):
    return functools.partial(torch.timm_efficientnet, name=name)


# The network, the epsilon of its batch normalisations, the source, our backbone and hidden layer.
NETWORKS = {
    "torchvision mobilenet_v2": (
        torch.torchvision_mobilenet_v2,
        1e-5,
        "torchvision's MobileNetV2",
        V2,
        0,
    ),
    **{
        f"torchvision mobilenet_v3_{size}": (
            mobilenet_v3(torch.torchvision_mobilenet_v3, size),
            1e-3,
            f"torchvision's MobileNetV3 {size}",
            V3[size],
            V3_HIDDEN[size],
        )
        for size in V3
    },
    "torchvision mnasnet1_0": (
        torch.torchvision_mnasnet,
        1e-5,
        "torchvision's MnasNet",
        "mnasnet_b1",
        0,
    ),
    **{
        f"resnet{depth}": (
            resnet(depth),
            1e-5,
            "torchvision's or timm's ResNet",
            f"resnet {{ depth: {depth} }}",
            0,
        )
        for depth in (18, 50)
    },
    "timm mobilenetv2_100": (timm("mobilenetv2_100"), 1e-5, "timm's MobileNetV2", V2, 0),
    **{
        f"timm mobilenetv3_{size}_100": (
            mobilenet_v3(torch.timm_mobilenet_v3, size),
            1e-5,
            f"timm's MobileNetV3 {size}",
            V3[size],
            V3_HIDDEN[size],
        )
        for size in V3
    },
    "timm semnasnet_100": (timm("semnasnet_100"), 1e-5, "timm's MnasNet-A1", "mnasnet_a1", 0),
    "timm mnasnet_100": (timm("mnasnet_100"), 1e-5, "timm's MnasNet-B1", "mnasnet_b1", 0),
    "timm mnasnet_small": (timm("mnasnet_small"), 1e-5, "timm's MnasNet-small", "mnasnet_small", 0),
}

# At sizes of 32 n + 1, SAME pads both sides alike in every layer, as torch does.
SIDE = 65


@functools.cache
def built(backbone, hidden):
    """Our model of a backbone, which several sources start."""
    return OurNetwork(backbone, SIDE, hidden_channels=hidden)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_feature_is_that_of_the_original(tmp_path, name):
    make, epsilon, source, backbone, hidden = NETWORKS[name]
    images = np.random.default_rng(1).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
    net = torch.Network(epsilon, grey=torch.our_grey())
    outputs, last, logits = make(net, torch.normalized(images))
    save_file(net.weights, tmp_path / "model.safetensors")
    model = built(backbone, hidden)
    for variable in model.variables:
        variable.assign(tf.zeros_like(variable))
    report = load.load(model, tmp_path / "model.safetensors")
    assert report.source == source
    assert (report.unmatched, report.misshapen) == ([], [])
    assert len(report.matched) == len(model.variables)
    found = model(images)
    # A level is the last feature of its size.
    expected = {output.shape[1]: output for output in outputs}
    for level, size in enumerate((17, 9, 5, 3), start=2):
        check_close(found[str(level)], expected[size].numpy(), f"level {level}")
    check_close(found["last"], last.numpy(), "last")
    check_close(found["logits"], logits.numpy(), "logits")


def test_a_file_of_a_deeper_network_is_told(tmp_path, caplog):
    """Every variable finds its value, and yet the features are not those of the file."""
    net = torch.Network(1e-5, grey=None)
    resnet(34)(net, tf.zeros((1, SIDE, SIDE, 3)))
    save_file(net.weights, tmp_path / "model.safetensors")
    report = load.load(built("resnet { depth: 18 }", 0), tmp_path / "model.safetensors")
    assert (report.unmatched, report.misshapen) == ([], [])
    # Eight blocks of two convolutions with a batch normalisation each.
    assert len(report.unused) == 8 * 2 * (1 + 4)
    assert {name.rpartition(".")[0].rpartition(".")[0] for name in report.unused} == {
        *(f"layer1.{block}" for block in (2,)),
        *(f"layer2.{block}" for block in (2, 3)),
        *(f"layer3.{block}" for block in (2, 3, 4, 5)),
        *(f"layer4.{block}" for block in (2,)),
    }
    (warning,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert "80 variables of the file have no place here (layer1.2." in warning.getMessage()
