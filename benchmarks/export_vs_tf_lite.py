"""Seconds of an export, ours and tf.lite's default way: MnasFPN at 320x320 with 90 classes.

Ours is all of `export`: the float32 graph with its metadata and signature, the anchors, the check
against Keras, and the files written. tf.lite's is `TFLiteConverter.from_keras_model` and the file
written. Each is the first of its process, in turns; what leads to the Keras model is not counted.

  python benchmarks/export_vs_tf_lite.py
  python benchmarks/export_vs_tf_lite.py --repeats=5 --format=json
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import flags

from mnasdet import config, configs
from mnasdet.scripts import command

FLAGS = flags.FLAGS

WAYS = ("mnasdet", "tf.lite")
CONFIG = Path(configs.__file__).with_name("mnasfpn_mobilenet_v2_320x320_coco.config")

command.define_format_flag()
flags.DEFINE_integer("repeats", 3, "Processes of each kind.", lower_bound=1)
flags.DEFINE_enum("way", None, WAYS, "Internal: export once, in this process.")


def export_seconds(way: str) -> float:
    import tensorflow as tf

    # Ahead of the clock: imports are no part of an export, and are the same for both.
    from mnasdet import models
    from mnasdet.deployment import export
    from mnasdet.tflite.convert import quiet

    detector = models.build(config.resolve(config.load(CONFIG, readers=())))
    with tempfile.TemporaryDirectory() as folder, quiet():
        start = time.perf_counter()
        if way == "mnasdet":
            export(detector, folder)
        else:
            graph = tf.lite.TFLiteConverter.from_keras_model(detector.model).convert()
            Path(folder, "detect.tflite").write_bytes(graph)
        return time.perf_counter() - start


def main() -> None:
    if FLAGS.way:
        print(export_seconds(FLAGS.way))
        return
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(FLAGS.repeats):
        for way in WAYS:
            # A process of its own each: the second export of one would find TensorFlow warm.
            done = subprocess.run(
                [sys.executable, __file__, f"--way={way}"], check=True, stdout=subprocess.PIPE
            )
            seconds[way].append(float(done.stdout))
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    ratio = medians["mnasdet"] / medians["tf.lite"]
    if FLAGS.format == "json":
        command.print_json({"seconds": seconds, "medians": medians, "ratio": ratio})
        return
    for way, values in seconds.items():
        each = ", ".join(f"{value:.2f}" for value in values)
        print(f"{way:8} {medians[way]:6.2f} s  ({each})")
    print(f"ratio    {ratio:6.2f}")


if __name__ == "__main__":
    command.run(main)
