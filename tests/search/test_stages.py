"""A search in two stages, with children that take no training."""

import dataclasses

import pytest
from google.protobuf import text_format

from mnasdet import base_codes, config
from mnasdet.architectures import from_trial
from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2
from mnasdet.search import latency, order, reward, stages
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.search import Search
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore
from mnasdet.search_spaces import factory as search_spaces
from tests.search import cheap_children

PIPELINE = """
model {
  architecture {
    backbone { base_code { code: "basicblock_8_1-2-2-2" } }
    classifier {}
  }
  classification {
    num_classes: 10
    image_resizer { fixed_shape_resizer { height: 32 width: 32 } }
  }
}
train_config { batch_size: 4 num_steps: 3 }
search_config {
  num_trials: 10
  max_pending_trials: 3
  search_space {
    base_code { bases: [8, 16] min_blocks: [1, 1, 1, 1] max_blocks: [1, 1, 2, 1] }
  }
  controller { random {} }
  reward { multi_objective {} }
  latency { multiply_adds {} }
  second_stage {
    num_trials: 9
    num_groups: 3
    search_space {
      base_code {
        bases: [8, 12, 16]
        min_blocks: [1, 1, 1, 1]
        max_blocks: [2, 2, 2, 2]
        conv_hyperparams { group_norm { groups: 2 } standardize_weights: true }
      }
    }
    controller { partial_order {} }
    train_config { batch_size: 8 num_steps: 5 }
  }
}
"""


@pytest.fixture
def pipeline():
    return text_format.Parse(PIPELINE, pipeline_pb2.TrainEvalPipelineConfig())


def run(pipeline, path, child=cheap_children.accuracy):
    """Returns all trials, and the trials that each stage's groups start from."""
    groups = []
    store = TrialStore(path)

    def search(config, stage, first):
        groups.append(stage.groups)
        settings = config.search_config
        return Search(
            pipeline=config,
            store=store,
            space=stage.space,
            controller=stage.controller,
            reward=reward.from_config(settings.reward),
            latency=latency.from_config(settings.latency),
            executor=ThisProcess(child),
            max_pending=settings.max_pending_trials,
            first=first,
            seed=5,
        ).run(settings.num_trials)

    space = search_spaces.from_config(
        pipeline.search_config.search_space, config.resolve(pipeline).architecture
    )
    try:
        return stages.run(pipeline, space, search), groups
    finally:
        store.close()


def timeless(trials):
    return [dataclasses.replace(t, started=None, finished=None, worker=None) for t in trials]


def code(trial):
    return from_trial(trial.architecture).backbone.base_code.code


def test_the_groups_of_the_second_stage_start_from_the_first_front(pipeline, tmp_path):
    trials, (none, groups) = run(pipeline, tmp_path / "trials.db")
    assert none == ()
    assert [trial.number for trial in trials] == list(range(19))
    first, second = trials[:10], trials[10:]
    # Nothing on the front is beaten, and no group starts from anything else.
    assert 1 <= len(groups) <= 3
    for number in groups:
        assert not any(
            other.accuracy > trials[number].accuracy and other.cost <= trials[number].cost
            for other in first
        )
    # The groups take turns, and each begins with the architecture that it is named after.
    assert [trial.tokens[0] for trial in second] == [n % len(groups) for n in range(9)]
    for trial, parent in zip(second, groups, strict=False):
        assert code(trial) == code(trials[parent])
        # Trained anew, and with other hyper-parameters.
        assert trial.duplicate_of is None
        assert from_trial(trial.architecture).backbone.conv_hyperparams.standardize_weights
    assert [trial.seed for trial in trials] == list(range(5, 24))


def test_children_of_each_stage_are_trained_as_it_says(pipeline, tmp_path):
    steps = {}

    def child(task):
        own = pipeline_pb2.TrainEvalPipelineConfig.FromString(task.pipeline)
        steps[task.seed - 5] = own.train_config.num_steps
        return cheap_children.accuracy(task)

    run(pipeline, tmp_path / "trials.db", child)
    assert {steps[number] for number in steps if number < 10} == {3}
    assert {steps[number] for number in steps if number >= 10} == {5}


def test_interrupted_anywhere_it_ends_like_an_uninterrupted_one(pipeline, tmp_path):
    expected, groups = run(pipeline, tmp_path / "whole.db")

    class Interrupted(Exception):
        pass

    # In the first stage, between the stages, right after, and in the second.
    for done in (4, 9, 10, 11, 15):
        path = tmp_path / f"after_{done}.db"

        def child(task, done=done):
            if task.seed - 5 >= done:
                raise Interrupted
            return cheap_children.accuracy(task)

        with pytest.raises(Interrupted):
            run(pipeline, path, child)
        trials, found = run(pipeline, path)
        assert timeless(trials) == timeless(expected)
        assert found == groups


def test_a_longer_second_stage_begins_like_the_shorter_one(pipeline, tmp_path):
    run(pipeline, tmp_path / "trials.db")
    pipeline.search_config.second_stage.num_trials = 12
    longer, _ = run(pipeline, tmp_path / "trials.db")
    assert timeless(longer) == timeless(run(pipeline, tmp_path / "at_once.db")[0])


def complete(number, accuracy, cost, architecture="", **fields):
    return Trial(
        number,
        (number,),
        architecture,
        str(number),
        0,
        state=TrialState.COMPLETE,
        accuracy=accuracy,
        cost=cost,
        **fields,
    )


