"""The parts that all commands share: flags, help, errors and JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from absl import app, flags

from mnasdet import errors, files, terminal
from mnasdet.errors import Terminated, UserError

FLAGS = flags.FLAGS
# The flags defined here are the command's own: its --help lists them.
flags.disclaim_key_flags()
_HELP = {"--help", "-help", "--helpshort", "-h"}
_VERSION = {"--version", "-version"}
# The packages that decide what a command computes.
_DECISIVE_PACKAGES = (
    "tensorflow",
    "tf-keras",
    "tf-models-official",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "numpy",
)

# Flags that the command cannot do without. absl has such flags too, but reports one at a time and
# takes an empty value, which a misspelt shell variable gives, for a value.
_required: list[str] = []

# Whole numbers are int32 in the configs and in TensorFlow; these are int64.
_WIDE = {"seed"}

# The only flag whose empty value means something.
_MAY_BE_EMPTY = {"note"}


def define_required(
    name: str, help_text: str, define: Callable[..., Any] = flags.DEFINE_string
) -> None:
    """Defines a flag, of text or what `define` makes, that has to be given; --help marks it."""
    define(name, None, f"{help_text} (required)")
    _required.append(name)


def define_format_flag() -> None:
    flags.DEFINE_enum("format", "text", ["text", "json"], "Output on standard output.")


def define_pipeline_flags(required: bool = True) -> None:
    """Defines --pipeline_config_path and the flags that override the paths in the config."""
    help_text = "Text-proto pipeline config: a file, or one that comes with mnasdet."
    if required:
        define_required("pipeline_config_path", help_text)
    else:
        flags.DEFINE_string("pipeline_config_path", None, help_text)
    flags.DEFINE_list("train_input", [], "Training records, in place of the config's.")
    flags.DEFINE_list("eval_input", [], "Evaluation records, in place of the config's.")
    flags.DEFINE_string("label_map", "", "Label map, in place of the config's.")


def define_image_size_flag(place: str) -> None:
    """Defines --image_size, which `image_size` reads; `place` says in place of what it is."""
    flags.DEFINE_string("image_size", "", f"Side in pixels, HEIGHTxWIDTH or HEIGHT,WIDTH, {place}.")


def image_size() -> tuple[int, int] | None:
    """Returns the (height, width) that --image_size names; None without the flag.

    Raises:
      UserError: it names no size.
    """
    if not FLAGS["image_size"].present:
        return None
    found = re.fullmatch(r"(\d{1,5})(?:[x,](\d{1,5}))?", FLAGS.image_size)
    size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not min(size):
        raise UserError(f"--image_size={FLAGS.image_size}: a side such as 320, or 256x448")
    return size


def define_record_flags() -> None:
    """Defines the flags of `write_records`."""
    define_format_flag()
    define_required("images_dir", "Folder of the images.")
    define_required("output_path", "Files are named OUTPUT_PATH-00000-of-0000N.")
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

    flags.DEFINE_integer(
        "holdout",
        None,
        "Images that are drawn and written to OUTPUT_PATH with _holdout in its name instead, to "
        "reward a search by.",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "holdout_fraction",
        None,
        "The share of the images, in place of --holdout.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_integer("seed", 0, "What draws the images of --holdout.", lower_bound=0)


def _holdout():
    """Returns the Holdout of the flags; None without one."""
    given = [name for name in ("holdout", "holdout_fraction") if FLAGS[name].present]
    if len(given) > 1:
        raise UserError("give either --holdout or --holdout_fraction")
    if not given:
        if FLAGS["seed"].present:
            raise UserError("--seed draws the images of --holdout; give that, too")
        return None

    from mnasdet.data.holdout import Holdout

    return Holdout(FLAGS.holdout or 0, FLAGS.holdout_fraction or 0.0, FLAGS.seed)


def load_pipeline(
    readers: Collection[str] = ("train_input_reader", "eval_input_reader"), **others: Any
):
    """Loads the pipeline config that the flags name, checked for a command that uses `readers`.

    `others` replaces what it says, as in `config.load`.
    """
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
    """Returns the number of ImageNet's classes, of COCO's for two stages, or of COCO's ids, which the
    OD API's one-stage detectors have a class for each; without a background."""
    if architecture.HasField("classifier"):
        return 1000
    return 80 if architecture.HasField("region_head") else 90


