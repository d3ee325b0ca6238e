"""The networks of torchvision and timm in plain TensorFlow operations, with random weights.

They are written from the modules that those libraries publish: names, layouts and padding are
theirs. A network makes its weights as it runs, so that `weights` has what a file would have.
"""

import numpy as np
import tensorflow as tf

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class Network:
    """The layers of a network, by torch's rules.

    Attributes:
      weights: by name, [out, in, height, width] for kernels.
      grey: what the first layer pads with; torch pads with 0, which is ImageNet's mean.
    """

    def __init__(self, epsilon, grey, weights=None):
        self.weights = dict(weights or {})
        self._rng = np.random.default_rng(0)
        self._epsilon = epsilon
        self.grey = grey

    def weight(self, name, shape, low, high):
        if name not in self.weights:
            self.weights[name] = self._rng.uniform(low, high, shape).astype(np.float32)
        assert self.weights[name].shape == tuple(shape), name
        return self.weights[name]

    def conv(self, name, x, channels, size=1, stride=1, groups=1, bias=False):
        """nn.Conv2d with padding=size // 2."""
        inputs = x.shape[-1]
        limit = (3 / (size * size * inputs / groups)) ** 0.5
        shape = (channels, inputs // groups, size, size)
        kernel = self.weight(f"{name}.weight", shape, -limit, limit)
        half = size // 2
        if inputs == 3 and self.grey is not None:
            x = tf.pad(x - self.grey, [[0, 0], [half, half], [half, half], [0, 0]]) + self.grey
        else:
            x = tf.pad(x, [[0, 0], [half, half], [half, half], [0, 0]])
        if groups == inputs:
            kernel = kernel.transpose(2, 3, 0, 1)
            y = tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), "VALID")
        else:
            y = tf.nn.conv2d(x, kernel.transpose(2, 3, 1, 0), stride, "VALID")
        return y + self.weight(f"{name}.bias", (channels,), -0.5, 0.5) if bias else y

    def norm(self, name, x):
        """nn.BatchNorm2d in evaluation."""
        shape = x.shape[-1:]
        gamma = self.weight(f"{name}.weight", shape, 0.5, 1.5)
        beta = self.weight(f"{name}.bias", shape, -0.5, 0.5)
        mean = self.weight(f"{name}.running_mean", shape, -0.5, 0.5)
        # Small enough to show another epsilon, and not so small that errors of rounding grow.
        variance = self.weight(f"{name}.running_var", shape, 0.2, 2.0)
        self.weights.setdefault(f"{name}.num_batches_tracked", np.array(7, np.int64))
        return (x - mean) / tf.sqrt(variance + self._epsilon) * gamma + beta

    def linear(self, name, x, channels):
        weight = self.weight(f"{name}.weight", (channels, x.shape[-1]), -0.05, 0.05)
        return x @ weight.T + self.weight(f"{name}.bias", (channels,), -0.5, 0.5)

    def squeeze_excite(self, names, x, squeezed, gate):
        y = tf.reduce_mean(x, (1, 2), keepdims=True)
        y = tf.nn.relu(self.conv(names[0], y, squeezed, bias=True))
        return x * gate(self.conv(names[1], y, x.shape[-1], bias=True))

    def max_pool(self, x):
        """nn.MaxPool2d(3, stride=2, padding=1)."""
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
        return tf.nn.max_pool2d(x, 3, 2, "VALID")


def hard_sigmoid(x):
    return tf.nn.relu6(x + 3) / 6


def hard_swish(x):
    return x * hard_sigmoid(x)


def divisible(channels):
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def normalized(images):
    """Images in [-1, 1] as the networks of ImageNet take them."""
    return ((images + 1) / 2 - MEAN).astype(np.float32) / DEVIATION.astype(np.float32)


def our_grey():
    """Returns the value of our padding, 0 in [-1, 1], in those images."""
    return ((0.5 - MEAN) / DEVIATION).astype(np.float32)


# Expansion, channels, repeats, stride.
MOBILENET_V2 = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
]
MOBILENET_V2 += [(6, 320, 1, 1)]


