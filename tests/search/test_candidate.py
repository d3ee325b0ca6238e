"""Tests what a search knows of an architecture without training."""

import numpy as np
from google.protobuf import text_format

from mnasdet import config
from mnasdet.networks.builder import canonical_key
from mnasdet.search.candidate import candidate
from mnasdet.search.trials.trial_store import TrialState
from mnasdet.search_spaces import factory


def test_a_candidate_is_of_its_own_image_size(tiny_pipeline):
    own = candidate(tiny_pipeline)
    assert own.blueprint.image_size == (64, 64)
    architecture = own.architecture
    architecture.input.height, architecture.input.width = 64, 128
    wide = candidate(tiny_pipeline, architecture, (1, 2))
    assert wide.blueprint.image_size == (64, 128)
    assert wide.tokens == (1, 2)
    # Twice the places, to a layer: the same weights, twice the work.
    assert wide.sheet.total.params == own.sheet.total.params
    assert wide.sheet.total.multiply_adds == 2 * own.sheet.total.multiply_adds
    assert wide.key == canonical_key(wide.network.outputs) != own.key


def test_its_trial_tells_what_it_is(tiny_pipeline):
    settings = tiny_pipeline.search_config.search_space
    space = factory.from_config(settings, config.resolve(tiny_pipeline).architecture)
    tokens = space.sample(np.random.default_rng(0))
    found = candidate(tiny_pipeline, space.decode(tokens), tokens)
    trial = found.trial(3, 45, cost=1.5, state=TrialState.RUNNING)
    assert (trial.number, trial.seed, trial.tokens, trial.key) == (3, 45, tokens, found.key)
    assert text_format.MessageToString(space.decode(tokens)) == trial.architecture
    total = found.sheet.total
    assert trial.metrics == {"params": total.params, "multiply_adds": total.multiply_adds}
    assert (trial.cost, trial.accuracy, trial.state) == (1.5, None, TrialState.RUNNING)
