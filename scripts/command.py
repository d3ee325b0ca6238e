"""What every command does alike: flags, help, errors, JSON and logs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from mnasdet.errors import UserError

FLAGS = flags.FLAGS
# The flags defined here are the command's own: its --help lists them.
flags.disclaim_key_flags()
_HELP = {"--help", "-help", "--helpshort", "-h"}


def define_format_flag() -> None:
    flags.DEFINE_enum("format", "text", ["text", "json"], "Output on standard output.")


def define_pipeline_flags() -> None:
    """--pipeline_config_path and what may override the paths in it."""
    flags.DEFINE_string("pipeline_config_path", None, "Text-proto pipeline config.")
    flags.DEFINE_list("train_input", [], "Training records, in place of the config's.")
    flags.DEFINE_list("eval_input", [], "Evaluation records, in place of the config's.")
    flags.DEFINE_string("label_map", "", "Label map, in place of the config's.")


def define_record_flags() -> None:
    """The images' folder, and where and how their TFRecords are written."""
    flags.DEFINE_string("images_dir", None, "Folder of the images.", required=True)
    flags.DEFINE_string(
        "output_path", None, "Files are named OUTPUT_PATH-00000-of-0000N.", required=True
    )
    flags.DEFINE_integer("num_shards", 1, "Files to write.", lower_bound=1, upper_bound=99999)
    flags.DEFINE_string(
        "label_map_output", None, "Where the label map goes; beside the records as label_map.pbtxt."
    )
    flags.DEFINE_enum(
        "bad_records",
        "skip",
        ["skip", "fatal"],
        "What a broken image or box does: be left out and counted, or end the run.",
    )
    flags.DEFINE_float(
        "max_lost_boxes",
        0.5,
        "The share of boxes, and of images, that may be left out; above it nothing is written.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_enum(
        "drawn_on",
        "auto",
        ["auto", "upright", "stored"],
        "What the boxes of pictures with an EXIF orientation were drawn on: the upright picture, "
        "which is then written, or the stored one; by default what the stated size and the boxes "
        "say.",
    )


def load_pipeline(
    readers: Collection[str] = ("train_input_reader", "eval_input_reader"), **others: Any
):
    """The pipeline config that the flags name, checked for a command that uses `readers`; `others`
    goes in place of what it says, as in `config.load`."""
    from mnasdet import config

    return config.load(
        FLAGS.pipeline_config_path,
        train_input=FLAGS.train_input,
        eval_input=FLAGS.eval_input,
        label_map=FLAGS.label_map,
        readers=readers,
        **others,
    )


def default_num_classes(architecture) -> int:
    """Those of COCO's ids; a classifier's those of ImageNet. Without the background."""
    return 1000 if architecture.HasField("classifier") else 90


def write_records(
    images, total: int, names: Mapping[int, str], remarks: Sequence[str] = ()
) -> None:
    """Writes TFRecords and a label map as the flags of `define_record_flags` say, and prints what
    became of the images.

    Args:
      images: AnnotatedImages, `total` of them.
      names: of the classes, by id.
      remarks: what the summary says of the whole annotations.
    """
    from mnasdet.data import conversion

    summary = conversion.convert(
        images,
        total=total,
        images_dir=FLAGS.images_dir,
        names=names,
        output_path=FLAGS.output_path,
        num_shards=FLAGS.num_shards,
        label_map_output=FLAGS.label_map_output
        or Path(FLAGS.output_path).parent / "label_map.pbtxt",
        skip_bad=FLAGS.bad_records == "skip",
        max_lost_share=FLAGS.max_lost_boxes,
        drawn_on=FLAGS.drawn_on,
        remarks=remarks,
    )
    print(summary)


def print_json(value: Any) -> None:
    """Prints the one JSON object that standard output holds."""
    print(json.dumps(value, indent=2))


def print_metrics(metrics: dict[str, float], path: str | None = None) -> None:
    """Prints metrics as --format says, and writes them to `path`, if given, as JSON."""
    if path:
        Path(path).write_text(json.dumps(metrics, indent=2) + "\n")
    if FLAGS.format == "json":
        print_json(metrics)
    else:
        from mnasdet.evaluation import metric_text

        for line in metric_text.lines(metrics):
            print(line)


def run(main: Callable[[], int | None]) -> None:
    """Runs a command: status 0 when done, 1 with one line for what the user can mend.

    A traceback is left to bugs of ours.
    """
    # TensorFlow's C++ side complains of a missing GPU as of an error; real ones reach Python.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Spares TensorFlow from loading Keras 3, seconds that no command needs.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    sys.modules["__main__"].__doc__ = main.__globals__["__doc__"]
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    if _HELP & set(sys.argv[1:]):
        sys.exit(_guarded(lambda: _print_help(main), []))
    app.run(lambda argv: _guarded(main, argv))


def _print_help(main: Callable[[], int | None]) -> None:
    """What the command does, and its own flags."""
    command = main.__globals__
    # absl knows the flags of a file that is run by the file, those of an entry point by the module.
    module = sys.argv[0] if command["__name__"] == "__main__" else command["__name__"]
    print(f"{command['__doc__']}\nflags:\n{FLAGS.module_help(module)}", flush=True)


def _guarded(main: Callable[[], int | None], argv: list[str]) -> int:
    try:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}: every option is a --flag")
        return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:
        # Whoever read standard output has seen enough; keep Python from flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
    return 1