def torchvision_mobilenet_v2(net, x):
    """Returns the outputs of its layers but the last, of the last, and the logits."""
    outputs = [tf.nn.relu6(net.norm("features.0.1", net.conv("features.0.0", x, 32, 3, 2)))]
    for expansion, channels, repeats, stride in MOBILENET_V2:
        for repeat in range(repeats):
            x = outputs[-1]
            name, first = f"features.{len(outputs)}.conv", 0
            y = x
            if expansion > 1:
                y = net.conv(f"{name}.0.0", y, x.shape[-1] * expansion)
                y = tf.nn.relu6(net.norm(f"{name}.0.1", y))
                first = 1
            width = y.shape[-1]
            y = net.conv(f"{name}.{first}.0", y, width, 3, 1 if repeat else stride, width)
            y = tf.nn.relu6(net.norm(f"{name}.{first}.1", y))
            y = net.norm(f"{name}.{first + 2}", net.conv(f"{name}.{first + 1}", y, channels))
            outputs.append(x + y if x.shape == y.shape else y)
    last = tf.nn.relu6(net.norm("features.18.1", net.conv("features.18.0", outputs[-1], 1280)))
    return outputs, last, net.linear("classifier.1", tf.reduce_mean(last, (1, 2)), 1000)


RELU, SWISH = tf.nn.relu, hard_swish
# Kernel, expanded channels, channels, squeeze and excitation, activation, stride.
MOBILENET_V3 = {
    "large": [
        (3, 16, 16, False, RELU, 1),
        (3, 64, 24, False, RELU, 2),
        (3, 72, 24, False, RELU, 1),
        (5, 72, 40, True, RELU, 2),
        (5, 120, 40, True, RELU, 1),
        (5, 120, 40, True, RELU, 1),
        (3, 240, 80, False, SWISH, 2),
        (3, 200, 80, False, SWISH, 1),
        (3, 184, 80, False, SWISH, 1),
        (3, 184, 80, False, SWISH, 1),
        (3, 480, 112, True, SWISH, 1),
        (3, 672, 112, True, SWISH, 1),
        (5, 672, 160, True, SWISH, 2),
        (5, 960, 160, True, SWISH, 1),
        (5, 960, 160, True, SWISH, 1),
    ],
    "small": [
        (3, 16, 16, True, RELU, 2),
        (3, 72, 24, False, RELU, 2),
        (3, 88, 24, False, RELU, 1),
        (5, 96, 40, True, SWISH, 2),
        (5, 240, 40, True, SWISH, 1),
        (5, 240, 40, True, SWISH, 1),
        (5, 120, 48, True, SWISH, 1),
        (5, 144, 48, True, SWISH, 1),
        (5, 288, 96, True, SWISH, 2),
        (5, 576, 96, True, SWISH, 1),
        (5, 576, 96, True, SWISH, 1),
    ],
}
# Bottlenecks of timm's stages, one after the other.
_V3_STAGES = {"large": (1, 2, 3, 4, 2, 3), "small": (1, 2, 3, 2, 3)}


