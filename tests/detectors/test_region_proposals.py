"""Tests the effect of the settings of the OD API's first stage on its anchors."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet import config, text_proto
from mnasdet.detectors import region_proposals
from mnasdet.detectors.targets import IGNORED
from mnasdet.detectors.two_stage_network import two_stage_network
from mnasdet.protos import pipeline_pb2
from tests.config_fragments import merge, nested
from tests.od_api_faster_rcnn_configs import config_text

SIDE = 64


def first_stage(clips):
    """The first stage of faster_rcnn_resnet50 with squares of 16 and of 64 pixels."""
    pipeline = text_proto.parse(
        config_text("faster_rcnn_resnet50"), pipeline_pb2.TrainEvalPipelineConfig, "od_api.config"
    )
    changes = f"""
      image_resizer {{ fixed_shape_resizer {{ height: {SIDE} width: {SIDE} }} }}
      first_stage_anchor_generator {{
        grid_anchor_generator {{ scales: [0.0625, 0.25] aspect_ratios: 1 height_offset: 8 }}
      }}
      first_stage_minibatch_size: 32
      clip_anchors_to_image: {str(clips).lower()}
    """
    merge(nested("model.faster_rcnn", changes), pipeline)
    blueprint = config.resolve(pipeline)
    network = two_stage_network(blueprint.architecture, (SIDE, SIDE), 3)
    return region_proposals.build(blueprint, network)


@pytest.fixture(scope="module")
def inside():
    """[row, column, anchor]: of the squares of 16 those of all columns but the first."""
    whole = np.zeros((4, 4, 2), bool)
    whole[:, 1:, 0] = True
    return whole.ravel()


def test_anchors_end_at_the_edge_of_the_image():
    boxes = first_stage(clips=True).anchors.reshape(4, 4, 2, 4) * SIDE
    # Centres at 8, 24, 40 and 56 pixels down and at 0, 16, 32 and 48 across.
    np.testing.assert_allclose(boxes[0, 0, 0], (0, 0, 16, 8), atol=1e-4)
    np.testing.assert_allclose(boxes[1, 1, 0], (16, 8, 32, 24), atol=1e-4)
    np.testing.assert_allclose(boxes[3, 3, 1], (24, 16, 64, 64), atol=1e-4)
    np.testing.assert_array_equal(first_stage(clips=False).anchors * SIDE, boxes.reshape(-1, 4))


@pytest.mark.parametrize("clips", [True, False])
def test_anchors_across_the_edge_count_only_where_they_are_clipped(clips, inside):
    stage = first_stage(clips)
    np.testing.assert_array_equal(stage.is_counted, np.ones(32, bool) if clips else inside)
    # The whole image is an object: the anchors that find it cross the edge.
    targets = stage.targets(tf.constant([[0.0, 0.0, 1.0, 1.0]]))
    counted = targets["rpn_class_targets"] != IGNORED
    drawn = targets["rpn_anchors"].numpy()[counted.numpy()]
    assert set(drawn) <= set(np.flatnonzero(stage.is_counted))
    assert (1 in targets["rpn_class_targets"].numpy()) == clips
