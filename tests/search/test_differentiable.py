"""Differentiable search: penalties, alternation, screening, derivation."""

import itertools
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config, files, models
from mnasdet.architectures import chosen_place, chosen_places
from mnasdet.errors import ConfigError, UserError
from mnasdet.networks import choices, penalties
from mnasdet.networks.choices import ChoiceCosts
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import architecture_pb2, pipeline_pb2, search_pb2
from mnasdet.search import stages
from mnasdet.search.differentiable import (
    alternation,
    derivation,
    records,
    screening,
    supernet_training,
    supernets,
)
from mnasdet.search_spaces import factory
from mnasdet.search_spaces.supernet import PAPER, supernet
from mnasdet.training import checkpoints, trainer, training_data
from tests import two_stage_config
from tests.search import supernet_config

OPS = ["sep_k3_d1", "conv_k3_d1", "sep_k5_d2"]


def softmax(rows):
    powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def differences(function, x, step=1e-6):
    """The gradient of a function of an array by central differences."""
    found = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        moved = np.zeros_like(x)
        moved[place] = step
        found[place] = (function(x + moved) - function(x - moved)) / (2 * step)
    return found


def test_the_gradient_of_the_expected_cost():
    rng = np.random.default_rng(3)
    logits, costs = rng.normal(size=(3, 4)), rng.uniform(1, 9, size=(3, 4))
    names = ["a/choice", "b/choice", "c/choice"]
    alphas = {name: tf.Variable(row) for name, row in zip(names, logits, strict=True)}
    table = ChoiceCosts(2.5, dict(zip(names, costs.tolist(), strict=True)))
    with tf.GradientTape() as tape:
        cost = penalties.expected_cost(alphas, table)

    def by_hand(x):
        return 2.5 + (softmax(x) * costs).sum()

    assert float(cost) == pytest.approx(by_hand(logits), rel=1e-12)
    gradient = np.stack(tape.gradient(cost, list(alphas.values())))
    np.testing.assert_allclose(gradient, differences(by_hand, logits), rtol=1e-6, atol=1e-9)


def test_the_gradient_of_the_column_sparsity():
    logits = np.random.default_rng(4).normal(size=(5, 3))
    alphas = [tf.Variable(row) for row in logits]
    with tf.GradientTape() as tape:
        penalty = penalties.column_sparsity(alphas)

    def by_hand(x):
        return np.sqrt((softmax(x) ** 2).sum(axis=0)).min()

    assert float(penalty) == pytest.approx(by_hand(logits), rel=1e-12)
    gradient = np.stack(tape.gradient(penalty, alphas))
    np.testing.assert_allclose(gradient, differences(by_hand, logits), rtol=1e-6, atol=1e-9)
    # Every training starts here.
    zeros = [tf.Variable([0.0, 0.0]) for _ in range(2)]
    with tf.GradientTape() as tape:
        penalty = penalties.column_sparsity(zeros)
    assert np.isfinite(np.stack(tape.gradient(penalty, zeros))).all()


@pytest.fixture(scope="module")
def whole():
    pipeline = supernet_config.pipeline()
    base = config.resolve(pipeline).architecture
    return supernet(pipeline.search_config.search_space.supernet, base)


def one_hot(found, tokens):
    """Logits of which the softmax is one at a token and zero elsewhere."""
    return {
        name: tf.constant(1e4 * np.eye(len(costs))[tokens[name]])
        for name, costs in found.of_candidates.items()
    }


def test_the_expected_cost_of_a_network_is_that_of_its_cost_sheet(whole):
    pipeline = supernet_config.pipeline()
    costs = supernets.expected_costs(pipeline, supernets.blueprint_of(pipeline, whole))
    space = factory.from_config(
        pipeline.search_config.search_space, config.resolve(pipeline).architecture
    )
    rng = np.random.default_rng(0)
    for tokens in [space.sample(rng) for _ in range(5)]:
        names = [f"{decision.name}/choice" for decision in space.decisions]
        expected = penalties.expected_cost(
            one_hot(costs, dict(zip(names, tokens, strict=True))), costs
        )
        plain = models.network(config.resolve(pipeline, space.decode(tokens)))
        assert round(float(expected) * 1e9) == cost_sheet(plain).total.multiply_adds


