"""A mirror of what several nodes hold that takes the place of one of them (`replaces`), beside qemu-storage-daemon."""

import pytest

from harness import images
from harness.agent import Agent
from harness.blockjobs import MEBIBYTE, add, without_drains, without_progress
from harness.reference import answer, both, story, wait_gone
from test_blkverify import qemu_io
from test_quorum import add_quorum, children, edges, serve


def mirror(peer, **options):
    return answer(peer, "blockdev-mirror", {
        "job_id": "j", "device": "q", "target": "dst", "sync": "full", **options})


def end(peer, mark):
    """How a job that is completed ends. QEMU's text of a failure stands in its log; on the wire it is that of EPERM."""
    peer.wait_event("BLOCK_JOB_READY", mark)
    told = [answer(peer, "job-complete", {"id": "j"})]
    wait_gone(peer, "j")
    for entry in without_drains(without_progress(story(peer, mark, "j"))):
        if isinstance(entry, list) and entry[1].get("error"):
            entry[1]["error"] = "an error"
        told.append(entry)
    return told


def inline(folder, name, form="raw"):
    return {"driver": form, "node-name": name, "discard": "unmap", "file": {
        "driver": "file", "node-name": f"{name}-file", "filename": str(folder / f"{name}.raw")}}


@pytest.mark.parametrize("mode", ["background", "write-blocking"])
def test_a_broken_child_is_replaced(twins, mode):
    def script(peer, folder):
        told = add_quorum(peer, children(peer, folder, (1, 9, 1)), 2)
        add(peer, folder, "dst", size="4M")
        mark = peer.mark()
        told.append(mirror(peer, replaces="n1", **{"copy-mode": mode}))
        peer.wait_event("BLOCK_JOB_READY", mark)
        told.append(qemu_io(folder, "write -P 2 1M 64k"))
        told += end(peer, mark)
        told += [edges(peer), qemu_io(folder, "write -P 3 2M 64k", "read -P 1 0 1M"),
                 [export["node-name"] for export in peer.execute("query-block-exports")]]
        # The node that was replaced is not deleted here: qemu-storage-daemon 7.2 dies of it.
        for name in ("n0", "dst", "n2"):
            for pattern, offset in ((1, 0), (2, MEBIBYTE), (3, 2 * MEBIBYTE)):
                assert images.has_pattern(folder / f"{name}.raw", pattern, offset), (name, pattern)
        # What was written after it has left does not reach it.
        told.append([images.has_pattern(folder / "n1.raw", pattern, offset)
                     for pattern, offset in ((9, 0), (2, MEBIBYTE), (9, 2 * MEBIBYTE))])
        return told
    both(twins, script)


def test_what_cannot_be_replaced(twins):
    def script(peer, folder):
        children(peer, folder, (1, 1))
        for name in ("n0", "n1"):
            peer.execute("blockdev-del", node_name=name)
        add(peer, folder, "shared", size="4M")
        add(peer, folder, "dst", size="4M")
        images.create(folder / "base.qcow2", "4M")
        images.create(folder / "top.qcow2", "4M", backing=folder / "base.qcow2")
        peer.execute("blockdev-add", driver="qcow2", node_name="top", file={
            "driver": "file", "filename": str(folder / "top.qcow2")}, backing={
                "driver": "qcow2", "node-name": "base", "read-only": True,
                "file": {"driver": "file", "filename": str(folder / "base.qcow2")}})
        told = add_quorum(peer, [inline(folder, "n0"), inline(folder, "n1"), "shared", "top"], 1)
        told.append(answer(peer, "block-export-add", {
            "type": "nbd", "id": "s", "node-name": "shared", "name": "s"}))
        # A file below a child, a backing image, a child that somebody else has too, the target, none.
        return told + [mirror(peer, replaces=name) for name in ("n1-file", "base", "shared", "dst", "zz")]
    both(twins, script)


def test_another_user_comes_after_the_start(twins):
    def script(peer, folder):
        told = add_quorum(peer, children(peer, folder, (1, 1)), 1)
        add(peer, folder, "dst", size="4M")
        mark = peer.mark()
        told.append(mirror(peer, replaces="n1"))
        told.append(answer(peer, "block-export-add", {"type": "nbd", "id": "s", "node-name": "n1", "name": "s"}))
        return told + end(peer, mark) + [edges(peer), qemu_io(folder, "write -P 2 0 64k")]
    both(twins, script)


