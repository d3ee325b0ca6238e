"""Reads text protos, with errors that say where, what was met and what is allowed."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from mnasdet.errors import ConfigError, UserError, nearest

MessageT = TypeVar("MessageT", bound=Message)

_QUOTED_CHARACTERS = 80

# Fields that SSD-family configs of the TF Object Detection API often have and that are not
# supported where they stand there.
_OD_API_FIELDS = """
adam_optimizer apply_sigmoid_to_scores autoaugment_image batch_queue_capacity
bias_grad_multiplier box_encodings_clip_range center_net convolutional_box_predictor
eval_interval_secs exponential_decay_learning_rate faster_rcnn fine_tune_checkpoint_type
fine_tune_checkpoint_version fpn freeze_batchnorm freeze_variables from_detection_checkpoint
graph_rewriter group_norm hard_example_miner inplace_batchnorm_update
keep_aspect_ratio_resizer keep_checkpoint_every_n_hours keypoint_box_coder l1_regularizer
load_all_detection_checkpoint_vars load_instance_masks max_evals max_number_of_boxes
mean_stddev_box_coder merge_multiple_label_boxes negative_class_weight
num_batch_queue_threads num_epochs num_examples num_parallel_batches num_prefetch_batches
pad_to_multiple prefetch_queue_capacity queue_capacity random_adjust_brightness
random_adjust_contrast random_adjust_hue random_adjust_saturation random_black_patches
random_distort_color random_jitter_boxes random_pad_image random_patch_gaussian
random_pixel_value_scale random_rgb_to_gray random_rotation90 random_square_crop_by_scale
read_block_length replicas_to_aggregate rms_prop_optimizer save_graph ssd_anchor_generator
ssd_random_crop_fixed_aspect_ratio ssd_random_crop_pad startup_delay_steps sync_replicas
unpad_groundtruth_tensors use_bfloat16 use_dropout use_explicit_padding weighted_l2
weighted_sigmoid weighted_softmax
"""


def read(
    path: str | os.PathLike,
    message_class: type[MessageT],
    error: type[UserError] = ConfigError,
) -> MessageT:
    """The message in a text-proto file; raises `error` with one line."""
    return parse(read_text(path, error), message_class, str(path), error)


def read_text(path: str | os.PathLike, error: type[UserError] = ConfigError) -> str:
    """The text of a file that must have some; raises `error` with one line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error(f"{path}: no such file{_similar_file(path)}") from None
    except IsADirectoryError:
        raise error(f"{path}: is a directory; name a text-proto file in it") from None
    except UnicodeDecodeError:
        raise error(f"{path}: is a binary file; a text proto is needed") from None
    except OSError as problem:
        raise error(f"{path}: {problem.strerror}") from None
    if "\0" in text:
        raise error(f"{path}: is a binary file; a text proto is needed")
    if not text.strip():
        raise error(f"{path}: is empty")
    return text


def parse(
    text: str,
    message_class: type[MessageT],
    name: str,
    error: type[UserError] = ConfigError,
) -> MessageT:
    """The message in `text`.

    Raises:
      error: "`name`:line:column: what is wrong, what is allowed  in "the line"".
    """
    try:
        return text_format.Parse(text, message_class())
    except text_format.ParseError as problem:
        raise error(_describe(problem, text, message_class.DESCRIPTOR, name)) from None


def _similar_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent} either"
    names = [other.name for other in path.parent.iterdir() if other.is_file()]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _describe(problem: text_format.ParseError, text: str, root: Any, name: str) -> str:
    """Protobuf's own message, made to say what is allowed."""
    line, column = problem.GetLine() or 1, problem.GetColumn() or 1
    quoted = text.split("\n")[line - 1].strip()[:_QUOTED_CHARACTERS]
    raw = re.sub(r"^\d+:\d+ : ", "", str(problem))
    # Where protobuf quotes the line as well, it does so in front.
    raw = re.sub(r"^'.*?': (?=[A-Z])", "", raw, flags=re.DOTALL)
    what = " ".join(_explain(raw, root).split())
    return f'{name}:{line}:{column}: {what}  in "{quoted}"'


def _explain(raw: str, root: Any) -> str:
    pool = root.file.pool
    if match := re.match(r'Message type "(\S+)" has no field named "(.+)"', raw):
        return _no_field(match[2], pool.FindMessageTypeByName(match[1]))
    if match := re.match(r'Enum type "(\S+)" has no value (?:named|with number) (\S+)\.', raw):
        return _no_value(match[2], pool.FindEnumTypeByName(match[1]))
    if match := re.match(r'Message type "\S+?(\w+)" should not have multiple "(\w+)" fields', raw):
        return f'"{match[2]}" is set a second time in {match[1]}; keep one'
    if match := re.match(r'Field "(\w+)" is specified along with field "(\w+)"', raw):
        return f'"{match[1]}" excludes "{match[2]}", which is set above; keep one'
    if raw == 'Expected "}".':
        return 'the file ends inside a message; a "}" is missing'
    if raw.endswith("got }."):
        return 'a "}" too many'
    return raw[0].lower() + raw[1:].rstrip(".")


def _no_field(field: str, message: Any) -> str:
    allowed = list(message.fields_by_name)
    if field in _OD_API_FIELDS.split():
        return (
            f'"{field}" of the TF Object Detection API is not supported in {message.name}; '
            f"remove it{_listed(field, allowed)}"
        )
    return f'no field "{field}" in {message.name}{_guess(field, allowed)}{_listed(field, allowed)}'


def _no_value(value: str, enum: Any) -> str:
    allowed = list(enum.values_by_name)
    return f'no value "{value}" in {enum.name}{_guess(value, allowed)}{_listed(value, allowed)}'


def _guess(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _listed(name: str, allowed: list[str]) -> str:
    """All that is allowed, nearest first."""
    return f" (allowed: {nearest(name, allowed).removeprefix('one of ') if allowed else 'nothing'})"
