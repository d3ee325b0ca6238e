"""Configs of the TF Object Detection API's two-stage detectors train as they are."""

import math

from mnasdet import config, models
from mnasdet.evaluation.coco import MAP
from mnasdet.training import trainer
from tests.config_fragments import merge
from tests.od_api_faster_rcnn_configs import config_text

SIDE = 64

# Smaller pictures and batches and fewer regions make it quick; layers, losses and optimizer stay.
SMALLER = f"""
  model {{
    faster_rcnn {{
      num_classes: 10
      image_resizer {{
        keep_aspect_ratio_resizer {{ min_dimension: {SIDE} max_dimension: {SIDE} }}
      }}
      first_stage_max_proposals: 4
      second_stage_batch_size: 4
    }}
  }}
  train_config {{ batch_size: 1 num_steps: 2 }}
  train_input_reader {{ digits_input_reader {{ num_images: 2 image_size: {SIDE} }} }}
  eval_input_reader {{ digits_input_reader {{ num_images: 1 image_size: {SIDE} }} }}
"""


def test_two_steps(tmp_path, monkeypatch, eager):
    """Trains TF1's config; the others differ by what tests/feature_extractors compares."""
    path = tmp_path / "pipeline.config"
    path.write_text(config_text("faster_rcnn_resnet50"))
    pipeline = config.load(path, readers=())
    pipeline.eval_input_reader[0].ClearField("tf_record_input_reader")
    merge(SMALLER, pipeline)
    assert config.check(pipeline) == []
    tasks = []
    build = models.build
    monkeypatch.setattr(
        models, "build", lambda blueprint: tasks.append(build(blueprint)) or tasks[0]
    )
    metrics = trainer.train(pipeline)
    assert metrics["step"] == 2
    assert math.isfinite(metrics[MAP])
    # The config says nothing of batch normalisation, and the OD API's default freezes it.
    norms = [layer for layer in tasks[0].model.layers if layer.name.endswith("batch_norm")]
    assert len(norms) == 53
    assert not any(layer.trainable for layer in norms)
