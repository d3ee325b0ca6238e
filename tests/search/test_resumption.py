"""A search goes on where it is the search that it was, and nowhere else."""

import json
import shutil

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2, search_pb2
from mnasdet.search import identity, latency, results
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore
from mnasdet.search_spaces import factory as search_spaces

PIPELINE = """
model {
  architecture_name: "mobilenet_v2_mnasfpn"
  ssd {
    num_classes: 1
    image_resizer { fixed_shape_resizer { height: 64 width: 64 } }
  }
}
train_config {
  batch_size: 4
  num_steps: 10
  optimizer { momentum_optimizer { learning_rate { constant_learning_rate {} } } }
}
train_input_reader {
  tf_record_input_reader { input_path: "FOLDER/train.record" }
  label_map_path: "FOLDER/label_map.pbtxt"
}
eval_input_reader {
  tf_record_input_reader { input_path: "FOLDER/val.record" }
  label_map_path: "FOLDER/label_map.pbtxt"
}
search_config {
  num_trials: 4
  search_space { mnasfpn {} }
  controller { random {} }
  reward { mnasfpn { exponent: -0.3 } }
  latency { latency_table {} }
}
"""
LABEL_MAP = "item { id: 1 name: 'coin' }"


class Run:
    """A search's folder and its data, which may both be moved."""

    def __init__(self, tmp_path):
        self.model_dir, self.data = tmp_path / "run", tmp_path / "data"
        self.model_dir.mkdir()
        self.data.mkdir()
        for name in ("train", "val"):
            (self.data / f"{name}.record").write_bytes(name.encode() * 50_000)
        (self.data / "label_map.pbtxt").write_text(LABEL_MAP)
        self.text = PIPELINE
        self.url = ""

    def pipeline(self):
        text = self.text.replace("FOLDER", str(self.data))
        return text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())

    def store(self):
        name = results.search_name(self.model_dir, search_pb2.TrialStoreConfig(url=self.url))
        return TrialStore(self.url or self.model_dir / "trials.db", name)

    def start(self, resume=True, **options):
        """Starts a search, or goes on with it, and returns what search.json then holds."""
        pipeline = self.pipeline()
        space = search_spaces.from_config(
            pipeline.search_config.search_space, config.resolve(pipeline).architecture
        )
        store = self.store()
        try:
            results.start(self.model_dir, pipeline, space, store, resume, **options)
            if not store.trials():
                store.add([Trial(0, (1,), "", "k", 0, state=TrialState.COMPLETE)])
        finally:
            store.close()
        return json.loads((self.model_dir / "search.json").read_text())


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    run.start(resume=False)
    return run


def move(run, name, new_name):
    folder = getattr(run, name)
    moved = folder.with_name(new_name)
    shutil.move(folder, moved)
    setattr(run, name, moved)


@pytest.mark.parametrize("has_search_json", [True, False])
def test_a_folder_that_was_renamed_holds_the_search_that_it_held(run, has_search_json):
    description = run.start()
    assert description["search_name"] == "run"
    move(run, "model_dir", "renamed")
    if not has_search_json:
        (run.model_dir / "search.json").unlink()
    assert run.start() == description
    store = run.store()
    assert (store.search_name, len(store.trials())) == ("run", 1)
    store.close()


def test_a_search_that_died_while_it_made_its_file_begins_anew(tmp_path):
    run = Run(tmp_path)
    (run.model_dir / "trials.db").touch()
    assert run.start()["search_name"] == "run"


def test_a_renamed_folder_finds_its_search_on_a_server(tmp_path):
    run = Run(tmp_path)
    run.url = f"sqlite:///{tmp_path}/server.db"
    description = run.start(resume=False)
    move(run, "model_dir", "renamed")
    assert run.start() == description


def test_data_may_be_elsewhere(run):
    description = run.start()
    move(run, "data", "mounted elsewhere")
    assert run.start() == description


def replace(old, new):
    def change(run):
        assert old in run.text
        run.text = run.text.replace(old, new)

    return change


def append(name):
    def change(run):
        with open(run.data / name, "ab") as file:
            file.write(b" ")

    return change


def relabel(run):
    (run.data / "label_map.pbtxt").write_text(LABEL_MAP.replace("coin", "note"))


def flip(run):
    """Another file of the same size."""
    (run.data / "val.record").write_bytes(b"VAL" * 50_000)


CHANGES = {
    "seed": (
        replace("num_trials: 4", "num_trials: 4 seed: 3"),
        "search_config.seed is 0 in the folder, 3 in the config",
    ),
    "reward": (
        replace("-0.3", "-0.2"),
        "search_config.reward.mnasfpn.exponent is -0.3 in the folder, -0.2 in the config",
    ),
    "controller": (
        replace("random {}", "regularized_evolution {}"),
        "search_config.controller.random is set in the folder, not set in the config",
    ),
    "space": (
        replace("mnasfpn {}", "mnasfpn { repeats: 2 }"),
        "search_config.search_space.mnasfpn.repeats has 0 entries in the folder, 1 entries in",
    ),
    "training": (replace("num_steps: 10", "num_steps: 20"), "train_config.num_steps is 10 in"),
    "image size": (
        replace("height: 64", "height: 96"),
        "fixed_shape_resizer.height is 64 in the folder, 96 in the config",
    ),
    "more training data": (append("train.record"), "training data: 1 files of 250,000 bytes"),
    "other evaluation data": (flip, "evaluation data: 1 files of 150,000 bytes"),
    "label map": (relabel, "label map: 1 files of 27 bytes"),
}


