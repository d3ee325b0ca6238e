"""Detectors and classifiers that share weights: every step trains one network of a supernet."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mnasdet.architectures import input_size
from mnasdet.blueprint import Blueprint
from mnasdet.classifiers import classifier
from mnasdet.classifiers.classifier import Classifier
from mnasdet.detectors import one_stage
from mnasdet.detectors.one_stage import Detector
from mnasdet.networks import random_draws
from mnasdet.protos import architecture_pb2
from mnasdet.supernets.elastic import switched
from mnasdet.supernets.shared_network import SharedNetwork
from mnasdet.tasks import Evaluator, Loss

_Size = tuple[int, int]


class SharedTask:
    """A Task whose losses are those of a network drawn from many, which share their weights.

    Attributes:
      blueprint: of the supernet; its input is the largest.
      of_sizes: a task for each input size of the networks, (height, width), smallest first. All
        have the same weights, in a `SharedNetwork` each.
      model: that of the largest size, with all weights.
    """

    # Layers of a supernet have no fixed size.
    compiles = False

    def __init__(self, blueprint: Blueprint, of_sizes: Mapping[_Size, Detector | Classifier]):
        subnets = blueprint.subnets
        assert subnets
        self.blueprint, self.of_sizes = blueprint, of_sizes
        *_, self._largest = of_sizes.values()
        self.model: SharedNetwork = self._largest.model
        self.objective = self._largest.objective
        self._sandwich = subnets.sandwich
        self._paths = np.stack([self.model.path(each) for each in subnets.architectures])
        sizes = list(of_sizes)
        self._sizes = [sizes.index(self._size(each)) for each in subnets.architectures]

    def _size(self, architecture: architecture_pb2.Architecture) -> _Size:
        return input_size(architecture) or self.blueprint.image_size

    def of(self, architecture: architecture_pb2.Architecture) -> Detector | Classifier:
        """Returns the task of one network, whose model computes that one."""
        task = self.of_sizes[self._size(architecture)]
        task.model.choose(architecture)
        return task

    def targets(self, example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the image, at the largest size, and the targets for every size, "0/..." and so
        on."""
        found = {"image": example["image"]}
        for number, task in enumerate(self.of_sizes.values()):
            own = task.targets(example)
            found |= {f"{number}/{name}": own[name] for name in own if name != "image"}
        return found

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, Loss]:
        """Returns the losses of a network that is drawn for these examples."""
        number = self._drawn()
        path = tf.constant(self._paths)[number]

        def of_size(place: int, task: Detector | Classifier) -> dict[str, Loss]:
            prefix = f"{place}/"
            own = {
                name.removeprefix(prefix): value
                for name, value in batch.items()
                if name.startswith(prefix)
            }
            own["image"] = resized(batch["image"], task.image_size)
            model = functools.partial(task.model.of_path, path=path)
            return dataclasses.replace(task, model=model).losses(own)

        branches = enumerate(self.of_sizes.values())
        return switched(
            tf.constant(self._sizes)[number],
            {place: functools.partial(of_size, place, task) for place, task in branches},
        )

    def _drawn(self) -> tf.Tensor:
        """Draws the number of a network."""
        which, extreme = tf.unstack(random_draws.uniform((2,)))
        count = len(self._paths)
        # A draw just below 1, times the count, may be rounded up to the count.
        number = tf.minimum(tf.cast(which * count, tf.int32), count - 1)
        # BigNAS trains the smallest, the largest and random networks in every step. Here a step
        # trains one network, and a share of the steps trains one of the two ends.
        return tf.where(extreme < self._sandwich, tf.cast(which * 2, tf.int32), number)

    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the largest network finds, or the one that was chosen last, as its task
        does."""
        return self._largest.predict(images)

    def evaluator(self, categories: Mapping[int, str]) -> Evaluator:
        return self._largest.evaluator(categories)

    def draw(
        self, batch: Mapping[str, tf.Tensor], predictions: Mapping[str, tf.Tensor], settings: Any
    ) -> tf.Tensor:
        return self._largest.draw(batch, predictions, settings)


def resized(images: tf.Tensor, size: _Size) -> tf.Tensor:
    """Returns images [batch, height, width, 3] at the size of a network."""
    return images if tuple(images.shape[1:3]) == size else tf.image.resize(images, size)


def build(blueprint: Blueprint) -> SharedTask:
    """Returns the task of a blueprint's subnets, with fresh weights."""
    assert blueprint.subnets
    architectures = blueprint.subnets.architectures
    make = classifier.build if blueprint.kind == "classification" else one_stage.build
    sizes = {input_size(each) or blueprint.image_size for each in architectures}
    of_sizes: dict[_Size, Detector | Classifier] = {}
    model: SharedNetwork | None = None
    for size in sorted(sizes):
        own = dataclasses.replace(blueprint, resizer=blueprint.resizer.resized(size), subnets=None)
        # Losses, targets and evaluation are those of any network; the model alone is another one.
        plain = make(own)
        model = SharedNetwork(architectures, size, blueprint.num_classes, like=model)
        of_sizes[size] = dataclasses.replace(plain, model=model)
    return SharedTask(blueprint, of_sizes)
