"""Name maps: placeholders, and errors that say where."""

import pytest
from google.protobuf import text_format

from mnasdet.errors import ConfigError
from mnasdet.protos import name_map_pb2
from mnasdet.training.warm_start import name_map


def of(text):
    return name_map.NameMap(text_format.Parse(text, name_map_pb2.NameMap()))


def names(one, layer):
    return [found.name for found in one.layers(layer)]


def test_numbers_are_counted_from_ours():
    one = of("""
      group {
        scope { ours: "backbone/layer_{n:3-5}" theirs: "blocks.1.{n-3}" }
        scope { ours: "backbone/layer_{n:6-19}" theirs: "conv_{2n-4}" }
        layer { ours: "expand/conv" theirs: ".conv_pw" }
        layer { ours: "unit_{m}" theirs: ".unit{m+1}" }
      }
      group { layer { ours: "backbone/a_{n}/b_{m}" theirs: "{m}.{n}" } }
    """)
    assert names(one, "backbone/layer_3/expand/conv") == ["blocks.1.0.conv_pw"]
    assert names(one, "backbone/layer_5/unit_7") == ["blocks.1.2.unit8"]
    assert names(one, "backbone/layer_19/expand/conv") == ["conv_34.conv_pw"]
    assert names(one, "backbone/layer_2/expand/conv") == []
    assert names(one, "backbone/layer_20/expand/conv") == []
    assert names(one, "backbone/a_12/b_3") == ["3.12"]
    # The dot of a name is a dot.
    assert names(of('group { layer { ours: "a.b" theirs: "c" } }'), "axb") == []


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        ('ours: "a_{n}" theirs: "b_{m}"', r'"b_{m}" has the placeholder m, which "a_{n}" has not'),
        ('ours: "a_{N}" theirs: "b"', r'"a_{N}" has a brace that is part of no placeholder'),
        ('ours: "a_{n}" theirs: "b_{n*2}"', r'"b_{n\*2}" has a brace that is part of no placeh'),
        ('ours: "a_{n}_{n}" theirs: "b_{n}"', r'"a_{n}_{n}" has a placeholder twice'),
    ],
)
def test_a_wrong_placeholder_is_told(pair, told):
    with pytest.raises(ConfigError, match=told):
        of(f"group {{ layer {{ {pair} }} }}")


def test_errors_in_a_file_have_its_line(tmp_path):
    path = tmp_path / "mine.textproto"
    path.write_text('source: "mine"\n\ngroup {\n  layer { ous: "a" theirs: "b" }\n}\n')
    with pytest.raises(ConfigError, match=r'mine.textproto:4:11: .*no field "ous"'):
        name_map.load(path)
    path.write_text('group { layer { ours: "a" theirs: "b_{n}" } }')
    with pytest.raises(ConfigError, match=r'mine.textproto: "b_{n}" has the placeholder n'):
        name_map.load(path)


def test_roots_and_included_files(tmp_path):
    (tmp_path / "shared.textproto").write_text("""
      source: "shared"
      batch_norm_epsilon: 0.5
      has: "{root}/first/kernel"
      group { layer { ours: "a_{n}" theirs: "{root}/b_{n}" } }
    """)
    (tmp_path / "mine.textproto").write_text("""
      source: "mine"
      root: "One"
      root: "Two/Three"
      include: "shared.textproto"
      group { layer { ours: "c" theirs: "d" } batch_norm_epsilon: 0.25 }
    """)
    one, other = name_map.load(tmp_path / "mine.textproto")
    assert one.source == other.source == "mine"
    assert one.is_of({"One/first/kernel": ()})
    assert not one.is_of({"Two/Three/first/kernel": ()})
    assert other.is_of({"Two/Three/first/kernel": ()})
    (found,) = other.layers("a_4")
    assert (found.name, found.batch_norm_epsilon) == ("Two/Three/b_4", 0.5)
    (found,) = other.layers("c")
    assert (found.name, found.batch_norm_epsilon) == ("d", 0.25)


def test_no_file_is_of_two_sources():
    """Tests that the names which recognise one source recognise no other."""
    for one in name_map.all_maps():
        found = [other for other in name_map.all_maps() if other.is_of(dict.fromkeys(one.has))]
        others = [other.source for other in found if other.source != one.source]
        assert others == [], one.source
        assert one.proto.source
        assert one.has
