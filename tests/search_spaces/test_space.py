import itertools
from collections import Counter

import numpy as np
import pytest

from mnasdet.errors import UserError
from mnasdet.protos import architecture_pb2
from mnasdet.search_spaces.space import Decision, SearchSpace

DIFFERENT = tuple(tuple(i != j for j in range(3)) for i in range(3))


class ToySpace(SearchSpace):
    """An ordered choice of two of three colours, a size that red rules the last of out, a flag.

    The architecture keeps the values in its name.
    """

    def __init__(self):
        colours = ("red", "green", "blue")
        no_last = ((True, True, False), (True, True, True), (True, True, True))
        super().__init__(
            [
                Decision("first", colours),
                Decision("second", colours, ((0, DIFFERENT),)),
                Decision("size", (1, 2, 3), ((0, no_last), (1, no_last))),
                Decision("flag", (0, 1)),
            ]
        )

    def _decode(self, values):
        return architecture_pb2.Architecture(name=" ".join(map(str, values.values())))

    def _encode(self, architecture):
        first, second, size, flag = architecture.name.split()
        return {"first": first, "second": second, "size": int(size), "flag": int(flag)}


@pytest.fixture
def space():
    return ToySpace()


def valid(tokens):
    first, second, size, _ = tokens
    return first != second and not (0 in (first, second) and size == 2)


ALL = [t for t in itertools.product(range(3), range(3), range(3), range(2)) if valid(t)]


def test_cardinality_counts_what_the_tables_leave(space):
    # 2 pairs without red with 3 sizes, 4 with red with 2, and the flag.
    assert space.cardinality() == (2 * 3 + 4 * 2) * 2 == len(ALL)


def test_allowed_is_the_product_of_the_tables(space):
    assert space.allowed(0, ()) == (0, 1, 2)
    assert space.allowed(1, (1,)) == (0, 2)
    assert space.allowed(2, (1, 2)) == (0, 1, 2)
    assert space.allowed(2, (1, 0)) == (0, 1)


def test_validate_accepts_exactly_the_space(space):
    for tokens in itertools.product(range(3), range(3), range(3), range(2)):
        if valid(tokens):
            space.validate(tokens)
        else:
            with pytest.raises(UserError):
                space.validate(tokens)


def test_validate_names_the_decision_and_what_is_allowed(space):
    with pytest.raises(
        UserError, match=r"token 1 \(second\) is 0; the tokens before it allow 1, 2"
    ):
        space.validate((0, 0, 0, 0))
    with pytest.raises(UserError, match="3 tokens for 4 decisions"):
        space.decode((0, 1, 0))
    with pytest.raises(UserError, match=r"token 3 \(flag\) is -1"):
        space.validate((0, 1, 0, -1))


def test_decode_and_encode(space):
    assert space.decode((2, 0, 1, 1)).name == "blue red 2 1"
    assert all(space.encode(space.decode(tokens)) == tokens for tokens in ALL)


def test_encode_names_what_does_not_fit(space):
    with pytest.raises(UserError, match="second is red, but the search space has green, blue"):
        space.encode(architecture_pb2.Architecture(name="red red 1 0"))


def test_samples_are_uniform(space):
    rng = np.random.default_rng(0)
    num_samples = 28000
    counts = Counter(space.sample(rng) for _ in range(num_samples))
    assert sorted(counts) == ALL
    # Binomial, 1000 expected: 5 standard deviations are 155.
    assert all(845 < count < 1155 for count in counts.values())


def test_sampling_and_mutation_are_permanent(space):
    """If the order of the decisions or the use of random numbers changes, searches of old seeds
    change too: say so in the changelog, then take the new tokens over."""
    rng = np.random.default_rng(0)
    samples = [(1, 0, 0, 0), (2, 1, 1, 1), (1, 2, 2, 0)]
    assert [space.sample(rng) for _ in range(3)] == samples
    mutated = [space.mutate(tokens, np.random.default_rng(0)) for tokens in samples]
    assert mutated == [(1, 0, 0, 1), (2, 1, 1, 0), (1, 2, 2, 1)]


def test_mutation_changes_one_decision_and_repairs_later_ones(space):
    rng = np.random.default_rng(0)
    reached = set()
    for tokens in ALL:
        for _ in range(50):
            mutated = space.mutate(tokens, rng)
            space.validate(mutated)
            changed = [i for i in range(4) if mutated[i] != tokens[i]]
            assert changed
            repaired = list(tokens)
            repaired[changed[0]] = mutated[changed[0]]
            # A later token has changed only where it had to.
            for index in changed[1:]:
                assert tokens[index] not in space.allowed(index, mutated)
            reached.add((tokens, changed[0]))
    assert len(reached) == 4 * len(ALL) - sum(
        len(space.allowed(i, t)) == 1 for t in ALL for i in range(4)
    )


def test_tables_that_leave_nothing_are_refused():
    class DeadEnd(ToySpace):
        def __init__(self):
            SearchSpace.__init__(
                self, [Decision("a", (0, 1)), Decision("b", (0,), ((0, ((True,), (False,))),))]
            )

    with pytest.raises(ValueError, match=r"decision b: no choice is left behind tokens \{0: 1\}"):
        DeadEnd()
