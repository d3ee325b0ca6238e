"""Steps of training side by side: our Faster R-CNN and tf-models-official's, ResNet-50 with FPN.

Both have the same layers (a 256-wide pyramid on levels 2 to 6, 3 anchors a place, two layers of
1024 units for a region, of one sample a bin), the same numbers of proposals and samples, and the
same pictures: the embedded digits. Each trains in a process of its own, and the processes take
turns. Printed are the medians of a step in seconds and in seconds of all processors, which other
work on the machine changes little; the seconds to the end of the first step; and the peak memory of
the process. The ratios are ours over theirs.

  python benchmarks/two_stage_training_vs_tf_models.py
  python benchmarks/two_stage_training_vs_tf_models.py --image_size=512 --turns=5 --jit_compile
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
ROOT = Path(__file__).parents[1]

flags.DEFINE_integer("image_size", 320, "Pixels of a side.")
flags.DEFINE_integer("batch_size", 2, "Pictures of a step.")
flags.DEFINE_integer("turns", 3, "Of each process.")
flags.DEFINE_integer("steps", 4, "Of each turn.")
flags.DEFINE_integer("parallel_parts", 2, "Of a batch of ours; a divisor of it.", lower_bound=1)
flags.DEFINE_bool("jit_compile", False, "XLA compiles ours.")
flags.DEFINE_string("architecture_name", "faster_rcnn_resnet50_fpn", "Ours.")
flags.DEFINE_enum("side", None, ["ours", "theirs"], "Internal: the process of one of them.")

# Counts in an image: proposals, candidates, and anchors and proposals that the losses count.
_PROPOSALS, _CANDIDATES, _ANCHORS, _SAMPLES = 1000, 2000, 256, 512
_CLASSES = 10

_PICTURES = 32


def pipeline():
    from google.protobuf import text_format

    from mnasdet import config
    from mnasdet.protos import pipeline_pb2

    side = FLAGS.image_size
    text = f"""
      model {{
        faster_rcnn {{
          num_classes: {_CLASSES}
          image_resizer {{
            fixed_shape_resizer {{ height: {side} width: {side} }}
          }}
          first_stage_max_proposals: {_PROPOSALS}
          first_stage_max_candidates: {_CANDIDATES}
          first_stage_minibatch_size: {_ANCHORS}
          second_stage_batch_size: {_SAMPLES}
          second_stage_post_processing {{
            batch_non_max_suppression {{ score_threshold: 0.05 iou_threshold: 0.5 }}
            score_converter: SOFTMAX
          }}
        }}
      }}
      train_config {{
        batch_size: {FLAGS.batch_size}
        parallel_parts: {FLAGS.parallel_parts}
        num_steps: 1000
        jit_compile: {"ON" if FLAGS.jit_compile else "OFF"}
        optimizer {{ momentum_optimizer {{
          learning_rate {{ constant_learning_rate {{ learning_rate: 0.001 }} }}
          momentum_optimizer_value: 0.9
        }} use_moving_average: false }}
      }}
      eval_config {{ use_moving_averages: false }}
      train_input_reader {{
        digits_input_reader {{ split: TRAIN num_images: {_PICTURES} image_size: {side} }}
      }}
      eval_input_reader {{
        digits_input_reader {{ split: VALIDATION num_images: 8 image_size: {side} }}
      }}
    """
    settings = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    settings.model.architecture.CopyFrom(config.load_architecture(FLAGS.architecture_name))
    settings.model.architecture.region_head.region_align.sampling_ratio = 1
    if problems := config.check(settings):
        raise SystemExit("\n".join(problems))
    return settings


def ours() -> Callable[[], float]:
    """Returns a step of the training that the command `train` makes; it returns the loss."""
    from mnasdet import config, models
    from mnasdet.training import runtime, training_data
    from mnasdet.training.learner import Learner

    runtime.use_threads()
    runtime.seed_everything(0)
    settings = pipeline()
    task = models.build(config.resolve(settings))
    learner = Learner(task, settings.train_config)
    batches = iter(training_data.training_set(task, settings, seed=0))

    def step() -> float:
        return float(learner.update(next(batches))["Loss/total_loss"])

    return step


def theirs() -> Callable[[], float]:
    """Returns a step of tf-models-official's training; it returns the loss."""
    import tensorflow as tf
    import tf_keras
    from official.vision.configs import common, decoders
    from official.vision.configs import maskrcnn as configs
    from official.vision.tasks.maskrcnn import MaskRCNNTask

    from mnasdet.data import input_pipeline
    from mnasdet.protos import input_reader_pb2

    reader = input_reader_pb2.InputReader()
    reader.digits_input_reader.num_images = _PICTURES
    reader.digits_input_reader.image_size = FLAGS.image_size
    files = input_pipeline.input_files(reader)
    data = configs.DataConfig(
        input_path=",".join(files),
        is_training=True,
        global_batch_size=FLAGS.batch_size,
        dtype="float32",
        shuffle_buffer_size=_PICTURES,
        parser=configs.Parser(rpn_batch_size_per_im=_ANCHORS),
    )
    data.decoder.simple_decoder.regenerate_source_id = True
    task = MaskRCNNTask(
        configs.MaskRCNNTask(
            model=configs.MaskRCNN(
                num_classes=_CLASSES + 1,
                input_size=[FLAGS.image_size, FLAGS.image_size, 3],
                include_mask=False,
                mask_head=None,
                mask_sampler=None,
                mask_roi_aligner=None,
                decoder=decoders.Decoder(type="fpn", fpn=decoders.FPN(num_filters=256)),
                # Two layers of 1024, as Lin et al. and ours; the default is four convolutions.
                detection_head=configs.DetectionHead(num_convs=0, num_fcs=2),
                roi_generator=configs.ROIGenerator(
                    pre_nms_top_k=_CANDIDATES, num_proposals=_PROPOSALS
                ),
                roi_sampler=configs.ROISampler(num_sampled_rois=_SAMPLES),
                norm_activation=common.NormActivation(use_sync_bn=False),
            ),
            losses=configs.Losses(l2_weight_decay=1e-4),
            train_data=data,
        )
    )
    model = task.build_model()
    print(f"theirs: {model.count_params():,} weights", file=sys.stderr)
    optimizer = tf_keras.optimizers.SGD(0.001, momentum=0.9)
    batches = iter(task.build_inputs(data))

    @tf.function
    def update(inputs):
        return task.train_step(inputs, model, optimizer)

    def step() -> float:
        return float(update(next(batches))[task.loss])

    return step


