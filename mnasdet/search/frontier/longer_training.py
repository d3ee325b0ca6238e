"""A training recipe at another length."""

from __future__ import annotations

from mnasdet.protos import train_pb2

_LARGEST = 2**32 - 1  # The field is a uint32.


def stretched(train_config: train_pb2.TrainConfig, num_steps: int) -> train_pb2.TrainConfig:
    """Returns the recipe for `num_steps`.

    All steps of its learning rate's schedule move by the same factor: warm-up, drops and the end of
    a cosine stay at their share of the training; so does the end of `freeze_until`.
    """
    longer = train_pb2.TrainConfig()
    longer.CopyFrom(train_config)
    longer.num_steps = num_steps
    factor = num_steps / train_config.num_steps
    if longer.HasField("freeze_until"):
        _scale(longer.freeze_until, "step", factor)
    optimizer = longer.optimizer.WhichOneof("optimizer")
    if not optimizer:
        return longer
    rate = getattr(longer.optimizer, optimizer).learning_rate
    if not (name := rate.WhichOneof("learning_rate")):
        return longer
    schedule = getattr(rate, name)
    for field in schedule.DESCRIPTOR.fields:
        if field.name.endswith("_steps"):
            _scale(schedule, field.name, factor)
    for drop in getattr(schedule, "schedule", ()):
        _scale(drop, "step", factor)
    return longer


def _scale(message, field: str, factor: float) -> None:
    """Scales a field, also one that has its default."""
    setattr(message, field, min(round(getattr(message, field) * factor), _LARGEST))
