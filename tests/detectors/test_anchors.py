"""Anchors by hand."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet import text_proto
from mnasdet.architectures import anchors_per_location
from mnasdet.detectors import anchors
from mnasdet.detectors.network import detection_network
from mnasdet.protos import anchor_generator_pb2, architecture_pb2

ROOT = Path(__file__).parents[2]

SSD_SIZES_320 = [(side, side) for side in (20, 10, 5, 3, 2, 1)]
SSD_SIZES_300 = [(side, side) for side in (19, 10, 5, 3, 2, 1)]


def test_one_level_by_hand():
    boxes = anchors.multiscale_anchors(
        (16, 32),
        [(2, 4)],
        levels=[3],
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


def test_first_centres_where_strides_leave_a_rest():
    boxes = anchors.multiscale_anchors(
        (64, 72),
        [(4, 5), (2, 3)],
        levels=[4, 5],
        anchor_scale=1.0,
        aspect_ratios=[1.0],
        scales_per_octave=1,
    )
    pixels = boxes * (64, 72, 64, 72)
    # 64 has whole strides of 16 and of 32: half a stride. 72 has neither: the edge.
    np.testing.assert_allclose(pixels[0], (0, -8, 16, 8), atol=1e-5)
    np.testing.assert_allclose(pixels[4 * 5], (0, -16, 32, 16), atol=1e-5)


def test_levels_that_a_pyramid_leaves_out():
    proto = anchor_generator_pb2.AnchorGenerator()
    proto.multiscale_anchor_generator.min_level = 3
    proto.multiscale_anchor_generator.scales_per_octave = 1
    proto.multiscale_anchor_generator.aspect_ratios.append(1.0)
    boxes = anchors.from_proto(proto, (64, 64), [(8, 8), (2, 2)], levels=(3, 5))
    # Squares of 4 strides, the first of each level centred half a stride from the corner.
    np.testing.assert_allclose(boxes[0] * 64, (-12, -12, 20, 20), atol=1e-5)
    np.testing.assert_allclose(boxes[64] * 64, (-48, -48, 80, 80), atol=1e-5)


def test_grid_anchors_in_the_od_apis_order():
    """The first centre is the corner; a location has ratio by ratio all scales."""
    generator = text_format.Parse(
        """
        grid_anchor_generator {
          height: 128 width: 64 scales: [0.5, 1, 2] aspect_ratios: [1, 4] height_stride: 16
          width_stride: 8 height_offset: 3 width_offset: 1
        }
        """,
        anchor_generator_pb2.AnchorGenerator(),
    )
    expected = []
    for row in range(2):
        for column in range(3):
            for ratio in (1.0, 4.0):
                for scale in (0.5, 1.0, 2.0):
                    height, width = 128 * scale / ratio**0.5, 64 * scale * ratio**0.5
                    y, x = 16 * row + 3, 8 * column + 1
                    corners = (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
                    expected.append(corners)
    boxes = anchors.from_proto(generator, (32, 24), [(2, 3)])
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes * (32, 24, 32, 24), expected, rtol=1e-5, atol=1e-4)
    assert anchors_per_location(generator, 1) == [6]


def test_grid_anchors_of_a_config_without_offsets_start_at_the_corner():
    generator = anchor_generator_pb2.AnchorGenerator()
    generator.grid_anchor_generator.scales.append(0.25)
    generator.grid_anchor_generator.aspect_ratios.append(1.0)
    boxes = anchors.from_proto(generator, (640, 640), [(40, 40)])
    np.testing.assert_allclose(boxes[0] * 640, (-32, -32, 32, 32), rtol=1e-5)
    np.testing.assert_allclose(boxes[41] * 640, (-16, -16, 48, 48), rtol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v2_mnasfpn", "mobilenet_v2_ssdlite"])
def test_as_many_anchors_as_predictions(name):
    path = ROOT / "configs" / "architectures" / f"{name}.textproto"
    architecture = text_proto.read(path, architecture_pb2.Architecture)
    network = detection_network(architecture, (300, 200), 3)
    boxes = anchors.from_proto(architecture.anchor_generator, (300, 200), network.feature_sizes)
    predictions = network.predictions
    assert {node.shape[0] for node in predictions.values()} == {len(boxes)}


def test_multiscale_anchors_per_location():
    proto = anchor_generator_pb2.AnchorGenerator()
    proto.multiscale_anchor_generator.aspect_ratios.extend([1.0, 2.0])
    proto.multiscale_anchor_generator.scales_per_octave = 3
    assert anchors_per_location(proto, 4) == [6] * 4


def centre_and_size(boxes):
    """[anchors, 4] (y, x, height, width)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def test_ssd_by_hand():
    boxes = centre_and_size(
        anchors.ssd_anchors(
            (300, 300), [(3, 3), (2, 2)], min_scale=0.2, max_scale=0.8, aspect_ratios=[1.0, 4.0]
        )
    )
    assert len(boxes) == 9 * 3 + 4 * 3
    sixth = 1 / 6
    root = np.sqrt(2)
    expected = [
        # The finest feature's three: a square of 0.1, then its scale of 0.2 wide and high.
        (sixth, sixth, 0.1, 0.1),
        (sixth, sixth, 0.2 / root, 0.2 * root),
        (sixth, sixth, 0.2 * root, 0.2 / root),
        # The next location is a third of the image to the right.
        (sixth, 0.5, 0.1, 0.1),
    ]
    np.testing.assert_allclose(boxes[:4], expected, rtol=1e-5)
    expected = [
        # The coarsest: its scale of 0.8 with both aspects, then between 0.8 and 1.
        (0.25, 0.25, 0.8, 0.8),
        (0.25, 0.25, 0.4, 1.6),
        (0.25, 0.25, np.sqrt(0.8), np.sqrt(0.8)),
        (0.25, 0.75, 0.8, 0.8),
        (0.25, 0.75, 0.4, 1.6),
        (0.25, 0.75, np.sqrt(0.8), np.sqrt(0.8)),
        (0.75, 0.25, 0.8, 0.8),
    ]
    np.testing.assert_allclose(boxes[27:34], expected, rtol=1e-5)