def test_picks_are_evenly_spaced_by_cost():
    front = [complete(n, n / 10, cost) for n, cost in enumerate([1.0, 1.1, 1.2, 5.0, 9.0, 11.0])]

    def numbers(count):
        return [trial.number for trial in stages.picked(front, count)]

    # 1, 6 and 11; then 1, 3.5, 6, 8.5 and 11, of which 6 finds 5 taken.
    assert numbers(3) == [0, 3, 5]
    assert numbers(5) == [0, 2, 3, 4, 5]
    assert numbers(9) == [0, 1, 2, 3, 4, 5]
    assert numbers(1) == [0]
    assert stages.picked([], 3) == []


def second(pipeline, trials):
    return stages.second(stages.pipelines(pipeline)[1], trials, 3)


def architecture(backbone):
    return f"backbone {{ {backbone} }} classifier {{}}"


def test_a_backbone_without_a_base_code_gives_its_place_to_another(pipeline, caplog):
    trials = [
        complete(0, 0.1, 1.0, architecture("mobilenet_v2 {}")),
        complete(1, 0.2, 2.0, architecture('base_code { code: "basicblock_8_1-2-2-1" }')),
        complete(2, 0.3, 3.0, architecture("resnet { depth: 18 }")),
        complete(3, 0.4, 9.0, architecture("resnet { depth: 101 groups: 32 width_per_group: 4 }")),
    ]
    found = second(pipeline, trials)
    assert found.groups == (1, 2, 3)
    told = [record.getMessage() for record in caplog.records]
    assert (
        "no group of the second stage starts from trial 0: base_code search space: the back"
        in told[0]
    )
    # The space lacks the base of 64 of a ResNet-18, so its group starts anywhere.
    assert "group of trial 2 starts from random architectures" in told[1]
    assert len(told) == 3
    for tokens in found.controller.propose(6):
        decoded = found.space.decode(tokens)
        block = ("basicblock", "basicblock", "Xbottleneck")[tokens[0]]
        assert decoded.backbone.base_code.code.startswith(f"{block}_")


def test_where_no_architecture_fits_it_ends_with_a_line(pipeline):
    trials = [complete(0, 0.1, 1.0, architecture("mobilenet_v2 {}"))]
    with pytest.raises(UserError, match="nothing to start from: none of the 1 trials on the front"):
        second(pipeline, trials)


def test_a_trial_that_was_trained_again_is_still_no_start(pipeline):
    """The groups were chosen when it had failed."""
    own = architecture('base_code { code: "basicblock_8_1-2-2-1" }')
    trials = [complete(0, 0.1, 1.0, own), complete(1, 0.9, 2.0, own, told_failed=True)]
    assert second(pipeline, trials).groups == (0,)


def test_resnets_as_base_codes():
    """The strings of vega's sm_nas, which is the one public codec."""
    codes = {
        (18, 1): "basicblock_64_11-21-21-21",
        (34, 1): "basicblock_64_111-2111-211111-211",
        (50, 1): "bottleneck_64_111-2111-211111-211",
        (50, 32): "Xbottleneck_64_111-2111-211111-211",
        (101, 1): f"bottleneck_64_111-2111-2{'1' * 22}-211",
    }
    for (depth, groups), expected in codes.items():
        assert str(base_codes.of_resnet(depth, groups)) == expected
    # He et al., 2016, table 1.
    assert base_codes.of_resnet(50).widths == (256, 512, 1024, 2048)
    assert base_codes.of_resnet(18).widths == (64, 128, 256, 512)


class Numbers:
    """A space of single numbers in two kinds; smaller ones precede larger ones of their kind."""

    has_order = True

    def precedes(self, a, b):
        return a[0] == b[0] and a[1] <= b[1]


def test_violations_by_hand():
    def trial(number, tokens, accuracy, cost, **fields):
        return dataclasses.replace(complete(number, accuracy, cost), tokens=tokens, **fields)

    trials = [
        trial(0, (0, 1), 0.5, 1.0),
        trial(1, (0, 2), 0.4, 0.9),
        trial(2, (0, 3), 0.6, 2.0),
        trial(3, (1, 9), 0.1, 9.0),
        trial(4, (0, 4), 0.0, 0.0, state=TrialState.FAILED),
        trial(5, (0, 1), 0.5, 1.0, duplicate_of=0),
    ]
    found = order.violations(Numbers(), trials)
    # 1 and 2, 1 and 3, 2 and 3, of which the first pair alone is the wrong way round, in both.
    assert found == order.Violations(pairs=3, accuracy=1, cost=1)
    assert found.text == (
        "Of 3 pairs of trained children, one no deeper and no wider than the other, the smaller "
        "one was more accurate in 33.3% and cost more in 33.3%."
    )
    assert order.from_json(order.to_json(2, found)) == found
    assert order.violations(Numbers(), [trials[0], trials[3]]) is None


def test_what_the_second_stage_leaves_out_is_as_in_the_first(pipeline):
    own = pipeline.search_config.second_stage
    own.ClearField("search_space")
    own.ClearField("train_config")
    pipeline.search_config.limits.max_latency_ms = 3
    pipeline.search_config.one_shot.SetInParent()
    first, later = stages.pipelines(pipeline)
    for one, trials in ((first, 10), (later, 9)):
        assert one.search_config.num_trials == trials
        assert not one.search_config.HasField("second_stage")
        assert one.train_config.num_steps == 3
        assert one.search_config.search_space == pipeline.search_config.search_space
        assert one.search_config.limits.max_latency_ms == 3
    assert first.search_config.controller.HasField("random")
    # The children of the second stage are trained one by one.
    assert first.search_config.HasField("one_shot")
    assert not later.search_config.HasField("one_shot")
    assert later.search_config.controller.HasField("partial_order")
    # A limit in billions of multiply-adds is none in ms.
    own.latency.host.SetInParent()
    assert stages.pipelines(pipeline)[1].search_config.limits.max_latency_ms == 0
