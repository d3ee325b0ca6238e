"""What a running search tells: one line a trial, and TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from mnasdet.evaluation.coco import MAP
from mnasdet.reporting.running_figures import RunningFigures
from mnasdet.search.trial_store import Trial
from mnasdet.search_spaces.space import SearchSpace


class TrialProgress:
    """Called with every trial that finishes; `replay` takes those of an earlier run."""

    def __init__(
        self,
        num_trials: int,
        *,
        space: SearchSpace | None = None,
        stream: TextIO | None = None,
        summary_dir: Path | None = None,
        unit: str = "ms",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        num_trials: that the search ends with.
        space: of the trials, for the entropy of what is proposed.
        stream: gets the lines; standard error by default.
        summary_dir: gets TensorBoard's event files.
        unit: of the latency source.
        clock: seconds; the time elapsed starts now.
        """
        self._num_trials = num_trials
        self._stream = stream or sys.stderr
        self._unit = unit
        self._clock = clock
        self._start = clock()
        self._replayed = self._finished = 0
        self._figures = RunningFigures(space)
        self._writer = None
        if summary_dir:
            import tensorflow as tf

            self._writer = tf.summary.create_file_writer(str(summary_dir))

    def replay(self, trial: Trial) -> None:
        """Counts a trial that finished in an earlier run. One line sums all of them up, before
        that of the next trial, or at once when none is left to run."""
        self._figures.add(trial)
        self._replayed += 1
        if self._replayed == self._num_trials:
            self._print_replayed()

    def __call__(self, trial: Trial) -> None:
        if self._replayed and not self._finished:
            self._print_replayed()
        self._figures.add(trial)
        self._finished += 1
        self._print(self._line(trial))
        self._summarize(trial)

    def _line(self, trial: Trial) -> str:
        done = self._replayed + self._finished
        elapsed = self._clock() - self._start
        # Only this run's pace counts: nobody knows how long the computer slept before it.
        remaining = elapsed / self._finished * max(0, self._num_trials - done)
        figures = self._figures
        best = f"{figures.best.reward:.4f} (#{figures.best.number})" if figures.best else "-"
        return "  ".join(
            [
                f"trial {done}/{self._num_trials}",
                _result(trial, self._unit),
                f"best {best}",
                f"elapsed {_duration(elapsed)}",
                f"ETA {_duration(remaining)}",
                f"duplicates {figures.duplicates}",
                f"failures {figures.failures}",
                *([f"rejected {figures.rejected}"] if figures.rejected else []),
            ]
        )

    def _print_replayed(self) -> None:
        self._print(f"resumed: {self._replayed} trial{'s' * (self._replayed != 1)} done")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def _summarize(self, trial: Trial) -> None:
        if self._writer is None:
            return
        import tensorflow as tf

        scalars = self._figures.scalars()
        if trial.reward is not None and trial.latency_ms is not None:
            scalars["reward"] = trial.reward
            scalars["mAP"] = trial.metrics[MAP]
            scalars["latency_ms"] = trial.latency_ms
        # All in one, which takes a tenth of the time of as many tf.summary.scalar.
        summary = tf.compat.v1.Summary()
        for name, value in scalars.items():
            summary.value.add(tag=name, simple_value=value)
        with self._writer.as_default(step=trial.number):
            tf.summary.experimental.write_raw_pb(summary.SerializeToString())
        # A search that is killed leaves what it had.
        self._writer.flush()


def _result(trial: Trial, unit: str) -> str:
    if trial.reward is None:
        reason = " ".join((trial.error or "for an unknown reason").split())
        return f"{trial.state.name}: {reason}"
    mean_ap = trial.metrics[MAP]
    # Milliseconds have one digit to look at, multiply-adds of a mobile network are below one.
    latency = f"{trial.latency_ms:.1f}" if unit == "ms" else f"{trial.latency_ms:.3f}"
    return f"reward {trial.reward:.4f}  mAP {mean_ap:.3f}  {latency} {unit}"


def _duration(seconds: float) -> str:
    """ "55s", "1m20s" or "2h05m"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