def test_the_expected_cost_by_a_table_is_what_the_table_says(whole, monkeypatch):
    class Table:
        """Milliseconds that are no sum over the layers of a candidate alone."""

        def costs(self, candidates):
            return [0.5 + cost_sheet(c.network).total.params * 1e-3 for c in candidates]

    monkeypatch.setattr(supernets.latency, "from_config", lambda proto: Table())
    pipeline = supernet_config.pipeline()
    pipeline.search_config.latency.latency_table.SetInParent()
    costs = supernets.expected_costs(pipeline, supernets.blueprint_of(pipeline, whole))
    tokens = dict(zip(costs.of_candidates, [2, 0, 1, 2], strict=True))
    found = penalties.expected_cost(one_hot(costs, tokens), costs)
    network = choices.derive(models.network(supernets.blueprint_of(pipeline, whole)), tokens)
    assert float(found) == pytest.approx(0.5 + cost_sheet(network).total.params * 1e-3, rel=1e-12)


def test_the_most_probable_networks_come_first():
    rows = [[0.5, 0.3, 0.2], [0.1, 0.9, 0.0], [0.25, 0.35, 0.4]]
    networks = [*itertools.product(range(3), (0, 1), range(3))]
    expected = sorted(
        networks, key=lambda one: -math.prod(row[i] for row, i in zip(rows, one, strict=True))
    )
    found = list(derivation.most_probable(rows))
    assert found == expected
    assert found[0] == (0, 1, 2)


def test_a_search_proposes_the_most_probable_networks(whole, tmp_path):
    pipeline = supernet_config.pipeline()
    settings = pipeline.search_config
    space = factory.from_config(settings.search_space, config.resolve(pipeline).architecture)
    # A screening has left out the first operation.
    rows = {place.name: dict.fromkeys(place.layer.op, 1.0) for place in chosen_places(whole)}
    rows |= {
        f"backbone/layer_{layer}": {"conv_k3_d1": 0.7 - layer / 100, "sep_k5_d2": 0.3 + layer / 100}
        for layer in range(1, 5)
    }
    files.write_json(tmp_path / records.PROBABILITIES_FILE, {"probabilities": rows})
    settings.differentiable.folder = str(tmp_path)
    controller = stages.first(pipeline, space).controller
    proposed = [*controller.propose(1), *controller.propose(2)]
    assert proposed == [(1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 2, 1)]
    network = models.network(config.resolve(pipeline, space.decode(proposed[1])))
    names = [f"backbone/layer_{layer}/choice" for layer in range(1, 5)]
    derived = choices.derive(
        models.network(config.resolve(pipeline, whole)),
        dict(zip(names, proposed[1], strict=True)),
    )
    assert derived.key() == network.key()
    # 2^4 networks are left.
    assert len(controller.propose(13)) == 13
    with pytest.raises(UserError, match="the supernet has 16 networks"):
        controller.propose(1)


def test_stages_of_a_region_head_share_their_choice():
    built = architecture_pb2.Architecture(
        region_head={"chosen_layers": {"layer": [{"op": ["sep_k3_d1", "conv_k3_d1"]}]}}
    )
    of_choices = {
        "region_head/stage_1/chosen_1/choice": [0.8, 0.2],
        "region_head/stage_2/chosen_1/choice": [0.5, 0.5],
    }
    found = records.by_place(built, of_choices)
    assert found == {"region_head/chosen_1": pytest.approx({"sep_k3_d1": 0.8, "conv_k3_d1": 0.2})}


