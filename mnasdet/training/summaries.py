"""Writes the events of a run that TensorBoard shows."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import tensorflow as tf

from mnasdet import errors, files
from mnasdet.evaluation.evaluate import Predict
from mnasdet.protos import eval_pb2
from mnasdet.tasks import Task


class Summaries:
    """Event files in a folder; nothing at all without one."""

    def __init__(self, model_dir: Path | None):
        self._writer = None
        if model_dir:
            self._folder = model_dir / "tensorboard"
            files.make_folder(self._folder)
            with self._naming():
                self._writer = tf.summary.create_file_writer(str(self._folder))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if self._writer:
            with self._naming(), self._writer.as_default(step):
                for name, value in values.items():
                    tf.summary.scalar(name, value)

    def predictions(
        self,
        step: int,
        task: Task,
        predict: Predict,
        dataset: tf.data.Dataset,
        eval_config: eval_pb2.EvalConfig,
    ) -> None:
        """Draws predictions and truth on the first images."""
        if not self._writer:
            return
        drawn: list[tf.Tensor] = []
        for batch in dataset:
            drawn.extend(task.draw(batch, predict(batch["image"]), eval_config))
            if len(drawn) >= eval_config.num_visualizations:
                break
        with self._naming(), self._writer.as_default(step):
            # max_outputs would else stop at TensorBoard's default of three.
            shown = tf.stack(drawn[: eval_config.num_visualizations])
            tf.summary.image("predictions", shown, max_outputs=len(shown))

    def flush(self) -> None:
        """Puts all events into their files."""
        if self._writer:
            with self._naming():
                self._writer.flush()

    def _naming(self) -> AbstractContextManager[None]:
        return errors.naming(f"{self._folder}: the events for TensorBoard cannot be written")
