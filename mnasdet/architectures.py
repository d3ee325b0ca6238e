"""Facts about an architecture that its layers have in common. No TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf import text_format

from mnasdet.protos import anchor_generator_pb2, architecture_pb2

# The coarsest level that a backbone gives; level l has stride 2^l.
COARSEST = 5

# The level of SSD's first feature; every further one is a level coarser.
_SSD_LEVEL = 4

# The level that proposes regions where there is no pyramid, and the last stage of the backbone
# judges them (He et al., "Deep Residual Learning", 2016, appendix A).
_REGION_LEVEL = 4

# No image is so large that a coarser level makes sense.
MAX_LEVEL = 12
MAX_SSD_LAYERS = MAX_LEVEL - _SSD_LEVEL - 1

NUM_ASPECT_RATIOS = 3  # The default of multiscale anchors.


def levels(architecture: architecture_pb2.Architecture) -> Sequence[int]:
    """Returns the levels that predict, or propose regions, finest first.

    A classifier has none. Without a pyramid there is one level of the backbone.
    """
    pyramid = architecture.feature_pyramid
    match name := pyramid.WhichOneof("feature_pyramid_oneof"):
        case None if architecture.HasField("classifier"):
            return range(0)
        case None:
            # With the backbone's last stage in the head, the image does not run through it.
            in_head = architecture.region_head.HasField("last_backbone_stage")
            level = _REGION_LEVEL if in_head else COARSEST
            return range(level, level + 1)
        case "ssd_layers":
            num_layers = min(len(pyramid.ssd_layers.channels), MAX_SSD_LAYERS)
            return range(_SSD_LEVEL, _SSD_LEVEL + 2 + num_layers)
        case "fpn" if _lists_levels(pyramid.fpn):
            return tuple(pyramid.fpn.output_level)
    return levels_of(getattr(pyramid, name))


def _lists_levels(fpn: architecture_pb2.Fpn) -> bool:
    return fpn.variant == architecture_pb2.Fpn.TWO_STAGE and len(fpn.output_level) > 0


def levels_of(pyramid: Any) -> range:
    """Returns the levels of a pyramid, without those that no pyramid can have."""
    return range(max(pyramid.min_level, 0), min(pyramid.max_level, MAX_LEVEL) + 1)


def anchors_per_location(
    generator: anchor_generator_pb2.AnchorGenerator, num_features: int
) -> list[int]:
    """Returns the number of anchors at one location of each feature, finest first."""
    if generator.HasField("ssd_anchor_generator"):
        ssd = generator.ssd_anchor_generator
        count = len(ssd.aspect_ratios) + (ssd.interpolated_scale_aspect_ratio > 0)
        finest = 3 if ssd.reduce_boxes_in_lowest_layer else count
        return [finest] + [count] * (num_features - 1)
    if generator.HasField("grid_anchor_generator"):
        grid = generator.grid_anchor_generator
        return [len(grid.scales) * len(grid.aspect_ratios)] * num_features
    multiscale = generator.multiscale_anchor_generator
    num_ratios = len(multiscale.aspect_ratios) or NUM_ASPECT_RATIOS
    return [multiscale.scales_per_octave * num_ratios] * num_features


def num_anchors(architecture: architecture_pb2.Architecture, height: int, width: int) -> int:
    """Returns the anchors of all levels in an image of that size in pixels."""
    predicting = levels(architecture)
    at_a_place = anchors_per_location(architecture.anchor_generator, len(predicting))
    if architecture.region_proposal.HasField("guided_anchoring"):
        # Every place has the one anchor that is predicted for it.
        at_a_place = [1] * len(predicting)
    # A feature has a place for each 2^level pixels, and one for the rest.
    places = [-(-height // 2**level) * -(-width // 2**level) for level in predicting]
    return sum(count * anchors for count, anchors in zip(places, at_a_place, strict=False))


def region_stages(
    architecture: architecture_pb2.Architecture,
) -> list[architecture_pb2.RegionStage]:
    """Returns the stages of a region head, all settings filled in: one if none is stated."""
    stages = []
    for stated in architecture.region_head.stage or [architecture_pb2.RegionStage()]:
        stage = architecture_pb2.RegionStage()
        stage.CopyFrom(stated)
        # Ren et al.'s deviations of 0.1 and 0.2, as factors.
        stage.box_scales[:] = stage.box_scales or (10.0, 10.0, 5.0, 5.0)
        stages.append(stage)
    return stages


def region_side(align: architecture_pb2.RegionAlign) -> int:
    """Returns the bins along a side of a region that its head sees; a max pool pads nothing."""
    return (align.size - align.max_pool_size) // align.max_pool_stride + 1


def smallest_image_size(architecture: architecture_pb2.Architecture) -> int:
    """Returns the least side in pixels of an image.

    Cells merge features of different sizes, so each level has to be smaller than the one before;
    for all others it is enough that the backbone's coarsest feature is there.
    """
    if architecture.feature_pyramid.WhichOneof("feature_pyramid_oneof") in ("mnasfpn", "nas_fpn"):
        return 2 ** max(levels(architecture), default=COARSEST)
    return 2**COARSEST


def num_exits(architecture: architecture_pb2.Architecture) -> int:
    """Returns the repeats of the feature pyramid, after each of which a predictor may stand.

    An architecture without a pyramid has one exit.
    """
    pyramid = architecture.feature_pyramid
    name = pyramid.WhichOneof("feature_pyramid_oneof")
    return getattr(getattr(pyramid, name), "repeats", 1) if name else 1


def input_size(architecture: architecture_pb2.Architecture) -> tuple[int, int] | None:
    """Returns the (height, width) that the architecture decides; None where a config does."""
    if not architecture.HasField("input"):
        return None
    return architecture.input.height, architecture.input.width


def default_input_size(architecture: architecture_pb2.Architecture) -> tuple[int, int] | None:
    """Returns the (height, width) of an architecture without a config: its own, or the one that it
    was published at; None where it names neither."""
    published = architecture.published_at
    return input_size(architecture) or (
        (published.height, published.width) if architecture.HasField("published_at") else None
    )


def from_trial(text: str) -> architecture_pb2.Architecture:
    """Parses the text proto of a trial.

    Trials of version 0.1 have the searched image size in `image_size`.
    """
    return with_input(text_format.Parse(text, architecture_pb2.Architecture()))


def with_input(architecture: architecture_pb2.Architecture) -> architecture_pb2.Architecture:
    """Moves `image_size`, where version 0.1 kept a searched size, to `input`; returns the same."""
    if architecture.image_size:
        side = architecture.image_size
        architecture.input.height = architecture.input.width = side
    architecture.ClearField("image_size")
    return architecture


class ChosenPlace(NamedTuple):
    """A layer that is one of the operations that it lists.

    Attributes:
      name: the scope of its nodes, such as "backbone/layer_1"; without the stage, of a region head.
      path: of the layer in the Architecture.
    """

    name: str
    path: str
    layer: architecture_pb2.ChosenLayer

    @property
    def part(self) -> str:
        """Returns "backbone", "feature_pyramid" or "region_head"."""
        return self.name.partition("/")[0]


def chosen_places(architecture: architecture_pb2.Architecture) -> list[ChosenPlace]:
    """Returns the layers that list operations, from the image on."""
    pyramid = architecture.feature_pyramid.hit
    lists = [
        ("backbone/layer_", 1, "backbone.operation_layers.layer"),
        ("feature_pyramid/lateral_", 0, "feature_pyramid.hit.lateral"),
        ("feature_pyramid/output_", 0, "feature_pyramid.hit.output"),
        ("region_head/chosen_", 1, "region_head.chosen_layers.layer"),
    ]
    layers = [
        architecture.backbone.operation_layers.layer,
        pyramid.lateral,
        pyramid.output,
        architecture.region_head.chosen_layers.layer,
    ]
    return [
        ChosenPlace(f"{name}{first + place}", f"{path}[{place}]", layer)
        for (name, first, path), of_list in zip(lists, layers, strict=True)
        for place, layer in enumerate(of_list)
    ]


def chosen_place(choice: str) -> str:
    """Returns the name of the `ChosenPlace` that a network's choice belongs to.

    The stages of a region head share the list of operations.

    Args:
      choice: the name of its node.
    """
    return re.sub(r"^region_head/stage_\d+/", "region_head/", choice).removesuffix("/choice")
