"""Tokens and their places."""

import time

from mnasdet.text_faults.tokens import tokens

TEXT = """# a { comment
model: < ssd {
\tname: 'it\\'s' "b"; [1, 2.5e-3]
  other: "never closed }
} >"""


def test_tokens_have_their_kind_line_and_column():
    found = [(token.kind, token.text, token.line, token.column) for token in tokens(TEXT)]
    assert found == [
        ("word", "model", 2, 1),
        ("mark", ":", 2, 6),
        ("mark", "<", 2, 8),
        ("word", "ssd", 2, 10),
        ("mark", "{", 2, 14),
        ("word", "name", 3, 2),
        ("mark", ":", 3, 6),
        ("string", "'it\\'s'", 3, 8),
        ("string", '"b"', 3, 16),
        ("mark", "[", 3, 21),
        ("word", "1", 3, 22),
        ("word", "2.5e-3", 3, 25),
        ("mark", "]", 3, 31),
        ("word", "other", 4, 3),
        ("mark", ":", 4, 8),
        ("open_string", '"never closed }', 4, 10),
        ("mark", "}", 5, 1),
        ("mark", ">", 5, 3),
    ]
    assert all(TEXT[token.start : token.end] == token.text for token in tokens(TEXT))


def test_the_time_grows_with_the_text_also_on_one_line():
    for separator in (" ", "\n"):
        start = time.process_time()
        assert sum(1 for _ in tokens(separator.join(["a: 1"] * 50_000))) == 150_000
        # About 0.2 s; counting lines and columns from the start took minutes.
        assert time.process_time() - start < 3