# With these the trials so far would not be the first ones.
FIXED = ("seed", "controller", "space")


@pytest.mark.parametrize("name", list(CHANGES))
def test_what_changes_results_is_named_and_has_to_be_accepted(run, name):
    change, message = CHANGES[name]
    before = run.start()
    change(run)
    with pytest.raises(UserError, match="'run' began otherwise: ") as refused:
        run.start()
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert json.loads((run.model_dir / "search.json").read_text()) == before
    assert ("--accept_changes" in str(refused.value)) == (name not in FIXED)
    if name in FIXED:
        with pytest.raises(UserError, match="undo that, or choose another --model_dir"):
            run.start(accept_changes=True)
        return
    accepted = run.start(accept_changes=True)["accepted_changes"]
    assert [entry["trials"] for entry in accepted] == [1]
    assert message in accepted[0]["changes"][0]
    run.start()


SECOND_STAGE = """second_stage {
    num_trials: 5
    num_groups: 3
    latency { multiply_adds {} }
    train_config { num_steps: 5 }
  }
"""


@pytest.fixture
def chained(tmp_path):
    run = Run(tmp_path)
    replace("num_trials: 4", f"num_trials: 4 {SECOND_STAGE}")(run)
    run.start(resume=False)
    return run


def test_the_stages_are_in_search_json(chained):
    description = chained.start()
    assert description["stages"] == [
        {"first": 0, "unit": "ms"},
        {"first": 4, "unit": "G multiply-adds"},
    ]
    # In which all trials compare.
    assert description["unit"] == "G multiply-adds"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # The trials of the second stage come after them.
        (replace("num_trials: 4", "num_trials: 6"), "search_config.num_trials is 4 in the folder"),
        (replace("num_groups: 3", "num_groups: 2"), "second_stage.num_groups is 3 in the folder"),
        (replace(SECOND_STAGE, ""), "search_config.second_stage is set in the folder, not set"),
    ],
)
def test_what_decides_the_trials_of_both_stages_is_fixed(chained, change, message):
    change(chained)
    with pytest.raises(UserError, match=message):
        chained.start(accept_changes=True)


def test_the_second_stage_may_go_on_and_be_trained_otherwise(chained):
    replace("num_trials: 5", "num_trials: 50")(chained)
    chained.start()
    replace("num_steps: 5", "num_steps: 6")(chained)
    with pytest.raises(UserError, match="second_stage.train_config.num_steps is 5 in the folder"):
        chained.start()
    chained.start(accept_changes=True)


def test_what_decides_nothing_may_change(run):
    replace("num_trials: 4", "num_trials: 9 executor { worker_processes {} }")(run)
    run.start()


def test_another_processor_needs_another_table(run, monkeypatch):
    described = latency.identity(run.pipeline().search_config.latency)
    monkeypatch.setattr(latency, "identity", lambda proto: described | {"cpu": "Another 9000"})
    with pytest.raises(UserError, match="latency: cpu was .* at the start, is Another 9000 now"):
        run.start()


def test_other_versions_are_a_warning(run, monkeypatch, caplog):
    version = identity.metadata.version

    def later_version(name):
        return "99.0" if name == "tensorflow" else version(name)

    monkeypatch.setattr(identity.metadata, "version", later_version)
    run.start()
    assert "results may differ from those of the trials so far: tensorflow was " in caplog.text


def test_trials_that_are_gone_are_missed(run):
    (run.model_dir / "trials.db").unlink()
    with pytest.raises(UserError, match=r"search.json tells of search 'run', and .* has none of"):
        run.start()


def test_trials_of_another_search_are_noticed(run, tmp_path):
    (tmp_path / "other").mkdir()
    other = Run(tmp_path / "other")
    other.start(resume=False)
    shutil.copy(other.model_dir / "trials.db", run.model_dir / "trials.db")
    with pytest.raises(UserError, match="search.json is of another search than the trials in"):
        run.start()
    (run.model_dir / "search.json").unlink()
    run.start()


@pytest.mark.parametrize("content", ["", '{"id": ', "[]", "[" * 100_000])
def test_a_damaged_search_json_is_made_anew(run, content, caplog):
    before = run.start()
    (run.model_dir / "search.json").write_text(content)
    assert run.start() == before
    assert "search.json: is " in caplog.text
    assert "; the trial store has what it held" in caplog.text


def test_a_search_of_version_0_1_0_goes_on(run):
    old = {"config_sha256": results.config_digest(run.pipeline()), "seed": 0}
    store = run.store()
    store.describe(old)
    store.close()
    (run.model_dir / "search.json").write_text(json.dumps(old))
    description = run.start()
    assert description["config_sha256"] == old["config_sha256"]
    assert description["identity"]["data"]["training data"][0][0] == 250_000
    replace("-0.3", "-0.2")(run)
    with pytest.raises(UserError, match="reward.mnasfpn.exponent"):
        run.start()


def test_a_search_of_version_0_1_0_with_another_config_is_refused(run):
    store = run.store()
    store.describe({"config_sha256": "0" * 64})
    store.close()
    (run.model_dir / "search.json").unlink()
    with pytest.raises(UserError, match="the config or the seed is another"):
        run.start()


def test_a_search_has_to_be_resumed(run):
    with pytest.raises(UserError, match="holds a search already; add --resume"):
        run.start(resume=False)
