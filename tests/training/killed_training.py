"""Trains a small classifier to the end twice, once killed on the way, and prints both ends as JSON.

    python tests/training/killed_training.py FOLDER [STEPS KILLS SEED]

Each life of a training is a process of its own, forked from this one: TensorFlow is loaded once,
and does nothing here, so that a child starts with none of its threads or numbers.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import tensorflow as tf
from google.protobuf import text_format

from mnasdet.protos import pipeline_pb2
from mnasdet.training import checkpoints, trainer

# All that a training has to remember: averages and momentum, dropout, augmentation and mixup, files
# and records in random order over a cache, evaluations on the way.
CONFIG = """
model {
  architecture {
    backbone {
      mnasnet {
        stem_channels: 8
        block { channels: 8 stride: 2 expansion: 1 }
        block { channels: 16 stride: 2 expansion: 1 }
        block { channels: 16 stride: 2 expansion: 1 }
        block { channels: 16 stride: 2 expansion: 1 }
      }
      conv_hyperparams { batch_norm { scale: true decay: 0.9 } }
    }
    classifier { dropout: 0.3 }
  }
  classification {
    num_classes: 10
    image_resizer { fixed_shape_resizer { height: 32 width: 32 } }
    mixup_alpha: 0.2
  }
}
train_config {
  batch_size: 10
  eval_every_n_steps: 4
  data_augmentation_options { random_crop_image { min_object_covered: 0 min_area: 0.6 } }
  optimizer {
    rms_prop_optimizer {
      learning_rate {
        cosine_decay_learning_rate {
          learning_rate_base: 0.002 total_steps: 200 warmup_learning_rate: 0 warmup_steps: 4
        }
      }
    }
    use_moving_average: true
  }
}
train_input_reader {
  features: IMAGE_CLASS
  digits_input_reader { num_images: 64 image_size: 32 }
  cache_decoded_images: true
}
eval_config { batch_size: 32 use_moving_averages: true }
eval_input_reader {
  features: IMAGE_CLASS
  digits_input_reader { split: VALIDATION num_images: 64 image_size: 32 }
}
"""

# Far more often than every five minutes, at steps that nobody can foresee.
SECONDS_BETWEEN_CHECKPOINTS = 0.1


def live(folder: Path, steps: int, told: int) -> None:
    """Trains up to the end, and writes a line to the file `told` after every step."""
    pipeline = text_format.Parse(CONFIG, pipeline_pb2.TrainEvalPipelineConfig())
    pipeline.train_config.num_steps = steps
    after_step = trainer._Run.after_step

    def telling(self, step, *arguments):
        os.write(told, f"{step}\n".encode())
        after_step(self, step, *arguments)

    trainer._Run.after_step = telling
    trainer._SECONDS_BETWEEN_CHECKPOINTS = SECONDS_BETWEEN_CHECKPOINTS
    trainer.train(pipeline, folder)


def life(folder: Path, steps: int, last: int = 0, seconds: float = 0.0) -> int:
    """Lets a child train; kills it a while after step `last`, 0: never. Returns its last step."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        status = 1
        try:
            live(folder, steps, write)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    step = 0
    with open(read) as lines:
        for line in lines:
            step = int(line)
            if step == last:
                time.sleep(seconds)
                os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status == (signal.SIGKILL if last else 0), status
    return step


def end(folder: Path) -> dict[str, object]:
    """Returns what a training has come to: digests of its checkpoints, and its metrics."""
    found: dict[str, object] = {}
    for place in (folder, folder / trainer.BEST):
        prefix = checkpoints.find(place)
        reader = tf.train.load_checkpoint(prefix)
        digest = hashlib.sha256()
        for key in sorted(reader.get_variable_to_shape_map()):
            value = reader.get_tensor(key)
            if not key.startswith(checkpoints.SECONDS) and not isinstance(value, bytes):
                digest.update(key.encode() + value.tobytes())
        found[f"{place.relative_to(folder)}/{Path(prefix).name}"] = digest.hexdigest()
    metrics = json.loads((folder / "metrics.json").read_text())
    for values in (metrics, metrics["best"]):
        assert values.pop("train_seconds") > 0
    del metrics["sha256"]
    return found | {"metrics": metrics}


def main(folder: Path, steps: int = 20, kills: int = 2, seed: int = 0) -> None:
    moments = random.Random(seed)
    lasts: list[int] = []
    for number in range(kills):
        # Somewhere in the next part of the way, and a while later: in a step, an evaluation or a
        # checkpoint, as it comes.
        done = lasts[-1] if lasts else 0
        last = moments.randint(done + 1, max(done + 1, steps * (number + 1) // (kills + 1)))
        lasts.append(life(folder / "killed", steps, last, moments.uniform(0, 0.05)))
    life(folder / "killed", steps)
    life(folder / "whole", steps)
    print(
        json.dumps(
            {
                "killed_after": lasts,
                "whole": end(folder / "whole"),
                "killed": end(folder / "killed"),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
