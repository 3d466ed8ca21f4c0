"""Children that come and go (`x-blockdev-change`), side by side with qemu-storage-daemon."""

import threading

from harness import images
from harness.agent import Agent
from harness.blockjobs import MEBIBYTE, add
from harness.reference import answer, both
from test_blkverify import qemu_io
from test_quorum import add_quorum, children, edges, serve


def test_children_come_and_go(twins):
    def script(peer, folder):
        children(peer, folder, (1, 1, 1, 1))
        told = add_quorum(peer, ["n0", "n1"], 1)

        def change(**arguments):
            told.append([answer(peer, "x-blockdev-change", {"parent": "q", **arguments}), edges(peer)])
        change(node="n2")
        change(node="n2")
        change(node="q")
        change(node="zz")
        change(child="children.7")
        change(child="children.0")
        change(child="children.2")
        change(node="n2")
        told.append(qemu_io(folder, "write -P 5 0 64k"))
        change(child="children.1")
        change(child="children.2")
        change(node="n0")
        told.append(qemu_io(folder, "write -P 6 1M 64k"))
        told += [answer(peer, "block-export-del", {"id": "q", "mode": "hard"}),
                 answer(peer, "blockdev-del", {"node-name": "n0"}), answer(peer, "blockdev-del", {"node-name": "q"})]
        told += add_quorum(peer, ["n0", "n1"], 2, blkverify=True)
        change(node="n2")
        change(child="children.1")
        told.append([[images.has_pattern(folder / f"n{index}.raw", pattern, offset, 65536)
                      for pattern, offset in ((5, 0), (6, MEBIBYTE))] for index in range(4)])
        return told
    both(twins, script)


def test_a_child_of_another_size_is_refused(agent, directory):
    # QEMU takes it, and fails later.
    children(agent, directory, (1, 1))
    images.create(directory / "small.raw", "2M", form="raw")
    add(agent, directory, "small")
    add_quorum(agent, ["n0", "n1"], 1)
    assert answer(agent, "x-blockdev-change", {"parent": "q", "node": "small"}) == (
        "GenericError: Node 'small' has 2097152 bytes, quorum 'q' 4194304: children must be of one size")


def test_a_restarted_agent_has_the_children_as_they_are(agent, directory):
    serve(agent, directory)
    children(agent, directory, (1, 1, 1))
    add_quorum(agent, ["n0", "n1"], 1)
    agent.execute("x-blockdev-change", parent="q", child="children.0")
    agent.execute("x-blockdev-change", parent="q", node="n2")
    assert [edge[:2] for edge in edges(agent)] == [["children.1", "n1"], ["children.2", "n2"]]
    agent.process.kill()
    agent.process.wait()
    agent.stop()
    with Agent(directory) as again:
        assert [edge[:2] for edge in edges(again)] == [["children.0", "n1"], ["children.1", "n2"]]
        assert qemu_io(directory, "write -P 7 0 64k") == []
        again.execute("blockdev-del", node_name="n0")
    assert [images.has_pattern(directory / f"n{index}.raw", 7) for index in range(3)] == [False, True, True]


def test_children_change_under_a_writer(agent, directory):
    serve(agent, directory)
    children(agent, directory, (0, 0, 0))
    add_quorum(agent, ["n0", "n1"], 1)
    stop, failures = threading.Event(), []

    def keep_writing():
        while not stop.is_set():
            failures.extend(qemu_io(directory, *[f"write -P {pattern} {pattern}M 64k" for pattern in (1, 2, 3)]))
    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for _ in range(20):
            agent.execute("x-blockdev-change", parent="q", node="n2")
            agent.execute("x-blockdev-change", parent="q", child="children.2")
    finally:
        stop.set()
        writer.join()
    assert failures == []
    assert [edge[:2] for edge in edges(agent)] == [["children.0", "n0"], ["children.1", "n1"]]


def test_a_format_above_changed_children_becomes_writable_and_read_only(agent, directory):
    """The numbers of the edges have a gap when the quorum is opened anew."""
    serve(agent, directory)
    children(agent, directory, (0, 0, 0))
    for index in range(3):
        agent.execute("blockdev-del", node_name=f"n{index}")
        images.create(directory / f"n{index}.raw", "4M", form="qcow2")
    files = [{"driver": "file", "node-name": f"f{index}", "filename": str(directory / f"n{index}.raw")}
             for index in range(3)]
    agent.execute("blockdev-add", **files[2])
    agent.execute("blockdev-add", driver="qcow2", node_name="img", read_only=False, file={
        "driver": "quorum", "node-name": "q", "vote-threshold": 1, "children": files[:2]})
    agent.execute("x-blockdev-change", parent="q", child="children.0")
    agent.execute("x-blockdev-change", parent="q", node="f2")
    options = {"driver": "qcow2", "node-name": "img", "file": "q"}
    for read_only in (True, False):
        agent.execute("blockdev-reopen", options=[{**options, "read-only": read_only}])
        assert {node["node-name"]: node["ro"] for node in agent.execute("query-named-block-nodes")
                if node["node-name"] in ("img", "q", "f1")} == {"img": read_only, "q": read_only, "f1": read_only}
    agent.execute("block-export-add", type="nbd", id="e", node_name="img", name="v", writable=True)
    # The children grow with it, and only those that are there.
    assert qemu_io(directory, "write -P 7 0 1M", "read -P 7 0 1M") == []
    agent.execute("block-export-del", id="e", mode="hard")
    for node in ("img", "f2"):
        agent.execute("blockdev-del", node_name=node)
    sizes = [(directory / f"n{index}.raw").stat().st_size for index in range(3)]
    assert sizes[0] < sizes[1] == sizes[2]
    for index in (1, 2):
        images.check(directory / f"n{index}.raw")
        assert images.has_pattern(directory / f"n{index}.raw", 7, 0, MEBIBYTE, form="qcow2")