def published(ops):
    """The paper's backbone, without what the release adds to it, and the space over it."""
    base = config.load_architecture("hit_detector")
    del base.backbone.operation_layers.layer[20:]
    base.backbone.operation_layers.last_channels = 0
    return base, text_format.Parse(f"supernet {{ {ops} }}", search_pb2.SearchSpaceConfig())


def test_the_space_of_the_paper_has_8_to_the_32_networks():
    base, space = published("")
    built = factory.from_config(space, base)
    assert built.cardinality() == 8**32 == 79228162514264337593543950336
    assert all(len(set(ops)) == 8 for ops in PAPER.values())
    tokens = built.sample(np.random.default_rng(1))
    decoded = built.decode(tokens)
    assert built.encode(decoded) == tokens
    whole = models.network_of(supernet(space.supernet, base), (64, 64), 3)
    names = {choice.name for graph in whole for choice in choices.choices(graph.nodes)}
    assert {chosen_place(name) for name in names} == {one.name for one in built.decisions}
    of_place = dict(zip((one.name for one in built.decisions), tokens, strict=True))
    derived = choices.derive(whole, {name: of_place[chosen_place(name)] for name in names})
    assert derived.key() == models.network_of(decoded, (64, 64), 3).key()


def test_operations_that_are_none_are_named():
    base, space = published('head_ops: ["ir_k3_d1_e3", "ir_k3"]')
    with pytest.raises(ConfigError, match='region_head.*no operation "ir_k3"'):
        factory.from_config(space, base)


def fake_training(monkeypatch, probabilities):
    """Lets trainings end with probabilities by choice; returns their config and architecture."""
    trainings = []

    def train(pipeline, folder, *, blueprint, seed, method):
        network = models.network(blueprint)
        found = [choice for graph in network for choice in choices.choices(graph.nodes)]
        folder.mkdir(parents=True)
        rows = {choice.name: probabilities(choice, blueprint.architecture) for choice in found}
        entry = {"step": 3, "probabilities": rows}
        files.write_json(folder / records.HISTORY_FILE, [entry])
        trainings.append((pipeline, blueprint.architecture))

    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setattr(checkpoints, "find", lambda folder: f"{folder}/model.ckpt-3")
    return trainings


def test_operations_that_were_dropped_never_return(monkeypatch, tmp_path):
    pool = ["ir_k3_d1_e1", "ir_k3_d1_e3", "ir_k5_d1_e1", "sep_k3_d1", "sep_k5_d1", "conv_k3_d1"]
    pipeline = supernet_config.pipeline(
        further="screening { num_kept: 2 num_rounds: 3 train_config {"
        + supernet_config.training(2)
        + "} }"
    )
    space = pipeline.search_config.search_space.supernet
    space.backbone_ops[:] = pool
    space.pyramid_ops[:] = ["sep_k3_d1", "sep_k3_d2", "sep_k5_d1"]
    whole = supernet(space, config.resolve(pipeline).architecture)
    worth = {op: 1.0 + place for place, op in enumerate(pool)} | {"sep_k3_d2": 9.0}

    def probabilities(choice, architecture):
        place = next(
            one for one in chosen_places(architecture) if one.name == chosen_place(choice.name)
        )
        row = [worth[op] for op in place.layer.op]
        return [value / sum(row) for value in row]

    trainings = fake_training(monkeypatch, probabilities)
    screened = screening.screen(pipeline, whole, tmp_path)
    lists = {place.part: list(place.layer.op) for place in chosen_places(screened)}
    assert lists == {
        "backbone": ["sep_k5_d1", "conv_k3_d1"],
        "feature_pyramid": ["sep_k3_d2", "sep_k5_d1"],
    }
    # The pools of each round: three rounds reduce the backbone's from 6 over 5 and 4 to 2.
    pools = [
        {place.part: list(place.layer.op) for place in chosen_places(built)}
        for _, built in trainings
    ]
    assert [len(pool["backbone"]) for pool in pools] == [6, 5, 4, 1, 1, 1]
    assert [len(pool["feature_pyramid"]) for pool in pools] == [1, 1, 1, 3, 3, 3]
    for earlier, later in itertools.pairwise(pools[:3]):
        assert set(later["backbone"]) < set(earlier["backbone"])
    # Meanwhile the backbone has its best operation.
    assert pools[3]["backbone"] == ["conv_k3_d1"]
    starts = [pipeline.train_config.fine_tune_checkpoint for pipeline, _ in trainings]
    assert starts[0] == ""
    assert starts[1] == f"{tmp_path}/backbone_1/model.ckpt-3"
    rounds = json.loads((tmp_path / records.SCREENING_FILE).read_text())["rounds"]
    assert rounds["backbone_1"]["dropped"] == ["ir_k3_d1_e1"]
    assert rounds["backbone_1"]["ranks"]["conv_k3_d1"] == 1
    # Four layers of the same row: the norm is twice the probability.
    assert rounds["backbone_1"]["scores"]["conv_k3_d1"] == pytest.approx(2 * 6 / 21)
    # A screening that goes on trains nothing again.
    assert screening.screen(pipeline, whole, tmp_path) == screened
    assert len(trainings) == 6
    # Nothing is trained for a part that has no more operations than are kept.
    pipeline.search_config.differentiable.screening.num_kept = 6
    assert screening.screen(pipeline, whole, tmp_path / "none") == whole
    assert len(trainings) == 6


