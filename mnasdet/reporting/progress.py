"""The reports of a running search: one line a trial, and TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TextIO

from mnasdet import errors, files
from mnasdet.protos import pipeline_pb2
from mnasdet.reporting import page
from mnasdet.reporting.running_figures import RunningFigures
from mnasdet.search.axes import DEFAULT, Axes
from mnasdet.search.pace import Pace
from mnasdet.search.trials.trial_store import Trial, TrialState
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
        axes: Axes = DEFAULT,
        num_workers: int = 1,
        last_training: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        num_trials: that the search ends with.
        space: of the trials, for the entropy of what is proposed.
        stream: gets the lines; standard error by default.
        summary_dir: gets TensorBoard's event files.
        axes: of the search.
        num_workers: children that train at once.
        last_training: the work of the retraining that follows, in trainings of a child.
        clock: seconds; the time elapsed starts now.
        """
        self._num_trials = num_trials
        self._stream = stream or sys.stderr
        self._axes = axes
        self._pace = Pace(num_workers, clock)
        self._last_training = last_training
        self._num_workers = num_workers
        # Seconds of the children of this run, without their evaluation.
        self._train_seconds: list[float] = []
        self._replayed = self._finished = 0
        self._figures = RunningFigures(space)
        self._writer = None
        if summary_dir:
            import tensorflow as tf

            files.make_folder(summary_dir)
            self._naming = f"{summary_dir}: the events for TensorBoard cannot be written"
            with errors.naming(self._naming):
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
        # Duplicates and rejected trials take no time, and would make the others look fast.
        trained = trial.duplicate_of is None and trial.state is not TrialState.REJECTED
        self._pace.add(trained=trained)
        if trained and "train_seconds" in trial.metrics:
            self._train_seconds.append(trial.metrics["train_seconds"])
        self._print(self._line(trial))
        self._summarize(trial)

    def _line(self, trial: Trial) -> str:
        done = self._replayed + self._finished
        figures = self._figures
        best = f"{figures.best.reward:.4f} (trial {figures.best.number})" if figures.best else "-"
        return "  ".join(
            [
                f"trial {trial.number} ({done} of {self._num_trials} done)",
                _result(trial, self._axes),
                f"best {best}",
                f"elapsed {_duration(self._pace.elapsed)}",
                f"ETA {self._eta(max(0, self._num_trials - done))}",
                f"duplicates {figures.duplicates}",
                f"failures {figures.failures}",
                *([f"rejected {figures.rejected}"] if figures.rejected else []),
            ]
        )

    def _eta(self, num_left: int) -> str:
        """Returns the time of the trials that are left and of the retraining, "-" as long as it
        cannot be told.

        Only this run's pace counts: nobody knows how long the computer slept before it.
        """
        remaining = self._pace.remaining(num_left)
        if remaining is None:
            return "-"
        if not self._last_training:
            return _duration(remaining)
        # The first child of every worker waits for TensorFlow.
        known = self._train_seconds[self._num_workers :] or self._train_seconds
        if not known:
            return f"{_duration(remaining)} and then the retraining"
        last = self._last_training * median(known)
        return f"{_duration(remaining + last)}, {_duration(last)} of it the retraining"

    def _print_replayed(self) -> None:
        self._print(f"resumed: {self._replayed} trial{'s' * (self._replayed != 1)} done")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def _summarize(self, trial: Trial) -> None:
        if self._writer is None:
            return
        import tensorflow as tf

        scalars = self._figures.scalars()
        for name in ("reward", "accuracy", "cost"):
            value = getattr(trial, name)
            if trial.reward is not None and value is not None:
                scalars[name] = value
        # All in one, which takes a tenth of the time of as many tf.summary.scalar.
        summary = tf.compat.v1.Summary()
        for name, value in scalars.items():
            summary.value.add(tag=name, simple_value=value)
        with errors.naming(self._naming):
            with self._writer.as_default(step=trial.number):
                tf.summary.experimental.write_raw_pb(summary.SerializeToString())
            # A search that is killed leaves what it had.
            self._writer.flush()


def last_training(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> float:
    """Returns the work of a search's retraining in trainings of a child: the images that each
    sees."""
    search_config = pipeline.search_config
    last = child = pipeline.train_config
    if search_config.HasField("retrain_config"):
        last = search_config.retrain_config
    return last.num_steps * last.batch_size / max(1, child.num_steps * child.batch_size)


def _result(trial: Trial, axes: Axes) -> str:
    if trial.reward is None:
        reason = " ".join((trial.error or "for an unknown reason").split())
        return f"{trial.state.name}: {reason}"
    # pycocotools says -1 where there is nothing to find.
    is_known = trial.metrics.get(axes.objective, 0.0) >= 0
    accuracy = f"{trial.accuracy:.3f}" if is_known else "-"
    assert trial.cost is not None
    return (
        f"reward {trial.reward:.4f}  {axes.accuracy} {accuracy}  {page.latency(trial.cost)} "
        f"{axes.unit}"
    )


def _duration(seconds: float) -> str:
    """Returns a duration such as "55s", "1m20s" or "2h05m"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
