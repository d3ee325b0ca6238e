"""The rules on one-stage and two-stage detectors: which of them a config may build."""

from __future__ import annotations

from mnasdet.config_checks.section import Section
from mnasdet.config_checks.ssd import check_settings
from mnasdet.protos import architecture_pb2, search_pb2

# The fields of `one_stage` that something else says: the message around it, or the architecture.
_WITHOUT_EFFECT = {
    "num_classes": "model.faster_rcnn.num_classes counts",
    "image_resizer": "model.faster_rcnn.image_resizer counts",
    "feature_extractor": "the architecture says it",
    "box_predictor": "the architecture says it",
    "anchor_generator": "the architecture says it",
}


def check_stages(root: Section, architecture: architecture_pb2.Architecture | None) -> None:
    """Checks that the model has settings for all detectors that a config names.

    Args:
      root: the whole config.
      architecture: what the model builds, as far as that is known.
    """
    model = root.child("model")
    kind = model.message.WhichOneof("model")
    if kind == "faster_rcnn" and model.message.faster_rcnn.HasField("one_stage"):
        one_stage = model.child("faster_rcnn").child("one_stage")
        for name, counts in _WITHOUT_EFFECT.items():
            if one_stage.message.HasField(name):
                one_stage.report(name, f"has no effect; {counts}: remove it")
        check_settings(one_stage)
    # check_faster_rcnn says what its own architecture needs.
    if kind == "ssd" and architecture is not None and architecture.HasField("region_head"):
        field = model.message.WhichOneof("architecture_oneof")
        _check_has_settings(root, f"model.{field}", two_stages=True)
    search = root.child("search_config")
    for space in (search.child("search_space"), search.child("second_stage").child("search_space")):
        if space.message.HasField("structure"):
            for stages in sorted(stages_of(space.message.structure)):
                _check_has_settings(root, f"{space.path}.structure", stages == 2)


def _check_has_settings(root: Section, what: str, two_stages: bool) -> None:
    """Reports detectors that the model cannot build.

    Args:
      what: the field that names them.
    """
    model = root.message.model
    kind = model.WhichOneof("model")
    if two_stages and kind == "ssd":
        root.problems.append(
            f"{what}: model.ssd builds no detectors of two stages; write model {{ faster_rcnn "
            "{ ... } } in its place"
        )
    if not two_stages and kind == "faster_rcnn" and not model.faster_rcnn.HasField("one_stage"):
        root.problems.append(
            f"{what}: detectors of one stage need model.faster_rcnn.one_stage, which is missing; "
            "write their box_coder, matcher, loss and post_processing there"
        )


def stages_of(space: search_pb2.StructureSpaceConfig) -> set[int]:
    """Returns how many stages the detectors of a search space have: 1, 2, or either.

    A list that is left out has all that fit the other.
    """
    heads = {1 if head == "retinanet" else 2 for head in space.heads} or {1, 2}
    proposals = {1 if name == "none" else 2 for name in space.region_proposals} or {1, 2}
    return heads & proposals