def write_records(
    images, total: int, names: Mapping[int, str], remarks: Sequence[str] = ()
) -> None:
    """Writes TFRecords and a label map, and prints what became of the images.

    The flags of `define_record_flags` decide how.

    Args:
      images: AnnotatedImages, `total` of them.
      names: of the classes, by id.
      remarks: what the summary says of the whole annotations.
    """
    holdout = _holdout()

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
        holdout=holdout,
    )
    if FLAGS.format == "json":
        print_json(dataclasses.asdict(summary))
    else:
        print(summary)


def print_json(value: Any) -> None:
    """Prints the one JSON object that standard output holds."""
    print(json.dumps(value, indent=2))


def print_metrics(metrics: dict[str, float], path: str | None = None) -> None:
    """Prints metrics as --format says, and writes them to `path`, if given, as JSON."""
    if path:
        files.write(path, json.dumps(metrics, indent=2) + "\n")
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
    if sys.platform == "win32":
        sys.exit("error: mnasdet runs on Linux and macOS; on Windows use it in WSL")
    # TensorFlow's C++ side complains of a missing GPU as of an error; real ones reach Python.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Spares TensorFlow from loading Keras 3, seconds that no command needs.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # Workers of a search, or two commands, may share a GPU; none takes all of its memory at once.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    terminal.set_up()
    signal.signal(signal.SIGTERM, _terminate)
    command = main.__globals__
    sys.modules["__main__"].__doc__ = _as_started(command["__doc__"], command["__name__"])
    given = set(sys.argv[1:])
    if _HELP & given:
        sys.exit(_guarded(lambda: _print_help(main)))
    if _VERSION & given:
        sys.exit(_guarded(_print_versions))
    app.run(lambda _: _guarded(main), flags_parser=_parse_flags)


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Says how to go on when a signal ends the work inside, which --resume takes up again."""
    from mnasdet.training.interruption import StoppedError

    try:
        yield
    except StoppedError as stopped:
        raise UserError(f"{stopped}, with --resume") from None
    except KeyboardInterrupt as interrupt:
        reason = str(interrupt) or "interrupted"
        raise UserError(f"{reason}; the same command with --resume goes on") from None


def _terminate(number: int, frame: FrameType | None) -> None:
    """Ends the command as Ctrl-C does: workers, locks and temporary files are put in order."""
    raise Terminated("stopped by SIGTERM")


def _as_started(text: str, module: str) -> str:
    """Returns a help text with its commands as the user can run them.

    The text names those of the source tree. An installed command, which runs as a module of the
    package, has no scripts/ folder.
    """
    if module == "__main__":
        return text
    return re.sub(
        r"(python )?scripts/(\w+)\.py",
        lambda match: f"mnasdet-{match[2].replace('_', '-')}",
        text,
    )


def _print_help(main: Callable[[], int | None]) -> None:
    """Prints what the command does, its own flags and the packaged configs."""
    command = main.__globals__
    # absl knows the flags of a file that is run by the file, those of an entry point by the module.
    module = sys.argv[0] if command["__name__"] == "__main__" else command["__name__"]
    text = f"{_as_started(command['__doc__'], command['__name__'])}\nflags:\n"
    text += FLAGS.module_help(module)
    text += "\n  --version: Prints the versions of mnasdet and of what it computes with."
    if "pipeline_config_path" in FLAGS:
        from mnasdet import packaged

        text += "\n\nconfigs that come with mnasdet, for --pipeline_config_path:\n"
        text += "".join(f"  {name}\n" for name in packaged.config_names())
    print(text.rstrip("\n"), flush=True)


def _print_versions() -> None:
    # Not at the top: --help and the flags do without.
    import platform
    from importlib import metadata

    import mnasdet

    print(f"mnasdet {mnasdet.__version__}")
    for package in _DECISIVE_PACKAGES:
        try:
            print(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            print(f"{package} is not installed")
    print(f"Python {platform.python_version()} on {platform.platform()}")


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags, or ends the command with all that is wrong with them."""
    if status := _guarded(lambda: _check_flags(argv)):
        sys.exit(status)
    return argv[:1]


