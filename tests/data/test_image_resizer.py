import pytest
from google.protobuf import text_format

from mnasdet.data.image_resizer import ImageResizer
from mnasdet.protos import image_resizer_pb2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fixed_shape_resizer { height: 96 width: 128 }", ImageResizer((96, 128))),
        ("fixed_shape_resizer {}", ImageResizer((300, 300))),
        (
            "fixed_shape_resizer { resize_method: AREA convert_to_grayscale: true }",
            ImageResizer((300, 300), resize_method=image_resizer_pb2.AREA, grayscale=True),
        ),
        (
            "keep_aspect_ratio_resizer { min_dimension: 320 max_dimension: 640 "
            "pad_to_max_dimension: true resize_method: BICUBIC "
            "per_channel_pad_value: [1, 2, 3] convert_to_grayscale: true }",
            ImageResizer((640, 640), 320, image_resizer_pb2.BICUBIC, (1, 2, 3), True),
        ),
        ("keep_aspect_ratio_resizer {}", ImageResizer((1024, 1024), 600)),
    ],
)
def test_from_proto(text, expected):
    assert (
        ImageResizer.from_proto(text_format.Parse(text, image_resizer_pb2.ImageResizer()))
        == expected
    )


def test_the_centre_is_looked_at_in_evaluation_alone():
    text = "center_crop_resizer { height: 96 width: 128 crop_fraction: 0.75 }"
    resizer = ImageResizer.from_proto(text_format.Parse(text, image_resizer_pb2.ImageResizer()))
    assert resizer == ImageResizer((96, 128), crop_fraction=0.75)
    assert resizer.of_whole_images() == ImageResizer((96, 128))
    assert resizer.resized((48, 64)) == ImageResizer((48, 64), crop_fraction=0.75)
