"""Configs of the TF Object Detection API, one a feature extractor, train as they are."""

import math

import pytest

from mnasdet import config, models
from mnasdet.evaluation.coco import MAP
from mnasdet.networks.cost import cost_sheet
from mnasdet.training import trainer
from tests.od_api_configs import EXTRACTORS, config_text


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_two_steps(extractor, tmp_path, eager):
    text = config_text(extractor)
    # Smaller pictures and batches make it quick; layers, losses and optimizer stay.
    side = 96 if "ssd_anchor_generator" in text else 128
    path = tmp_path / "pipeline.config"
    path.write_text(text)
    pipeline = config.load(path, readers=())
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = side
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.width = side
    pipeline.model.ssd.num_classes = 10
    pipeline.train_config.batch_size = 2
    pipeline.train_config.num_steps = 2
    pipeline.train_input_reader.digits_input_reader.num_images = 4
    pipeline.eval_input_reader[0].digits_input_reader.num_images = 2
    pipeline.train_input_reader.digits_input_reader.image_size = side
    pipeline.eval_input_reader[0].digits_input_reader.image_size = side
    assert config.check(pipeline) == []
    if "resnet1" in extractor:
        # ResNet-50 with more blocks of each stage, whose training takes a minute.
        assert cost_sheet(models.network(config.resolve(pipeline))).total.params > 5e7
        return
    metrics = trainer.train(pipeline)
    assert metrics["step"] == 2
    assert math.isfinite(metrics[MAP])