def _check_flags(argv: list[str]) -> None:
    FLAGS.set_gnu_getopt(True)  # The flags after an unexpected argument count, too.
    try:
        unknown = FLAGS(argv, known_only=True)[1:]
    except (flags.Error, ValueError) as error:
        raise UserError(str(error)) from None
    misspelt = {word: _similar_flag(word) for word in unknown if word.startswith("-")}
    problems = [
        f"no flag {word}; " + (f"did you mean --{similar}?" if similar else "--help lists them")
        for word, similar in misspelt.items()
    ]
    # A misspelt flag leaves its value over, which is no argument of its own then.
    if not problems:
        problems = [f"unexpected argument {word!r}: every option is a --flag" for word in unknown]
    missing = [
        f"--{name}"
        for name in _required
        if not FLAGS[name].present and name not in misspelt.values()
    ]
    if missing:
        problems.append(f"missing: {', '.join(missing)}; --help describes them")
    problems += filter(None, map(_value_problem, FLAGS))
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError("\n  ".join([f"{len(problems)} problems with the flags:", *problems]))


def _value_problem(name: str) -> str:
    """Returns what is wrong with the value of a flag that was given, "" if nothing is."""
    flag = FLAGS[name]
    if not flag.present or name in _MAY_BE_EMPTY:
        return ""
    if flag.value in ("", None, [], [""]):
        # A misspelt shell variable, as in --model_dir=$DRI.
        return (
            f"--{name} is empty{'' if name in _required else '; leave it out or give it a value'}"
        )
    # absl takes the next flag for the value of one that has none.
    if str(flag.value).startswith("--"):
        return f"--{name} has no value; {flag.value} comes after it"
    largest = 2 ** (63 if name in _WIDE else 31) - 1
    if isinstance(flag.value, int) and not -largest - 1 <= flag.value <= largest:
        return f"--{name} is {flag.value}; {-largest - 1} to {largest} are allowed"
    if isinstance(flag.value, float) and not math.isfinite(flag.value):
        return f"--{name} is {flag.value}; a finite number is needed"
    return ""


def _similar_flag(word: str) -> str:
    """Returns the name of the flag that an unknown one was probably meant to be, or ""."""
    name = word.lstrip("-").partition("=")[0].replace("-", "_")
    # absl takes --noNAME for a switch that is off.
    names = [*FLAGS, *(f"no{known}" for known in FLAGS if FLAGS[known].boolean)]
    similar = difflib.get_close_matches(name, names, n=1)
    return (similar or [known for known in names if name and name in known] or [""])[0]


def _guarded(action: Callable[[], int | None]) -> int:
    """Returns the exit status of an action; prints the errors that the user can mend."""
    try:
        status = action() or 0
        # A full disk or a closed pipe must not pass for success.
        terminal.check_output()
        return status
    except UserError as error:
        _print_error(str(error))
    except OSError as error:
        # The number of an open file may stand in place of a name, which tells nobody anything.
        place = f"{os.fspath(error.filename)}: " if isinstance(error.filename, str) else ""
        _print_error(f"{place}{error.strerror or error}")
    except KeyboardInterrupt as interrupt:
        _print_error(str(interrupt) or "interrupted")
    except errors.foreign_kinds() as error:
        _print_error(errors.foreign_line(error))
    return 1


def _print_error(line: str) -> None:
    print(f"error: {line}", file=sys.stderr)
