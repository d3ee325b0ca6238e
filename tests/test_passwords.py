"""Passwords of databases, which nothing prints and nothing writes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnasdet import config, errors, passwords, text_proto
from mnasdet.protos import pipeline_pb2

ROOT = Path(__file__).parents[1]

# Texts with the password "hush", in some form, and what may be shown of them.
TEXTS = {
    "postgresql://u:hush@h/db": "postgresql://u:***@h/db",
    "postgresql+psycopg://u:hush@h:5432/d: no": "postgresql+psycopg://u:***@h:5432/d: no",
    "postgresql://u:hu/hush@x@h/db": "postgresql://u:***@h/db",
    "postgresql://u:hush:hush@h/db": "postgresql://u:***@h/db",
    'in "postgresql://u:hush, hush@h/db" b': 'in "postgresql://u:***@h/db" b',
    "postgresql://u@h/db?password=hush&x=1": "postgresql://u@h/db?password=***&x=1",
    "postgresql://u@h/db?sslpassword=hush": "postgresql://u@h/db?sslpassword=***",
    "host=h password=hush": "host=h password=***",
    # Ill-formed or cut, as typing errors and long lines make them.
    "postgresql//u:hush@h/db": "postgresql//u:***@h/db",
    "postgresql:u:hush@h/db": "postgresql:u:***@h/db",
    "postgres://u:hush": "postgres://u:***",
    'url: "postgresql://u:hush" "@h/db"': 'url: "postgresql://u:***" "@h/db"',
    'url: "postgresql://u:hush@h/db': 'url: "postgresql://u:***@h/db',
    "mysql://u:hush@h/db": "mysql://u:***@h/db",
    "postgresql://u:12345hush@h": "postgresql://u:***@h",
}

# Texts that stay as they are.
PLAIN = (
    "postgresql://h:5432/db",
    "postgresql://h:5432",
    "postgresql://u@h:5432/db",
    "postgresql://u:***@h/db?password=***",
    "use postgresql://USER:PASSWORD@HOST/DATABASE, with %40 for @",
    "/tmp/a@b/x.config:3:5: what is this",
    "https://example.org:8080/x: mail me@example.org",
    "sqlite:////tmp/a:b/c.db",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_password_is_masked(text):
    assert passwords.masked(text) == TEXTS[text]
    assert passwords.masked(TEXTS[text]) == TEXTS[text]
    assert "hush" not in passwords.masked(f"one line\n{text}\nanother")


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_stay(text):
    assert passwords.masked(text) == text


@pytest.mark.parametrize(
    "part", ["postgresql://", "//u:p", '"//u:', "postgresql://u:p", "password="]
)
def test_a_long_text_takes_no_time(part):
    start = time.monotonic()
    passwords.masked(f"@{part * 20_000}")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", [errors.UserError, errors.ConfigError, errors.DataError])
def test_no_error_of_ours_has_a_password(kind):
    assert str(kind("postgresql://u:hush@h/db: refused")) == "postgresql://u:***@h/db: refused"


# All ways to standard error, those of bugs of ours among them.
_TELLS = """
import sys
import time
from absl import flags, logging
from mnasdet import terminal
terminal.set_up()
flags.FLAGS.mark_as_parsed()
url = "postgresql://u:hush@h/db"
logging.warning("no %s", url)
print("error:", url, file=sys.stderr)
raise ValueError(url)
"""


def test_nothing_on_standard_error_has_a_password():
    done = subprocess.run([sys.executable, "-c", _TELLS], capture_output=True, text=True, cwd=ROOT)
    warning, error, *trace = done.stderr.splitlines()
    assert warning == "warning: no postgresql://u:***@h/db"
    assert error == "error: postgresql://u:***@h/db"
    assert trace[-1] == "ValueError: postgresql://u:***@h/db"
    assert "hush" not in done.stderr


CONFIG = 'search_config { trial_store { url: "postgresql://u:hush@h/db" %s } }'


@pytest.mark.parametrize(
    "damage",
    [
        "nonsense: 1",
        "url",
        'url: "postgresql://u:hush@h/db"',
        "} } model { ssd {",
        '"',
        "\u201c",
        f"search_name: {'x' * 200} y",
        f"{' ' * 60}nonsense: 1",
    ],
)
def test_a_line_of_a_config_is_quoted_without_its_password(tmp_path, damage):
    path = tmp_path / "x.config"
    path.write_text(CONFIG % damage)
    with pytest.raises(errors.ConfigError) as caught:
        config.load(path)
    assert "hush" not in str(caught.value)
    assert "hus" not in str(caught.value)


def test_a_config_is_written_without_the_password():
    pipeline = text_proto.parse(CONFIG % "", pipeline_pb2.TrainEvalPipelineConfig, "x")
    pipeline.train_config.num_steps = 5
    written = text_proto.parse(config.to_text(pipeline), pipeline_pb2.TrainEvalPipelineConfig, "x")
    assert written.search_config.trial_store.url == "postgresql://u@h/db"
    assert written.train_config.num_steps == 5
    assert pipeline.search_config.trial_store.url == "postgresql://u:hush@h/db"


@pytest.mark.parametrize(
    ("url", "without"),
    [
        ("postgresql://u:p@h/db", "postgresql://u@h/db"),
        ("postgresql://u:p%40x@h:1/db?sslmode=a", "postgresql://u@h:1/db?sslmode=a"),
        ("postgresql://u:a@b@h/db", "postgresql://u@h/db"),
        ("postgresql://u@/db?host=/run&password=x&sslpassword=y", "postgresql://u@/db?host=/run"),
        ("postgresql://h/db?password=x", "postgresql://h/db"),
        ("postgresql://h:5432/db", "postgresql://h:5432/db"),
        ("sqlite:////a:b/c@d.db", "sqlite:////a:b/c@d.db"),
        ("runs/a:b@c/trials.db", "runs/a:b@c/trials.db"),
        ("", ""),
    ],
)
def test_a_url_loses_its_password_and_nothing_else(url, without):
    assert passwords.removed(url) == without
