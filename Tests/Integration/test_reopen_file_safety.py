"""What `blockdev-reopen` with another `file` does more safely than QEMU, and what is found after a restart."""

import threading

import pytest

from harness import images
from harness.agent import Agent
from harness.blockjobs import MEBIBYTE, write
from harness.campaign import REOPENS, Campaign
from harness.reference import wait_gone
from harness.reopening import add, export, files, nodes, raw, reopen, shows, two_disks, unexport


def test_an_image_is_opened_anew_in_its_other_file(agent, directory):
    """QEMU goes on with the tables of the first, and damages both."""
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    files(agent, directory, "a", form="qcow2")
    files(agent, directory, "b", form="qcow2", size="2M")
    files(agent, directory, "plain")
    disk = {"driver": "qcow2", "node-name": "hd", "file": "a"}
    add(agent, disk)
    agent.execute("block-dirty-bitmap-add", node="hd", name="of-a", persistent=True)
    agent.execute("block-dirty-bitmap-add", node="hd", name="of-nobody")
    export(agent, "hd")

    def bitmaps():
        node = next(node for node in agent.execute("query-named-block-nodes") if node["node-name"] == "hd")
        return {entry["name"] for entry in node.get("dirty-bitmaps", [])}
    # None of the format: all stays, and the bitmaps record on.
    assert "not in qcow2 format" in reopen(agent, {**disk, "file": "plain"})
    write(directory, "write -P 5 0 64k")
    assert bitmaps() == {"of-a", "of-nobody"}
    assert reopen(agent, {**disk, "file": "b"}) == {}
    assert bitmaps() == {"of-nobody"}
    unexport(agent)
    agent.execute("block-dirty-bitmap-add", node="hd", name="of-b", persistent=True)
    export(agent, "hd")
    write(directory, "write -P 6 1M 64k")
    shows(directory, (1, 0, MEBIBYTE), (6, MEBIBYTE, 65536))
    assert reopen(agent, {**disk, "file": "a"}) == {}
    assert bitmaps() == {"of-a", "of-nobody"}
    shows(directory, (5, 0, 65536), (1, 65536, 65536))
    unexport(agent)
    for name in ("hd", "a", "b"):
        agent.execute("blockdev-del", node_name=name)
    for name in "ab":
        images.check(directory / f"{name}.img")
    assert images.has_pattern(directory / "b.img", 6, MEBIBYTE, 65536, form="qcow2")
    info = images.run("qemu-img", "info", "-U", directory / "a.img").stdout
    assert "name: of-a" in info and "of-b" not in info and "in-use" not in info


