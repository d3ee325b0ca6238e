"""Damaged configs and architectures end in lines of our own, or in networks of bounded size."""

import pytest

from mnasdet import config
from mnasdet.architecture_string.conversion import to_string
from mnasdet.config_checks.pipeline import READERS
from mnasdet.detectors import anchors
from mnasdet.detectors.network import detection_network
from mnasdet.models import network_of
from mnasdet.networks.cost import cost_sheet
from mnasdet.search_spaces import factory
from tests.config_fragments import CONFIGS
from tests.mutations import damaged_text, generators, outcome
from tests.od_api_configs import config_text

COUNT = 30

ARCHITECTURES = [
    "mobilenet_v2_mnasfpn",
    "resnet10_nas_fpn_3_256",
    "mobilenet_v3_small_halved_ssdlite",
    "mnasnet_small",
    "mobilenet_v2_fpnlite_64",
]
IMAGE_SIZE = (320, 320)


def check_all(name, damage, run, listed, count=COUNT):
    """Runs all damaged inputs and returns the messages; some are refused, and some are not."""
    failures, messages, total = [], [], 0
    for seed, rng in generators(name, count):
        content = damage(rng)
        try:
            result = outcome(lambda content=content: run(content), listed=listed)
        except Exception as error:
            failures.append(f"seed {seed}: {content!r:.2000}: {error!r:.600}")
            result = error
        messages += [str(result)] if isinstance(result, Exception) else []
        total += 1
    assert not failures, "\n".join(failures[:10])
    assert total < 20 or 0 < len(messages) < total
    return messages


def build(architecture, image_size=IMAGE_SIZE):
    """Builds the layers and anchors of an architecture without Keras."""
    outputs = network_of(architecture, image_size, 3).outputs
    total = cost_sheet(outputs).total
    assert 0 < total.params < 2**50
    if not architecture.HasField("classifier"):
        sizes = detection_network(architecture, image_size, 3).feature_sizes
        boxes = anchors.from_proto(architecture.anchor_generator, image_size, sizes)
        assert boxes.shape == outputs[0].shape
    return total


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(tmp_path, name):
    text = (CONFIGS / "architectures" / f"{name}.textproto").read_text()
    path = tmp_path / "damaged.textproto"

    def run(content):
        path.write_bytes(content)
        return build(config.load_architecture(str(path)))

    check_all(name, lambda rng: damaged_text(text, rng), run, listed=True)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_strings(name):
    line = to_string(config.load_architecture(name))

    def run(content):
        return build(config.load_architecture(content.decode("utf-8", "surrogateescape")))

    check_all(f"{name} string", lambda rng: damaged_text(line, rng), run, listed=False)


TEXTS = {
    "quickstart": (CONFIGS / "quickstart.config").read_text(),
    "search": (CONFIGS / "mnasfpn_search_coco.config").read_text(),
    "od_api": config_text("ssd_mobilenet_v2_fpn_keras"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_configs(tmp_path, name):
    path = tmp_path / "damaged.config"
    # Only the quickstart's data are there.
    readers = READERS if name == "quickstart" else ()

    def run(content):
        path.write_bytes(content)
        pipeline = config.load(path, readers=readers)
        if pipeline.HasField("search_config"):
            space = factory.from_config(
                pipeline.search_config.search_space, config.resolve(pipeline).architecture
            )
            assert space.cardinality() > 0
        return build(config.resolve(pipeline).architecture, config.resolve(pipeline).image_size)

    messages = check_all(
        name, lambda rng: damaged_text(TEXTS[name], rng), run, listed=True, count=100
    )
    # Errors in a search space name the space instead of the file.
    assert all(str(path) in message or "search space" in message for message in messages)
