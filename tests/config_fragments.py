"""Changes to configs, as text."""

import functools
from pathlib import Path

from google.protobuf import text_format

from mnasdet import config

CONFIGS = Path(__file__).parents[1] / "configs"
COCO = CONFIGS / "mnasfpn_mobilenet_v2_320x320_coco.config"
SEARCH = CONFIGS / "mnasfpn_search_coco.config"


def merge(fragment, message):
    """Sets what `fragment` sets. Of a repeated field it replaces all."""
    changes = text_format.Parse(fragment, type(message)())
    _clear_repeated(changes, message)
    message.MergeFrom(changes)


def _clear_repeated(changes, message):
    for field, value in changes.ListFields():
        if hasattr(value, "append"):
            message.ClearField(field.name)
        elif field.message_type and message.HasField(field.name):
            _clear_repeated(value, getattr(message, field.name))


def the_problem(fragment, pipeline):
    """The one problem that a fragment makes in a sound config."""
    merge(fragment, pipeline)
    # A change of the classes makes another, of the label map.
    (problem,) = [p for p in config.check(pipeline) if "has ids up to" not in p]
    return problem


def nested(path, text):
    """`text` inside the messages that `path` names."""
    names = path.split(".")
    return " { ".join(names) + " { " + text + " }" * len(names)


ssd = functools.partial(nested, "model.ssd")

LOSS = "model.ssd.loss"
EXTRACTOR = "model.ssd.feature_extractor"
PREDICTOR = "model.ssd.box_predictor.weight_shared_convolutional_box_predictor"
OPTIMIZER = "train_config.optimizer"
RATE = "train_config.optimizer.momentum_optimizer.learning_rate"
AUGMENTATION = "train_config.data_augmentation_options"
SPACE = "search_config.search_space.mnasfpn"
