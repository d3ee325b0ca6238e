"""Tells what a warm start took over, and what it did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from absl import logging

from mnasdet.errors import CheckpointError

# Names in one line of the log; --v=1 gives the others.
_SHOWN = 3

# The share of variables without a place, of those with one, above which a file is of another
# network than the model.
_DEEPER = 0.1


@dataclass(frozen=True)
class Report:
    """The variables of a model, or of parts of it, beside those of a file.

    Attributes:
      path: of the file.
      source: what it holds, "torchvision's MobileNetV2".
      parts: "backbone", or "model" for all of it.
      matched: the names of the variables that are loaded.
      unmatched: the names of those that the file has not.
      misshapen: a line for each that has another shape there.
      optional: how many of unmatched and misshapen the model can do without.
      unused: the names of the file's variables that have no place in those parts.
      differences: what is only approximately the same, whatever is loaded.
    """

    path: str
    source: str
    parts: str
    matched: Sequence[str]
    unmatched: Sequence[str]
    misshapen: Sequence[str]
    optional: int = 0
    differences: Sequence[str] = ()
    unused: Sequence[str] = ()

    @property
    def total(self) -> int:
        """Returns how many variables there are."""
        return len(self.matched) + len(self.unmatched) + len(self.misshapen)

    @property
    def share(self) -> float:
        """Returns the share that is matched, of the variables that the model needs."""
        needed = self.total - self.optional
        return len(self.matched) / needed if needed > 0 else float(bool(self.matched))

    @property
    def summary(self) -> str:
        """Returns the counts, and the first names of what is not loaded, in one line."""
        return (
            f"{self.source}; {len(self.matched)} of {self.total} variables loaded of the "
            f"{self.parts}, {len(self.unmatched)} unmatched{_first(self.unmatched)}, "
            f"{len(self.misshapen)} misshapen{_first(self.misshapen)}"
        )

    def check(self, min_matched_share: float) -> None:
        """Checks that enough is matched.

        Raises:
          CheckpointError: less than the share is.
        """
        # A config has it in 32 bits: 0.8 there is above 0.8.
        if self.share >= min_matched_share - 1e-6:
            return
        faults = []
        if self.unmatched:
            faults.append(f"{len(self.unmatched)} are not there, first {self.unmatched[0]}")
        if self.misshapen:
            faults.append(f"{len(self.misshapen)} have another shape, first: {self.misshapen[0]}")
        advice = (
            f"; with train_config.min_matched_share: {_rounded_down(self.share)} training starts "
            "from what fits"
            if self.matched
            else ""
        )
        raise CheckpointError(
            f"{self.path}: is {self.source}; of the {self.total} variables of the {self.parts} "
            f"{len(self.matched)} match, {' and '.join(faults) or 'of none that is known'}{advice}"
        )

    def log(self) -> None:
        """Logs the counts and the first names; with --v=1 all names."""
        # Where nothing has to match, as in a search, that nothing does is worth a warning.
        log = logging.info if self.matched else logging.warning
        log("%s: %s", self.path, self.summary)
        if self.unused:
            # A last layer that is not needed is usual, and a file of a deeper network is not.
            log = logging.info if len(self.unused) < _DEEPER * self.total else logging.warning
            log(
                "%d variables of the file have no place here%s",
                len(self.unused),
                _first(self.unused),
            )
        for difference in self.differences:
            logging.info("not the same as there: %s", difference)
        for kind in ("matched", "unmatched", "misshapen"):
            for name in getattr(self, kind):
                logging.debug("%s: %s", kind, name)


def _first(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f" ({', '.join(names[:_SHOWN])}{more})"


def _rounded_down(share: float) -> float:
    return int(share * 1000) / 1000
