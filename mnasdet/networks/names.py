"""The names of a network's variables, and what they tell."""

from __future__ import annotations

import re

# A stage of the backbone that runs for regions, in the head's scope.
_STAGE_OF_REGIONS = re.compile(r"^region_head/stage_\d+/(?=stage_\d+/)")


def in_backbone(name: str) -> str:
    """Returns the name that a variable or a layer has where the whole backbone runs for the image.

    Without a pyramid the last stage of a two-stage detector's backbone runs for its regions; its
    weights come from the same place.
    """
    return _STAGE_OF_REGIONS.sub("backbone/", name)


def part_of(name: str) -> str:
    """Returns the part of the model that has a variable, "backbone": its outermost scope."""
    return in_backbone(name).partition("/")[0]
