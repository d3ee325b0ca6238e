"""Feature pyramids as Keras layers: `p3, p4, p5, p6 = MnasFPN()([c3, c4, c5])`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import tf_keras

from mnasdet.feature_pyramids import fpn, hit, mnasfpn, nas_fpn, ssd_layers
from mnasdet.keras import parts
from mnasdet.keras.graph_layer import GraphLayer
from mnasdet.networks import hyperparams
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures

# Their pyramids are the published ones.
_PUBLISHED_MNASFPN = "mobilenet_v2_mnasfpn"
_PUBLISHED_NAS_FPN = "resnet50_nas_fpn_7_256"


class FeaturePyramid(GraphLayer):
    """A feature pyramid, from a backbone's features to the list of its own, finest first.

    The features that come in are of levels `min_level`, `min_level` + 1 and so on, each half the
    size of the one before; level l has stride 2^l. Coarser levels are made from the last.

    All pyramids share these arguments:

    Args:
      depth_multiplier: factor on every width.
      min_depth: the least of the scaled widths.
      conv_hyperparams: the fields of `Hyperparams` in protos/hyperparams.proto, in place of what
        the publication uses, as {"activation": "RELU_6", "batch_norm": {"decay": 0.99}}.
      **kwargs: name, trainable and dtype, as every Keras layer has them.
    """

    # The field of FeaturePyramid in protos/architecture.proto, and what reads it.
    kind: ClassVar[str]
    read: Callable[..., list[list[Node]]]

    def __init__(
        self,
        fields: dict[str, Any],
        *,
        depth_multiplier: float = 1.0,
        min_depth: int = 16,
        conv_hyperparams: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        values = parts.scaled_values(
            "feature_pyramid", self.kind, fields, depth_multiplier, min_depth, conv_hyperparams
        )
        self._message = parts.checked(values, self._title()).feature_pyramid
        self.depth_multiplier = float(depth_multiplier)
        self.min_depth = int(min_depth)

    @classmethod
    def from_architecture(
        cls, architecture: parts.ArchitectureLike, **kwargs: Any
    ) -> FeaturePyramid:
        """Makes the feature pyramid of an architecture.

        Args:
          architecture: a published one's name, the path of a .textproto (a trial's too), an
            architecture string, or the message.
          **kwargs: in place of what the architecture says.
        """
        resolved = parts.resolved(architecture)
        arguments = parts.scaled_fields(resolved, "feature_pyramid", cls.kind, cls.__name__)
        if resolved.exit and "repeats" in arguments:
            # The repeats after the exit would be built for nothing.
            arguments["repeats"] = resolved.exit
        return cls(**(arguments | kwargs))

    def network(self, b: Builder, inputs: list[Node]) -> list[Node]:
        repeats = self.read(
            b,
            self._features(inputs),
            getattr(self._message, self.kind),
            depth_multiplier=self.depth_multiplier,
            min_depth=self.min_depth,
            hyperparams=hyperparams.configured(self._message),
        )
        return repeats[-1]

    def get_config(self) -> dict[str, Any]:
        own = parts.scaled_config(self._message, self.kind) | {
            "depth_multiplier": self.depth_multiplier,
            "min_depth": self.min_depth,
        }
        return super().get_config() | own

    def _features(self, inputs: list[Node]) -> BackboneFeatures:
        """Returns the features that come in by their level."""
        levels = self._levels(len(inputs))
        pairs = itertools.pairwise(zip(levels, inputs, strict=True))
        for (fine_level, fine), (coarse_level, coarse) in pairs:
            # Rounded up, as strided convolutions with SAME padding do.
            stride = 2 ** (coarse_level - fine_level)
            expected = tuple(-(-side // stride) for side in fine.size)
            if coarse.size != expected:
                raise ValueError(
                    f"a feature of {_text(fine.size)} comes before one of {_text(coarse.size)}; "
                    f"{_text(expected)} is needed, {'half' if stride == 2 else f'1/{stride}'} of it"
                )
        return BackboneFeatures(dict(zip(levels, inputs, strict=True)), inputs[-1])

    def _levels(self, count: int) -> list[int]:
        """Returns the levels of the features that come in."""
        message = getattr(self._message, self.kind)
        listed = list(getattr(message, "input_level", ()))
        if listed and len(listed) != count:
            raise ValueError(
                f"{count} features come in; {len(listed)} are needed, those of levels {listed}"
            )
        # Fewer are fine: the pyramid makes the coarser levels itself.
        most = message.max_level - message.min_level + 1
        if not listed and count > most:
            raise ValueError(
                f"{count} features come in; at most {most} are allowed, those of levels "
                f"{message.min_level} to {message.max_level}"
            )
        return listed or list(range(message.min_level, message.min_level + count))


def _text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


@tf_keras.utils.register_keras_serializable("mnasdet")
class MnasFPN(FeaturePyramid):
    """MnasFPN (Chen et al., 2019): a searched cell, repeated.

    Args:
      channels: C, of every feature that it gives.
      repeats: how often the cell is applied, each time with weights of its own.
      block: the blocks of the cell, each a dict of the fields of MnasFpn.Block in
        protos/architecture.proto; the last, one a level, give the cell's features. By default the
        published cell.
      min_level: of the finest feature, `max_level` of the coarsest one.
      size_dependent_ordering: down-sample before the 1x1 convolution instead of after it (3.2).
      cell_residual: add the cell's input to the output of the same shape (3.1).
      **kwargs: those of `FeaturePyramid`.
    """

    kind = "mnasfpn"
    read = staticmethod(mnasfpn.from_proto)

    def __init__(
        self,
        channels: int = 48,
        repeats: int = 4,
        *,
        block: Sequence[dict[str, Any]] | None = None,
        min_level: int = 3,
        max_level: int = 6,
        size_dependent_ordering: bool = True,
        cell_residual: bool = True,
        **kwargs: Any,
    ):
        if block is None:
            published = parts.resolved(_PUBLISHED_MNASFPN).feature_pyramid
            block = parts.fields(published.mnasfpn)["block"]
        fields = {
            "channels": channels,
            "repeats": repeats,
            "block": list(block),
            "min_level": min_level,
            "max_level": max_level,
            "size_dependent_ordering": size_dependent_ordering,
            "cell_residual": cell_residual,
        }
        super().__init__(fields, **kwargs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class NASFPN(FeaturePyramid):
    """NAS-FPN (Ghiasi et al., 2019): a searched pyramid network, stacked.

    Args:
      channels: of every feature.
      repeats: how many pyramid networks are stacked, each with weights of its own.
      cell: the merging cells of one, each a dict of the fields of NasFpn.MergingCell in
        protos/architecture.proto; the last, one a level, give its features. By default the
        published ones.
      min_level: of the finest feature, `max_level` of the coarsest one.
      separable: depthwise separable 3x3 convolutions, NAS-FPNLite's.
      drop_block_keep_probability: share of the units kept in training, 1 for all.
      drop_block_size: side of a block of units that DropBlock drops.
      **kwargs: those of `FeaturePyramid`.
    """

    kind = "nas_fpn"
    read = staticmethod(nas_fpn.from_proto)

    def __init__(
        self,
        channels: int = 256,
        repeats: int = 7,
        *,
        cell: Sequence[dict[str, Any]] | None = None,
        min_level: int = 3,
        max_level: int = 7,
        separable: bool = False,
        drop_block_keep_probability: float = 1.0,
        drop_block_size: int = 3,
        **kwargs: Any,
    ):
        if cell is None:
            published = parts.resolved(_PUBLISHED_NAS_FPN).feature_pyramid
            cell = parts.fields(published.nas_fpn)["cell"]
        fields = {
            "channels": channels,
            "repeats": repeats,
            "cell": list(cell),
            "min_level": min_level,
            "max_level": max_level,
            "separable": separable,
            "drop_block_keep_probability": drop_block_keep_probability,
            "drop_block_size": drop_block_size,
        }
        super().__init__(fields, **kwargs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class FPN(FeaturePyramid):
    """A feature pyramid network (Lin et al., 2017).

    Args:
      channels: of every feature.
      min_level: of the finest feature, `max_level` of the coarsest one.
      separable: depthwise separable 3x3 convolutions, FPNLite's.
      variant: "RETINANET", or "OBJECT_DETECTION_API", whose coarsest feature that comes in is the
        backbone's "last" and not its "c5", or "TWO_STAGE", that of Faster R-CNN.
      input_level: with "TWO_STAGE", the levels that come in, and `output_level`, those that the
        layer gives, in place of `min_level` and `max_level`; SM-NAS's P1 to P6 are levels 2 to 7.
      strided_levels: with "TWO_STAGE", levels coarser than all that come in are made by strided
        convolutions, and not by taking every other value.
      **kwargs: those of `FeaturePyramid`.
    """

    kind = "fpn"
    read = staticmethod(fpn.from_proto)

    def __init__(
        self,
        channels: int = 256,
        *,
        min_level: int = 3,
        max_level: int = 7,
        separable: bool = False,
        variant: str = "RETINANET",
        input_level: Sequence[int] = (),
        output_level: Sequence[int] = (),
        strided_levels: bool = False,
        **kwargs: Any,
    ):
        fields = {
            "channels": channels,
            "min_level": min_level,
            "max_level": max_level,
            "separable": separable,
            "variant": variant.upper(),
            "input_level": list(input_level),
            "output_level": list(output_level),
            "strided_levels": strided_levels,
        }
        super().__init__(fields, **kwargs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class HitPyramid(FeaturePyramid):
    """Hit-Detector's neck (Guo et al., 2020): top-down, then bottom-up, with an operation a layer.

    Args:
      channels: of every feature.
      min_level: of the finest feature, `max_level` of the coarsest one.
      lateral: for each level that comes in, finest first, a dict with a single `op`, such as
        {"op": ["sep_k5_d3"]}; `output`: likewise, after the coarser level was added. By default
        those of Hit-Detector.
      **kwargs: those of `FeaturePyramid`.
    """

    kind = "hit"
    read = staticmethod(hit.from_proto)

    def __init__(
        self,
        channels: int = 256,
        *,
        min_level: int = 2,
        max_level: int = 6,
        lateral: Sequence[dict[str, Any]] | None = None,
        output: Sequence[dict[str, Any]] | None = None,
        **kwargs: Any,
    ):
        published = parts.fields(parts.resolved("hit_detector").feature_pyramid.hit)
        fields = {
            "channels": channels,
            "min_level": min_level,
            "max_level": max_level,
            "lateral": list(published["lateral"] if lateral is None else lateral),
            "output": list(published["output"] if output is None else output),
        }
        super().__init__(fields, **kwargs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class SSDLayers(FeaturePyramid):
    """The features of SSD (Liu et al., 2016) and SSDLite (Sandler et al., 2018): two of a backbone,
    "expansion" and "last", as they are, and extra layers after them.

    Args:
      channels: of the extra layers, each half the size of the one before.
      separable: depthwise separable extra layers, SSDLite's.
      **kwargs: those of `FeaturePyramid`.
    """

    kind = "ssd_layers"
    read = staticmethod(ssd_layers.from_proto)

    def __init__(
        self,
        channels: Sequence[int] = (512, 256, 256, 128),
        *,
        separable: bool = True,
        **kwargs: Any,
    ):
        super().__init__({"channels": list(channels), "separable": separable}, **kwargs)

    def _features(self, inputs: list[Node]) -> BackboneFeatures:
        if len(inputs) != 2:
            raise ValueError(
                f"{len(inputs)} features come in; 2 are needed, a backbone's expansion and last"
            )
        expansion, last = inputs
        return BackboneFeatures({}, last, expansion)
