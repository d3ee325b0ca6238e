"""The task of two-stage detectors: graphs, targets, losses against numpy, learning, predictions."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import models
from mnasdet.detectors import two_stage
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.detectors.targets import BACKGROUND, IGNORED
from mnasdet.detectors.two_stage_network import two_stage_network
from mnasdet.networks import random_draws
from mnasdet.networks.builder import reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import architecture_pb2, train_pb2
from mnasdet.training import checkpoints
from mnasdet.training.learner import Learner
from tests.detectors.small_two_stage import CASCADE, batch, blueprint, example

LOSSES = ["rpn_objectness", "rpn_localization", "stage_1_classification", "stage_1_localization"]


def learner(task, train_config="", **arguments):
    text = f"""
      optimizer {{ adam_optimizer {{ learning_rate {{ constant_learning_rate {{
        learning_rate: 0.01
      }} }} }} }}
      {train_config}
    """
    return Learner(task, text_format.Parse(text, train_pb2.TrainConfig()), **arguments)


@pytest.fixture(scope="module")
def detector():
    return models.build(blueprint())


@pytest.fixture(scope="module")
def cascade():
    return models.build(blueprint(CASCADE))


def test_graphs():
    network = two_stage_network(blueprint(CASCADE).architecture, (64, 64), 3)
    assert network.levels == [2, 3, 4, 5, 6]
    assert network.region_levels == [2, 3, 4, 5]
    assert network.feature_sizes == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    shapes = {name: node.shape for name, node in network.features.items()}
    assert shapes == {
        **{f"region_features/level_{i}": (64 >> i, 64 >> i, 8) for i in (2, 3, 4, 5)},
        "rpn/box_encodings": (341 * 3, 4),
        "rpn/objectness": (341 * 3, 1),
    }
    assert [{name: node.shape for name, node in head.items()} for head in network.heads] == [
        {BOX_ENCODINGS: (1, 4), CLASS_LOGITS: (4,)}
    ] * 3
    times = {name: graph.times for name, graph in network.deployed.graphs.items()}
    assert times == {"features": 1, "region_head_1": 20, "region_head_2": 20, "region_head_3": 20}


def test_parts_of_the_cost_sheet():
    outputs = models.network(blueprint(CASCADE)).outputs
    parts = cost_sheet(outputs).parts
    assert set(parts) == {"backbone", "feature_pyramid", "region_proposal", "region_head"}


def test_without_a_pyramid_regions_come_from_stride_16_and_the_last_stage_judges_them():
    architecture = text_format.Parse(
        """
        backbone { resnet { depth: 50 } }
        anchor_generator { multiscale_anchor_generator { min_level: 4 max_level: 4 } }
        region_proposal {}
        region_head {
          region_align { size: 14 sampling_ratio: 1 max_pool_size: 2 max_pool_stride: 2 }
          last_backbone_stage {}
        }
        """,
        architecture_pb2.Architecture(),
    )
    network = two_stage_network(architecture, (64, 96), 3)
    assert network.levels == network.region_levels == [4]
    assert network.features["region_features/level_4"].shape == (4, 6, 1024)
    (head,) = network.heads
    names = {node.name for node in reachable(list(head.values()))}
    assert "region_head/stage_1/stage_5/block_1/layer_1/conv" in names
    # The stage runs for regions alone.
    names = {node.name for node in reachable(list(network.features.values()))}
    assert not [name for name in names if "stage_5" in name]


def test_every_weight_has_its_name_in_the_model_that_holds_all(cascade):
    names = checkpoints.variables_by_name(cascade.model)
    for stage in (1, 2, 3):
        assert f"region_head/stage_{stage}/layer_1/conv/kernel" in names
    parts = [cascade.features, *(stage.head for stage in cascade.stages)]
    assert sum(len(part.weights) for part in parts) == len(names)


@pytest.mark.parametrize("in_tf_data", [False, True])
def test_targets(detector, in_tf_data):
    one = example(0)
    one["is_crowd"] = tf.constant([False, True, False])
    targets = detector.targets(one)
    if in_tf_data:
        (targets,) = tf.data.Dataset.from_tensors(one).map(detector.targets)
    assert {name: tuple(value.shape) for name, value in targets.items()} == {
        "image": (64, 64, 3),
        "object_boxes": (100, 4),
        "object_classes": (100,),
        "rpn_anchors": (32,),
        "rpn_class_targets": (32,),
        "rpn_box_targets": (32, 4),
    }
    # A crowd is no object.
    np.testing.assert_array_equal(targets["object_boxes"][:2], one["boxes"].numpy()[[0, 2]])
    assert targets["object_classes"].numpy().tolist()[:3] == [2, 1, 0]
    # The sample of anchors is a function of the example's seed.
    again = detector.targets(one)
    np.testing.assert_array_equal(targets["rpn_anchors"], again["rpn_anchors"])
    other = detector.targets({**one, "seed": tf.constant([0, 77], tf.int64)})
    assert (other["rpn_anchors"].numpy() != again["rpn_anchors"].numpy()).any()


def test_an_image_without_objects_and_one_with_too_many(detector):
    nothing = {
        **example(0),
        "boxes": tf.zeros([0, 4]),
        "classes": tf.zeros([0], tf.int32),
        "is_crowd": tf.zeros([0], tf.bool),
    }
    targets = detector.targets(nothing)
    assert set(targets["rpn_class_targets"].numpy()) == {BACKGROUND}
    assert not targets["object_boxes"].numpy().any()
    crowded = {
        **nothing,
        "boxes": tf.tile([[0.1, 0.1, 0.3, 0.3]], [130, 1]),
        "classes": tf.ones([130], tf.int32),
        "is_crowd": tf.zeros([130], tf.bool),
    }
    assert detector.targets(crowded)["object_classes"].numpy().sum() == 100
    stacked = {name: value[None] for name, value in targets.items()}
    losses = detector.losses(stacked)
    assert float(losses["stage_1_localization"].total) == 0
    assert all(np.isfinite(loss.total) for loss in losses.values())


def huber(difference, delta=1.0):
    size = np.abs(difference)
    return np.where(size < delta, size**2 / 2, delta * (size - delta / 2)).sum(-1)


def test_losses_of_the_first_stage(detector):
    of_batch = batch(detector, [0, 1])
    features = detector.features(of_batch["image"])
    drawn = of_batch["rpn_anchors"].numpy()
    targets = of_batch["rpn_class_targets"].numpy()
    logits = np.take_along_axis(features["rpn/objectness"].numpy()[..., 0], drawn, 1)
    codes = np.take_along_axis(features["rpn/box_encodings"].numpy(), drawn[..., None], 1)
    signed = np.where(targets == 1, -logits, logits)
    objectness = (np.log1p(np.exp(signed)) * (targets != IGNORED)).sum()
    differences = huber(codes - of_batch["rpn_box_targets"].numpy())
    found = detector.first_stage.losses(features, of_batch)
    np.testing.assert_allclose(found["rpn_objectness"].total, objectness, rtol=1e-5)
    np.testing.assert_allclose(
        found["rpn_localization"].total, (differences * (targets == 1)).sum(), rtol=1e-5
    )
    assert float(found["rpn_objectness"].normalizer) == (targets != IGNORED).sum() == 64
    # One tensor: a training in parts goes back once for both.
    assert found["rpn_objectness"].normalizer is found["rpn_localization"].normalizer


def test_two_logits_are_one_that_is_their_difference():
    text = "region_proposal { objectness: SOFTMAX }"
    task = models.build(blueprint(text))
    one = models.build(blueprint())
    of_batch = batch(task, [0, 1])
    features = {name: value.numpy() for name, value in task.features(of_batch["image"]).items()}
    logits = np.random.default_rng(0).normal(size=features["rpn/objectness"].shape) * 3
    features["rpn/objectness"] = logits.astype(np.float32)
    difference = (logits[..., 1:] - logits[..., :1]).astype(np.float32)
    as_one = {**features, "rpn/objectness": difference}
    for name, loss in task.first_stage.losses(features, of_batch).items():
        expected = one.first_stage.losses(as_one, of_batch)[name].total
        np.testing.assert_allclose(loss.total, expected, rtol=1e-5)
    found = task.first_stage.proposals(features, training=False)
    expected = one.first_stage.proposals(as_one, training=False)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-6)


def enlivened(task):
    """Makes the untrained detector say something: of each region, of each class."""
    rng = np.random.default_rng(0)
    for name, variable in checkpoints.variables_by_name(task.model).items():
        if name.startswith("region") and name.endswith("kernel"):
            variable.assign(rng.normal(size=variable.shape) * 0.3 / np.sqrt(variable.shape[2] / 16))
    return task


@pytest.mark.parametrize("text", ["", CASCADE], ids=["faster_rcnn", "cascade"])
def test_losses_of_the_second_stage(text, monkeypatch):
    """Stage by stage in numpy, from the regions that each stage was asked about."""
    task = enlivened(models.build(blueprint(text)))
    of_batch = batch(task, [0, 1])
    seen = []
    judged = two_stage.TwoStageDetector._judged

    def spied(self, stage, sheet, regions, *, training):
        raw = judged(self, stage, sheet, regions, training=training)
        seen.append((regions.numpy(), {name: value.numpy() for name, value in raw.items()}))
        return raw

    monkeypatch.setattr(two_stage.TwoStageDetector, "_judged", spied)
    losses = task.losses(of_batch)
    assert len(seen) == len(task.stages)
    objects, classes = of_batch["object_boxes"].numpy(), of_batch["object_classes"].numpy()
    moved = 0.0
    for number, (stage, (regions, raw)) in enumerate(zip(task.stages, seen, strict=True), start=1):
        classification = localization = count = 0.0
        for image, region in ((i, r) for i in range(2) for r in range(16)):
            box = regions[image, region].astype(float)
            if not (box[2:] > box[:2]).all():
                continue
            count += 1
            overlaps = [overlap(box, one) for one in objects[image]]
            best = int(np.argmax(overlaps))
            is_object = overlaps[best] >= stage.iou_threshold
            target = classes[image, best] if is_object else BACKGROUND
            logits = raw[CLASS_LOGITS][image, region].astype(float)
            classification += np.log(np.exp(logits).sum()) - logits[target]
            if is_object:
                own = raw[BOX_ENCODINGS][image, region]
                code = encoded(objects[image, best].astype(float), box, stage.box_scales)
                localization += huber(own[target - 1 if len(own) > 1 else 0] - code)
        weight = [1, 0.5, 0.25][number - 1]
        for name, expected in (("classification", classification), ("localization", localization)):
            loss = losses[f"stage_{number}_{name}"]
            np.testing.assert_allclose(loss.total, weight * expected, rtol=1e-4)
            assert float(loss.normalizer) == count
        moved += localization
        if number < len(seen):
            check_next_regions(stage, regions, raw, seen[number][0], objects)
    assert moved > 0


def check_next_regions(stage, regions, raw, following, objects):
    """Checks that the next stage judges the boxes of this one, without the objects themselves."""
    for image, region in ((i, r) for i in range(2) for r in range(16)):
        box = regions[image, region].astype(float)
        if (np.abs(objects[image] - box) < 1e-7).all(-1).any():
            np.testing.assert_array_equal(following[image, region], 0)
        elif (box[2:] > box[:2]).all():
            refined = decoded(raw[BOX_ENCODINGS][image, region, 0], box, stage.box_scales)
            np.testing.assert_allclose(following[image, region], refined, atol=1e-5)


def overlap(a, b):
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
    return shared / union if union else 0.0


def encoded(box, region, scales):
    size, own = region[2:] - region[:2], box[2:] - box[:2]
    offset = (box[2:] + box[:2] - region[2:] - region[:2]) / 2 / size
    return np.concatenate([offset, np.log(own / size)]) * scales


def decoded(codes, region, scales):
    codes = codes.astype(float) / scales
    size = region[2:] - region[:2]
    centre = (region[2:] + region[:2]) / 2 + codes[:2] * size
    half = np.exp(codes[2:]) * size / 2
    return np.clip(np.concatenate([centre - half, centre + half]), 0, 1)


# All regions are drawn: what the random numbers are makes no difference.
ALL_DRAWN = "second_stage_batch_size: 120 second_stage_balance_fraction: 1"


def test_objects_are_among_the_regions_that_train_and_not_among_those_that_are_predicted(
    monkeypatch,
):
    detector = models.build(blueprint(settings=ALL_DRAWN))
    of_batch = batch(detector, [0])
    seen = []
    judged = two_stage.TwoStageDetector._judged

    def spied(self, stage, sheet, regions, *, training):
        seen.append(regions.numpy()[0])
        return judged(self, stage, sheet, regions, training=training)

    monkeypatch.setattr(two_stage.TwoStageDetector, "_judged", spied)
    detector.losses(of_batch)
    detector.predict(of_batch["image"])
    objects = of_batch["object_boxes"].numpy()[0, :3]
    found = [(np.abs(regions[:, None] - objects).max(-1) < 1e-7).any(0) for regions in seen]
    assert found[0].all()
    assert not found[1].any()


def test_no_gradient_flows_from_one_stage_to_the_boxes_of_the_one_before(cascade):
    of_batch = batch(cascade, [0, 1])
    with tf.GradientTape() as tape:
        total = cascade.losses(of_batch)["stage_3_localization"].total
    names = checkpoints.variables_by_name(cascade.model)
    gradients = tape.gradient(total, names)
    reached = {name for name, gradient in gradients.items() if gradient is not None}
    parts = {"/".join(name.split("/")[:2]) for name in reached if name.startswith("region")}
    assert parts == {"region_head/stage_3"}
    assert any(name.startswith("backbone") for name in reached)


def test_predictions_are_those_of_the_last_box_and_the_mean_class(cascade):
    enlivened(cascade)
    images = batch(cascade, [0, 1])["image"]
    features = cascade.features(images, training=False)
    regions = cascade.first_stage.proposals(features, training=False).boxes.numpy()
    sheet = cascade._sheet(features)
    logits = []
    for stage in cascade.stages:
        judged_regions = regions
        raw = cascade._judged(stage, sheet, tf.constant(regions), training=False)
        logits.append(raw[CLASS_LOGITS].numpy())
        codes = raw[BOX_ENCODINGS].numpy()[:, :, 0]
        boxes = [
            [decoded(code, box, stage.box_scales) for code, box in zip(*of_image, strict=True)]
            for of_image in zip(codes, regions.astype(float), strict=True)
        ]
        regions = np.array(boxes, np.float32)
    found = cascade.raw_predictions(images)
    np.testing.assert_allclose(found[CLASS_LOGITS], np.mean(logits, 0), atol=1e-4)
    np.testing.assert_allclose(found["proposals"], judged_regions, atol=1e-5)
    predicted = cascade.predict(images)
    assert int(predicted["num_detections"][0]) > 0
    # The best detection is a box of the last stage, with the probability of the mean logits.
    exponentials = np.exp(np.mean(logits, 0, dtype=np.float64))
    probabilities = (exponentials / exponentials.sum(-1, keepdims=True))[0, :, 1:]
    best = predicted["detection_boxes"][0, 0].numpy()
    place = np.abs(regions[0] - best).max(-1).argmin()
    np.testing.assert_allclose(regions[0, place], best, atol=1e-4)
    np.testing.assert_allclose(
        predicted["detection_scores"][0, 0], probabilities[place].max(), rtol=1e-3
    )


def test_frozen_batch_norm_is_the_od_api_s_default():
    def trained(settings):
        model = models.build(blueprint(settings=settings)).model
        return [v for v in model.trainable_variables if "batch_norm" in v.name]

    assert trained("")
    assert not trained("feature_extractor {}")
    assert trained("feature_extractor { batch_norm_trainable: true }")


def seeded_losses(task, of_batch):
    with random_draws.seeded(of_batch["seed"][0]):
        return task.losses(of_batch)


def test_weights_of_the_losses():
    settings = """
      first_stage_localization_loss_weight: 2 first_stage_objectness_loss_weight: 3
      second_stage_localization_loss_weight: 4 second_stage_classification_loss_weight: 5
    """
    plain = models.build(blueprint(CASCADE))
    weighted = models.build(blueprint(CASCADE, settings))
    weighted.model.set_weights(plain.model.get_weights())
    of_batch = batch(plain, [0, 1])
    before, after = seeded_losses(plain, of_batch), seeded_losses(weighted, of_batch)
    factors = {"rpn_localization": 2, "rpn_objectness": 3}
    for name, loss in before.items():
        factor = factors.get(name, 4 if "localization" in name else 5)
        np.testing.assert_allclose(after[name].total, factor * loss.total, rtol=1e-4)


def test_30_steps_on_one_picture_lower_the_loss():
    tf.keras.utils.set_random_seed(0)
    task = models.build(blueprint(settings="feature_extractor {}"))
    training = learner(task)
    of_batch = batch(task, [0, 0])
    losses = [float(training.update(of_batch)["Loss/total_loss"]) for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]


def test_xla_compiles_the_step_and_changes_nothing():
    steps = []
    for jit_compile in (False, True):
        tf.keras.utils.set_random_seed(0)
        plan = blueprint(settings=f"feature_extractor {{}} {ALL_DRAWN}")
        # One level takes a quarter of the time to compile.
        plan.architecture.ClearField("feature_pyramid")
        task = models.build(plan)
        steps.append(learner(task, jit_compile=jit_compile).update(batch(task, [0, 1])))
    plain, compiled = steps
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        np.testing.assert_allclose(value, compiled[name], rtol=1e-4, err_msg=name)


def test_mixed_precision():
    from mnasdet.training import precision

    config = text_format.Parse("precision: BFLOAT16", train_pb2.TrainConfig())
    with precision.building(config):
        task = models.build(blueprint())
    values = learner(task, "precision: BFLOAT16").update(batch(task, [0, 1]))
    assert np.isfinite(values["Loss/total_loss"])
    assert task.stages[0].head.layers[-1].dtype == "float32"