def test_ssd_scales_of_the_published_six_features():
    boxes = centre_and_size(anchors.ssd_anchors((320, 320), SSD_SIZES_320))
    first = np.cumsum([0, 400 * 3, 100 * 6, 25 * 6, 9 * 6, 4 * 6])
    # 0.2, then steps of 0.15 up to 0.95: the side of the square, and of the interpolated one.
    np.testing.assert_allclose(boxes[first[1:], 2], [0.35, 0.5, 0.65, 0.8, 0.95], rtol=1e-5)
    scales = np.array([0.35, 0.5, 0.65, 0.8, 0.95, 1.0])
    np.testing.assert_allclose(
        boxes[first[1:] + 5, 3], np.sqrt(scales[:-1] * scales[1:]), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("sizes", "reduced", "expected"),
    [
        (SSD_SIZES_320, True, 1200 + 600 + 150 + 54 + 24 + 6),
        (SSD_SIZES_300, True, 1083 + 600 + 150 + 54 + 24 + 6),
        (SSD_SIZES_320, False, 6 * (400 + 100 + 25 + 9 + 4 + 1)),
        # SSD300's own features.
        ([(s, s) for s in (38, 19, 10, 5, 3, 1)], True, 7308),
    ],
)
def test_ssd_counts(sizes, reduced, expected):
    boxes = anchors.ssd_anchors((320, 320), sizes, reduce_boxes_in_lowest_layer=reduced)
    assert boxes.shape == (expected, 4)


def test_ssd_anchors_are_square_in_pixels_on_any_image():
    boxes = anchors.ssd_anchors((300, 600), [(1, 2)], scales=[0.5], aspect_ratios=[1.0])
    pixels = centre_and_size(boxes * (300, 600, 300, 600))
    # Half of the shorter side; reduced to three at each of two locations.
    np.testing.assert_allclose(pixels[0], (150, 150, 30, 30), rtol=1e-5)
    np.testing.assert_allclose(pixels[3], (150, 450, 30, 30), rtol=1e-5)
    np.testing.assert_allclose(pixels[1, 3] / pixels[1, 2], 2.0, rtol=1e-5)
    np.testing.assert_allclose(pixels[1, 2] * pixels[1, 3], 150**2, rtol=1e-5)


def test_ssd_base_size_strides_and_offsets():
    boxes = anchors.ssd_anchors(
        (100, 200),
        [(2, 2), (1, 1)],
        scales=[0.5, 0.6],
        aspect_ratios=[1.0],
        interpolated_scale_aspect_ratio=0.0,
        reduce_boxes_in_lowest_layer=False,
        base_anchor_size=(0.5, 1.0),
        strides=[(30, 40), (100, 200)],
        offsets=[(7, -3), (50, 50)],
    )
    pixels = centre_and_size(boxes * (100, 200, 100, 200))
    expected = [
        (7, -3, 25, 50),
        (7, 37, 25, 50),
        (37, -3, 25, 50),
        (37, 37, 25, 50),
        (50, 50, 30, 60),
    ]
    np.testing.assert_allclose(pixels, expected, rtol=1e-4)


def test_ssd_offsets_are_half_a_stride_by_default():
    boxes = anchors.ssd_anchors((100, 100), [(2, 2)], strides=[(30, 40)], aspect_ratios=[1.0])
    np.testing.assert_allclose(centre_and_size(boxes)[0, :2], (0.15, 0.2), rtol=1e-5)


def ssd_proto(text):
    return text_format.Parse(
        f"ssd_anchor_generator {{ {text} }}", anchor_generator_pb2.AnchorGenerator()
    )


def test_ssd_from_proto():
    proto = ssd_proto(
        """
        num_layers: 2 scales: [0.5, 0.6] aspect_ratios: [1.0, 3.0]
        interpolated_scale_aspect_ratio: 2.0 reduce_boxes_in_lowest_layer: false
        base_anchor_height: 0.5 base_anchor_width: 0.25
        height_stride: [40, 80] width_stride: [30, 60] height_offset: [1, 2] width_offset: [3, 4]
        """
    )
    expected = anchors.ssd_anchors(
        (100, 120),
        [(3, 4), (2, 2)],
        scales=[0.5, 0.6],
        aspect_ratios=[1.0, 3.0],
        interpolated_scale_aspect_ratio=2.0,
        reduce_boxes_in_lowest_layer=False,
        base_anchor_size=(0.5, 0.25),
        strides=[(40, 30), (80, 60)],
        offsets=[(1, 3), (2, 4)],
    )
    found = anchors.from_proto(proto, (100, 120), [(3, 4), (2, 2)])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aspect_ratios: [1, 2, 0.5, 3, 0.3333]", [3, 6, 6]),
        ("aspect_ratios: [1, 2, 0.5, 3, 0.3333] interpolated_scale_aspect_ratio: 0", [3, 5, 5]),
        ("aspect_ratios: [1, 2] reduce_boxes_in_lowest_layer: false", [3, 3, 3]),
        ("", [3, 1, 1]),
    ],
)
def test_ssd_anchors_per_location(text, expected):
    proto = ssd_proto(text)
    assert anchors_per_location(proto, 3) == expected
    boxes = anchors.from_proto(proto, (64, 64), [(4, 4), (2, 2), (1, 1)])
    assert len(boxes) == 16 * expected[0] + 4 * expected[1] + expected[2]
