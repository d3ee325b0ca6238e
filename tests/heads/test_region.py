"""The second stage's layers: counts that are published, shapes, the last stage of a backbone."""

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet.backbones.resnet import resnet
from mnasdet.heads import region
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2


def head(shape, text, num_classes=3):
    b = Builder()
    architecture = text_format.Parse(text, architecture_pb2.Architecture())
    x = b.input(shape, "region_features_1")
    return region.from_proto(b, x, architecture, num_classes=num_classes)


def test_2fc_has_the_published_weights_and_multiply_adds():
    """14.3 M: Hit-Detector (Guo et al., 2020), table 1; 81 classes with the background."""
    total = cost_sheet(list(head((7, 7, 256), "region_head { fully_connected {} }", 80))).total
    layers = 7 * 7 * 256 * 1024 + 1024 * 1024 + 1024 * (81 + 4 * 80)
    assert total.multiply_adds == layers
    assert total.trainable_params == layers + 2 * 1024 + 81 + 4 * 80 == 14_306_705


@pytest.mark.parametrize(("agnostic", "boxes"), [("true", 1), ("false", 3)])
def test_boxes_are_for_each_class_or_for_all(agnostic, boxes):
    text = f"region_head {{ fully_connected {{ channels: 8 }} class_agnostic_boxes: {agnostic} }}"
    box, logits = head((3, 5, 4), text)
    assert (box.shape, logits.shape) == ((boxes, 4), (4,))


def test_layers_see_all_of_a_region():
    text = "region_head { fully_connected { num_layers: 1 channels: 8 } }"
    model = keras_model(list(head((2, 2, 3), text)))
    x = np.random.default_rng(0).normal(size=(5, 2, 2, 3)).astype(np.float32)
    weights = {v.name: v.numpy() for v in model.variables}
    hidden = np.maximum(x.reshape(5, -1) @ weights["layer_1/conv/kernel:0"][0, 0], 0)
    logits = hidden @ weights["class/conv/kernel:0"][0, 0]
    np.testing.assert_allclose(model(x)[1], logits, rtol=1e-4, atol=1e-6)


def test_dropout_stands_before_the_predictions():
    text = "region_head { fully_connected { channels: 8 } dropout: 0.5 }"
    nodes = reachable(head((3, 3, 4), text))
    (dropout,) = (node for node in nodes if node.op == "dropout")
    readers = {node.name for node in nodes if dropout in node.inputs}
    assert readers == {"box/conv", "class/conv"}


def test_the_last_stage_of_a_backbone_has_the_weights_that_it_has_in_the_backbone():
    text = """
      backbone { resnet { depth: 50 } }
      region_head { last_backbone_stage {} }
    """
    b = Builder()
    features = resnet(b, b.input((224, 224, 3)), depth=50)
    both = [cost_sheet([features.levels[level]]).total.trainable_params for level in (5, 4)]
    nodes = reachable(head((7, 7, 1024), text))
    predictions = 2048 * (4 + 12) + 4 + 12
    params = cost_sheet([nodes[-1], *head((7, 7, 1024), text)]).total.trainable_params
    assert params == both[0] - both[1] + predictions
    # The size of a region stays, unless the stage is told to stride.
    assert {node.size for node in nodes if node.name.startswith("stage_5")} == {(7, 7)}
    strided = reachable(head((14, 14, 1024), text.replace("stage {}", "stage { stride: 2 }")))
    last = [node for node in strided if node.name == "stage_5/block_3/relu"]
    assert last[0].shape == (7, 7, 2048)


def test_stated_hyperparameters():
    text = """
      region_head {
        fully_connected { channels: 8 }
        hyperparams {
          op: FC
          regularizer { l2_regularizer { weight: 0.5 } }
          initializer { truncated_normal_initializer { stddev: 0.25 } }
        }
      }
    """
    convs = [node for node in reachable(head((3, 3, 4), text)) if node.op == "conv2d"]
    assert {(node.attrs["l2"], node.attrs["initializer"].stddev) for node in convs} == {
        (0.25, 0.25)
    }
