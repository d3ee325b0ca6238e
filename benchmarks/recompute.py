"""Measures what `recompute` saves of a supernet's memory, and what it costs of its time.

The supernet is that of --config, a differentiable search, at another image size: it adds up all
operations of a layer. Each of the two ways trains it in a process of its own. Printed are the peak
memory that the steps add to that of the built supernet, and the median seconds of a step.

  python benchmarks/recompute.py
  python benchmarks/recompute.py --image_size=320 --batch_size=16
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS

ROOT = Path(__file__).parents[1]

flags.DEFINE_string(
    "config", str(ROOT / "configs" / "hit_detector_search_digits.config"), "The search."
)
flags.DEFINE_integer("image_size", 192, "Pixels of a side.", lower_bound=1)
flags.DEFINE_integer("batch_size", 48, "Pictures of a step.", lower_bound=1)
flags.DEFINE_integer("steps", 4, "The first one is not timed.", lower_bound=2)
flags.DEFINE_enum("side", None, ["kept", "recomputed"], "Internal: the process of one way.")


def change(pipeline) -> None:
    """Puts the flags into the config."""
    resizer = pipeline.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height = resizer.width = FLAGS.image_size
    pipeline.train_config.batch_size = FLAGS.batch_size
    pipeline.search_config.differentiable.recompute = FLAGS.side == "recomputed"


def run_side() -> None:
    """Prints the figures of this process's way."""
    from mnasdet import config, models
    from mnasdet.search.differentiable import supernets
    from mnasdet.search_spaces import supernet
    from mnasdet.training import runtime, training_data
    from mnasdet.training.learner import Learner

    runtime.use_threads()
    runtime.seed_everything(0)
    pipeline = config.load(FLAGS.config, change=change)
    whole = supernet.supernet(
        pipeline.search_config.search_space.supernet, config.resolve(pipeline).architecture
    )
    task = models.build(supernets.blueprint_of(pipeline, whole))
    learner = Learner(task, pipeline.train_config)
    batches = iter(training_data.training_set(task, pipeline, seed=0))
    built, seconds = peak_mb(), []
    for _ in range(FLAGS.steps):
        batch, start = next(batches), time.perf_counter()
        float(learner.update(batch)["Loss/total_loss"])
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"mb": peak_mb() - built, "step": statistics.median(seconds[1:])}))


def peak_mb() -> float:
    """Returns the peak resident memory of this process; Linux alone."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv) -> None:
    del argv
    if FLAGS.side:
        run_side()
        return
    found = {}
    for side in ("kept", "recomputed"):
        command = [sys.executable, *sys.argv, f"--side={side}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[side] = json.loads(done.stdout.splitlines()[-1])
        print(f"{side:<12}{found[side]['mb']:8.0f} MB{found[side]['step']:8.2f} s a step")
    ratios = {name: found["recomputed"][name] / found["kept"][name] for name in ("mb", "step")}
    print(f"{'ratio':<12}{ratios['mb']:8.2f}   {ratios['step']:8.2f}")


if __name__ == "__main__":
    app.run(main)
