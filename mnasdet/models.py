"""The model of a blueprint: its network, and what learns."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.blueprint import Blueprint
from mnasdet.networks.graph import Network
from mnasdet.protos import architecture_pb2
from mnasdet.tasks import Task


def network(blueprint: Blueprint) -> Network:
    """Returns the graphs that are deployed; no TensorFlow."""
    return network_of(blueprint.architecture, blueprint.image_size, blueprint.num_classes)


def network_of(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int], num_classes: int
) -> Network:
    """Returns the graphs of an architecture: a detector's raw predictions, a classifier's logits.

    A two-stage detector has a graph for the image and one for a region at each stage.

    Args:
      image_size: (height, width) in pixels.
      num_classes: without the background.
    """
    if architecture.HasField("classifier"):
        from mnasdet.classifiers.network import classification_network

        return classification_network(architecture, image_size, num_classes)
    if architecture.HasField("region_head"):
        from mnasdet.detectors.two_stage_network import two_stage_network

        return two_stage_network(architecture, image_size, num_classes).deployed
    from mnasdet.detectors.network import detection_network

    return detection_network(architecture, image_size, num_classes).deployed


def build(blueprint: Blueprint) -> Task:
    """Returns the detector or classifier of a blueprint, with fresh weights."""
    # Late, as in `network_of`: a search that trains elsewhere builds graphs without TensorFlow.
    if blueprint.subnets:
        from mnasdet.supernets import shared_task

        return shared_task.build(blueprint)
    if blueprint.kind == "classification":
        from mnasdet.classifiers import classifier

        return classifier.build(blueprint)
    if blueprint.kind == "faster_rcnn":
        from mnasdet.detectors import two_stage

        return two_stage.build(blueprint)
    from mnasdet.detectors import one_stage

    return one_stage.build(blueprint)