def test_the_backbone_is_halved_stage_by_stage():
    base, _ = published("")
    layers = screening._halved(base).backbone.operation_layers.layer
    assert [layer.stride for layer in layers] == [2, 1, 2, 1, 2, 1, 1, 1, 2, 1]


def weights(folder):
    """Everything in the newest checkpoint, with both optimizers."""
    reader = tf.train.load_checkpoint(checkpoints.find(folder))
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in names if "SECONDS" not in name.upper()}


def test_a_search_that_was_killed_ends_as_one_that_was_not(tmp_path, monkeypatch, eager):
    pipeline = supernet_config.pipeline(num_steps=4)
    # Two operations are enough, and trace in less time.
    pipeline.search_config.search_space.supernet.backbone_ops[:] = OPS[:2]
    supernet_training.train(pipeline, tmp_path / "whole")
    average = alternation.AlternatingLearner.average

    def killed(self, step):
        average(self, step)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(alternation.AlternatingLearner, "average", killed)
        with pytest.raises(KeyboardInterrupt):
            supernet_training.train(pipeline, tmp_path / "killed")
    supernet_training.train(pipeline, tmp_path / "killed")
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    histories = [
        records.history(tmp_path / name / records.HISTORY_FILE) for name in ("whole", "killed")
    ]
    assert histories[0] == histories[1]
    assert [entry["step"] for entry in histories[0]] == [1, 2, 3, 4]
    # Alpha starts after the first step, and moves by its own rate alone.
    first, last = histories[0][0]["probabilities"], histories[0][-1]["probabilities"]
    assert all(row == pytest.approx([1 / 2] * 2, abs=1e-6) for row in first.values())
    assert all(row != pytest.approx([1 / 2] * 2, abs=1e-3) for row in last.values())
    assert (tmp_path / "killed" / records.PROBABILITIES_FILE).read_text() == (
        tmp_path / "whole" / records.PROBABILITIES_FILE
    ).read_text()


def test_the_halves_of_the_training_images_share_none():
    pipeline = supernet_config.pipeline()
    pipeline.train_input_reader.sample_1_of_n_examples = 2
    pipeline.train_config.batch_size = 2
    task = models.build(config.resolve(pipeline))
    first = alternation.first_half(pipeline)
    seen = [
        {
            name.numpy()
            for batch in training_data.batches(task, half, 0, 0, lambda e: e["source_id"]).take(4)
            for name in batch
        }
        for half in (first, alternation._second_half(first))
    ]
    # 8 images, of which the config takes every second one.
    assert [len(names) for names in seen] == [2, 2]
    assert not seen[0] & seen[1]


