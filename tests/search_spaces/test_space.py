import itertools
from collections import Counter

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet.config import load_architecture
from mnasdet.errors import UserError
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces import factory
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
    changed = [space.change(tokens, 0, 0, np.random.default_rng(1)) for tokens in samples]
    assert changed == [(0, 1, 0, 0), (0, 1, 1, 1), (0, 2, 0, 0)]
    pairs = itertools.combinations(samples, 2)
    assert [space.cross(*pair, np.random.default_rng(1)) for pair in pairs] == [
        (1, 0, 1, 0),
        (1, 0, 0, 0),
        (2, 1, 2, 1),
    ]


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


def test_change_sets_one_decision_and_repairs_later_ones(space):
    rng = np.random.default_rng(0)
    # Nothing has to follow.
    assert space.change((1, 2, 2, 0), 2, 0, rng) == (1, 2, 0, 0)
    assert space.change((1, 2, 2, 0), 3, 0, rng) == (1, 2, 2, 0)
    # The second colour stays; the last size does not go with red.
    changed = {space.change((1, 2, 2, 1), 0, 0, rng) for _ in range(50)}
    assert changed == {(0, 2, 0, 1), (0, 2, 1, 1)}
    # The second colour is taken now; the size goes with all.
    changed = {space.change((1, 2, 0, 1), 0, 2, rng) for _ in range(50)}
    assert changed == {(2, 0, 0, 1), (2, 1, 0, 1)}


def test_change_refuses_what_earlier_tokens_forbid(space):
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"token 1 \(second\) is 1; .* allow 0, 2"):
        space.change((1, 2, 2, 0), 1, 1, rng)
    with pytest.raises(UserError, match=r"token 3 \(flag\) is 2"):
        space.change((1, 2, 2, 0), 3, 2, rng)
    with pytest.raises(UserError, match=r"token 1 \(second\) is 1"):
        space.change((1, 1, 2, 0), 3, 0, rng)


def test_cross_takes_every_decision_from_one_of_the_parents(space):
    rng = np.random.default_rng(0)
    a, b = (1, 2, 2, 0), (1, 0, 1, 1)
    counts = Counter(space.cross(a, b, rng) for _ in range(8000))
    # The one's size does not go with red from the other, so that the other's is taken.
    expected = {(1, 0, 1, flag): 2000 for flag in (0, 1)}
    expected |= {(1, 2, size, flag): 1000 for size in (1, 2) for flag in (0, 1)}
    assert set(counts) == set(expected)
    # Binomial: 5 standard deviations are 194 and 148.
    assert all(abs(counts[t] - n) < 195 for t, n in expected.items())


def test_cross_is_random_where_neither_parent_fits():
    class ThreeOfFive(ToySpace):
        def __init__(self):
            table = tuple(tuple(i != j for j in range(5)) for i in range(5))
            SearchSpace.__init__(
                self,
                [
                    Decision(f"place_{place}", tuple(range(5)), tuple((i, table) for i in before))
                    for place, before in enumerate([(), (0,), (0, 1)])
                ],
            )

    rng = np.random.default_rng(0)
    counts = Counter(ThreeOfFive().cross((0, 1, 2), (3, 2, 0), rng) for _ in range(12000))
    # Behind 0 from the one and 2 from the other both parents' last tokens are taken.
    expected = {(0, 1, 2): 3000, (3, 2, 0): 3000, (3, 1, 2): 1500, (3, 1, 0): 1500}
    expected |= {(0, 2, last): 1000 for last in (1, 3, 4)}
    assert set(counts) == set(expected)
    # Binomial: 5 standard deviations are at most 238.
    assert all(abs(counts[t] - n) < 238 for t, n in expected.items())


def test_every_cross_is_valid(space):
    rng = np.random.default_rng(0)
    for a, b in itertools.product(ALL, ALL):
        crossed = space.cross(a, b, rng)
        space.validate(crossed)
        assert crossed[0] in (a[0], b[0])
        assert crossed[3] in (a[3], b[3])
    assert all(space.cross(tokens, tokens, rng) == tokens for tokens in ALL)


def test_cross_refuses_tokens_of_another_space(space):
    with pytest.raises(UserError, match="3 tokens for 4 decisions"):
        space.cross(ALL[0], (0, 1, 0), np.random.default_rng(0))


def test_a_space_of_one_has_nothing_to_mutate():
    class Single(ToySpace):
        def __init__(self):
            SearchSpace.__init__(self, [Decision("a", (1,))])

    with pytest.raises(UserError, match="no decision has another choice"):
        Single().mutate((0,), np.random.default_rng(0))


def test_tables_that_leave_nothing_are_refused():
    class DeadEnd(ToySpace):
        def __init__(self):
            SearchSpace.__init__(
                self, [Decision("a", (0, 1)), Decision("b", (0,), ((0, ((True,), (False,))),))]
            )

    with pytest.raises(ValueError, match=r"decision b: no choice is left behind tokens \{0: 1\}"):
        DeadEnd()


def spread(levels, config):
    """The space that a config makes of a pyramid whose levels end at `levels`."""
    base = load_architecture("mobilenet_v2_mnasfpn")
    base.feature_pyramid.mnasfpn.max_level = levels
    base.anchor_generator.multiscale_anchor_generator.max_level = levels
    return factory.from_config(text_format.Parse(config, search_pb2.SearchSpaceConfig()), base)


def test_hundreds_of_decisions_are_counted():
    """Python's calls go no deeper than a thousand, and each decision was several of them."""
    space = spread(6, "mnasfpn { num_internal_blocks: 64 max_inputs: 64 }")
    assert len(space.decisions) > 400
    tokens = space.sample(np.random.default_rng(0))
    assert space.encode(space.decode(tokens)) == tokens
    # Independent decisions alone: 64 internal and 4 output blocks of 3 kernels.
    assert space.cardinality() % 3**64 == 0


def test_spaces_that_would_take_minutes_to_count_are_refused():
    with pytest.raises(UserError, match="more than 50000 states .* give it fewer levels or blocks"):
        spread(12, "mnasfpn {}")
