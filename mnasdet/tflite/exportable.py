"""The interface of a kind of model that can be exported as a TFLite file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mnasdet.tflite import metadata
from mnasdet.tflite.graph_file import schema

if TYPE_CHECKING:
    import tf_keras


class Exportable(Protocol):
    """A model and what its file has beside the network.

    Attributes:
      model: images [batch, height, width, 3] to the outputs of the network that is converted.
      image_size: (height, width) in pixels.
      background: the first line of the file's labels, where slot 0 of the scores is the
        background's; None where it is the first class's.
    """

    @property
    def model(self) -> tf_keras.Model: ...

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def background(self) -> str | None: ...

    def finish(self, graph: schema.ModelT) -> None:
        """Appends to the network the operations that the file computes in addition."""
        ...

    def metadata(self, *, input_type: str, labels: bool) -> metadata.Model:
        """Returns the file's metadata, tensors in the graph's order.

        Args:
          input_type: float32 or uint8.
          labels: the file has labels.
        """
        ...

    def files(self) -> dict[str, bytes]:
        """Returns the files that belong beside the graph, by name."""
        ...

    def describe(self) -> dict[str, Any]:
        """Returns what the description of the export says of this kind of model."""
        ...
