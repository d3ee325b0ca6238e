"""Configs with random damage end in one of our own errors, and soon."""

import random
import time

import pytest

from mnasdet import config
from mnasdet.errors import ConfigError
from tests.config_fragments import CONFIGS
from tests.od_api_configs import config_text

TEXTS = {
    "ours": (CONFIGS / "quickstart.config").read_text(),
    "od_api": config_text("ssd_mobilenet_v2_fpn_keras"),
}
MUTATIONS = 250

# What people and programs leave in a file, beside single characters.
PIECES = [
    "{",
    "}",
    '"',
    "\\",
    "\n",
    "2147483647",
    "-1",
    "nan",
    "1e400",
    "“",
    "\u200b",
    "model {",
    "x: 1",
]


def mutated(text, rng):
    """The text with one to three pieces dropped, doubled, replaced or put in."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(text))
        end = min(len(text), start + rng.choice([0, 1, 1, 8, 40]))
        piece = rng.choice([*PIECES, "", text[start:end] * 2, chr(rng.randrange(32, 300))])
        text = text[:start] + piece + text[end:]
    return text


@pytest.mark.parametrize("name", TEXTS)
def test_random_damage_gives_lines_and_no_traceback(tmp_path, name):
    rng = random.Random(name)
    path = tmp_path / "damaged.config"
    messages = []
    for _ in range(MUTATIONS):
        text = mutated(TEXTS[name], rng)
        path.write_text(text, encoding="utf-8")
        start = time.process_time()
        try:
            config.load(path, readers=())
        except ConfigError as error:
            messages.append(str(error))
        assert time.process_time() - start < 2, text
    # Comments and blanks may be damaged without harm; most else is not.
    assert len(messages) > MUTATIONS / 2
    assert all(str(path) in message for message in messages)
