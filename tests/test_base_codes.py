"""SM-NAS's strings: what they mean, how they are printed, and where they cannot be read."""

import random

import pytest

from mnasdet import base_codes
from mnasdet.errors import ConfigError


def test_a_string_is_a_block_a_base_and_the_digits_of_four_stages():
    network = base_codes.parse("basicblock_64_1-21-21-12")
    assert network == base_codes.BaseCodeNetwork("basicblock", 64, ((1,), (2, 1), (2, 1), (1, 2)))
    assert network.planes == ((64,), (128, 128), (256, 256), (256, 512))


# Channels of P1 to P4 of the paper's models: its table 2, E2 with the base that its figures need.
@pytest.mark.parametrize(
    ("code", "widths", "groups"),
    [
        ("basicblock_64_1-21-21-12", (64, 128, 256, 512), 1),
        ("basicblock_72_111-2111-2-111112", (72, 144, 288, 576), 1),
        ("basicblock_56_12-11111-211-1112", (112, 112, 224, 448), 1),
        ("bottleneck_56_211-111111111-2111111-11112111", (448, 448, 896, 1792), 1),
        ("Xbottleneck_56_21-21-111111111111111-2111111", (448, 896, 896, 1792), 28),
    ],
)
def test_the_channels_that_a_pyramid_takes(code, widths, groups):
    network = base_codes.parse(code)
    assert (network.widths, network.groups) == (widths, groups)


def test_a_random_string_is_printed_as_it_was_read():
    draw = random.Random(0)
    for _ in range(300):
        stages = ["".join(draw.choices("12", k=draw.randint(1, 30))) for _ in range(4)]
        block = draw.choice(list(base_codes.EXPANSIONS))
        code = f"{block}_{2 * draw.randint(1, 999)}_{'-'.join(stages)}"
        network = base_codes.parse(code)
        assert str(network) == code
        assert network.num_blocks == sum(map(len, stages))
        doubled = 2 ** sum(stage.count("2") for stage in stages)
        assert network.planes[-1][-1] == network.base * doubled


@pytest.mark.parametrize(
    ("code", "place", "message"),
    [
        ("", 1, "one of"),
        ("Basicblock_64_1-2-2-2", 1, "one of basicblock"),
        ("basicblock", 12, "even number"),
        ("basicblock_63_1-2-2-2", 12, '"63": the base is an even number'),
        ("basicblock_064_1-2-2-2", 12, "even number"),
        (f"basicblock_{'6' * 5000}_1-2-2-2", 12, "even number"),
        ("basicblock_64", 15, "4 stages are needed, joined by -; there are 0"),
        ("basicblock_64_1-2-2", 15, "there are 3"),
        ("basicblock_64_1-2-2-2-2", 15, "there are 5"),
        ("basicblock_64_1-21-31-12", 20, '"3": a block is 1'),
        ("basicblock_64_1-21--12", 20, '"": a block is 1'),
        ("basicblock_64_1-21-21-12 ", 25, '" ": a block is 1'),
        ("basicblock_64_1-21-2_-12", 21, '"_": a block is 1'),
    ],
)
def test_an_error_names_the_place(code, place, message):
    with pytest.raises(ConfigError) as raised:
        base_codes.parse(code)
    assert "\n" not in str(raised.value)
    assert f", character {place}: " in str(raised.value)
    assert message in str(raised.value)
