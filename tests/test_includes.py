"""Configs that include others: what wins, and where every error is."""

import pytest
from google.protobuf import text_format

from mnasdet import config, includes, packaged, text_proto
from mnasdet.errors import ConfigError
from mnasdet.protos import pipeline_pb2
from tests.config_fragments import CONFIGS

QUICKSTART = (CONFIGS / "quickstart.config").read_text()


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def problem(path):
    """The one line of an error."""
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    (line,) = str(caught.value).splitlines()
    return line


def test_the_including_file_wins(write):
    write(
        "base.config",
        """
        train_config {
          batch_size: 4
          num_steps: 100
          freeze_variables: ["a", "b", "c"]
          optimizer {
            momentum_optimizer {
              learning_rate { cosine_decay_learning_rate { total_steps: 100 warmup_steps: 7 } }
              momentum_optimizer_value: 0.8
            }
            use_moving_average: false
          }
        }
        eval_config { batch_size: 3 }
        """,
    )
    path = write(
        "my.config",
        """
        include: "base.config"
        train_config {
          num_steps: 7
          freeze_variables: "d"
          optimizer {
            momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 2 } } }
          }
        }
        """,
    )
    expected = """
        train_config {
          batch_size: 4
          num_steps: 7
          freeze_variables: "d"
          optimizer {
            momentum_optimizer {
              learning_rate { constant_learning_rate { learning_rate: 2 } }
              momentum_optimizer_value: 0.8
            }
            use_moving_average: false
          }
        }
        eval_config { batch_size: 3 }
        """
    message = includes.read(path).message
    assert message == text_format.Parse(expected, pipeline_pb2.TrainEvalPipelineConfig())


def test_a_later_file_wins_and_each_includes_relative_to_itself(write):
    write("parts/a.config", 'include: "../b.config" train_config { batch_size: 1 num_steps: 1 }')
    write("b.config", "train_config { num_steps: 9 } eval_config { batch_size: 9 }")
    write("c.config", "train_config { batch_size: 2 }")
    path = write("my.config", 'include: ["parts/a.config", "c.config"]')
    message = includes.read(path).message
    assert (message.train_config.batch_size, message.train_config.num_steps) == (2, 1)
    assert message.eval_config.batch_size == 9
    assert not message.include


def test_a_packaged_config_is_included_by_its_name_from_anywhere(write, monkeypatch):
    path = write("my.config", 'include: "configs/quickstart.config" train_config { num_steps: 7 }')
    monkeypatch.chdir(path.parent)
    loaded = config.load("my.config")
    own = config.load(packaged.find_config("quickstart"))
    assert loaded.train_config.num_steps == 7
    own.train_config.num_steps = 7
    assert loaded == own


def test_what_is_written_is_the_whole(write):
    write("base.config", QUICKSTART)
    loaded = config.load(write("my.config", 'include: "base.config"'))
    written = config.to_text(loaded)
    assert "include" not in written
    again = text_proto.parse(written, pipeline_pb2.TrainEvalPipelineConfig, "written")
    assert again == config.load(CONFIGS / "quickstart.config")


def test_every_problem_has_its_file_and_line(write):
    base = write("base.config", QUICKSTART.replace("num_classes: 10", "num_classes: 0"))
    line = QUICKSTART[: QUICKSTART.index("num_classes: 10")].count("\n") + 1
    path = write("my.config", 'include: "base.config"\n\ntrain_config { batch_size: 0 }')
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    first, *others = str(caught.value).splitlines()
    assert first == f"{len(others)} problems in {path}:"
    assert "  line 3: train_config.batch_size is 0; at least 1 is allowed" in others
    assert f"  {base}:{line}: model.ssd.num_classes is 0; at least 1 is allowed" in others


def test_a_field_that_is_gone_is_not_where_it_was(write):
    """Neither in the old values of a repeated field, nor in the old member of a oneof."""
    inputs = "inputs { height: 128 width: 128 }"
    text = QUICKSTART.replace("search_space {", "search_space { " + inputs)
    text = text.replace(
        "reward { mnasfpn { exponent: -0.3 }", "reward { tunas { target_latency_ms: 9 }"
    )
    write("base.config", text)
    write("other.config", 'include: "base.config" search_config { reward { mnasfpn {} } }')
    path = write(
        "my.config",
        """include: "other.config"
        search_config {
          search_space { inputs { height: 64 } }
          reward { tunas {} }
        }
        """,
    )
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(caught.value).splitlines() == [
        f"2 problems in {path}:",
        "  line 3: search_config.search_space.inputs[0].width is 0; at least 1 is allowed",
        "  line 4: search_config.reward.tunas.target_latency_ms is 0; more than 0 is allowed",
    ]


def test_an_error_in_an_included_file_is_told_with_its_line(write):
    base = write("base.config", "model {\n  sdd {}\n}")
    path = write("my.config", 'include: "base.config"')
    assert problem(path).startswith(f'{base}:2:3: no field "sdd" in DetectionModel; did you mean')


def test_a_missing_file_is_told_with_the_line_that_names_it(write):
    write("base.config", QUICKSTART)
    path = write("my.config", '# mine\ninclude: "bse.config"')
    assert problem(path).startswith(
        f'{path}:2: include is "bse.config": bse.config: no such file; did you mean '
        f"{path.parent / 'base.config'}?; with mnasdet comes one of configs/"
    )
    path = write("my.config", 'include: "parts/base.config"')
    folder = path.parent / "parts"
    assert problem(path) == (
        f'{path}:1: include is "parts/base.config": {folder / "base.config"}: no such file; there '
        f"is no folder {folder} either"
    )
    assert problem(write("my.config", 'include: ""')) == f'{path}:1: include is ""; name a config'
    folder.mkdir()
    assert problem(write("my.config", 'include: "parts"')).startswith(f"{folder}: is a directory")


def test_a_circle_is_told_with_its_files(write):
    a = write("a.config", 'include: "b.config"')
    b = write("b.config", 'train_config {}\ninclude: "a.config"')
    assert problem(a) == f'{b}:2: include is "a.config", a circle: {a} includes {b} includes {a}'
    path = write("my.config", 'include: "./my.config"')
    assert f"a circle: {path} includes {path}" in problem(path)


def test_files_that_many_others_include_are_read_once(write):
    """Each of 40 files names the next one twice: to read all of them would never end."""
    for i in range(40):
        write(f"{i}.config", f'include: ["{i + 1}.config", "{i + 1}.config"]')
    path = write("40.config", QUICKSTART).with_name("0.config")
    assert config.load(path) == config.load(CONFIGS / "quickstart.config")


def test_a_message_with_an_include_is_no_whole_config():
    pipeline = config.load(CONFIGS / "quickstart.config")
    pipeline.include.append("base.config")
    assert config.check(pipeline) == ['include is "base.config"; config.load reads it, from a file']
