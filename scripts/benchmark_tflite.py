"""Times a TFLite graph, here or on a phone: latency, loading, memory, and where it was measured.

  python scripts/benchmark_tflite.py --graph=runs/bccd/tflite/detect.tflite --num_threads=1 \\
    --taskset=1 --output=benchmark.json

On a phone, through adb, with TFLite's own benchmark_model (tflite/README.md):

  python scripts/benchmark_tflite.py --graph=runs/bccd/tflite/detect.tflite --device=adb \\
    --benchmark_binary=android_aarch64_benchmark_model --taskset=f0 --use_gpu
"""

from __future__ import annotations

from absl import flags

from mnasdet.scripts import command, device_flags
from mnasdet.tflite.devices.factory import opened

FLAGS = flags.FLAGS

command.define_format_flag()
device_flags.define()
device_flags.define_repeats()
command.define_required("graph", "TFLite file.")
flags.DEFINE_string("output", None, "Where to write the result as JSON as well.")


def main() -> None:
    from mnasdet import files
    from mnasdet.tflite.interpreter import read_graph

    spec = device_flags.repeats_spec()
    read_graph(FLAGS.graph)  # ahead of what takes long
    with opened(spec) as device:
        result = device.benchmark(FLAGS.graph)
    if FLAGS.output:
        files.write_json(FLAGS.output, result)
    if FLAGS.format == "json":
        command.print_json(result)
        return
    operators = result.pop("operators", [])
    # Flat, a name and a value a line: people and grep read it so.
    for name, value in (result | result["provenance"]).items():
        if name != "provenance":
            print(f"{name} = {value:.3f}" if isinstance(value, float) else f"{name} = {value}")
    for row in operators:
        print(f"{row['mean_ms']:9.3f} ms {row['percent']:6.2f} %  {row['type']}  {row['name']}")


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
