"""The order of networks that partial-order pruning goes by: no deeper and no wider."""

import itertools

import numpy as np
import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.architectures import input_size
from mnasdet.models import network_of
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import search_pb2
from mnasdet.search_spaces import factory

NUM_PAIRS = 12

# Each with the base that it searches around.
SPACES = {
    "mnasfpn { repeats: [2, 3] } image_sizes: [64, 96]": "mobilenet_v2_mnasfpn",
    "nas_fpnlite_s { channels: [32, 64] } depth_multipliers: [0.5, 1]": "mobilenet_v2_mnasfpn",
    "mnasnet { skips: [IDENTITY, NONE] } image_sizes: 64": "mobilenet_v2_ssdlite",
    "structure {}": "faster_rcnn_resnet50_fpn",
    """
    base_code { bases: [16, 24] pyramid_channels: [16, 32] max_blocks: [2, 2, 3, 2] }
    inputs { height: 64 width: 64 } inputs { height: 64 width: 96 }
    """: "sm_nas_e3",
    "base_code { bases: [16, 32] max_blocks: [2, 2, 3, 2] } image_sizes: 64": "sm_nas_e5",
}


def build(text):
    search_space = text_format.Parse(text, search_pb2.SearchSpaceConfig())
    return factory.from_config(search_space, config.load_architecture(SPACES[text]))


def larger(space, tokens, rng):
    """Walks from a network to others of which it is no larger than any."""
    for _ in range(40):
        other = space.mutate(tokens, rng)
        if space.precedes(tokens, other):
            tokens = other
    return tokens


def cost(space, tokens):
    architecture = space.decode(tokens)
    size = input_size(architecture) or (64, 64)
    return cost_sheet(network_of(architecture, size, 10)).total


@pytest.mark.parametrize("text", SPACES, ids=[text.split()[0] for text in SPACES])
def test_what_precedes_costs_no_more(text):
    space = build(text)
    assert space.has_order
    rng = np.random.default_rng(0)
    num_different = 0
    for _ in range(NUM_PAIRS):
        small = space.sample(rng)
        large = larger(space, small, rng)
        assert space.precedes(small, large)
        num_different += small != large
        less, more = cost(space, small), cost(space, large)
        assert less.params <= more.params
        assert less.multiply_adds <= more.multiply_adds
    assert num_different > NUM_PAIRS / 2


def ordered(space):
    """Returns the names of the decisions that have an order."""
    return {d.name for d in space.decisions if d.order}


def test_what_is_ordered_in_a_pyramid():
    space = build("mnasfpn { repeats: [2, 3] } image_sizes: [64, 96]")
    blocks = {f"block_{n}/expanded_channels" for n in range(4, 13)}
    assert ordered(space) == blocks | {"channels", "repeats", "image_size"}


def test_what_is_ordered_in_a_backbone():
    """A wider layer may cost less where its pooled input needs a projection."""
    plain = build("mnasnet { skips: [IDENTITY, NONE] } image_sizes: 64")
    fields = ("channels", "repeats")
    assert ordered(plain) == {
        f"backbone/block_{n}/{field}" for n, field in itertools.product(range(1, 8), fields)
    }
    pooled = search_pb2.SearchSpaceConfig()
    pooled.mnasnet.SetInParent()
    pooled = factory.from_config(pooled, config.load_architecture("mobilenet_v2_ssdlite"))
    assert ordered(pooled) == {f"backbone/block_{n}/repeats" for n in range(1, 8)}


@pytest.mark.parametrize("text", SPACES, ids=[text.split()[0] for text in SPACES])
def test_it_is_a_partial_order(text):
    space = build(text)
    rng = np.random.default_rng(0)
    samples = [space.sample(rng) for _ in range(6)]
    samples += [larger(space, tokens, rng) for tokens in samples for _ in range(3)]
    below = np.array([[space.precedes(a, b) for b in samples] for a in samples])
    equal = np.array([[a == b for b in samples] for a in samples])
    assert below.diagonal().all()
    assert ((below & below.T) == equal).all()
    assert not ((below.astype(int) @ below.astype(int) > 0) & ~below).any()
    assert (below & ~equal).any()
