import functools
import json
import resource
import subprocess
import sys

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.protos import architecture_pb2, pipeline_pb2
from tests.integration.commands import ROOT, run
from tests.search_spaces.architectures import mnasfpn_space

describe = functools.partial(run, "describe_search_space")


def test_json():
    done = describe("--search_space=mnasfpn", "--seed=3", "--format=json")
    description = json.loads(done.stdout)
    assert description["search_space"] == "mnasfpn"
    assert description["num_decisions"] == len(description["decisions"]) == 54
    assert description["cardinality"] == "186615424657489896730672496640000"
    assert description["cardinality_float"] == 186615424657489896730672496640000.0
    assert description["decisions"][2] == {
        "name": "block_4/input_1",
        "choices": [1, 2, 3],
        "narrowed_by": ["block_4/input_0"],
    }
    space = mnasfpn_space(config.load_architecture("mobilenet_v2_mnasfpn"))
    sample = text_format.Parse(
        description["sample"]["architecture"], architecture_pb2.Architecture()
    )
    assert list(space.encode(sample)) == description["sample"]["tokens"]


def test_the_seed_decides_the_sample():
    samples = [describe("--search_space=mnasfpn", f"--seed={seed}").stdout for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]


def test_text():
    lines = describe("--search_space=mnasfpn").stdout.splitlines()
    assert lines[0] == "mnasfpn: 54 decisions"
    assert lines[1] == "186615424657489896730672496640000 (1.866e+32) architectures"
    assert "  channels                     16, 32, 48, 64, 80, 96" in lines


def test_an_unknown_space_is_one_line_with_the_known_ones():
    done = describe("--search_space=mnasfpm", status=1)
    start, *others = done.stderr.rstrip("\n").split(", ")
    assert start == "error: --search_space is 'mnasfpm'; use one of mnasfpn"
    assert sorted(others) == [
        "base_code",
        "conn_search",
        "joint",
        "mnasnet",
        "nas_fpn",
        "nas_fpnlite_s",
        "no_expand",
        "structure",
        "supernet",
    ]
    assert done.stdout == ""
    assert "--search_space is ''; use one of " in describe(status=1).stderr


@pytest.mark.parametrize(
    ("name", "num_decisions", "cardinality"),
    [
        ("no_expand", 45, "4624504190108455403520000"),
        ("conn_search", 63, "894295428819402801554947584000000000"),
        ("nas_fpn", 28, "1931334451200000"),
        ("nas_fpnlite_s", 36, "39158192264970240000"),
        ("mnasnet", 42, "554652776685109248"),
        ("joint", 96, "103506763458547573665914385324975365347312926720000"),
        ("structure", 5, "10836"),
        ("base_code", 23, "5017632849600"),
    ],
)
def test_every_space_has_a_usual_base(name, num_decisions, cardinality):
    description = json.loads(describe(f"--search_space={name}", "--format=json").stdout)
    assert description["search_space"] == name
    assert description["num_decisions"] == num_decisions
    assert description["cardinality"] == cardinality


def test_another_base():
    lines = describe("--search_space=mnasnet", "--architecture=mnasnet_a1").stdout.splitlines()
    # 48 choices a block beside widths and depths: 2, 2, 3 ... and 2, 3, 3, 3, 3, 3, 2.
    cardinality = 48**7 * (2 * 2 * 3**5) * (2 * 3**5 * 2)
    assert lines[1].startswith(f"{cardinality} ")
    assert "  backbone/block_5/channels    88, 112, 144" in lines
    assert "classifier {" in lines


@pytest.fixture
def pipeline_config(tmp_path):
    """The quickstart's config with another search space, or without a search."""

    def write(search_space):
        text = (ROOT / "configs" / "quickstart.config").read_text()
        pipeline = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
        if search_space:
            pipeline.search_config.ClearField("search_space")
            text_format.Parse(search_space, pipeline.search_config.search_space)
        else:
            pipeline.ClearField("search_config")
        path = tmp_path / "pipeline.config"
        path.write_text(text_format.MessageToString(pipeline))
        return f"--pipeline_config_path={path}"

    return write


def test_a_configs_own_space_and_architecture(pipeline_config):
    flag = pipeline_config("mnasfpn { channels: 16 num_internal_blocks: 0 repeats: [1, 2] }")
    description = json.loads(describe(flag, "--format=json").stdout)
    pairs = 6 * 10 * 15 * 21
    assert description["cardinality"] == str(24 * pairs * (2 * 7 * 3) ** 4 * 2)
    assert "depth_multiplier: 0.5" in description["sample"]["architecture"]


def test_another_space_over_a_configs_architecture(pipeline_config):
    lines = describe(pipeline_config("mnasfpn {}"), "--search_space=mnasnet").stdout.splitlines()
    assert lines[0] == "mnasnet: 42 decisions"
    # Half of 320, times 0.75, 1 and 1.25.
    assert "  backbone/block_7/channels    120, 160, 200" in lines


def test_a_config_without_a_space_needs_one(pipeline_config):
    flag = pipeline_config("")
    error = describe(flag, status=1).stderr
    assert "has no search_config.search_space; give --search_space, one of mnasfpn, no_exp" in error
    assert describe(flag, "--search_space=no_expand").stdout.startswith("no_expand: ")


def test_a_base_that_does_not_fit_is_one_line():
    done = describe("--search_space=joint", "--architecture=resnet50_fpn_256", status=1)
    assert done.stderr == (
        "error: joint search space: the backbone is resnet; use mnasnet or mobilenet_v2\n"
    )


def test_tensorflow_is_not_loaded():
    code = (
        "import sys, atexit\n"
        "from mnasdet.scripts import describe_search_space\n"
        "atexit.register(lambda: print('tensorflow' in sys.modules, file=sys.stderr))\n"
        "describe_search_space.cli()\n"
    )
    command = [sys.executable, "-c", code, "--search_space=joint"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "False\n"


@pytest.mark.parametrize(
    "flag", ["--search_space=joint", "--pipeline_config_path=configs/quickstart.config"]
)
def test_answers_within_two_seconds(flag):
    def processor_seconds():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    start = processor_seconds()
    describe(flag)
    assert processor_seconds() - start < 2
