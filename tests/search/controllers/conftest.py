import pytest

from mnasdet.protos import architecture_pb2
from mnasdet.search_spaces.space import Decision, SearchSpace


class ToySpace(SearchSpace):
    """A permutation of three and a number of four: 24 token lists."""

    def __init__(self):
        different = tuple(tuple(i != j for j in range(3)) for i in range(3))
        super().__init__(
            [
                Decision("first", (0, 1, 2)),
                Decision("second", (0, 1, 2), ((0, different),)),
                Decision("third", (0, 1, 2), ((0, different), (1, different))),
                Decision("number", (0, 1, 2, 3)),
            ]
        )

    def _decode(self, values):
        return architecture_pb2.Architecture()

    def _encode(self, architecture):
        return {}


@pytest.fixture(scope="session")
def toy_space():
    return ToySpace()


class WideSpace(SearchSpace):
    """Ten decisions of four."""

    def __init__(self):
        super().__init__([Decision(f"decision_{i}", (0, 1, 2, 3)) for i in range(10)])

    def _decode(self, values):
        return architecture_pb2.Architecture()

    def _encode(self, architecture):
        return {}


@pytest.fixture(scope="session")
def wide_space():
    return WideSpace()
