"""A model that takes pictures as people have them: pixels of any size, files, or records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from mnasdet.data import preprocessing
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.networks.layers import folded

# The name that the OD API's exported models have for their input.
INPUT = "input_tensor"

# The OD API's names for what a model takes.
INPUT_TYPES = (
    "image_tensor",
    "float_image_tensor",
    "encoded_image_string_tensor",
    "tf_example",
)

# The network's input, [batch, height, width, 3] float32 in [-1, 1], and the extent of each image in
# it, [batch, 2], to what the model says of the images themselves.
Outputs = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


class Server(tf.Module):
    """Holds what a SavedModel serves: `function` for each input type.

    Called as the OD API's exported models are, it is the function of its own input type.
    """

    def __init__(
        self,
        resizer: ImageResizer,
        model: tf.Module,
        outputs: Outputs,
        input_type: str = "image_tensor",
    ) -> None:
        """Takes how pictures are resized, and what the network, `model`, says of them."""
        super().__init__()
        self._resizer = resizer
        inputs = [
            tf.TensorSpec([None, *resizer.image_size, 3], tf.float32),
            tf.TensorSpec([None, 2], tf.float32),
        ]
        # One function for all input types: the file has the network once.
        self._outputs = tf.function(folded(outputs, model), inputs, autograph=False)
        # Not the Keras model: TensorFlow would save the functions of all its layers, too.
        self.weights = list(self._outputs.get_concrete_function().graph.variables)
        self.__call__ = self.function(input_type)

    def function(self, input_type: str) -> Any:
        """Returns a tf.function from pictures, `input_tensor`, to the outputs.

        Args:
          input_type: image_tensor, uint8 [batch, height, width, 3]; float_image_tensor, the same as
            float32 from 0 to 255; encoded_image_string_tensor, string [batch], JPEG or PNG files;
            tf_example, string [batch], serialised tf.Examples with image/encoded.
        """
        function, shape, dtype = {
            "image_tensor": (self._of_images, [None, None, None, 3], tf.uint8),
            "float_image_tensor": (self._of_images, [None, None, None, 3], tf.float32),
            "encoded_image_string_tensor": (self._of_files, [None], tf.string),
            "tf_example": (self._of_examples, [None], tf.string),
        }[input_type]
        return tf.function(function, [tf.TensorSpec(shape, dtype, INPUT)], autograph=False)

    def _of_images(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        images, extent = preprocessing.preprocess(input_tensor, self._resizer)
        images = tf.ensure_shape(images, [None, *self._resizer.image_size, 3])
        return self._outputs(images, tf.tile(extent[None], [tf.shape(images)[0], 1]))

    def _of_files(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        def prepare(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # As the records of an evaluation set are decoded: the results are the same.
            image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
            image, extent = preprocessing.preprocess(image, self._resizer)
            return tf.ensure_shape(image, [*self._resizer.image_size, 3]), extent

        # One by one: pictures differ in size.
        images, extents = tf.map_fn(
            prepare, input_tensor, fn_output_signature=(tf.float32, tf.float32)
        )
        return self._outputs(images, tf.ensure_shape(extents, [None, 2]))

    def _of_examples(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
        return self._of_files(tf.io.parse_example(input_tensor, features)["image/encoded"])
