"""Anchors by hand."""

import numpy as np

from mnasdet import config
from mnasdet.detectors import anchors
from mnasdet.detectors.network import detection_network


def test_one_level_by_hand():
    boxes = anchors.multiscale_anchors(
        (16, 32),
        [(2, 4)],
        min_level=3,
        anchor_scale=3.0,
        aspect_ratios=[1.0, 4.0],
        scales_per_octave=2,
    )
    assert boxes.shape == (2 * 4 * 4, 4)
    # The first location is centred on (4, 4) pixels: a square of 24, then of 24 * sqrt(2), ...
    side = 24 * np.sqrt(2)
    pixels = boxes * (16, 32, 16, 32)
    np.testing.assert_allclose(pixels[0], (-8, -8, 16, 16), rtol=1e-5)
    np.testing.assert_allclose(
        pixels[1], (4 - side / 2, 4 - side / 2, 4 + side / 2, 4 + side / 2), rtol=1e-5
    )
    # ... then half as high and twice as wide.
    np.testing.assert_allclose(pixels[2], (-2, -20, 10, 28), rtol=1e-5)
    # The next location is 8 pixels to the right, the fifth in the next row.
    np.testing.assert_allclose(pixels[4], (-8, 0, 16, 24), rtol=1e-5)
    np.testing.assert_allclose(pixels[16], (0, -8, 24, 16), rtol=1e-5)


def test_as_many_anchors_as_predictions():
    architecture = config.load_architecture("mobilenet_v2_mnasfpn")
    network = detection_network(architecture, (300, 200), 3)
    boxes = anchors.from_proto(architecture.anchor_generator, (300, 200), network.feature_sizes)
    assert len(boxes) == network.box_encodings.shape[0] == network.class_logits.shape[0]
    assert anchors.per_location(architecture.anchor_generator) == 9
