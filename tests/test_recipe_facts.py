"""The recipes of the papers, by the figures that the papers print."""

import pytest

from mnasdet import config, models
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import pipeline_pb2
from mnasdet.search_spaces import factory
from tests.config_fragments import CONFIGS

# Images of COCO's train2017, and of what the searches keep of it.
TRAIN = 118_287
MNASFPN_SEARCH = TRAIN - 7000
NAS_FPN_SEARCH = TRAIN - 7392


@pytest.fixture
def load(coco_inputs):
    def load(name) -> pipeline_pb2.TrainEvalPipelineConfig:
        return config.load(CONFIGS / f"{name}.config", **coco_inputs)

    return load


def manual_steps(train_config):
    momentum = train_config.optimizer.momentum_optimizer
    assert momentum.momentum_optimizer_value == pytest.approx(0.9)
    return momentum.learning_rate.manual_step_learning_rate


# Batches of 64. The end, and where the rate falls to a tenth of what it was, in epochs; the first
# step of the full rate where it is one in epochs.
@pytest.mark.parametrize(
    ("name", "images", "end", "falls", "rate"),
    [
        ("mnasfpn_mobilenet_v2_320x320_coco_val2017", TRAIN, 150, (120, 140), 0.04),
        ("mnasfpn_search_coco", MNASFPN_SEARCH, 20, (16,), 0.04),
        ("retinanet_resnet50_640x640_coco", TRAIN, 50, (30, 40), 0.08),
        ("retinanet_resnet101_640x640_coco", TRAIN, 50, (30, 40), 0.08),
        ("nas_fpn_resnet50_640x640_coco", TRAIN, 50, (30, 40), 0.08),
        ("nas_fpn_resnet50_640x640_anytime_coco", TRAIN, 50, (30, 40), 0.08),
        ("nas_fpn_resnet50_1280x1280_drop_block_coco", TRAIN, 150, (120, 140), 0.08),
        ("nas_fpn_search_coco", NAS_FPN_SEARCH, 10, (8,), 0.08),
    ],
)
def test_epochs_are_steps(load, name, images, end, falls, rate):
    train_config = load(name).train_config
    assert train_config.batch_size == 64
    assert train_config.num_steps == pytest.approx(end * images / 64, abs=1)
    schedule = manual_steps(train_config).schedule
    steps = [step.step for step in schedule]
    assert steps[1:] == pytest.approx([epoch * images / 64 for epoch in falls], abs=1)
    rates = [step.learning_rate for step in schedule]
    assert rates == pytest.approx([rate / 10**fall for fall in range(len(rates))])


def test_mnasfpn_warms_up_for_an_epoch(load):
    for name in ("mnasfpn_mobilenet_v2_320x320_coco_val2017", "mnasfpn_search_coco"):
        pipeline = load(name)
        rate = manual_steps(pipeline.train_config)
        assert rate.warmup
        assert rate.initial_learning_rate == 0
        assert pipeline.train_config.gradient_clipping_by_norm == 10
    assert rate.schedule[0].step == pytest.approx(MNASFPN_SEARCH / 64, abs=1)
    retraining = manual_steps(pipeline.search_config.retrain_config).schedule
    epochs = [step.step * 64 / MNASFPN_SEARCH for step in retraining]
    assert epochs == pytest.approx([1, 120, 140], abs=1e-3)


def test_mnasfpn_for_test_dev_is_longer_than_the_od_apis(load):
    """A cosine from 4 to 0 over 100,000 steps, 2000 of them a warm-up; from scratch."""
    train_config = load("mnasfpn_mobilenet_v2_320x320_coco_test_dev").train_config
    rate = train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate
    assert (train_config.batch_size, train_config.num_steps) == (1024, 100_000)
    assert (rate.learning_rate_base, rate.total_steps, rate.warmup_steps) == (4, 100_000, 2000)
    assert not train_config.fine_tune_checkpoint


# Trainable weights in millions and billions of operations: those of the papers where two of a
# multiply-add count (NAS-FPN, table 1), and multiply-adds elsewhere (MnasFPN, table 1, and MnasNet,
# table 3), all for 90 classes.
@pytest.mark.parametrize(
    ("name", "millions", "billions", "of_multiply_add", "tolerance"),
    [
        ("retinanet_resnet50_640x640_coco", 34.0, 193.6, 2, 0.005),
        ("retinanet_resnet101_640x640_coco", 53.0, 254.2, 2, 0.005),
        ("nas_fpn_resnet50_640x640_coco", 60.3, 281.3, 2, 0.005),
        ("nas_fpn_resnet50_1280x1280_drop_block_coco", 103.9, 2086.3, 2, 0.005),
        ("fpnlite_mobilenet_v2_320x320_coco", 2.20, 2.03, 2, 0.005),
        ("ssdlite_mnasnet_a1_320x320_coco", 4.9, 0.8, 1, 0.05),
        ("ssdlite_mobilenet_v3_large_320x320_coco", 3.22, 0.51, 1, 0.01),
    ],
)
def test_sizes_are_the_papers(load, name, millions, billions, of_multiply_add, tolerance):
    total = cost_sheet(models.network(config.resolve(load(name)))).total
    assert total.trainable_params / 1e6 == pytest.approx(millions, rel=tolerance)
    assert of_multiply_add * total.multiply_adds / 1e9 == pytest.approx(billions, rel=tolerance)


