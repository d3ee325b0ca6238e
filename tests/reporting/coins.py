"""The smallest search space with something to count."""

from mnasdet.search_spaces.space import Decision, SearchSpace


class Coins(SearchSpace):
    """Two choices twice; what they stand for does not matter."""

    def __init__(self):
        super().__init__([Decision("a", (1, 2)), Decision("b", (1, 2))])

    def _decode(self, values):
        raise NotImplementedError

    def _encode(self, architecture):
        raise NotImplementedError
