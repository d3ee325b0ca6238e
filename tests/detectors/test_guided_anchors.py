"""mnasdet/detectors/guided_anchors.py, by numpy: pixel by pixel, box by box."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format

from mnasdet import models
from mnasdet.blueprint import Blueprint
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.detectors import guided_anchors, region_proposals
from mnasdet.detectors.guided_anchors import GuidedProposals
from mnasdet.detectors.proposals import ProposalSelection
from mnasdet.detectors.targets import BACKGROUND, IGNORED
from mnasdet.networks import random_draws
from mnasdet.protos import architecture_pb2, faster_rcnn_pb2

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 64, 96
SCALE = 2.0
SHAPE_DEVIATION = 0.14


def stage(height=HEIGHT, width=WIDTH, levels=(2, 3, 4), **arguments):
    return GuidedProposals(
        image_size=(height, width),
        levels=levels,
        feature_sizes=[(-(-height // 2**level), -(-width // 2**level)) for level in levels],
        anchor_scale=SCALE,
        location_threshold=0.2,
        sample_size=32,
        positive_fraction=0.5,
        loss=region_proposals.loss(faster_rcnn_pb2.FasterRcnn()),
        select=ProposalSelection(max_proposals=20),
        **arguments,
    )


def places_of(stage):
    """(level, stride, y, x) of every place, in pixels."""
    for level, (rows, columns) in zip(stage.levels, stage.feature_sizes, strict=True):
        stride = 2**level
        # Where the image is no multiple of the stride, the first place is at its border.
        top, left = (0 if side % stride else stride / 2 for side in stage.image_size)
        for row, column in np.ndindex(rows, columns):
            yield level, stride, top + row * stride, left + column * stride


def random_boxes(stage, count=6):
    """Boxes in pixels, (ymin, xmin, ymax, xmax), of all sizes."""
    height, width = stage.image_size
    sides = RNG.uniform(3, 50, (count, 2))
    corners = RNG.uniform(0, 1, (count, 2)) * ((height, width) - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def normalized(stage, boxes):
    return (boxes / np.tile(stage.image_size, 2)).astype(np.float32)


def padded(boxes, count=4):
    return tf.pad(boxes, [[0, count], [0, 0]])


def iou(a, b):
    height, width = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    intersection = max(height, 0) * max(width, 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return intersection / (sum(areas) - intersection)


def assigned(overlap):
    """The object of each place, -1 for none, -2 for ignored, from overlaps [objects, places]."""
    result = np.full(overlap.shape[1], -1)
    result[overlap.max(0) >= 0.3] = -2
    result = np.where(overlap.max(0) >= 0.7, overlap.argmax(0), result)
    for number in reversed(range(len(overlap))):
        if overlap[number].max() >= 0.3:
            result[overlap[number].argmax()] = number
    return result


@pytest.mark.parametrize(
    ("size", "levels"), [((64, 96), (2, 3, 4)), ((60, 90), (2, 3, 4)), ((64, 96), (2, 4, 5))]
)
def test_locations_are_positive_at_the_centre_of_objects_of_their_level(size, levels):
    own = stage(*size, levels)
    boxes = random_boxes(own, 8)
    # The smallest and the largest level take what is beyond, too.
    boxes[0], boxes[1] = [10, 10, 10.5, 11], [1.3, 2.1, size[0] - 3, size[1] - 1]
    positive = np.zeros(len(own.squares), bool)
    ignored = positive.copy()
    places = list(places_of(own))
    for box in boxes:
        scale = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        wanted = levels[0] + np.floor(np.log2(scale / (SCALE * 2 ** levels[0])) + 0.5)
        order = np.argmin([abs(level - wanted) for level in levels])
        for index, level in enumerate(levels):
            for share, marks in ((0.2, positive), (0.5, ignored)):
                if abs(index - order) > (share == 0.5):
                    continue
                axes = []
                for axis in (0, 1):
                    on_axis = np.unique([place[2 + axis] for place in places if place[0] == level])
                    middle, side = (box[axis] + box[axis + 2]) / 2, box[axis + 2] - box[axis]
                    ends = [middle - share / 2 * side, middle + share / 2 * side]
                    # From the place next to the one end to the place next to the other.
                    first, last = (np.argmin(abs(on_axis - end)) for end in ends)
                    axes.append(on_axis[first : last + 1])
                for number, (other, _, y, x) in enumerate(places):
                    marks[number] |= other == level and y in axes[0] and x in axes[1]
    expected = np.where(positive, 1, np.where(ignored, IGNORED, BACKGROUND))
    found = own.location_targets(tf.constant(normalized(own, boxes)))
    assert {-1, 0, 1} == set(expected)
    np.testing.assert_array_equal(found, expected)
    # Padding the objects changes nothing.
    np.testing.assert_array_equal(own.location_targets(padded(normalized(own, boxes))), expected)


def test_a_centre_counts_more_than_what_is_around_another():
    own = stage(levels=(4,))
    boxes = tf.constant(normalized(own, np.array([[0, 0, 64, 66], [20, 36, 52, 68]])))
    # The place at row 2, column 3 is around the centre of the first, and the second one's own.
    place = 2 * 6 + 3
    assert own.location_targets(boxes[:1])[place] == IGNORED
    for order in ([0, 1], [1, 0]):
        assert own.location_targets(tf.gather(boxes, order))[place] == 1


def test_shapes_are_those_of_the_object_that_the_best_sampled_anchor_overlaps():
    own = stage()
    boxes = random_boxes(own)
    # Too small for all anchors, so that none is forced on a place.
    boxes[0] = [30, 30, 31, 31]
    overlap = np.zeros((len(boxes), len(own.squares)))
    places = list(places_of(own))
    for place, (_, stride, y, x) in enumerate(places):
        for ratio in (0.5, 1, 2):
            for octave in (0, 1 / 3, 2 / 3):
                height, width = SCALE * stride * 2**octave * np.array([ratio**-0.5, ratio**0.5])
                anchor = np.array([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
                for number, box in enumerate(boxes):
                    overlap[number, place] = max(overlap[number, place], iou(box, anchor))
    objects = assigned(overlap)
    expected = np.select([objects >= 0, objects == -1], [1, BACKGROUND], IGNORED)
    assert {-1, 0, 1} == set(expected)
    classes, shapes = own.shape_targets(tf.constant(normalized(own, boxes)))
    np.testing.assert_array_equal(classes, expected)
    assert 0 not in objects
    assert np.sum(objects >= 0) >= 5
    for place in np.flatnonzero(objects >= 0):
        box = boxes[objects[place]]
        sides = np.log((box[2:] - box[:2]) / (SCALE * places[place][1])) / SHAPE_DEVIATION
        np.testing.assert_allclose(shapes[place], sides, atol=1e-4)


def test_an_image_without_objects_has_background_alone():
    own = stage()
    targets = own.targets(tf.zeros([0, 4]))
    assert not np.any(targets["rpn_location_targets"])
    assert not np.any(targets["rpn_is_shape"])


def test_targets_have_fixed_shapes_in_tf_data():
    own = stage()
    boxes = normalized(own, random_boxes(own))
    images = tf.data.Dataset.from_generator(
        lambda: (boxes[:0], boxes), output_signature=tf.TensorSpec([None, 4], tf.float32)
    ).map(tf.autograph.experimental.do_not_convert(own.targets))
    (targets,) = images.batch(2)
    places = len(own.squares)
    assert {name: tuple(spec.shape) for name, spec in images.element_spec.items()} == {
        "rpn_location_targets": (places,),
        "rpn_places": (32,),
        "rpn_is_shape": (32,),
        "rpn_shape_targets": (32, 2),
    }
    expected = [own.location_targets(boxes[:0]), own.location_targets(boxes)]
    np.testing.assert_array_equal(targets["rpn_location_targets"], expected)


def test_the_sample_of_shapes_is_drawn_from_the_targets_by_the_seed():
    own = stage()
    boxes = tf.constant(normalized(own, random_boxes(own)))

    def targets(seed):
        with random_draws.seeded(tf.constant([seed, 2])):
            return {name: value.numpy() for name, value in own.targets(boxes).items()}

    first, again, other = targets(1), targets(1), targets(2)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["rpn_places"], other["rpn_places"])
    classes, shapes = own.shape_targets(boxes)
    np.testing.assert_array_equal(first["rpn_is_shape"], classes.numpy()[first["rpn_places"]])
    np.testing.assert_array_equal(first["rpn_shape_targets"], shapes.numpy()[first["rpn_places"]])
    assert 0 < np.sum(first["rpn_is_shape"] == 1) <= 16
    assert len(first["rpn_places"]) == 32


def test_guided_anchors_stand_round_their_places():
    own = stage()
    shapes = RNG.normal(0, 4, (2, len(own.squares), 2)).astype(np.float32)
    shapes[0, 0] = 1e6, -1e6
    found = own.anchors(tf.constant(shapes)).numpy() * (HEIGHT, WIDTH, HEIGHT, WIDTH)
    assert np.all(np.isfinite(found))
    for place, (_, stride, y, x) in enumerate(places_of(own)):
        if place == 0:
            continue
        sides = SCALE * stride * np.exp(SHAPE_DEVIATION * shapes[:, place])
        expected = np.concatenate([(y, x) - sides / 2, (y, x) + sides / 2], axis=1)
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-5, atol=1e-4)


def test_guided_anchors_learn_the_objects_that_they_overlap():
    own = stage()
    boxes = np.stack([random_boxes(own), random_boxes(own)])
    shapes = tf.constant(RNG.normal(0, 4, (2, len(own.squares), 2)), tf.float32)
    truth = tf.stack([padded(normalized(own, image)) for image in boxes])
    classes, codes = own.anchor_targets(shapes, truth)
    scale = (HEIGHT, WIDTH, HEIGHT, WIDTH)
    for image, anchors in enumerate(own.anchors(shapes).numpy() * scale):
        overlap = np.array([[iou(box, anchor) for anchor in anchors] for box in boxes[image]])
        objects = assigned(overlap)
        expected = np.select([objects >= 0, objects == -1], [1, BACKGROUND], IGNORED)
        np.testing.assert_array_equal(classes[image], expected)
        assert np.sum(objects >= 0) > 2
        for place in np.flatnonzero(objects >= 0):
            box, anchor = boxes[image][objects[place]], anchors[place]
            sides, others = box[2:] - box[:2], anchor[2:] - anchor[:2]
            offset = (box[2:] + box[:2] - anchor[2:] - anchor[:2]) / 2 / others
            code = np.concatenate([offset / 0.07, np.log(sides / others) / 0.11])
            np.testing.assert_allclose(codes[image, place], code, rtol=1e-4, atol=1e-4)


def test_the_shape_loss_is_the_bounded_iou_of_both_sides():
    shapes, targets = RNG.normal(0, 3, (2, 50, 2)).astype(np.float32)
    targets[0] = shapes[0]
    sides, wanted = (np.exp(SHAPE_DEVIATION * x) for x in (shapes, targets))
    missing = 1 - np.minimum(sides / wanted, wanted / sides)
    expected = np.where(missing < 0.2, missing**2 / 2 / 0.2, missing - 0.1).sum(-1)
    np.testing.assert_allclose(guided_anchors.shape_loss(shapes, targets), expected, atol=1e-5)


def test_the_shape_loss_has_the_gradient_of_finite_differences():
    shapes, targets = RNG.normal(0, 3, (2, 20, 2))

    def loss(shapes):
        return tf.reduce_sum(guided_anchors.shape_loss(shapes, tf.constant(targets, tf.float32)))

    theoretical, numeric = tf.test.compute_gradient(loss, [tf.constant(shapes, tf.float32)], 0.01)
    np.testing.assert_allclose(theoretical[0], numeric[0], atol=2e-3)


def test_the_location_loss_weighs_negatives_less_and_divides_by_places():
    logits = RNG.normal(0, 2, (2, 600, 1)).astype(np.float32)
    targets = RNG.choice([1, BACKGROUND, IGNORED], (2, 600)).astype(np.int32)
    probability = 1 / (1 + np.exp(-logits[..., 0].astype(np.float64)))
    positive = -0.25 * (1 - probability) ** 2 * np.log(probability)
    negative = -0.75 * probability**2 * np.log(1 - probability)
    expected = np.sum(positive[targets == 1]) + 0.1 * np.sum(negative[targets == BACKGROUND])
    loss = guided_anchors.location_loss(tf.constant(logits), tf.constant(targets))
    # mmdetection divides the sum by the places over 200.
    np.testing.assert_allclose(loss.total / loss.normalizer, expected / (1200 / 200), rtol=1e-5)
    assert loss.normalizer == 1200


def predictions(own, batch=2):
    places = len(own.squares)
    return {
        "rpn/box_encodings": tf.constant(RNG.normal(0, 0.5, (batch, places, 4)), tf.float32),
        "rpn/objectness": tf.constant(RNG.normal(size=(batch, places, 1)), tf.float32),
        "rpn/anchor_shapes": tf.constant(RNG.normal(size=(batch, places, 2)), tf.float32),
        "rpn/locations": tf.constant(RNG.normal(size=(batch, places, 1)), tf.float32),
    }


def batch_of(own):
    images = []
    for _ in range(2):
        boxes = tf.constant(normalized(own, random_boxes(own)))
        images.append(own.targets(boxes) | {"object_boxes": padded(boxes)})
    return {name: tf.stack([image[name] for image in images]) for name in images[0]}


def test_losses_are_those_of_the_samples_and_xla_compiles_them():
    # XLA draws other numbers: a sample that has all places needs none.
    own = dataclasses.replace(stage(), sample_size=2 * 504)
    features, batch = predictions(own), batch_of(own)

    def losses(features):
        with random_draws.seeded(tf.constant([1, 2])), tf.GradientTape() as tape:
            tape.watch(features)
            found = own.losses(features, batch)
            total = tf.add_n([loss.total for loss in found.values()])
        return found, tape.gradient(total, features)

    found, gradients = losses(features)
    compiled, compiled_gradients = tf.function(losses, jit_compile=True, autograph=False)(features)
    assert set(found) == {"rpn_location", "rpn_shape", "rpn_objectness", "rpn_localization"}
    for name, loss in found.items():
        np.testing.assert_allclose(compiled[name], loss, rtol=1e-4)
    for name, gradient in gradients.items():
        assert np.any(gradient)
        np.testing.assert_allclose(compiled_gradients[name], gradient, atol=1e-5)
    of_shapes = [
        guided_anchors.shape_loss(
            features["rpn/anchor_shapes"].numpy()[image, place],
            batch["rpn_shape_targets"][image, i],
        )
        for image in range(2)
        for i, place in enumerate(batch["rpn_places"][image])
        if batch["rpn_is_shape"][image, i] == 1
    ]
    np.testing.assert_allclose(found["rpn_shape"].total, np.sum(of_shapes), rtol=1e-5)
    for name, classes in (
        ("rpn_shape", batch["rpn_is_shape"]),
        (
            "rpn_objectness",
            own.anchor_targets(features["rpn/anchor_shapes"], batch["object_boxes"])[0],
        ),
    ):
        assert found[name].normalizer == np.sum(classes != IGNORED)


def test_objectness_does_not_teach_the_shapes():
    own = stage()
    features, batch = predictions(own), batch_of(own)
    with tf.GradientTape() as tape:
        tape.watch(features)
        losses = own.losses(features, batch)
        total = losses["rpn_objectness"].total + losses["rpn_localization"].total
    gradients = tape.gradient(total, features)
    assert gradients["rpn/anchor_shapes"] is None
    assert gradients["rpn/objectness"] is not None


def test_improbable_places_propose_nothing_at_inference():
    own = dataclasses.replace(stage(), select=ProposalSelection(700, iou_threshold=1.0))
    features = predictions(own)
    features["rpn/box_encodings"] *= 0
    scores = own.proposals(features, training=False).scores.numpy()
    probability = tf.sigmoid(features["rpn/objectness"]).numpy()[..., 0]
    likely = tf.sigmoid(features["rpn/locations"]).numpy()[..., 0] >= 0.2
    assert not likely.all()
    for image in range(2):
        kept = np.sort(scores[image][scores[image] > 0])
        expected = np.sort(probability[image][likely[image]])
        np.testing.assert_allclose(kept, expected, rtol=1e-6)
    assert np.sum(own.proposals(features, training=True).scores > 0) == probability.size


ARCHITECTURE = """
    # Nothing is normalised: moving averages take longer than this training.
    backbone { resnet { depth: 10 } conv_hyperparams { activation: RELU } }
    depth_multiplier: 0.25
    min_depth: 8
    feature_pyramid {
      fpn { variant: TWO_STAGE input_level: [3, 4] output_level: [3, 4] channels: 64 }
    }
    region_proposal {
      channels: 16
      guided_anchoring { anchor_scale: 4 }
      max_proposals: 20
    }
    region_head {
      region_align { size: 3 }
      fully_connected { num_layers: 1 channels: 32 }
      # The adaptive settings of detectors with guided anchors: with better proposals, higher
      # demands.
      stage { iou_threshold: 0.6 box_scales: [20, 20, 10, 10] }
    }