def test_nas_fpn_is_the_published_one_but_for_the_start_of_its_last_layers(load):
    architecture = config.resolve(load("nas_fpn_resnet50_640x640_coco")).architecture
    published = config.load_architecture("resnet50_nas_fpn_7_256")
    predictor = architecture.box_predictor.weight_shared_convolutional_box_predictor
    start = predictor.prediction_initializer.random_normal_initializer.stddev
    assert start == pytest.approx(1e-5)
    predictor.ClearField("prediction_initializer")
    for name in ("name", "source", "published_at"):
        published.ClearField(name)
        architecture.ClearField(name)
    assert architecture == published


def test_nas_fpns_losses_and_suppression(load):
    """Tests values of tensorflow/tpu's RetinaNet, and the paper's focal loss and jitter (4.1)."""
    pipeline = load("nas_fpn_resnet50_1280x1280_drop_block_coco")
    ssd = pipeline.model.ssd
    assert ssd.num_matches_offset * pipeline.train_config.batch_size == 1
    focal = ssd.loss.classification_loss.weighted_sigmoid_focal
    assert (focal.alpha, focal.gamma) == (0.25, 1.5)
    assert ssd.loss.localization_weight == 50
    nms = ssd.post_processing.batch_non_max_suppression
    assert (nms.max_candidates, nms.iou_threshold, nms.max_total_detections) == (5000, 0.5, 100)
    flip, jitter = pipeline.train_config.data_augmentation_options
    assert flip.HasField("random_horizontal_flip")
    scales = jitter.random_scale_crop_and_pad_to_square
    assert scales.output_size == config.resolve(pipeline).image_size[0] == 1280
    assert (scales.scale_min, scales.scale_max) == pytest.approx((0.8, 1.2))
    pyramid = config.resolve(pipeline).architecture.feature_pyramid.nas_fpn
    assert pyramid.drop_block_size == 3
    assert 0 < pyramid.drop_block_keep_probability < 1
    assert load("nas_fpn_resnet50_640x640_anytime_coco").model.architecture.deep_supervision


def test_nas_fpns_proxy_is_the_published_one(load):
    pipeline = load("nas_fpn_search_coco")
    blueprint = config.resolve(pipeline)
    published = config.load_architecture("resnet10_nas_fpn_3_256")
    assert blueprint.architecture.backbone == published.backbone
    assert blueprint.architecture.feature_pyramid == published.feature_pyramid
    assert blueprint.image_size == (512, 512)
    assert pipeline.search_config.reward.HasField("accuracy")


# Exact sizes of the spaces, by the formulas of MnasFPN's appendix A.1 (unordered pairs of inputs).
PAIRS = 3_112_013_520_000


@pytest.mark.parametrize(
    ("name", "space", "cardinality"),
    [
        ("mnasfpn_search_coco", "mnasfpn", 2**9 * 4**5 * 24 * PAIRS * 3**9 * 6 * 7**9),
        ("no_expand_search_coco", "no_expand", 2**9 * 4**5 * 24 * PAIRS * 3**9 * 6),
        ("nas_fpnlite_s_search_coco", "nas_fpnlite_s", 2**9 * 4**5 * 24 * PAIRS),
        # Seven cells, of which five are outputs; those inside have four levels.
        ("nas_fpn_search_coco", "nas_fpn", 2**7 * 120 * 4**2 * 10 * 15 * 21 * 28 * 36 * 45 * 55),
    ],
)
def test_spaces_are_the_papers(load, name, space, cardinality):
    pipeline = load(name)
    assert pipeline.search_config.search_space.WhichOneof("search_space_oneof") == space
    base = config.resolve(pipeline).architecture
    assert factory.from_config(pipeline.search_config.search_space, base).cardinality() == (
        cardinality
    )


def test_the_other_searches_of_mnasfpn_differ_by_their_spaces_alone(load):
    whole = load("mnasfpn_search_coco")
    for name in ("no_expand", "conn", "nas_fpnlite_s"):
        other = load(f"{name}_search_coco")
        other.search_config.search_space.CopyFrom(whole.search_config.search_space)
        assert other == whole
