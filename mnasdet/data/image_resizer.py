"""How an image of any size becomes the input of a network, as `image_resizer` of a config says.

Read here without TensorFlow; `preprocessing.preprocess` does it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mnasdet.protos import image_resizer_pb2


@dataclass(frozen=True)
class ImageResizer:
    """How images are resized.

    Attributes:
      image_size: (height, width) of the input in pixels.
      min_dimension: 0 stretches an image to `image_size`. Otherwise its aspect ratio is kept: its
        shorter side becomes this long, or as long as lets the longer one fit, and the rest of the
        input, on the right and below, is padding.
      resize_method: one of image_resizer.proto's.
      pad_color: (red, green, blue) of the padding, 0 to 255.
      grayscale: puts the luminance in all three channels. (The OD API's networks take one then;
        ours have three always.)
      crop_fraction: 0 looks at all of the image. Otherwise at its centre alone: the side of that
        over the side of the largest centred window that has the input's shape.
    """

    image_size: tuple[int, int]
    min_dimension: int = 0
    resize_method: image_resizer_pb2.ResizeType = image_resizer_pb2.BILINEAR
    pad_color: tuple[float, ...] = (0.0, 0.0, 0.0)
    grayscale: bool = False
    crop_fraction: float = 0.0

    def of_whole_images(self) -> ImageResizer:
        """Returns the resizer of training, whose augmentation has chosen a part already."""
        return dataclasses.replace(self, crop_fraction=0.0)

    def resized(self, image_size: tuple[int, int] | None) -> ImageResizer:
        """Returns the resizer for another input size, (height, width); itself for None.

        Where the aspect ratio is kept, the shorter side grows or shrinks as the input's longer one.
        """
        if image_size is None or image_size == self.image_size:
            return self
        ratio = max(image_size) / max(self.image_size)
        min_dimension = max(1, round(self.min_dimension * ratio)) if self.min_dimension else 0
        return dataclasses.replace(self, image_size=image_size, min_dimension=min_dimension)

    @classmethod
    def from_proto(cls, proto: image_resizer_pb2.ImageResizer) -> ImageResizer:
        """Reads the resizer of a config.

        A network takes images of one size: keep_aspect_ratio_resizer pads to a square of
        max_dimension whether it says pad_to_max_dimension or not. Without it, the OD API can only
        take one image at a time, and finds the same in it.
        """
        if proto.WhichOneof("image_resizer_oneof") == "keep_aspect_ratio_resizer":
            keeping = proto.keep_aspect_ratio_resizer
            return cls(
                (keeping.max_dimension, keeping.max_dimension),
                keeping.min_dimension,
                keeping.resize_method,
                tuple(keeping.per_channel_pad_value) or cls.pad_color,
                keeping.convert_to_grayscale,
            )
        if proto.WhichOneof("image_resizer_oneof") == "center_crop_resizer":
            center = proto.center_crop_resizer
            return cls(
                (center.height, center.width),
                resize_method=center.resize_method,
                crop_fraction=center.crop_fraction,
            )
        fixed = proto.fixed_shape_resizer
        return cls(
            (fixed.height, fixed.width),
            resize_method=fixed.resize_method,
            grayscale=fixed.convert_to_grayscale,
        )
