"""Children in this process."""

from mnasdet.search.executors.this_process import ThisProcess
from tests.search import cheap_children
from tests.search.executors.cheap_workers import TASK


def test_a_child_is_done_when_it_is_submitted():
    future = ThisProcess(cheap_children.accuracy).submit(TASK)
    assert future.done()
    assert future.result().metrics == cheap_children.accuracy(TASK).metrics
    assert future.result().worker == "this process"