def torchvision_mobilenet_v3(net, x, size):
    """Returns the outputs of its layers but the last, of the last, and the logits."""
    outputs = [hard_swish(net.norm("features.0.1", net.conv("features.0.0", x, 16, 3, 2)))]
    for kernel, expanded, channels, squeezes, activation, stride in MOBILENET_V3[size]:
        x = y = outputs[-1]
        name, place = f"features.{len(outputs)}.block", 0
        if expanded != x.shape[-1]:
            y = activation(net.norm(f"{name}.0.1", net.conv(f"{name}.0.0", y, expanded)))
            place = 1
        y = net.conv(f"{name}.{place}.0", y, expanded, kernel, stride, expanded)
        y = activation(net.norm(f"{name}.{place}.1", y))
        if squeezes:
            place += 1
            names = [f"{name}.{place}.fc1", f"{name}.{place}.fc2"]
            y = net.squeeze_excite(names, y, divisible(expanded // 4), hard_sigmoid)
        place += 1
        y = net.norm(f"{name}.{place}.1", net.conv(f"{name}.{place}.0", y, channels))
        outputs.append(x + y if x.shape == y.shape else y)
    name = f"features.{len(outputs)}"
    last = hard_swish(net.norm(f"{name}.1", net.conv(f"{name}.0", outputs[-1], channels * 6)))
    hidden = {"large": 1280, "small": 1024}[size]
    y = net.linear("classifier.0", tf.reduce_mean(last, (1, 2)), hidden)
    return outputs, last, net.linear("classifier.3", hard_swish(y), 1000)


def torchvision_mnasnet(net, x):
    """MnasNet-B1. Returns the outputs of its stacks, of the last layer, and the logits."""
    x = tf.nn.relu(net.norm("layers.1", net.conv("layers.0", x, 32, 3, 2)))
    x = tf.nn.relu(net.norm("layers.4", net.conv("layers.3", x, 32, 3, 1, 32)))
    outputs = [net.norm("layers.7", net.conv("layers.6", x, 16))]
    stacks = [(24, 3, 2, 3, 3), (40, 5, 2, 3, 3), (80, 5, 2, 6, 3)]
    stacks += [(96, 3, 1, 6, 2), (192, 5, 2, 6, 4), (320, 3, 1, 6, 1)]
    for index, (channels, kernel, stride, expansion, repeats) in enumerate(stacks, start=8):
        x = outputs[-1]
        for repeat in range(repeats):
            name = f"layers.{index}.{repeat}.layers"
            width = x.shape[-1] * expansion
            y = tf.nn.relu(net.norm(f"{name}.1", net.conv(f"{name}.0", x, width)))
            y = net.conv(f"{name}.3", y, width, kernel, 1 if repeat else stride, width)
            y = tf.nn.relu(net.norm(f"{name}.4", y))
            y = net.norm(f"{name}.7", net.conv(f"{name}.6", y, channels))
            x = x + y if x.shape == y.shape else y
        outputs.append(x)
    last = tf.nn.relu(net.norm("layers.15", net.conv("layers.14", outputs[-1], 1280)))
    return outputs, last, net.linear("classifier.1", tf.reduce_mean(last, (1, 2)), 1000)


def resnet(net, x, blocks, bottleneck):
    """torchvision's and timm's. Returns the outputs of the four layers, of the last, and the
    logits."""
    x = net.max_pool(tf.nn.relu(net.norm("bn1", net.conv("conv1", x, 64, 7, 2))))
    outputs = []
    for layer, repeats in enumerate(blocks, start=1):
        width = 32 * 2**layer
        channels = width * 4 if bottleneck else width
        for block in range(repeats):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            kinds = [(width, 1, 1), (width, 3, stride), (channels, 1, 1)]
            kinds = kinds if bottleneck else [(width, 3, stride), (width, 3, 1)]
            y = x
            for place, (filters, size, step) in enumerate(kinds, start=1):
                y = net.norm(
                    f"{name}.bn{place}", net.conv(f"{name}.conv{place}", y, filters, size, step)
                )
                y = tf.nn.relu(y) if place < len(kinds) else y
            if stride > 1 or x.shape[-1] != channels:
                x = net.conv(f"{name}.downsample.0", x, channels, 1, stride)
                x = net.norm(f"{name}.downsample.1", x)
            x = tf.nn.relu(x + y)
        outputs.append(x)
    return outputs, x, net.linear("fc", tf.reduce_mean(x, (1, 2)), 1000)


def _timm_blocks(net, x, stages, activations, *, squeezed, gate, first_adds=True):
    """The stages of timm's EfficientNet and MobileNetV3; yields the output of every block.

    Args:
      stages: for each a list of (kernel, expanded channels, channels, stride, squeezes).
      squeezed: the squeezed channels of (expanded, block's input).
      first_adds: whether the first block adds its input where it can.
    """
    for stage, blocks in enumerate(stages):
        for index, (kernel, expanded, channels, stride, squeezes) in enumerate(blocks):
            name, inputs = f"blocks.{stage}.{index}", x.shape[-1]
            activation = next(activations)
            y, last = x, ("conv_pwl", "bn3")
            depthwise = "bn2"
            if expanded is None:
                expanded, last, depthwise = inputs, ("conv_pw", "bn2"), "bn1"
            else:
                y = activation(net.norm(f"{name}.bn1", net.conv(f"{name}.conv_pw", y, expanded)))
            y = net.conv(f"{name}.conv_dw", y, expanded, kernel, stride, expanded)
            y = activation(net.norm(f"{name}.{depthwise}", y))
            if squeezes:
                names = [f"{name}.se.conv_reduce", f"{name}.se.conv_expand"]
                y = net.squeeze_excite(names, y, squeezed(expanded, inputs), gate)
            y = net.norm(f"{name}.{last[1]}", net.conv(f"{name}.{last[0]}", y, channels))
            adds = x.shape == y.shape and (stage > 0 or first_adds)
            x = x + y if adds else y
            yield x


def timm_mobilenet_v3(net, x, size):
    """Returns the outputs of the stem and all blocks, of the last layer, and the logits."""
    rows = iter(MOBILENET_V3[size])
    stages, activations = [], [row[4] for row in MOBILENET_V3[size]]
    for repeats in _V3_STAGES[size]:
        stage = [next(rows) for _ in range(repeats)]
        stages.append([(k, e, c, s, se) for k, e, c, se, _, s in stage])
    first = stages[0][0]
    stages[0] = [(first[0], None, *first[2:])]
    outputs = [hard_swish(net.norm("bn1", net.conv("conv_stem", x, 16, 3, 2)))]
    outputs += _timm_blocks(
        net,
        outputs[0],
        stages,
        iter(activations),
        squeezed=lambda expanded, inputs: divisible(expanded / 4),
        gate=hard_sigmoid,
    )
    name = f"blocks.{len(stages)}.0"
    y = net.conv(f"{name}.conv", outputs[-1], outputs[-1].shape[-1] * 6)
    last = hard_swish(net.norm(f"{name}.bn1", y))
    hidden = {"large": 1280, "small": 1024}[size]
    y = net.conv("conv_head", tf.reduce_mean(last, (1, 2), keepdims=True), hidden, bias=True)
    y = hard_swish(y)
    return outputs, last, net.linear("classifier", y[:, 0, 0], 1000)


# Kernel, stride, expansion, channels, squeeze and excitation, repeats; of timm's definitions.
_TIMM = {
    "mobilenetv2_100": [(3, s, e, c, False, n) for e, c, n, s in MOBILENET_V2],
    "semnasnet_100": [
        (3, 1, 1, 16, False, 1),
        (3, 2, 6, 24, False, 2),
        (5, 2, 3, 40, True, 3),
        (3, 2, 6, 80, False, 4),
        (3, 1, 6, 112, True, 2),
        (5, 2, 6, 160, True, 3),
        (3, 1, 6, 320, False, 1),
    ],
    "mnasnet_100": [
        (3, 1, 1, 16, False, 1),
        (3, 2, 3, 24, False, 3),
        (5, 2, 3, 40, False, 3),
        (5, 2, 6, 80, False, 3),
        (3, 1, 6, 96, False, 2),
        (5, 2, 6, 192, False, 4),
        (3, 1, 6, 320, False, 1),
    ],
    "mnasnet_small": [
        (3, 1, 1, 8, False, 1),
        (3, 2, 3, 16, False, 1),
        (3, 2, 6, 16, False, 2),
        (5, 2, 6, 32, True, 4),
        (3, 1, 6, 32, True, 3),
        (5, 2, 6, 88, True, 3),
        (3, 1, 6, 144, False, 1),
    ],
}


def timm_efficientnet(net, x, name):
    """Returns the outputs of the stem and all blocks, of the last layer, and the logits."""
    activation = tf.nn.relu6 if name == "mobilenetv2_100" else tf.nn.relu
    stem = 8 if name == "mnasnet_small" else 32
    outputs = [activation(net.norm("bn1", net.conv("conv_stem", x, stem, 3, 2)))]
    stages, inputs = [], stem
    for kernel, stride, expansion, channels, squeezes, repeats in _TIMM[name]:
        stage = []
        for repeat in range(repeats):
            expanded = None if expansion == 1 else inputs * expansion
            stage.append((kernel, expanded, channels, 1 if repeat else stride, squeezes))
            inputs = channels
        stages.append(stage)
    outputs += _timm_blocks(
        net,
        outputs[0],
        stages,
        iter(lambda: activation, None),
        squeezed=lambda expanded, inputs: round(inputs / 4),
        gate=tf.nn.sigmoid,
        # timm's mnasnet_small does; tensorflow/tpu's, which ours is, does not.
        first_adds=name != "mnasnet_small",
    )
    last = activation(net.norm("bn2", net.conv("conv_head", outputs[-1], 1280)))
    return outputs, last, net.linear("classifier", tf.reduce_mean(last, (1, 2)), 1000)
