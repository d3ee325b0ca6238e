import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.errors import UserError
from mnasdet.protos import architecture_pb2
from mnasdet.search_spaces.composed import ComposedSpace, Part, difference
from mnasdet.search_spaces.space import Decision
from tests.search_spaces.architectures import changed


class StemPart(Part):
    """The stem and last widths of a MnasNet, the last one at least twice the stem."""

    fields = ("backbone.mnasnet.stem_channels", "backbone.mnasnet.last_channels")

    def decisions(self, first):
        wider = ((True, True), (False, True))
        return [Decision("stem", (16, 32)), Decision("last", (32, 64), ((first, wider),))]

    def write(self, values, architecture):
        architecture.backbone.mnasnet.stem_channels = values["stem"]
        architecture.backbone.mnasnet.last_channels = values["last"]

    def read(self, architecture):
        mnasnet = architecture.backbone.mnasnet
        return {"stem": mnasnet.stem_channels, "last": mnasnet.last_channels}


class DropoutPart(Part):
    fields = ("classifier.dropout",)

    def decisions(self, first):
        return [Decision("dropout", (0.5, 0.25))]

    def write(self, values, architecture):
        architecture.classifier.dropout = values["dropout"]

    def read(self, architecture):
        return {"dropout": architecture.classifier.dropout}


@pytest.fixture
def base():
    return config.load_architecture("mnasnet_a1")


@pytest.fixture
def space(base):
    return ComposedSpace(base, [DropoutPart(), StemPart()])


def test_decisions_are_those_of_the_parts_in_their_order(space):
    assert [decision.name for decision in space.decisions] == ["dropout", "stem", "last"]
    # The table's first index counts from the start of the space.
    assert [i for i, _ in space.decisions[2].narrowed_by] == [1]
    assert space.cardinality() == 2 * 3


def test_decode_is_the_base_and_what_the_parts_write(space, base):
    architecture = space.decode((1, 1, 1))
    expected = changed(
        base, lambda a: [a.ClearField(f) for f in ("name", "source", "published_at")]
    )
    expected.classifier.dropout = 0.25
    expected.backbone.mnasnet.stem_channels = 32
    expected.backbone.mnasnet.last_channels = 64
    assert architecture == expected
    assert base.name == "mnasnet_a1"


def test_example_has_the_first_choices(space):
    assert space.example == space.decode((0, 0, 0))


def test_round_trip(space):
    for tokens in [(0, 0, 0), (1, 0, 1), (0, 1, 1)]:
        assert space.encode(space.decode(tokens)) == tokens


def test_name_source_and_what_it_was_published_at_do_not_matter(space):
    architecture = space.decode((1, 1, 1))
    architecture.name, architecture.source, architecture.published_at.height = "x", "y", 7
    assert space.encode(architecture) == (1, 1, 1)


def test_what_no_part_chooses_has_to_be_as_in_the_base(space):
    architecture = space.decode((1, 1, 1))
    architecture.name = "mine"
    architecture.backbone.mnasnet.block[2].channels = 41
    with pytest.raises(
        UserError,
        match=r"'mine': backbone.mnasnet.block\[2\].channels is 41, but 40 in the search space",
    ):
        space.encode(architecture)


def parse(text):
    return text_format.Parse(text, architecture_pb2.Architecture())


@pytest.mark.parametrize(
    ("expected", "other", "said"),
    [
        ("", "depth_multiplier: 1.0 min_depth: 16", ""),
        ("exit: 2", "exit: 3", "exit is 3, but 2"),
        (
            "backbone { mnasnet { stem_channels: 8 } }",
            "backbone { mnasnet {} }",
            "backbone.mnasnet.stem_channels is 32, but 8",
        ),
        (
            "backbone { mnasnet {} }",
            "backbone { mobilenet_v2 {} }",
            "backbone.mobilenet_v2 is not what is",
        ),
        (
            "backbone { mnasnet { block {} block { repeats: 2 } } }",
            "backbone { mnasnet { block { expansion: 6 } block {} } }",
            "backbone.mnasnet.block[1].repeats is 1, but 2",
        ),
        (
            "backbone { mnasnet { block {} } }",
            "backbone { mnasnet {} }",
            "backbone.mnasnet.block has 0 entries, but 1 are",
        ),
        # Hyper-parameters that are given replace the publication's, even without values.
        (
            "backbone { mnasnet {} }",
            "backbone { mnasnet {} conv_hyperparams {} }",
            "backbone.conv_hyperparams is not what is",
        ),
    ],
)
def test_difference(expected, other, said):
    assert difference(parse(expected), parse(other)) == said


def test_fields_that_are_left_out_make_no_difference():
    expected = parse("exit: 2 backbone {}")
    other = parse("exit: 3 backbone { mnasnet {} }")
    assert difference(expected, other, ["exit", "backbone.mnasnet"]) == ""
    assert difference(expected, other, ["exit"]) == "backbone.mnasnet is not what is"