def test_a_two_stage_supernet_moves_all_of_its_choices():
    text = two_stage_config.text("""
        backbone { operation_layers { stem_channels: 8
          layer { op: ["sep_k3", "conv_k3"] channels: 8 stride: 2 }
          layer { op: "sep_k3" channels: 8 stride: 2 }
          layer { op: "sep_k3" channels: 8 stride: 2 }
          layer { op: "sep_k3" channels: 8 stride: 2 }
        } }
        feature_pyramid { hit { min_level: 4 max_level: 5 channels: 8
          lateral { op: ["sep_k3", "sep_k5"] } lateral { op: "sep_k3" }
          output { op: "sep_k3" } output { op: "sep_k3" }
        } }
        anchor_generator { multiscale_anchor_generator {
          min_level: 4 max_level: 5 anchor_scale: 3.0 scales_per_octave: 1 aspect_ratios: [1.0]
        } }
        region_proposal { channels: 8 max_proposals: 6 }
        region_head {
          region_align { size: 3 sampling_ratio: 1 }
          chosen_layers { layer { op: ["sep_k3", "conv_k3"] channels: 8 } fc_channels: 8 }
          stage {} stage { iou_threshold: 0.6 }
        }
    """)
    pipeline = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    assert not config.check(pipeline)
    task = models.build(config.resolve(pipeline))
    alphas = alternation.alphas(task.model)
    assert sorted(alphas) == [
        "backbone/layer_1/choice",
        "feature_pyramid/lateral_0/choice",
        "region_head/stage_1/chosen_1/choice",
        "region_head/stage_2/chosen_1/choice",
    ]
    pipeline.train_config.batch_size = 1
    batch = next(iter(training_data.training_set(task, pipeline, seed=0)))
    with tf.GradientTape() as tape:
        total = tf.add_n([loss.total for loss in task.losses(batch).values()])
    gradients = tape.gradient(total, list(alphas.values()))
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("search_space { mnasfpn {} }", "search_config.differentiable needs search_space.supernet"),
        ("controller { random {} }", "search_config.controller is there beside differentiable"),
        ("second_stage {}", "search_config.second_stage is there beside differentiable"),
        ("latency { host {} }", "search_config.latency.host measures whole networks"),
        (
            "search_space { image_sizes: 64 }",
            "search_config.search_space.image_sizes is not allowed",
        ),
        (
            "differentiable { alpha_start_step: 4 }",
            "search_config.differentiable.alpha_start_step is 4; less than "
            "train_config.num_steps, 4, is allowed",
        ),
        (
            "differentiable { screening { num_kept: 1 } }",
            "search_config.differentiable.screening.num_kept is 1; at least 2 is allowed",
        ),
        (
            "differentiable { screening {} }",
            "search_config.differentiable.screening.train_config is missing",
        ),
        (
            "differentiable { train_config { early_stopping {} } }",
            "search_config.differentiable.train_config.early_stopping is not allowed",
        ),
    ],
)
def test_what_does_not_go_with_a_supernet_is_named(change, problem):
    pipeline = supernet_config.pipeline()
    text_format.Merge(f"search_config {{ {change} }}", pipeline)
    assert any(found.startswith(problem) for found in config.check(pipeline))


def test_the_second_half_starts_within_the_sample():
    pipeline = supernet_config.pipeline()
    pipeline.train_input_reader.first_sampled_example = 1
    (problem,) = config.check(pipeline)
    assert problem == (
        "train_input_reader.first_sampled_example is 1; less than sample_1_of_n_examples, 1, is "
        "allowed"
    )


def test_layers_of_a_part_with_different_operations_cannot_be_screened(whole, tmp_path):
    other = architecture_pb2.Architecture()
    other.CopyFrom(whole)
    other.backbone.operation_layers.layer[2].op[:] = OPS[:2]
    with pytest.raises(ConfigError, match=r"layer\[2\].op is .* in another layer of backbone"):
        screening.screen(supernet_config.pipeline(), other, tmp_path)
