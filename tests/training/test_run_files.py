"""The files beside checkpoints that say what they are checkpoints of."""

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.errors import CheckpointError
from mnasdet.training import run_files

LABELS = {1: "cat"}


@pytest.fixture
def folder(tiny_pipeline, tmp_path):
    run_files.write(tmp_path, config.resolve(tiny_pipeline), tiny_pipeline, LABELS)
    return tmp_path


def edit(folder, old, new):
    path = folder / run_files.CONFIG_FILE
    text = path.read_text()
    assert text.startswith("# sha256 of the lines below: ")
    assert old in text
    path.write_text(text.replace(old, new))


def check_same(folder, pipeline):
    run_files.check_same(folder, config.resolve(pipeline), pipeline, LABELS)


def test_a_config_that_somebody_edited_is_compared_all_the_same(tiny_pipeline, folder, caplog):
    edit(folder, "num_steps: 8", "num_steps: 80")
    check_same(folder, tiny_pipeline)  # The number of steps may change.
    edit(folder, "momentum_optimizer {", "rms_prop_optimizer {")
    with pytest.raises(CheckpointError) as caught:
        check_same(folder, tiny_pipeline)
    message = str(caught.value)
    assert f"{folder} holds checkpoints of another training: " in message
    assert "train_config.optimizer.rms_prop_optimizer is set in the folder, not" in message
    place = folder / run_files.CONFIG_FILE
    warning = f"{place}: was damaged or changed after mnasdet wrote it; what it says now is used"
    assert [record.message for record in caplog.records] == [warning, warning]


def test_the_image_size_of_an_edited_config_is_warned_of(tiny_pipeline, folder, caplog):
    edit(folder, "height: 64", "height: 96")
    run_files.check_usable(folder, config.resolve(tiny_pipeline), LABELS)
    assert f"{folder} was trained at 96x64; the config has 64x64" in caplog.text


def test_another_network_than_that_of_the_config_is_warned_of(tiny_pipeline, folder, caplog):
    run_files.warn_of_other_layers(folder, config.resolve(tiny_pipeline))
    assert not caplog.records
    tiny_pipeline.model.architecture.feature_pyramid.mnasfpn.repeats = 2
    run_files.warn_of_other_layers(folder, config.resolve(tiny_pipeline))
    assert (
        f"{folder} holds another network than the config's, and that one is used: architecture."
        "feature_pyramid.mnasfpn.repeats is 1 in the folder, 2 in the config"
    ) in caplog.text


def test_a_config_that_cannot_be_read_is_not_compared(tiny_pipeline, folder, caplog):
    edit(folder, "momentum_optimizer {", "momentun_optimizer {")
    check_same(folder, tiny_pipeline)
    assert "not compared with the config that trained: " in caplog.text
    assert 'did you mean "momentum_optimizer"?' in caplog.text


def test_a_folder_of_version_0_1_goes_on_at_the_size_of_its_config(tiny_pipeline, folder):
    """It held the size that a named architecture was published at, and trained at the config's."""
    path = folder / run_files.ARCHITECTURE_FILE
    old = config.resolve(tiny_pipeline).architecture
    old.ClearField("published_at")
    old.image_size = 320
    path.write_text(text_format.MessageToString(old))
    check_same(folder, tiny_pipeline)
    trained = config.load_trained_architecture(path)
    assert config.resolve(tiny_pipeline, trained).image_size == (64, 64)


def test_a_size_may_be_said_by_the_config_or_by_the_architecture(tiny_pipeline, folder):
    """Version 0.1 wrote a searched size into the resizer of the winner's config."""
    trial = config.resolve(tiny_pipeline).architecture
    trial.input.height = trial.input.width = 64
    tiny_pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = 96
    tiny_pipeline.model.ssd.image_resizer.fixed_shape_resizer.width = 96
    blueprint = config.resolve(tiny_pipeline, trial)
    run_files.check_same(folder, blueprint, tiny_pipeline, LABELS)
    trial.input.height = 96
    with pytest.raises(CheckpointError, match=r"input\.height is 64 in the folder, 96"):
        run_files.check_same(folder, config.resolve(tiny_pipeline, trial), tiny_pipeline, LABELS)
