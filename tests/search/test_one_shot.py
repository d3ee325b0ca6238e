"""A search whose children share weights: from the supernet's training to the winner's."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet import config, models
from mnasdet.architectures import from_trial
from mnasdet.errors import CheckpointError
from mnasdet.evaluation.coco import MAP
from mnasdet.evaluation.evaluate import evaluate_pipeline
from mnasdet.networks import random_draws
from mnasdet.search import child, identity, one_shot, results, reward, winner
from mnasdet.search.child import ChildTask
from mnasdet.search.controllers.random_search import RandomSearch
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.latency import MultiplyAdds
from mnasdet.search.proxy import proxy_task
from mnasdet.search.search import Search
from mnasdet.search.trials.trial_store import TrialStore
from mnasdet.search_spaces import factory
from mnasdet.tasks import Loss
from mnasdet.training import checkpoints, learner, parts, trainer

_STEPS = """
      optimizer {
        momentum_optimizer {
          learning_rate { constant_learning_rate { learning_rate: 0.05 } }
          momentum_optimizer_value: 0.9
        }
        use_moving_average: false
      }
"""

_SEARCH = f"""
search_config {{
  num_trials: 3
  search_space {{ mnasfpn {{
    channels: [8, 16] expanded_channels: [8, 16, 24] kernel_sizes: [3, 5]
    repeats: 1 num_internal_blocks: 0
  }} }}
  controller {{ random {{}} }}
  reward {{ multi_objective {{}} }}
  latency {{ multiply_adds {{}} }}
  executor {{ this_process {{}} }}
  retrain_config {{ batch_size: 4 num_steps: 1 {_STEPS} }}
  one_shot {{
    num_networks: 2 sandwich: 0.5 num_recalibration_batches: 1
    train_config {{ batch_size: 4 num_steps: 2 {_STEPS} }}
  }}
}}
"""


def loaded(tiny_config, folder, *changes):
    text = tiny_config[: tiny_config.index("search_config")] + _SEARCH
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "tiny.config").write_text(text)
    return config.load(folder / "tiny.config")


def space_of(pipeline):
    base = config.resolve(pipeline).architecture
    return factory.from_config(pipeline.search_config.search_space, base)


def search(pipeline, folder):
    space = space_of(pipeline)
    return Search(
        pipeline=pipeline,
        store=TrialStore(folder / "trials.db"),
        space=space,
        controller=RandomSearch(space, seed=0),
        reward=reward.from_config(pipeline.search_config.reward),
        latency=MultiplyAdds(),
        executor=ThisProcess(child.run_safely),
        max_pending=1,
    )


def test_a_search_shares_one_training_to_its_winner(tiny_config, tmp_path, monkeypatch, eager):
    pipeline = loaded(tiny_config, tmp_path)
    training = pipeline.search_config.one_shot.train_config
    # Stopped after the first step.
    training.num_steps = 1
    proxy_task.prepare(pipeline, tmp_path / "pretrained")
    training.num_steps = 2
    children = proxy_task.prepare(pipeline, tmp_path / "pretrained")
    checkpoint = children.search_config.one_shot.checkpoint
    assert checkpoint == str(tmp_path / "supernet" / "ckpt-2")
    assert text_of_one_shot(children) == text_of_one_shot(pipeline)

    builds = []
    build = models.build
    monkeypatch.setattr(models, "build", lambda *a: builds.append(a) or build(*a))
    # Freed, the supernet would be loaded anew.
    monkeypatch.setattr(child, "memory_freed", None)
    trials = search(children, tmp_path).run(2)
    assert search(children, tmp_path).run(3)[:2] == trials
    trials = TrialStore(tmp_path / "trials.db").trials()
    assert [t.error for t in trials] == [None] * 3
    # One supernet for all, and no training.
    assert len(builds) == 1
    assert not any("train_seconds" in t.metrics for t in trials)

    best = results.best(trials)
    monkeypatch.setattr(trainer, "train", lambda p, *_, **__: starts.append(p))
    monkeypatch.setattr(checkpoints, "load_task", lambda *_: None)
    monkeypatch.setattr(winner.deployment, "deploy", lambda *_: {})
    starts = []
    winner.finish(children, best, tmp_path / "best")
    start = starts[0].train_config.fine_tune_checkpoint
    assert start == str(tmp_path / "best_start")
    architecture = from_trial(best.architecture)
    plain = build(config.resolve(pipeline, architecture))
    checkpoints.load_weights(plain.model, start)
    # The winner starts from the weights that were judged.
    judged = one_shot.metrics(children, architecture)
    assert judged[MAP] == best.metrics[MAP]
    found = evaluate_pipeline(plain, pipeline)
    assert found[MAP] == pytest.approx(judged[MAP], abs=1e-3)

    children.search_config.one_shot.winner_starts_from_shared_weights = False
    winner.finish(children, best, tmp_path / "best")
    assert not starts[1].train_config.fine_tune_checkpoint

    message = "has the weights that the networks of a one_shot search share"
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load_weights(plain.model, tmp_path / "supernet")


def text_of_one_shot(pipeline):
    """Returns the settings that must be unchanged for a search to go on."""
    return str(identity.decisive(pipeline).search_config.one_shot)


def test_each_part_of_a_batch_draws_a_network_of_its_own():
    batch = {"seed": tf.constant([[7, number] for number in range(4)], tf.int64)}

    def losses(part):
        return {"drawn": Loss(random_draws.uniform(()), 1.0)}

    model = tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(1,))])
    averages = parts.MovingAverages(model)
    accumulation = parts.Accumulation(learner._seeded(losses), 2, model.variables, averages)
    drawn = []
    for number in (0, 2):
        with random_draws.seeded(tf.constant([7, number], tf.int64)):
            drawn.append(float(random_draws.uniform(())))
    assert drawn[0] != drawn[1]
    assert float(accumulation(batch).totals["drawn"]) == pytest.approx(sum(drawn))


def test_lost_shared_weights_are_no_fault_of_the_child(tiny_config, tmp_path):
    pipeline = loaded(tiny_config, tmp_path)
    pipeline.search_config.one_shot.checkpoint = str(tmp_path / "supernet" / "ckpt-2")
    space = space_of(pipeline)
    tokens = space.sample(np.random.default_rng(0))
    text = str(space.decode(tokens))
    outcome = child.run_safely(ChildTask(pipeline.SerializeToString(), text, seed=0))
    assert outcome.environmental
    assert "supernet/ckpt-2: no such checkpoint" in outcome.error


def test_the_supernet_has_every_choice_of_the_space(tiny_config, tmp_path):
    pipeline = loaded(tiny_config, tmp_path)
    space = space_of(pipeline)
    drawn = [space.encode(each) for each in one_shot.supernet(pipeline).subnets.architectures]
    met = [set(tokens) for tokens in zip(*drawn, strict=True)]
    assert met == [set(range(len(decision.choices))) for decision in space.decisions]
