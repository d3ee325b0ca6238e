"""Checkpoints: warm starts and trained models."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras
from absl import logging

from mnasdet import config, models, remote
from mnasdet.architectures import num_exits
from mnasdet.blueprint import Blueprint
from mnasdet.data import input_pipeline
from mnasdet.errors import CheckpointError, UserError
from mnasdet.networks.names import in_backbone, part_of
from mnasdet.protos import pipeline_pb2
from mnasdet.tasks import Task
from mnasdet.training import foreign_checkpoints, run_files
from mnasdet.training.literal_paths import literal, shown

# The dictionaries in a checkpoint, beside the state of the optimizer: the weights by name, and
# their moving averages where the config asks for them.
WEIGHTS, AVERAGES = "weights", "averages"

# The seconds that training took. In the checkpoint, where they are those of its weights even if the
# process dies right after it.
SECONDS = "train_seconds"

# The parts that older checkpoints of the same training may lack.
_LATER = {AVERAGES, SECONDS}

# Checkpoints are named NAME-STEP.
NAME = "ckpt"

# A part of the names of variables that only a detector trained with graph_rewriter has.
_RANGE = "/range"
_LEARNT = ", which training with graph_rewriter learns"

# Parts of the names of variables that only a supernet has: one kernel for all the features that a
# block may merge, and all layers of a backbone.
_SHARED = ("/sources/conv/", "backbone/shared/")

# A counter in every layer of tfmot, which nothing reads.
_TFMOT_COUNTER = "/optimizer_step"


def variables_by_name(model: tf_keras.Model) -> dict[str, tf.Variable]:
    """Returns all weights, "backbone/layer_1/conv/kernel" and so on."""
    names = {variable.name.removesuffix(":0"): variable for variable in model.variables}
    return {name: v for name, v in names.items() if not name.endswith(_TFMOT_COUNTER)}


def is_range(name: str) -> bool:
    """Tells whether a variable is a range of activations, which only graph_rewriter makes."""
    return _RANGE in name


def _key(root: str, name: str) -> str:
    """Returns the key of an entry in tf.train.Checkpoint, which escapes dots and slashes."""
    return f"{root}/{_escaped(name)}/.ATTRIBUTES/VARIABLE_VALUE"


def _escaped(name: str) -> str:
    return name.replace(".", "..").replace("/", ".S")


def _unescaped(key: str) -> str:
    return key.split("/")[1].replace(".S", "/").replace("..", ".")


def find(path: str | Path) -> str:
    """Finds the newest sound checkpoint of a folder, or a checkpoint itself.

    A damaged one is passed over with a warning: the one before it is nearly as good, and a run that
    died while it saved has just that.

    Args:
      path: the folder, or the checkpoint with or without ".index"; on another file system, it is
        copied.

    Returns:
      The checkpoint as TensorFlow names it, without an ending.

    Raises:
      CheckpointError: there is none, or none that is sound.
    """
    path = Path(remote.local(path))
    if path.is_dir():
        return _newest_sound(path)
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    if not Path(f"{prefix}.index").exists():
        missing = f"no such checkpoint (there is no {prefix}.index)"
        raise CheckpointError(f"{path}: {foreign_checkpoints.describe(path) or missing}")
    return str(prefix)


def all_in(folder: Path) -> list[str]:
    """Returns the checkpoints of a folder by their step, oldest first, sound or not.

    By the files and not by TensorFlow's `checkpoint` file, which an ill-timed end leaves empty.
    """
    steps = {}
    for index in folder.glob(f"{NAME}-*.index"):
        step = index.stem.removeprefix(f"{NAME}-")
        if step.isdigit():
            steps[int(step)] = str(index.with_suffix(""))
    return [steps[step] for step in sorted(steps)]


def _newest_sound(folder: Path) -> str:
    found = all_in(folder)
    if not found:
        foreign = foreign_checkpoints.describe(folder)
        raise CheckpointError(f"{folder}: {foreign or 'no checkpoint in this folder'}")
    faults: list[str] = []
    # The newest first: reading all of a checkpoint takes seconds, and mostly it is sound.
    for prefix in reversed(found):
        if not (fault := _fault(prefix)):
            for damaged in faults:
                logging.warning("%s; going back to %s", damaged, prefix)
            return prefix
        faults.append(f"{prefix}: {fault}")
    others = "the best one is in best/" if all_in(folder / "best") else "train in another folder"
    raise CheckpointError(f"{faults[0]}; no checkpoint of the folder is sound; {others}")


def _fault(prefix: str) -> str:
    """Reads all of a checkpoint and returns what is wrong with it; empty if nothing is."""
    try:
        reader = _reader(prefix)
        for key in reader.get_variable_to_shape_map():
            value = _value(reader, key)
            if key.startswith((WEIGHTS, AVERAGES)) and not np.isfinite(value).all():
                return f"{_unescaped(key)} has values that are NaN or infinite"
    except CheckpointError as error:
        return shown(str(error), prefix).removeprefix(f"{prefix}: ")
    return ""


def _reader(prefix: str) -> Any:
    try:
        return tf.train.load_checkpoint(literal(prefix))
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = shown(str(error).splitlines()[0], prefix)
        raise CheckpointError(f"{prefix}: not a readable checkpoint: {reason}") from None


def _value(reader: Any, key: str) -> np.ndarray:
    try:
        return reader.get_tensor(key)
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"the checkpoint is damaged: {reason}") from None


class Fit(NamedTuple):
    """How the weights of a checkpoint fit a model.

    Attributes:
      fitting: the variables with their keys in the checkpoint, by name.
      missing: a line for each variable that is not there, with its name first.
      misshapen: a line for each that has another shape there.
    """

    fitting: dict[str, tuple[tf.Variable, str]]
    missing: list[str]
    misshapen: list[str]

    @property
    def problems(self) -> list[str]:
        return [*self.missing, *self.misshapen]


def _fit(model: tf_keras.Model, reader: Any, parts: Collection[str] = ()) -> Fit:
    shapes = reader.get_variable_to_shape_map()
    # The averages, where they are kept, are the weights that were evaluated.
    root = AVERAGES if any(key.startswith(f"{AVERAGES}/") for key in shapes) else WEIGHTS
    fit = Fit({}, [], [])
    for name, variable in variables_by_name(model).items():
        if parts and part_of(name) not in parts:
            continue
        key = _key(root, name)
        if key not in shapes:
            key = _key(root, in_backbone(name))
        if key not in shapes:
            fit.missing.append(f"{name} is missing{_LEARNT if _RANGE in name else ''}")
        elif shapes[key] != variable.shape.as_list():
            fit.misshapen.append(f"{name} is {shapes[key]} there, {variable.shape.as_list()} here")
        else:
            fit.fitting[name] = variable, key
    return fit


def _check_whole(model: tf_keras.Model, reader: Any, prefix: str, fit: Fit) -> None:
    """Raises CheckpointError unless the checkpoint is one of just this model."""
    quantized = any(_RANGE in name for name in variables_by_name(model))
    if not quantized and any(_escaped(_RANGE) in key for key in reader.get_variable_to_shape_map()):
        # Weights that were trained for int8 would pass for a float detector.
        raise CheckpointError(
            f"{prefix}: has ranges of activations{_LEARNT}; the config has no graph_rewriter"
        )
    if fit.problems:
        raise _misfit(model, prefix, fit)


def _misfit(model: tf_keras.Model, prefix: str, fit: Fit) -> CheckpointError:
    keys = " ".join(_reader(prefix).get_variable_to_shape_map())
    is_supernet = any(part in name for name in variables_by_name(model) for part in _SHARED)
    if not is_supernet and any(_escaped(part) in keys for part in _SHARED):
        return CheckpointError(
            f"{prefix}: has the weights that the networks of a one_shot search share, and is none "
            "of them; name the search's best/ folder, or train a network with it as "
            "fine_tune_checkpoint"
        )
    if not fit.fitting and (foreign := foreign_checkpoints.describe(prefix)):
        return CheckpointError(f"{prefix}: {foreign}")
    return CheckpointError(
        f"{prefix}: {len(fit.fitting)} of {len(variables_by_name(model))} variables match; "
        f"{len(fit.problems)} do not, first: {fit.problems[0]}"
    )


def load_weights(model: tf_keras.Model, path: str | Path) -> None:
    """Loads the weights of a checkpoint into `model`, by name; their averages where it has them.

    Raises:
      CheckpointError: it is not one of this model, or damaged.
    """
    prefix = find(path)
    reader = _reader(prefix)
    fit = _fit(model, reader)
    _check_whole(model, reader, prefix, fit)
    _assign(fit, reader, prefix)


class Fitting:
    """The part of a checkpoint that fits a model, for a warm start.

    Attributes:
      fit: what fits and what does not.
    """

    def __init__(self, model: tf_keras.Model, path: str | Path, parts: Collection[str] = ()):
        """
        Args:
          parts: of the network that are loaded, such as "backbone"; none: all.

        Raises:
          CheckpointError: there is no sound checkpoint.
        """
        self._prefix = find(path)
        self._reader = _reader(self._prefix)
        self.fit = _fit(model, self._reader, parts)

    def load(self) -> None:
        """Loads what fits; other variables keep their values.

        Raises:
          CheckpointError: the checkpoint is damaged.
        """
        _assign(self.fit, self._reader, self._prefix)


def _assign(fit: Fit, reader: Any, prefix: str) -> None:
    try:
        # All values before the first assignment: a damaged file leaves the model as it was.
        values = [_value(reader, key) for _, key in fit.fitting.values()]
    except CheckpointError as error:
        raise CheckpointError(f"{prefix}: {shown(str(error), prefix)}") from None
    for (variable, _), value in zip(fit.fitting.values(), values, strict=True):
        variable.assign(value)


def restore(checkpoint: tf.train.Checkpoint, model: tf_keras.Model, folder: Path) -> str:
    """Restores all of a training from the newest sound checkpoint of a folder.

    Moving averages that it was trained without start from its weights.

    Args:
      checkpoint: a `Learner`'s.
      model: the learner's network.

    Returns:
      The checkpoint's name.

    Raises:
      CheckpointError: it is not one of this network and this optimizer.
    """
    prefix = find(folder)
    reader = _reader(prefix)
    _check_whole(model, reader, prefix, _fit(model, reader))
    roots = {key.partition("/")[0] for key in reader.get_variable_to_shape_map()}
    members = checkpoint._trackable_children()
    # Parts that no checkpoint had before somebody asked for them.
    later = {name: part for name, part in members.items() if name in _LATER - roots}
    present = {name: part for name, part in members.items() if name not in later}
    try:
        tf.train.Checkpoint(**present).read(literal(prefix)).assert_existing_objects_matched()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        reason = shown(str(error).splitlines()[0], prefix)
        raise CheckpointError(
            f"{prefix}: has not the state of this optimizer or its averages: {reason}"
        ) from None
    if AVERAGES in later:
        for name, average in later[AVERAGES].items():
            average.assign(members[WEIGHTS][name])
    return prefix


def load_blueprint(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, checkpoint_dir: str | Path
) -> Blueprint:
    """Returns what the checkpoints of a folder were trained as.

    That is the folder's own architecture.textproto, or, where there is none, what the config says.
    """
    folder = Path(find(checkpoint_dir)).parent
    own = folder / run_files.ARCHITECTURE_FILE
    if not own.exists():
        return config.resolve(pipeline)
    # A search finds another network than the one that it began with.
    if not pipeline.HasField("search_config"):
        run_files.warn_of_other_layers(folder, config.resolve(pipeline))
    return config.resolve(pipeline, config.load_trained_architecture(own))


def load_task(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    checkpoint_dir: str | Path,
    exit_: int = 0,
) -> Task:
    """Returns the trained task of a `train` folder (its newest checkpoint) or of one checkpoint.

    Args:
      exit_: the repeat of the pyramid, from 1, whose predictor detects; 0: the last, or what the
        architecture says.

    Raises:
      CheckpointError: the weights do not fit, or were trained for other classes.
      UserError: no predictor was trained at this exit.
    """
    prefix = find(checkpoint_dir)
    blueprint = load_blueprint(pipeline, prefix)
    for reader in pipeline.eval_input_reader[:1]:
        run_files.check_usable(Path(prefix).parent, blueprint, input_pipeline.label_map(reader))
    architecture = blueprint.architecture
    if architecture.HasField("classifier") != (blueprint.kind == "classification"):
        trained = "a classifier" if architecture.HasField("classifier") else "a detector"
        raise CheckpointError(f"{prefix}: is {trained}; the config's model is not")
    last = num_exits(architecture)
    if exit_ not in (0, last) and not (architecture.deep_supervision and 0 < exit_ < last):
        trained = f"1 to {last}" if architecture.deep_supervision else f"{last}, the last,"
        raise UserError(f"exit is {exit_}; {checkpoint_dir} has predictors at {trained} only")
    if architecture.deep_supervision:
        # Without the other predictors, which only training needs.
        architecture.exit = exit_ or architecture.exit or last
    task = models.build(blueprint)
    load_weights(task.model, prefix)
    return task
