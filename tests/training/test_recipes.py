"""Every config in configs/ is sound, and trains for two steps."""

import math

import numpy as np
import pytest
from PIL import Image

from mnasdet import config, models
from mnasdet.architectures import smallest_image_size
from mnasdet.config_checks.section import Section
from mnasdet.config_checks.training import trainings
from mnasdet.data import class_folders, conversion
from mnasdet.data.annotations import AnnotatedImage, AnnotatedObject
from mnasdet.evaluation.objectives import objective
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import architecture_pb2
from mnasdet.search import winner
from mnasdet.search_spaces import factory
from mnasdet.training import trainer
from tests.config_fragments import CONFIGS
from tests.eagerly import eager

NAMES = sorted(path.stem for path in CONFIGS.glob("*.config"))

# Pixels. The recipes' images of up to 1280 pixels would take minutes.
SIDE = 64


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Six pictures of noise, three of either class."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(3):
            pixels = generator.integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def inputs(images, tmp_path_factory):
    """Makes the arguments of config.load that name records for a kind of model."""
    made = {}

    def make(pipeline):
        kind = pipeline.model.WhichOneof("model")
        num_classes = getattr(pipeline.model, kind).num_classes
        if (kind, num_classes) not in made:
            folder = tmp_path_factory.mktemp("records")
            names = {1: "cat", 2: "dog", 3: "zebra", num_classes: "zebu"}
            names = {i: name for i, name in names.items() if i <= num_classes}
            of_kind = _classified if kind == "classification" else _annotated
            of_kind(images, folder, names)
            made[kind, num_classes] = {
                "train_input": [f"{folder}/train.record-*"],
                "eval_input": [f"{folder}/val.record-*"],
                "label_map": str(folder / "label_map.pbtxt"),
            }
        return made[kind, num_classes]

    return make


def _classified(images, folder, names):
    class_folders.convert(images, folder, validation_fraction=0.34, names=names)


def _annotated(images, folder, names):
    for split, numbers in (("train", (0, 1)), ("val", (2,))):
        files = [f"{name}/{number}.jpg" for name in ("cat", "dog") for number in numbers]
        annotated = [AnnotatedImage(file, file) for file in files]
        for image in annotated:
            class_id = 2 if "dog" in image.name and 2 in names else 1
            image.objects.append(AnnotatedObject("box", class_id, (9, 9, 50, 70)))
        conversion.convert(
            annotated,
            total=len(annotated),
            images_dir=images,
            names=names,
            output_path=folder / f"{split}.record",
            num_shards=1,
            label_map_output=folder / "label_map.pbtxt",
            skip_bad=False,
        )


def load(name, inputs, tmp_path, shrink=lambda pipeline: None):
    path = CONFIGS / f"{name}.config"
    binary = tmp_path / "benchmark_model"
    binary.touch()

    def change(pipeline):
        if pipeline.search_config.latency.HasField("adb"):
            pipeline.search_config.latency.adb.benchmark_binary = str(binary)
        shrink(pipeline)

    own = config.includes.read(path).message
    # Digits need no records.
    embedded = own.train_input_reader.HasField("digits_input_reader")
    return config.load(path, change=change, **({} if embedded else inputs(own)))


@pytest.mark.parametrize("name", NAMES)
def test_check_config(name, inputs, tmp_path):
    """The whole config; what the command looks at in the records is not the config's."""
    pipeline = load(name, inputs, tmp_path)
    assert not pipeline.include
    blueprint = config.resolve(pipeline)
    assert cost_sheet(models.network(blueprint)).total.params > 0
    if pipeline.HasField("search_config"):
        space = factory.from_config(pipeline.search_config.search_space, blueprint.architecture)
        of_child = space.decode(space.sample(np.random.default_rng(0)))
        sheet = cost_sheet(models.network(config.resolve(pipeline, of_child)))
        assert sheet.total.params > 0


# Two steps of them are made by tests/integration/test_classification.py, and more than that, of the
# quickstart, by whatever uses `tiny_config`.
TRAINED_ELSEWHERE = {"mnasnet_a1_imagenet", "mnasnet_search_imagenet", "quickstart"}