def test_an_image_in_another_disk_is_reopened_with_it(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    files(agent, directory, "a", "b", form="qcow2")
    agent.execute("object-add", id="tg", qom_type="throttle-group")
    filtered = {"driver": "throttle", "node-name": "t", "throttle-group": "tg", "file": "a"}
    disk = {"driver": "qcow2", "node-name": "hd", "file": "t"}
    add(agent, filtered, disk)
    agent.execute("block-dirty-bitmap-add", node="hd", name="of-a", persistent=True)
    export(agent, "hd")
    # Its tables are those of the first.
    for force in (False, True):
        assert "Node 'hd' has its image in what is to be another disk" in reopen(agent, {**filtered, "file": "b"}, force=force)
    write(directory, "write -P 5 0 64k")
    for options in ([{**filtered, "file": "b"}, disk], [disk, {**filtered, "file": "b"}]):
        assert reopen(agent, *options) == {}
        shows(directory, (2, 0, MEBIBYTE))
        assert reopen(agent, {**filtered, "file": "a"}, disk) == {}
        shows(directory, (5, 0, 65536), (1, 65536, 65536))
    # Said twice, the last counts.
    assert reopen(agent, disk, {**filtered, "file": "a", "read-only": True}, {**filtered, "file": "b"}) == {}
    write(directory, "write -P 6 0 64k")
    unexport(agent)
    for name in ("hd", "t", "a", "b"):
        agent.execute("blockdev-del", node_name=name)
    for name, pattern, bitmap in (("a", 5, True), ("b", 6, False)):
        path = directory / f"{name}.img"
        images.check(path)
        assert images.has_pattern(path, pattern, 0, 65536, form="qcow2")
        assert ("name: of-a" in images.run("qemu-img", "info", path).stdout) == bitmap


def test_what_a_node_has_beside_its_image_stays_where_it_is(agent, directory):
    """An external data file, whose tables lie elsewhere, and a member of a quorum."""
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    files(agent, directory, "a", "b", "c")
    agent.execute("object-add", id="tg", qom_type="throttle-group")
    filtered = {"driver": "throttle", "node-name": "t", "throttle-group": "tg", "file": "a"}
    add(agent, filtered)
    path = images.create(directory / "hd.qcow2", "1M", options=f"data_file={directory}/other.img,data_file_raw=on")
    disk = {"driver": "qcow2", "node-name": "hd", "file": {"driver": "file", "filename": str(path)}, "data-file": "t"}
    quorum = {"driver": "quorum", "node-name": "hd", "children": ["t", "c"], "vote-threshold": 1}
    moved = {**filtered, "file": "b"}
    for node, role, lists in ((disk, "data-file", ([moved], [moved, disk])), (quorum, "children.0", ([moved],))):
        add(agent, node)
        export(agent, "hd")
        for options in lists:
            assert f"Node 'hd' has its '{role}' in node 't'" in reopen(agent, *options, force=True)
        write(directory, "write -P 7 0 64k")
        unexport(agent)
        agent.execute("blockdev-del", node_name="hd")
        assert images.has_pattern(directory / "a.img", 7, 0, 65536)
        assert images.has_pattern(directory / "b.img", 2, 0, 65536)
    assert reopen(agent, {**filtered, "file": "b"}) == {}


def test_what_others_rely_on_is_not_changed_for_another_disk(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    files(agent, directory, "a", "b", "target", form="qcow2")
    agent.execute("object-add", id="tg", qom_type="throttle-group")
    disk = {"driver": "qcow2", "node-name": "hd", "file": "a"}
    add(agent, disk, {"driver": "qcow2", "node-name": "copy", "file": "target"},
        {"driver": "throttle", "node-name": "t", "throttle-group": "tg", "file": "a"})
    # Those who copy it. A filter may come in between.
    mark = agent.mark()
    agent.execute("blockdev-mirror", job_id="j", device="hd", target="copy", sync="full")
    agent.wait_event("BLOCK_JOB_READY", mark)
    assert "cannot become another disk" in reopen(agent, {**disk, "file": "b"})
    assert [reopen(agent, {**disk, "file": file}) for file in "ta"] == [{}, {}]
    agent.execute("block-job-cancel", device="j", force=True)
    wait_gone(agent, "j")
    # Those who read a snapshot of it.
    agent.execute("blockdev-snapshot-internal-sync", device="hd", name="s")
    add(agent, {"driver": "snapshot", "node-name": "old", "tag": "s", "file": "hd"})
    assert "Snapshots of node 'hd' are open in node 'old'" in reopen(agent, {**disk, "file": "b"})
    agent.execute("blockdev-del", node_name="old")
    # Snapshots of images above show what is below; its own stay where they are.
    path = images.create(directory / "top.qcow2", "1M")
    add(agent, {"driver": "qcow2", "node-name": "top", "backing": "hd", "file": {"driver": "file", "filename": str(path)}})
    agent.execute("blockdev-snapshot-internal-sync", device="top", name="above")
    told = reopen(agent, {**disk, "file": "b"})
    assert "internal snapshots of node 'top' show: 'above'" in told and "force" in told
    assert reopen(agent, {**disk, "file": "b"}, force=True) == {}
    assert reopen(agent, {**disk, "file": "a"}, force=True) == {}
    assert [entry["name"] for node in agent.execute("query-named-block-nodes") if node["node-name"] == "hd"
            for entry in node["image"]["snapshots"]] == ["s"]


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_killed_agent_finds_the_files_where_they_are(directory, point):
    with Agent(directory) as agent:
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
        agent.execute("object-add", id="tg", qom_type="throttle-group")
        first, second = two_disks(agent, directory)
        add(agent, {"driver": "throttle", "node-name": "t", "throttle-group": "tg", "file": "hd0-file"})
        if point == "after":
            # The second disk has the first one's file, through a filter; the first one has the second one's.
            assert reopen(agent, {**first, "file": "hd2-file"}, {**second, "file": "t"}) == {}
        shown = {"hd0": 3, "hd2": 1} if point == "after" else {"hd0": 1, "hd2": 3}
        for name, pattern in shown.items():
            write(directory, f"write -P {pattern + 10} 64k 64k", export=name)
        before = nodes(agent)
        agent.process.kill()
        agent.process.wait()
        agent.stop()
    with Agent(directory) as again:
        assert nodes(again) == before
        for name, pattern in shown.items():
            shows(directory, (pattern, 0, 65536), (pattern + 10, 65536, 65536), name=name)
            unexport(again, name)
        for name in ("hd0", "hd2", "t"):
            again.execute("blockdev-del", node_name=name)
        assert nodes(again) == [0]
    for name in ("hd0", "hd2"):
        images.check(directory / f"{name}.qcow2")


def test_a_node_that_outlives_its_parent_is_found_again(directory):
    """It was made inside another node, which is gone."""
    with Agent(directory) as agent:
        agent.execute("object-add", id="tg", qom_type="throttle-group")
        path = images.create(directory / "a.img", "1M", form="raw")
        add(agent, raw({"driver": "file", "node-name": "a", "filename": str(path)}),
            {"driver": "throttle", "node-name": "t", "throttle-group": "tg", "file": "a"})
        agent.execute("blockdev-del", node_name="hd")
        before = nodes(agent)
        agent.process.kill()
        agent.process.wait()
        agent.stop()
    with Agent(directory) as again:
        assert nodes(again) == before == [0, ["a", "file", False], ["t", "throttle", False]]


def test_a_writer_does_not_notice_that_filters_come_and_go(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    files(agent, directory, "a", form="qcow2", size="8M")
    agent.execute("object-add", id="tg", qom_type="throttle-group")
    disk = {"driver": "qcow2", "node-name": "hd", "file": "a"}
    add(agent, disk, {"driver": "throttle", "node-name": "t", "throttle-group": "tg", "file": "a"})
    export(agent, "hd")
    steps = [f"write -q -P {number % 250 + 1} {number % 128 * 64}k 64k" for number in range(400)]
    writer = threading.Thread(target=write, args=(directory, *steps))
    writer.start()
    rounds = 0
    while writer.is_alive() or rounds < 10:
        assert [reopen(agent, {**disk, "file": file}) for file in ("t", "a")] == [{}, {}]
        rounds += 1
    writer.join()
    shows(directory, *[(number % 250 + 1, number % 128 * 65536, 65536) for number in range(272, 400)])
    unexport(agent)
    for name in ("hd", "t", "a"):
        agent.execute("blockdev-del", node_name=name)
    images.check(directory / "a.img")


def assert_whole(agent, directory, patterns):
    """Each disk shows its pattern, and takes writes; in the end all is sound."""
    for name, pattern in patterns.items():
        shows(directory, (pattern, 0, 65536), name=name)
        write(directory, "write -q -P 9 128k 64k", export=name)
        unexport(agent, name)
        agent.execute("blockdev-del", node_name=name)
    for name in patterns:
        images.check(directory / f"{name}.qcow2")


def swap(agent, directory):
    """Two disks get one another's file. The answer."""
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    first, second = two_disks(agent, directory)
    return reopen(agent, {**first, "file": "hd2-file"}, {**second, "file": "hd0-file"})


@pytest.mark.parametrize("point", sorted(REOPENS))
def test_an_agent_is_killed_while_disks_swap_their_files(directory, point):
    """At any point: each disk has one of the files, whole."""
    agent = Agent(directory, environment={"COLDFRAME_FAULT": f"{point}=kill"}).start()
    with pytest.raises(Exception):  # The reply is lost with the agent.
        swap(agent, directory)
    Campaign.wait_for_death(agent, point)
    with Agent(directory) as again:
        assert nodes(again) == [0, *([name, driver, False] for name, driver in (
            ("hd0", "qcow2"), ("hd0-file", "file"), ("hd2", "qcow2"), ("hd2-file", "file")))]
        shown = 3 if point == "reopen.recorded" else 1
        assert_whole(again, directory, {"hd0": shown, "hd2": 4 - shown})


@pytest.mark.parametrize("point", sorted(REOPENS - {"reopen.recorded"}))
def test_a_swap_that_fails_has_changed_nothing(directory, point):
    with Agent(directory, environment={"COLDFRAME_FAULT": f"{point}=error"}) as agent:
        assert f"Fault point '{point}' was told to fail" in swap(agent, directory)
        assert_whole(agent, directory, {"hd0": 1, "hd2": 3})
