import pytest

from mnasdet import config
from mnasdet.errors import ConfigError, UserError
from mnasdet.search_spaces.composed import ComposedSpace
from mnasdet.search_spaces.scale import FieldPart, repeats_part, scale_parts


@pytest.fixture
def base():
    return config.load_architecture("mobilenet_v2_mnasfpn")


def make(base, *parts):
    return ComposedSpace(base, parts)


def test_several_values_are_a_decision(base):
    space = make(base, *scale_parts("toy", [1.0, 0.7], [320, 256, 192]))
    assert [(d.name, d.choices) for d in space.decisions] == [
        ("depth_multiplier", (1.0, 0.7)),
        ("image_size", (320, 256, 192)),
    ]
    assert space.cardinality() == 6
    architecture = space.decode((1, 2))
    assert architecture.depth_multiplier == pytest.approx(0.7)
    assert (architecture.input.height, architecture.input.width) == (192, 192)
    assert space.encode(architecture) == (1, 2)


def test_one_value_is_simply_written(base):
    space = make(base, *scale_parts("toy", [0.5], [256]))
    assert space.decisions == ()
    example = space.example
    assert (example.depth_multiplier, example.input.height, example.input.width) == (0.5, 256, 256)
    with pytest.raises(UserError, match="depth_multiplier is 1.0, but 0.5"):
        space.encode(base)


def test_what_is_left_out_stays_as_in_the_base(base):
    base.depth_multiplier = 0.75
    assert scale_parts("toy") == []
    example = make(base).example
    assert example.depth_multiplier == 0.75
    assert not example.HasField("input")


def test_values_of_a_config_are_those_that_were_written(base):
    # float32 keeps 0.699999988 of 0.7.
    base.depth_multiplier = 0.7
    space = make(base, *scale_parts("toy", [base.depth_multiplier, 0.35]))
    assert space.decisions[0].choices == (0.7, 0.35)
    assert space.encode(base) == (0,)


def test_a_searched_image_size_counts(base):
    space = make(base, *scale_parts("toy", image_sizes=[256, 320]))
    base.input.height = base.input.width = 320
    assert space.encode(base) == (1,)
    base.input.width = 300
    with pytest.raises(UserError, match="image_size is 320x300, but the search space has 256, 320"):
        space.encode(base)


def test_images_need_be_no_squares(base):
    space = make(base, *scale_parts("toy", inputs=[(256, 448), (320, 320)]))
    assert [(d.name, d.choices) for d in space.decisions] == [("input", ("256x448", "320x320"))]
    architecture = space.decode((0,))
    assert (architecture.input.height, architecture.input.width) == (256, 448)
    assert space.encode(architecture) == (0,)
    single = make(base, *scale_parts("toy", inputs=[(256, 448)]))
    assert single.decisions == ()
    assert single.example == architecture


def test_a_base_keeps_the_input_that_it_decides(base):
    base.input.height, base.input.width = 192, 256
    assert make(base, *scale_parts("toy", [1.0, 0.5])).decode((1,)).input == base.input


def test_repeats(base):
    space = make(base, repeats_part(base, "toy", "mnasfpn", [3, 4, 5]))
    assert [(d.name, d.choices) for d in space.decisions] == [("repeats", (3, 4, 5))]
    assert space.decode((2,)).feature_pyramid.mnasfpn.repeats == 5
    assert space.encode(base) == (1,)
    single = make(base, repeats_part(base, "toy", "mnasfpn", 2))
    assert single.decisions == ()
    assert single.example.feature_pyramid.mnasfpn.repeats == 2


def test_repeats_reach_the_exit(base):
    base.exit = 3
    repeats_part(base, "toy", "mnasfpn", [3, 4])
    with pytest.raises(ConfigError, match="toy search space: repeats is .4, 2.; use 3 or more, as"):
        repeats_part(base, "toy", "mnasfpn", [4, 2])


@pytest.mark.parametrize(
    ("repeats", "message"),
    [(0, "repeats is 0; use 1 or more"), ([3, 0], "repeats is .3, 0."), ([3, 3], "different")],
)
def test_impossible_repeats_are_refused(base, repeats, message):
    with pytest.raises(ConfigError, match=f"toy search space: .*{message}"):
        repeats_part(base, "toy", "mnasfpn", repeats)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth_multipliers": [1.0, 0.0]}, r"depth_multipliers is \[1.0, 0.0\]; use different po"),
        ({"depth_multipliers": [float("inf")]}, r"depth_multipliers is \[inf\]"),
        ({"depth_multipliers": [0.5, 0.5]}, "depth_multipliers"),
        ({"image_sizes": [-32]}, r"image_sizes is \[-32\]; use different positive numbers"),
        ({"image_sizes": [32, 32]}, "image_sizes"),
        ({"inputs": [(64, 0)]}, r"inputs is \[\(64, 0\)\]; use different positive heights and wid"),
        ({"inputs": [(64, 32), (64, 32)]}, "inputs"),
        ({"inputs": [(64, 32)], "image_sizes": [64]}, "give either image_sizes or inputs"),
    ],
)
def test_impossible_scales_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"toy search space: {message}"):
        scale_parts("toy", **arguments)


def test_a_field_is_found_by_its_path(base):
    part = FieldPart("feature_pyramid.mnasfpn.cell_residual", [False])
    part.write({}, base)
    assert not base.feature_pyramid.mnasfpn.cell_residual
    assert part.read(base) == {"cell_residual": False}