def shrink(pipeline):
    """Makes two steps of two small pictures of every training, and a cheaper network.

    Pyramids have one repeat, ResNets are ResNet-10, SSDLite has the smallest backbone, and few
    regions have narrow heads: they are whole in tests/test_architectures.py and
    tests/training/test_od_api_configs.py.
    Losses, optimizers and augmentations stay as they are.
    """
    architecture = config.resolve(pipeline).architecture
    side = max(SIDE, smallest_image_size(architecture))
    _cut(architecture)
    pipeline.CopyFrom(config.with_architecture(pipeline, architecture))
    kind = pipeline.model.WhichOneof("model")
    resizer = getattr(pipeline.model, kind).image_resizer
    is_classifier = kind == "classification"
    size = resizer.center_crop_resizer if is_classifier else resizer.fixed_shape_resizer
    size.height = size.width = side
    if kind == "faster_rcnn":
        pipeline.model.faster_rcnn.second_stage_batch_size = 16
    pipeline.eval_config.batch_size = 1
    pipeline.eval_config.num_visualizations = 0
    if pipeline.HasField("graph_rewriter"):
        pipeline.graph_rewriter.quantization.delay = 1  # The second step rounds.
    if pipeline.search_config.HasField("differentiable"):
        pipeline.search_config.differentiable.alpha_start_step = 0
        pipeline.search_config.differentiable.screening.alpha_start_step = 0
    for training in trainings(Section(pipeline, "", [])):
        train_config = training.message
        train_config.batch_size = train_config.num_steps = 2
        train_config.parallel_parts = 1
        if train_config.HasField("freeze_until"):
            train_config.freeze_until.step = 1
        for step in train_config.data_augmentation_options:
            if step.HasField("random_scale_crop_and_pad_to_square"):
                step.random_scale_crop_and_pad_to_square.output_size = side
    for reader in (pipeline.train_input_reader, *pipeline.eval_input_reader):
        if reader.HasField("digits_input_reader"):
            reader.digits_input_reader.num_images = 4


def _cut(architecture):
    # Configs that differ in these fields alone are trained once.
    for name in ("name", "source", "published_at"):
        architecture.ClearField(name)
    pyramid = architecture.feature_pyramid
    for name in ("mnasfpn", "nas_fpn"):
        if pyramid.HasField(name):
            # An earlier exit needs a repeat of its own.
            getattr(pyramid, name).repeats = 2 if architecture.deep_supervision else 1
    if pyramid.HasField("ssd_layers"):
        architecture.backbone.mobilenet_v3.size = architecture_pb2.MobileNetV3.SMALL
    if architecture.backbone.HasField("resnet"):
        architecture.backbone.resnet.depth = 10
        architecture.depth_multiplier = 0.25
    predictor = architecture.box_predictor.weight_shared_convolutional_box_predictor
    if architecture.backbone.HasField("resnet") and architecture.HasField("box_predictor"):
        predictor.depth //= 4
    if architecture.backbone.HasField("base_code"):
        architecture.backbone.base_code.code = "basicblock_48_1-2-1-1"
    layers = architecture.backbone.operation_layers.layer
    for place in reversed(range(len(layers))):
        if layers[place].stride == 1:
            del layers[place]
    if architecture.HasField("region_head"):
        architecture.region_proposal.max_proposals = 8
        architecture.region_proposal.channels = 32
        architecture.region_head.fully_connected.channels = 32


@pytest.fixture(scope="module")
def train():
    """Trains a config, and the same config once: searches differ by their spaces alone.

    Tasks that are the same are built once, too: that takes longer than the steps.
    """
    built, trained = {}, {}
    build = models.build

    def build_once(blueprint):
        parts = (blueprint.architecture, blueprint.settings)
        key = (*(part.SerializeToString(deterministic=True) for part in parts), blueprint.quantized)
        if key not in built:
            built[key] = build(blueprint)
        return built[key]

    def train_once(pipeline):
        key = pipeline.SerializeToString(deterministic=True)
        if key not in trained:
            with pytest.MonkeyPatch.context() as patch, eager():
                patch.setattr(models, "build", build_once)
                trained[key] = trainer.train(pipeline)
        return trained[key]

    return train_once


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TRAINED_ELSEWHERE])
def test_two_steps(name, inputs, train, tmp_path):
    """Trains every config; a search's config trains its winner."""
    pipeline = load(name, inputs, tmp_path, shrink)
    if pipeline.HasField("search_config"):
        pipeline = winner.retraining(pipeline, config.resolve(pipeline).architecture)
    # There is no checkpoint, whatever its place.
    for field in ("fine_tune_checkpoint", "fine_tune_checkpoint_type"):
        pipeline.train_config.ClearField(field)
    metrics = train(pipeline)
    assert metrics["step"] == 2
    assert math.isfinite(metrics[objective(pipeline.model.WhichOneof("model"))])
