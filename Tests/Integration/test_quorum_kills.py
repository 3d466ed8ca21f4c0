"""kill -9 at every point of a change of a quorum's children (`x-blockdev-change`), under a writer."""

import threading

import pytest

from harness import images
from harness.agent import Agent
from harness.campaign import CHILDREN, Campaign
from harness.reference import answer
from test_blkverify import qemu_io
from test_quorum import add_quorum, children, edges, serve

BLOCK = 65536
FILES = {"n0": "n0", "n1": "n1", "n2": "n2", "inner": "n1"}  # A node's file.
CHANGES = {
    # Arguments, the children before it and after it.
    "comes": ({"node": "n2"}, ["n0", "n1"], ["n0", "n1", "n2"]),
    "goes": ({"child": "children.0"}, ["n0", "n1"], ["n1"]),
    "goes with its node": ({"child": "children.1"}, ["n0", "inner"], ["n0"]),
}


class Writer(threading.Thread):
    """Writes block after block, each with a pattern of its own, until a write fails; knows those that did not."""

    def __init__(self, directory):
        super().__init__(daemon=True)
        self.directory = directory
        self.written = {}  # Pattern by offset.
        self.is_under_way = threading.Event()

    def run(self):
        for number in range(64):
            offset, pattern = number * BLOCK, number + 1
            if qemu_io(self.directory, f"write -P {pattern} {offset} {BLOCK}"):
                return
            self.written[offset] = pattern
            self.is_under_way.set()


def nodes_of(edges):
    return [edge[1] for edge in edges]


def add_all(agent, directory, before):
    serve(agent, directory)
    children(agent, directory, (0, 0, 0))
    if "inner" in before:
        agent.execute("blockdev-del", node_name="n1")
    inner = {"driver": "raw", "node-name": "inner", "file": {"driver": "file", "filename": str(directory / "n1.raw")}}
    add_quorum(agent, [inner if node == "inner" else node for node in before], 1)


def change(agent, arguments):
    return answer(agent, "x-blockdev-change", {"parent": "q", **arguments})


# Where each agent in turn dies, while the change is asked for again until it is recorded.
POINTS = [[*before, last] for last in sorted(CHILDREN) for before in ([], ["children.changed"])]


@pytest.mark.parametrize("points", POINTS, ids=" ".join)
@pytest.mark.parametrize("kind", CHANGES)
def test_the_children_are_those_before_or_after(directory, kind, points):
    """The next agent has one set or the other, and tries again; nothing is lost that the writer was told is written."""
    arguments, before, after = CHANGES[kind]
    written = {}
    for number, point in enumerate(points):
        agent = Agent(directory, environment={"COLDFRAME_FAULT": f"{point}=kill"}).start()
        if number == 0:
            add_all(agent, directory, before)
        writer = Writer(directory)
        writer.start()
        assert writer.is_under_way.wait(30)
        with pytest.raises(Exception):  # The reply is lost with the agent.
            agent.execute("x-blockdev-change", parent="q", **arguments)
        Campaign.wait_for_death(agent, point)
        writer.join()
        written |= writer.written
    is_recorded = points[-1] == "children.recorded"
    with Agent(directory) as again:
        found = nodes_of(edges(again))
        assert found == (after if is_recorded else before)
        has_inner = again.node("inner") is not None
        assert has_inner == ("inner" in found)
        assert qemu_io(directory, *[f"read -P {pattern} {offset} {BLOCK}" for offset, pattern in written.items()]) == []
        if not is_recorded:
            assert change(again, arguments) == {}
            assert nodes_of(edges(again)) == after
        assert qemu_io(directory, "write -P 99 3M 64k", "read -P 99 3M 64k") == []
    for node in after:
        file = directory / f"{FILES[node]}.raw"
        assert images.has_pattern(file, 99, 3 << 20)
        if node in before:
            assert all(images.has_pattern(file, pattern, offset) for offset, pattern in written.items()
                       if offset != 3 << 20)
    for node in {FILES[node] for node in before} - {FILES[node] for node in after}:
        assert not images.has_pattern(directory / f"{node}.raw", 99, 3 << 20)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_that_fails_has_changed_nothing(directory, kind):
    arguments, before, _ = CHANGES[kind]
    with Agent(directory, environment={"COLDFRAME_FAULT": "children.changed=error"}) as agent:
        add_all(agent, directory, before)
        shown = edges(agent)
        for _ in range(2):
            assert "Fault point 'children.changed' was told to fail" in change(agent, arguments)
            assert edges(agent) == shown
        assert qemu_io(directory, "write -P 7 0 64k", "read -P 7 0 64k") == []
    assert all(images.has_pattern(directory / f"{FILES[node]}.raw", 7) for node in before)
