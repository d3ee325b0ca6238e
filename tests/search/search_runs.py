"""A search with cheap children, also as a program of its own, so that tests can kill it.

python -m tests.search.search_runs CONTROLLER STORE [ADDRESS_OF_RAY_CLUSTER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from google.protobuf import text_format

from mnasdet import config
from mnasdet.protos import pipeline_pb2, search_pb2
from mnasdet.search import reward
from mnasdet.search.controllers import factory
from mnasdet.search.executors.executor import Executor
from mnasdet.search.executors.ray_cluster import RayCluster
from mnasdet.search.executors.worker_processes import WorkerProcesses
from mnasdet.search.latency import MultiplyAdds
from mnasdet.search.search import Search
from mnasdet.search.trials.trial_store import TrialStore
from tests.search import cheap_children
from tests.search_spaces.architectures import mnasfpn_space

NUM_TRIALS = 60
CONTROLLERS = {
    "random": "random {}",
    "regularized_evolution": "regularized_evolution { population_size: 15 tournament_size: 5 }",
    "ppo": "ppo { batch_size: 10 learning_rate: 0.01 }",
}


def search(controller: str, store: Path, executor: Executor) -> Search:
    """Returns a search of a space that is small enough for duplicates to turn up."""
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.model.architecture_name = "mobilenet_v2_mnasfpn"
    pipeline.model.ssd.num_classes = 3
    resizer = pipeline.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height = resizer.width = 64
    space = mnasfpn_space(
        config.resolve(pipeline).architecture,
        channels=[16],
        expanded_channels=[16, 32],
        kernel_sizes=[3],
        repeats=1,
        num_internal_blocks=0,
    )
    settings = text_format.Parse(CONTROLLERS[controller], search_pb2.ControllerConfig())
    return Search(
        pipeline=pipeline,
        store=TrialStore(store),
        space=space,
        controller=factory.from_config(settings, space, seed=0),
        reward=reward.mnasfpn,
        latency=MultiplyAdds(),
        executor=executor,
        max_pending=6,
        seed=7,
        pauses=[0.0] * 5,
    )


def main(controller: str, store: str, address: str = "") -> None:
    prepare = cheap_children.prepare_nothing
    executor: Executor
    if address:
        run_child = cheap_children.slower_accuracy
        executor = RayCluster(2, address=address, run_child=run_child, prepare=prepare)
    else:
        run_child = cheap_children.slow_accuracy
        executor = WorkerProcesses(2, run_child=run_child, prepare=prepare)
    try:
        search(controller, Path(store), executor).run(NUM_TRIALS)
    finally:
        executor.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