"""
SETTINGS = """
    num_classes: 2
    first_stage_minibatch_size: 64
    first_stage_max_proposals: 20
    second_stage_batch_size: 32
    second_stage_post_processing {
      batch_non_max_suppression { score_threshold: 0.1 iou_threshold: 0.5 }
      score_converter: SOFTMAX
    }
"""


def test_a_detector_with_guided_anchors_learns_a_picture():
    tf_keras.utils.set_random_seed(0)
    blueprint = Blueprint(
        kind="faster_rcnn",
        architecture=text_format.Parse(ARCHITECTURE, architecture_pb2.Architecture()),
        resizer=ImageResizer((64, 64)),
        num_classes=2,
        settings=text_format.Parse(SETTINGS, faster_rcnn_pb2.FasterRcnn()),
    )
    detector = models.build(blueprint)
    image = np.full((64, 64, 3), -1.0, np.float32)
    image[8:40, 16:40] = (1.0, 0.0, -1.0)
    box = np.array([[8, 16, 40, 40]], np.float32) / 64
    example = {
        "image": tf.constant(image),
        "boxes": tf.constant(box),
        "classes": tf.constant([2]),
        "is_crowd": tf.constant([False]),
        "seed": tf.constant([1, 2]),
    }
    batch = {name: value[None] for name, value in detector.targets(example).items()}
    variables = detector.model.trainable_variables
    optimizer = tf_keras.optimizers.Adam(1.5e-3)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            losses = detector.losses(batch)
            total = tf.add_n([x.total / tf.maximum(x.normalizer, 1.0) for x in losses.values()])
        gradients, _ = tf.clip_by_global_norm(tape.gradient(total, variables), 5.0)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return total

    totals = [float(step()) for _ in range(60)]
    assert np.mean(totals[-5:]) < 0.5 * np.mean(totals[:5])
    found = detector.predict(image[None])
    assert found["detection_classes"][0, 0] == 2
    assert iou(found["detection_boxes"][0, 0].numpy(), box[0]) > 0.5
