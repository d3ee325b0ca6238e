"""Checkpoints: warm starts and trained detectors."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import tensorflow as tf
import tf_keras

from mnasdet import config
from mnasdet.detectors import detector as detectors
from mnasdet.detectors.network import num_exits
from mnasdet.errors import CheckpointError, UserError
from mnasdet.protos import architecture_pb2, pipeline_pb2

# What a checkpoint holds, beside the state of the optimizer: the weights by name, and their moving
# averages where the config asks for them.
WEIGHTS, AVERAGES = "weights", "averages"

# Written beside the checkpoints: what they are checkpoints of.
ARCHITECTURE_FILE = "architecture.textproto"

# What only a detector that was trained with graph_rewriter has, by a part of the name.
_RANGE = "/range"
_LEARNT = ", which training with graph_rewriter learns"

# A counter in every layer of tfmot, which nothing reads.
_TFMOT_COUNTER = "/optimizer_step"


def variables_by_name(model: tf_keras.Model) -> dict[str, tf.Variable]:
    """All weights, "backbone/layer_1/conv/kernel" and so on."""
    names = {variable.name.removesuffix(":0"): variable for variable in model.variables}
    return {name: v for name, v in names.items() if not name.endswith(_TFMOT_COUNTER)}


def _key(root: str, name: str) -> str:
    """Where tf.train.Checkpoint keeps entry `name` of a dictionary: it escapes dots and slashes."""
    escaped = name.replace(".", "..").replace("/", ".S")
    return f"{root}/{escaped}/.ATTRIBUTES/VARIABLE_VALUE"


def find(path: str | Path) -> str:
    """The newest checkpoint of a folder, or the checkpoint itself, as TensorFlow names it."""
    path = Path(path)
    if path.is_dir():
        newest = tf.train.latest_checkpoint(str(path))
        if not newest:
            raise CheckpointError(f"{path}: no checkpoint in this folder")
        return newest
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    if not Path(f"{prefix}.index").exists():
        raise CheckpointError(f"{path}: no such checkpoint (there is no {prefix}.index)")
    return str(prefix)


def load_weights(
    model: tf_keras.Model, path: str | Path, *, partial: bool = False, parts: Collection[str] = ()
) -> int:
    """Loads the weights of a checkpoint into `model`, by name; their averages where it has them.

    Args:
      partial: a warm start: variables that are missing or of another shape keep their values.
      parts: of the network that are loaded, such as "backbone"; none: all.

    Returns:
      The number of variables loaded.

    Raises:
      CheckpointError: variables do not fit (none at all for a warm start).
    """
    prefix = find(path)
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError) as error:
        raise CheckpointError(f"{prefix}: not a readable checkpoint: {error}") from None
    shapes = reader.get_variable_to_shape_map()
    root = AVERAGES if any(key.startswith(f"{AVERAGES}/") for key in shapes) else WEIGHTS
    fitting, problems = [], []
    for name, variable in variables_by_name(model).items():
        if parts and name.partition("/")[0] not in parts:
            continue
        key = _key(root, name)
        if key not in shapes:
            problems.append(f"{name} is missing{_LEARNT if _RANGE in name else ''}")
        elif shapes[key] != variable.shape.as_list():
            problems.append(f"{name} is {shapes[key]} there, {variable.shape.as_list()} here")
        else:
            fitting.append((variable, key))
    if not partial and not any(_RANGE in name for name in variables_by_name(model)):
        # Weights that were trained for int8 would pass for a float detector.
        unread = [
            key for key in shapes if key.startswith(root) and _RANGE.replace("/", ".S") in key
        ]
        if unread:
            raise CheckpointError(
                f"{prefix}: has ranges of activations{_LEARNT}; the config has no graph_rewriter"
            )
    if problems and (not partial or not fitting):
        raise CheckpointError(
            f"{prefix}: {len(fitting)} of {len(variables_by_name(model))} variables match; "
            f"{len(problems)} do not, first: {problems[0]}"
        )
    try:
        values = [reader.get_tensor(key) for _, key in fitting]
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{prefix}: the checkpoint is damaged: {error}") from None
    for (variable, _), value in zip(fitting, values, strict=True):
        variable.assign(value)
    return len(fitting)


def load_architecture(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, checkpoint_dir: str | Path
) -> architecture_pb2.Architecture:
    """What the checkpoints of a folder are checkpoints of: its own architecture.textproto, or,
    where there is none, the config's."""
    own = Path(find(checkpoint_dir)).parent / ARCHITECTURE_FILE
    if own.exists():
        return config.load_architecture(str(own))
    return config.architecture(pipeline)


def load_detector(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    checkpoint_dir: str | Path,
    exit_: int = 0,
) -> detectors.Detector:
    """The trained detector of a `train` folder (its newest checkpoint) or of one checkpoint.

    Args:
      exit_: the repeat of the pyramid, from 1, whose predictor detects; 0: the last, or what the
        architecture says.

    Raises:
      CheckpointError: the weights do not fit.
      UserError: no predictor was trained at this exit.
    """
    prefix = find(checkpoint_dir)
    architecture = load_architecture(pipeline, checkpoint_dir)
    last = num_exits(architecture)
    if exit_ not in (0, last) and not (architecture.deep_supervision and 0 < exit_ < last):
        trained = f"1 to {last}" if architecture.deep_supervision else f"{last}, the last,"
        raise UserError(f"exit is {exit_}; {checkpoint_dir} has predictors at {trained} only")
    if architecture.deep_supervision:
        # Without the other predictors, which only training needs.
        architecture.exit = exit_ or architecture.exit or last
    detector = detectors.build(pipeline, architecture)
    load_weights(detector.model, prefix)
    return detector
