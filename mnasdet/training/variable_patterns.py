"""Regular expressions of a config that pick variables by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from mnasdet.errors import ConfigError


def found(patterns: Iterable[str], name: str) -> bool:
    """Tells whether one of the expressions is found anywhere in a name."""
    return any(re.search(pattern, name) for pattern in patterns)


def check(field: str, patterns: Iterable[str], names: Collection[str]) -> None:
    """Checks that every expression picks at least one variable.

    Args:
      field: of train_config, where the expressions are.
      names: of all variables.

    Raises:
      ConfigError: an expression is found in no name: it is misspelt, or of another network.
    """
    for pattern in patterns:
        if not any(found([pattern], name) for name in names):
            raise ConfigError(
                f'train_config.{field} has "{pattern}", which no variable\'s name contains; '
                f'a name is "{next(iter(names))}", for example'
            )
