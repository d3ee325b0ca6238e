"""Children in this process."""

from mnasdet.search.child import ChildTask
from mnasdet.search.executors.this_process import ThisProcess
from tests.search import cheap_children


def test_a_child_is_done_when_it_is_submitted():
    future = ThisProcess(cheap_children.accuracy).submit(ChildTask(b"", "architecture", 1))
    assert future.done()
    expected = cheap_children.accuracy(ChildTask(b"", "architecture", 1))
    assert future.result().metrics == expected.metrics
    assert future.result().worker == "this process"
