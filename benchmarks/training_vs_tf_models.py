"""Training side by side: our MnasFPN and tf-models-official's RetinaNet of like size.

Both train on the same records, at the same image size, batch size and number of steps, from
scratch, one after the other, each in a process of its own. Printed are the seconds of the whole
process (start, training, evaluation), those until the first step has ended, the images per second
of all other steps, and the COCO metrics; the ratios are ours over theirs.

  python benchmarks/training_vs_tf_models.py --train_input='data/train.record-*' \\
    --eval_input='data/val.record-*' --label_map=data/label_map.pbtxt
  python benchmarks/training_vs_tf_models.py --train_input='data/train.record-*' \\
    --eval_input='data/val.record-*' --label_map=data/label_map.pbtxt \\
    --image_size=320 --batch_size=8 --num_steps=200
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
ROOT = Path(__file__).parents[1]

flags.DEFINE_string(
    "pipeline_config_path", str(ROOT / "configs" / "mnasfpn_mobilenet_v2_bccd.config"), "Ours."
)
flags.DEFINE_string("train_input", None, "Training records.", required=True)
flags.DEFINE_string("eval_input", None, "Evaluation records.", required=True)
flags.DEFINE_string("label_map", None, "Label map.", required=True)
flags.DEFINE_float("learning_rate", 0.08, "Of the RetinaNet.")
flags.DEFINE_integer("image_size", 0, "Pixels of a side, in place of the config's.")
flags.DEFINE_integer("batch_size", 0, "In place of the config's.")
flags.DEFINE_integer("num_steps", 0, "In place of the config's.")
flags.DEFINE_string("retinanet_dir", None, "Internal: train the RetinaNet here.")

# A line of the log about our training.
_STEP = re.compile(r"step (\d+)/\d+  loss")

_MAP, _MAP50 = "DetectionBoxes_Precision/mAP", "DetectionBoxes_Precision/mAP@.50IOU"


def pipeline():
    from mnasdet import config

    return config.load(
        FLAGS.pipeline_config_path,
        train_input=[FLAGS.train_input],
        eval_input=[FLAGS.eval_input],
        label_map=FLAGS.label_map,
        change=change,
    )


def change(pipeline) -> None:
    """Puts the sizes of the flags into a config."""
    train, resizer = pipeline.train_config, pipeline.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height = FLAGS.image_size or resizer.height
    resizer.width = FLAGS.image_size or resizer.width
    train.batch_size = FLAGS.batch_size or train.batch_size
    if FLAGS.num_steps:
        train.num_steps = FLAGS.num_steps
        rate = train.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate
        rate.total_steps, rate.warmup_steps = train.num_steps, train.num_steps // 10


def train_ours(folder: str) -> dict[str, float]:
    from google.protobuf import text_format

    path = Path(folder, "benchmark.config")
    settings = pipeline()
    path.write_text(text_format.MessageToString(settings))
    command = [
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        f"--pipeline_config_path={path}",
        f"--model_dir={folder}/run",
        "--format=json",
    ]
    start, ends = time.monotonic(), []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            if step := _STEP.search(line):
                ends.append((int(step[1]), time.monotonic() - start))
        output = process.stdout.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    metrics = json.loads(output)
    (first, first_end), (last, last_end) = ends[0], ends[-1]
    num_images = (last - first) * settings.train_config.batch_size
    return {
        "AP": metrics[_MAP],
        "AP50": metrics[_MAP50],
        "first_step": round(first_end, 1),
        "images_per_second": round(num_images / (last_end - first_end), 2),
    }


def train_theirs(folder: str) -> dict[str, float]:
    start = time.time()
    command = [
        sys.executable,
        __file__,
        f"--pipeline_config_path={FLAGS.pipeline_config_path}",
        f"--train_input={FLAGS.train_input}",
        f"--eval_input={FLAGS.eval_input}",
        f"--label_map={FLAGS.label_map}",
        f"--learning_rate={FLAGS.learning_rate}",
        f"--image_size={FLAGS.image_size}",
        f"--batch_size={FLAGS.batch_size}",
        f"--num_steps={FLAGS.num_steps}",
        f"--retinanet_dir={folder}",
    ]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    # The result is the last line; libraries may print before it.
    result = json.loads(output.splitlines()[-1])
    return result | {"first_step": round(result["first_step"] - start, 1)}


def evaluation_files(files: list[str], folder: Path) -> tuple[str, str, int]:
    """Writes the files that tf-models' evaluator reads.

    They are records with a number for source_id, and the boxes as COCO JSON: its own conversion
    fails with NumPy 2.

    Returns:
      The paths of both, and how many images there are.
    """
    import tensorflow as tf

    from mnasdet.data import records

    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    with tf.io.TFRecordWriter(str(folder / "eval.record")) as writer:
        for serialized in tf.data.TFRecordDataset(files).as_numpy_iterator():
            example = tf.train.Example.FromString(serialized)
            record = records.from_example(example)
            image_id = len(images) + 1
            images.append({"id": image_id, "height": record.height, "width": record.width})
            size = (record.height, record.width)
            for (top, left, bottom, right), category in zip(
                record.boxes * (size * 2), record.class_ids, strict=True
            ):
                box = [float(x) for x in (left, top, right - left, bottom - top)]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": int(category),
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
            example.features.feature["image/source_id"].bytes_list.value[:] = [b"%d" % image_id]
            writer.write(example.SerializeToString())
    categories = [{"id": i} for i in sorted({a["category_id"] for a in annotations})]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "eval.json").write_text(json.dumps(content))
    return str(folder / "eval.record"), str(folder / "eval.json"), len(images)


def retinanet(folder: str) -> None:
    """Trains RetinaNet with MobileNetV2 and a separable 64-wide FPN and head, 2.3 M weights."""
    import tensorflow as tf
    from official.core import config_definitions as cfg
    from official.core import train_lib, train_utils
    from official.modeling import optimization
    from official.vision.configs import backbones, common, decoders
    from official.vision.configs import retinanet as configs
    from official.vision.tasks.retinanet import RetinaNetTask

    from mnasdet.data import input_pipeline

    settings = pipeline()
    ssd, training = settings.model.ssd, settings.train_config
    resizer = ssd.image_resizer.fixed_shape_resizer
    eval_files = input_pipeline.input_files(settings.eval_input_reader[0])
    eval_input, annotations, num_images = evaluation_files(eval_files, Path(folder))
    steps, batch_size, eval_batch_size = training.num_steps, training.batch_size, 8
    task = configs.RetinaNetTask(
        annotation_file=annotations,
        model=configs.RetinaNet(
            num_classes=ssd.num_classes + 1,
            input_size=[resizer.height, resizer.width, 3],
            min_level=3,
            max_level=6,
            anchor=configs.Anchor(num_scales=3, aspect_ratios=[1.0, 2.0, 0.5], anchor_size=3.0),
            backbone=backbones.Backbone(type="mobilenet", mobilenet=backbones.MobileNet()),
            decoder=decoders.Decoder(
                type="fpn", fpn=decoders.FPN(num_filters=64, use_separable_conv=True)
            ),
            head=configs.RetinaNetHead(num_convs=4, num_filters=64, use_separable_conv=True),
            norm_activation=common.NormActivation(
                activation="relu6", norm_momentum=0.95, norm_epsilon=0.001, use_sync_bn=False
            ),
        ),
        losses=configs.Losses(focal_loss_gamma=1.5, l2_weight_decay=4e-5),
        train_data=configs.DataConfig(
            input_path=FLAGS.train_input,
            is_training=True,
            global_batch_size=batch_size,
            dtype="float32",
            shuffle_buffer_size=512,
            parser=configs.Parser(aug_rand_hflip=True, aug_scale_min=0.8, aug_scale_max=1.2),
        ),
        validation_data=configs.DataConfig(
            input_path=eval_input,
            is_training=False,
            global_batch_size=eval_batch_size,
            dtype="float32",
            drop_remainder=False,
        ),
    )
    optimizer = optimization.OptimizationConfig(
        {
            "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
            "learning_rate": {
                "type": "cosine",
                "cosine": {"initial_learning_rate": FLAGS.learning_rate, "decay_steps": steps},
            },
            "warmup": {
                "type": "linear",
                "linear": {
                    "warmup_steps": steps // 10,
                    "warmup_learning_rate": FLAGS.learning_rate / 10,
                },
            },
        }
    )
    params = cfg.ExperimentConfig(
        task=task,
        trainer=cfg.TrainerConfig(
            train_steps=steps,
            validation_steps=-(-num_images // eval_batch_size),
            validation_interval=steps,
            steps_per_loop=steps // 10,
            summary_interval=steps,
            checkpoint_interval=steps,
            optimizer_config=optimizer,
        ),
    )
    task = RetinaNetTask(params.task)
    trainer = train_utils.create_trainer(params, task, train=True, evaluate=True)
    clock = Clock(trainer)
    model, metrics = train_lib.run_experiment(
        tf.distribute.get_strategy(),
        task,
        "train",
        params,
        folder,
        run_post_eval=True,
        trainer=trainer,
    )
    print(
        json.dumps(
            {
                "AP": float(metrics["AP"]),
                "AP50": float(metrics["AP50"]),
                "params": model.count_params(),
                "first_step": clock.first_end,
                "images_per_second": round((steps - 1) * batch_size / clock.seconds, 2),
            }
        )
    )


class Clock:
    """Takes the time of a trainer of tf-models, whose steps run in loops inside of a graph.

    Attributes:
      first_end: when the first step had ended, as `time.time`.
      seconds: of all later steps.
    """

    def __init__(self, trainer):
        self.first_end, self.seconds = 0.0, 0.0
        self._train = trainer.train
        trainer.train = self.train

    def train(self, num_steps):
        """Does what the trainer does, but the very first step alone."""
        if not self.first_end:
            result = self._train(num_steps * 0 + 1)
            self.first_end = time.time()
            num_steps -= 1
        if num_steps > 0:
            start = time.monotonic()
            result = self._train(num_steps)
            self.seconds += time.monotonic() - start
        return result


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.retinanet_dir:
        retinanet(FLAGS.retinanet_dir)
        return
    results = {}
    for name, train in {
        "RetinaNet (tf-models)": train_theirs,
        "MnasFPN (ours)": train_ours,
    }.items():
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            results[name] = train(folder) | {"seconds": round(time.monotonic() - start, 1)}
        print(f"{name}: {results[name]}")
    theirs, ours = results.values()
    for name, key in {
        "time": "seconds",
        "first step": "first_step",
        "images/s": "images_per_second",
    }.items():
        print(f"{name}, ours / theirs: {ours[key] / theirs[key]:.3f}")


if __name__ == "__main__":
    app.run(main)