def serve(step: Callable[[], float], start: float) -> None:
    """Makes as many steps as each line of standard input says, and prints their seconds."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    step()
    first = time.time() - start
    for line in sys.stdin:
        seconds, processor_seconds = [], []
        for _ in range(int(line)):
            begin, processor_begin = time.perf_counter(), time.process_time()
            loss = step()
            seconds.append(time.perf_counter() - begin)
            processor_seconds.append(time.process_time() - processor_begin)
        answer = {
            "seconds": seconds,
            "processor_seconds": processor_seconds,
            "first": first,
            "peak_mb": peak_mb(),
            "loss": loss,
        }
        print(json.dumps(answer), file=results, flush=True)


def peak_mb() -> float:
    """Returns the peak resident memory of this process; Linux alone."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def started(side: str) -> subprocess.Popen:
    command = [sys.executable, __file__, *sys.argv[1:], f"--side={side}"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def asked(process: subprocess.Popen, steps: int) -> dict:
    assert process.stdin
    assert process.stdout
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(f"{steps}\n")
        process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("a process ended; its error is above")
    return json.loads(answer)


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.side:
        start = time.time()
        serve({"ours": ours, "theirs": theirs}[FLAGS.side](), start)
        return
    pipeline()  # Checks the config before anything is built.
    # One after the other up to the first step: building does not compete.
    processes, answers = {}, {}
    try:
        for side in ("theirs", "ours"):
            processes[side] = started(side)
            answers[side] = [asked(processes[side], 1)]
        for _ in range(FLAGS.turns):
            for side, process in processes.items():
                answers[side].append(asked(process, FLAGS.steps))
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    found = {}
    for side, told in answers.items():
        # The second step, which was asked for alone, is no steady one either.
        seconds = [second for one in told[1:] for second in one["seconds"]]
        processor = [second for one in told[1:] for second in one["processor_seconds"]]
        found[side] = {
            "step": statistics.median(seconds),
            "processor": statistics.median(processor),
            "first": told[0]["first"],
            "peak_mb": told[-1]["peak_mb"],
        }
        spread = max(seconds) - min(seconds)
        print(
            f"{side}: {found[side]['step']:.3f} s a step (from {min(seconds):.3f}, spread "
            f"{spread:.3f}), {found[side]['processor']:.3f} s of processors, first step after "
            f"{found[side]['first']:.1f} s, peak {found[side]['peak_mb']:.0f} MB, loss "
            f"{told[-1]['loss']:.3f}"
        )
    compared = {
        "step": "step",
        "processor time of a step": "processor",
        "first step": "first",
        "memory": "peak_mb",
    }
    for name, key in compared.items():
        print(f"{name}, ours / theirs: {found['ours'][key] / found['theirs'][key]:.3f}")


if __name__ == "__main__":
    app.run(main)
