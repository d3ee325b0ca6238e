"""Writes the events of a run that TensorBoard shows."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import tensorflow as tf

from mnasdet import errors, files
from mnasdet.evaluation.evaluate import Detect
from mnasdet.protos import eval_pb2

_FOUND, _TRUTH = (0.1, 0.9, 0.2, 1.0), (1.0, 0.3, 0.1, 1.0)


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

    def detections(
        self,
        step: int,
        dataset: tf.data.Dataset,
        detect: Detect,
        eval_config: eval_pb2.EvalConfig,
    ) -> None:
        """Draws what was found (green) and what is there (red) on the first images."""
        if not self._writer:
            return
        drawn: list[tf.Tensor] = []
        for batch in dataset:
            drawn.extend(_drawn(batch, detect(batch["image"]), eval_config))
            if len(drawn) >= eval_config.num_visualizations:
                break
        with self._naming(), self._writer.as_default(step):
            shown = tf.stack(drawn[: eval_config.num_visualizations])
            tf.summary.image("detections", shown, max_outputs=len(shown))

    def _naming(self) -> AbstractContextManager[None]:
        return errors.naming(f"{self._folder}: the events for TensorBoard cannot be written")


def _drawn(batch, detections, eval_config: eval_pb2.EvalConfig) -> list[tf.Tensor]:
    images = (batch["image"] + 1) / 2
    shown = detections["detection_scores"][..., None] >= eval_config.min_score_threshold
    found = tf.where(shown, detections["detection_boxes"], 0.0)
    found = found[:, : eval_config.max_num_boxes_to_visualize]
    images = tf.image.draw_bounding_boxes(images, batch["boxes"], np.array([_TRUTH]))
    return list(tf.image.draw_bounding_boxes(images, found, np.array([_FOUND])))