def test_a_child_that_goes_after_the_start(twins):
    def script(peer, folder):
        told = add_quorum(peer, children(peer, folder, (1, 1)), 1)
        add(peer, folder, "dst", size="4M")
        mark = peer.mark()
        told.append(mirror(peer, replaces="n1"))
        told.append(answer(peer, "x-blockdev-change", {"parent": "q", "child": "children.1"}))
        return told + end(peer, mark) + [edges(peer), qemu_io(folder, "write -P 2 0 64k")]
    both(twins, script)


def test_an_overlay_below_a_quorum(twins):
    """The overlay is the child then, and the image that was it is none any more."""
    def script(peer, folder):
        told = add_quorum(peer, children(peer, folder, (1, 1)), 1)
        add(peer, folder, "dst", size="4M")
        images.create(folder / "over.qcow2", "4M")
        peer.execute("blockdev-add", driver="qcow2", node_name="over", backing=None, file={
            "driver": "file", "filename": str(folder / "over.qcow2")})
        told += [answer(peer, "blockdev-snapshot", {"node": "n1", "overlay": "over"}), edges(peer),
                 mirror(peer, replaces="n1")]
        mark = peer.mark()
        told.append(mirror(peer, replaces="over"))
        return told + end(peer, mark) + [edges(peer), qemu_io(folder, "write -P 2 0 64k", "read -P 1 1M 64k")]
    both(twins, script)


@pytest.mark.parametrize("replaced", ["t", "r"])
def test_one_of_two_that_are_compared(twins, replaced):
    def script(peer, folder):
        for name in ("t", "r", "dst"):
            add(peer, folder, name, size="4M")
        told = [answer(peer, "blockdev-add", {"driver": "blkverify", "node-name": "q", "test": "t", "raw": "r"}),
                answer(peer, "block-export-add", {
                    "type": "nbd", "id": "q", "node-name": "q", "name": "v", "writable": True}),
                qemu_io(folder, "write -P 1 0 1M")]
        mark = peer.mark()
        told.append(mirror(peer, replaces=replaced))
        told += end(peer, mark) + [[edge[:2] for edge in edges(peer)], qemu_io(folder, "write -P 2 2M 64k", "read 0 4M")]
        told.append([[images.has_pattern(folder / f"{name}.raw", pattern, offset) for pattern, offset in (
            (1, 0), (2, 2 * MEBIBYTE))] for name in ("t", "r", "dst")])
        return told
    both(twins, script)


def test_the_replaced_child_is_gone_after_a_restart(agent, directory):
    serve(agent, directory)
    children(agent, directory, (1, 9))
    for name in ("n0", "n1"):
        agent.execute("blockdev-del", node_name=name)
    add_quorum(agent, [inline(directory, "n0"), inline(directory, "n1")], 1)
    add(agent, directory, "dst", size="4M")
    mark = agent.mark()
    mirror(agent, replaces="n1")
    end(agent, mark)
    assert "n1" not in [node["node-name"] for node in agent.execute("query-named-block-nodes")]
    agent.kill()
    agent.stop()
    with Agent(directory) as again:
        assert [edge[:2] for edge in edges(again)] == [["children.0", "n0"], ["children.1", "dst"]]
        assert qemu_io(directory, "write -P 7 0 64k") == []
    assert [images.has_pattern(directory / f"{name}.raw", 7) for name in ("n0", "n1", "dst")] == [True, False, True]


def test_a_replaced_child_has_missed_nothing(agent, directory):
    """A child that missed a write has no vote there; the one in its place has."""
    serve(agent, directory)
    names = children(agent, directory, (1, 1))
    add_quorum(agent, [names[0], {"driver": "blkdebug", "node-name": "d", "image": names[1], "inject-error": [
        {"event": "none", "iotype": "write"}]}], 1, **{"read-pattern": "fifo"})
    add(agent, directory, "dst", size="4M")
    assert qemu_io(directory, "write -P 7 0 64k", "read -P 7 0 64k") == []
    mark = agent.mark()
    mirror(agent, replaces="d")
    end(agent, mark)
    # Only the new one is left to be asked.
    agent.execute("x-blockdev-change", parent="q", child="children.0")
    assert qemu_io(directory, "read -P 7 0 64k", "read -P 1 1M 64k") == []
