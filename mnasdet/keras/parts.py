"""Messages of an Architecture as plain values, which Keras writes into its files, and back."""

from __future__ import annotations

import os
import re
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from mnasdet import config
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.errors import LayerError, shown
from mnasdet.networks.builder import Node
from mnasdet.protos import architecture_pb2
from mnasdet.text_faults.faults import no_field, no_value

# A published architecture's name, the path of a text-proto file, an architecture string, or the
# message.
ArchitectureLike = str | os.PathLike | architecture_pb2.Architecture

# As protobuf words what it cannot parse.
_UNKNOWN_FIELD = re.compile(r'"(\S+)" has no field named "(.+?)" at "Architecture\.(.+?)"')
_UNKNOWN_VALUE = re.compile(r"Invalid enum value (.+?) for enum type (\S+) at Architecture\.(.+)")
_PARSED_FIELD = re.compile(r"Failed to parse (\w+) field: ")


def resolved(architecture: ArchitectureLike) -> architecture_pb2.Architecture:
    """Returns the message of an architecture."""
    if isinstance(architecture, architecture_pb2.Architecture):
        return architecture
    return config.load_architecture(os.fspath(architecture))


def checked(values: dict[str, Any], title: str) -> architecture_pb2.Architecture:
    """Returns an Architecture that has only some parts.

    Args:
      values: its fields. Messages inside are dicts, enums are strings.
      title: of the layer, for errors.

    Raises:
      LayerError: with all problems of these fields.
    """
    try:
        architecture = json_format.ParseDict(values, architecture_pb2.Architecture())
    except json_format.ParseError as error:
        raise LayerError(f"{title}: {_explained(error)}") from None
    problems = [
        problem
        for problem in architecture_problems(architecture)
        # The parts that are missing are no problem of this layer.
        if problem.split(" ")[0].split(".")[0] in values
    ]
    if problems:
        raise LayerError(f"{title}: {'; '.join(problems)}")
    return architecture


def _explained(error: json_format.ParseError) -> str:
    """Returns protobuf's own message with the field's name, or with the allowed names."""
    text, pool = str(error).rstrip("."), architecture_pb2.DESCRIPTOR.pool
    if match := _UNKNOWN_FIELD.search(text):
        return f"{match[3]}: {no_field(match[2], pool.FindMessageTypeByName(match[1]))}"
    if match := _UNKNOWN_VALUE.search(text):
        return f"{match[3]}: {no_value(match[1], pool.FindEnumTypeByName(match[2]))}"
    *_, field, problem = _PARSED_FIELD.split(text)
    return f"{field}: {problem}"


def fields(message: Message) -> dict[str, Any]:
    """Returns a message's fields as plain values, those that are not set with their defaults.

    Messages inside that are not set are left out.
    """
    whole = type(message)()
    whole.CopyFrom(message)
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            values[field.name] = []
        elif not field.message_type:
            # A field that is set to its default counts as set.
            setattr(whole, field.name, getattr(whole, field.name))
    return values | json_format.MessageToDict(whole, preserving_proto_field_name=True)


def part_fields(
    architecture: architecture_pb2.Architecture, part: str, kind: str, class_name: str
) -> dict[str, Any]:
    """Returns the fields of a part of an architecture, as `fields`.

    Args:
      part: its field in the Architecture, and `kind`, the one in the part's oneof.
      class_name: of the layer that reads them, for errors.

    Raises:
      LayerError: the part is not of that kind.
    """
    message = getattr(architecture, part)
    found = message.WhichOneof(f"{part}_oneof")
    if found != kind:
        raise LayerError(
            f'{class_name}: architecture "{architecture.name}" has {found or "nothing"} for its '
            f"{part}, not {kind}; mnasdet.keras.{part}(architecture) makes the layer of any kind"
        )
    return fields(getattr(message, kind))


def scaled_fields(
    architecture: architecture_pb2.Architecture, part: str, kind: str, class_name: str
) -> dict[str, Any]:
    """Returns `part_fields` and the fields that backbone and pyramid share.

    They are the factor on the widths, the least width and the hyper-parameters.
    """
    values = part_fields(architecture, part, kind, class_name)
    message = getattr(architecture, part)
    # MobileNetV2 has a factor of its own beside the architecture's. Their product is not cut to the
    # 32 bits of a message's field: the widths must be those of the whole detector.
    own = getattr(getattr(message, kind), "depth_multiplier", 1.0)
    return values | {
        "depth_multiplier": architecture.depth_multiplier * own,
        "min_depth": architecture.min_depth,
        "conv_hyperparams": _conv_hyperparams(message),
    }


def scaled_values(
    part: str,
    kind: str,
    values: dict[str, Any],
    depth_multiplier: float,
    min_depth: int,
    conv_hyperparams: dict[str, Any] | None,
) -> dict[str, Any]:
    """Returns the fields of an Architecture that has a backbone or a pyramid alone."""
    message = {kind: values}
    if conv_hyperparams is not None:
        message["conv_hyperparams"] = conv_hyperparams
    return {part: message, "depth_multiplier": depth_multiplier, "min_depth": min_depth}


def scaled_config(message: Any, kind: str) -> dict[str, Any]:
    """Returns the fields of a backbone or a pyramid, and its hyper-parameters."""
    return fields(getattr(message, kind)) | {"conv_hyperparams": _conv_hyperparams(message)}


def _conv_hyperparams(message: Any) -> dict[str, Any] | None:
    if not message.HasField("conv_hyperparams"):
        return None
    return json_format.MessageToDict(message.conv_hyperparams, preserving_proto_field_name=True)


def only(inputs: list[Node]) -> Node:
    """Returns the one input of a layer that takes one."""
    if len(inputs) != 1:
        raise ValueError(f"{len(inputs)} tensors come in; 1 is needed")
    return inputs[0]


def counted(name: str, value: Any, title: str) -> int:
    """Returns an argument that counts something, and has to be 1 or more."""
    # bool is an int, and True would count as 1.
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise LayerError(f"{title}: {name} is {shown(value)}; a whole number from 1 on is allowed")
    return int(value)
