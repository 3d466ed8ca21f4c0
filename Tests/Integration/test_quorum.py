"""The driver `quorum`, side by side with qemu-storage-daemon."""

import json
import threading
import time

import pytest

from harness import images
from harness.blockjobs import MEBIBYTE, add, write
from harness.reference import answer, both
from test_blkverify import qemu_io


def children(peer, folder, patterns, form="raw"):
    """Nodes n0, n1 and so on, each full of its pattern."""
    names = []
    for index, pattern in enumerate(patterns):
        name = f"n{index}"
        path = folder / f"{name}.{form}"
        images.create(path, "4M", form=form)
        images.write_pattern(path, pattern, 0, 4 * MEBIBYTE, form=form)
        add(peer, folder, name, form=form)
        names.append(name)
    return names


def add_quorum(peer, nodes, threshold, writable=True, **options):
    return [answer(peer, "blockdev-add", {
                "driver": "quorum", "node-name": "q", "children": nodes, "vote-threshold": threshold, **options}),
            answer(peer, "block-export-add", {
                "type": "nbd", "id": "q", "node-name": "q", "name": "v", "writable": writable})]


def told_since(peer, mark, count):
    """The events of quorums from a mark on, when there are so many."""
    deadline = time.monotonic() + 20
    while len(events := [[event["event"], event["data"]] for event in peer.events_since(mark)
                         if event["event"].startswith("QUORUM")]) < count:
        assert time.monotonic() < deadline, events
        time.sleep(0.02)
    return events


def failing(image, **rule):
    return {"driver": "blkdebug", "node-name": f"d-{image}", "image": image, "inject-error": [{"event": "none", **rule}]}


def edges(peer, parent="q"):
    graph = peer.execute("x-debug-query-block-graph")
    # An export may have the same name.
    names = {node["id"]: node["name"] for node in graph["nodes"] if node["type"] == "block-driver"}
    return sorted([edge["name"], names[edge["child"]], sorted(edge["perm"]), sorted(edge["shared-perm"])]
                  for edge in graph["edges"] if names.get(edge["parent"]) == parent)


def test_options_and_answers(twins):
    def script(peer, folder):
        children(peer, folder, (1, 1, 1))
        images.create(folder / "small.raw", "2M", form="raw")
        add(peer, folder, "small")
        told = [answer(peer, "blockdev-add", {"driver": "quorum", "node-name": "q", **options}) for options in (
            {"children": [], "vote-threshold": 1}, {"children": ["n0"], "vote-threshold": 0},
            {"children": ["n0"], "vote-threshold": -1}, {"children": ["n0"], "vote-threshold": 2},
            {"children": ["n0", "n1"], "vote-threshold": 1, "blkverify": True},
            {"children": ["n0", "n1"], "vote-threshold": 2, "blkverify": True, "rewrite-corrupted": True},
            {"children": ["n0", "zz"], "vote-threshold": 1}, {"children": ["n0", "n0"], "vote-threshold": 1, "wrong": 1},
            {"children": ["n0"], "vote-threshold": 1, "read-pattern": "zz"}, {"children": "n0", "vote-threshold": 1},
            {"children": ["n0"], "vote-threshold": "x"}, {"children": ["n0"]}, {"vote-threshold": 1})]
        # With more than QEMU's words in ours.
        told.append(answer(peer, "blockdev-add", {
            "driver": "quorum", "node-name": "q", "children": ["n0", "small"], "vote-threshold": 1}).split(": node")[0])
        told += add_quorum(peer, ["n0", {"driver": "raw", "node-name": "inner", "file": {
            "driver": "file", "filename": str(folder / "n2.raw"), "locking": "off"}}], 1)
        node = next(node for node in peer.execute("query-named-block-nodes") if node["node-name"] == "q")
        told.append([json.loads(node["file"][5:]), node["ro"], node["drv"], node["image"]["virtual-size"],
                     node["image"]["actual-size"], node["backing_file_depth"]])
        told.append(edges(peer))
        # Of a conflict QEMU names the node's parent only.
        told += [answer(peer, command, arguments).partition("both required by")[0] for command, arguments in (
            ("block_resize", {"node-name": "q", "size": 8 * MEBIBYTE}),
            ("block-export-add", {"type": "nbd", "id": "w", "node-name": "n0", "name": "w", "writable": True}))]
        told += [answer(peer, command, arguments) for command, arguments in (
            ("blockdev-reopen", {"options": [{"driver": "quorum", "node-name": "q", "children": [], "vote-threshold": 1}]}),
            ("blockdev-del", {"node-name": "n0"}), ("blockdev-del", {"node-name": "inner"}),
            ("block-export-del", {"id": "q"}), ("blockdev-del", {"node-name": "q"}),
            ("blockdev-del", {"node-name": "inner"}), ("blockdev-del", {"node-name": "n0"}))]
        return told
    both(twins, script)


@pytest.mark.parametrize("patterns, threshold, options, count", [
    ((1, 1, 1), 2, {}, 0),
    ((1, 1, 2), 2, {}, 1),
    ((2, 1, 1), 2, {}, 1),
    ((1, 2, 3), 2, {}, 1),
    ((1, 2), 1, {}, 1),
    ((1, 1, 2, 2), 2, {}, 2),
    ((1, 2, 3), 1, {"read-pattern": "fifo"}, 0),
    ((1, 1, 2), 2, {"rewrite-corrupted": True}, 1),
    ((1, 2, 1, 3, 1), 3, {"rewrite-corrupted": True}, 2)], ids=str)
def test_votes(twins, patterns, threshold, options, count):
    def script(peer, folder):
        told = add_quorum(peer, children(peer, folder, patterns), threshold, **options)
        mark = peer.mark()
        result = images.run("qemu-io", "-f", "raw", "-c", "read -v 65k 512",
                            f"nbd+unix:///v?socket={folder}/nbd.sock", check=False)
        told.append([line for line in result.stdout.splitlines() if line.startswith("00010400") or "failed" in line])
        told.append(told_since(peer, mark, count)[:count])
        told += [answer(peer, "block-export-del", {"id": "q", "mode": "hard"}),
                 answer(peer, "blockdev-del", {"node-name": "q"})]
        told.append([images.has_pattern(folder / f"n{index}.raw", 1, 65536, 65024) for index in range(len(patterns))])
        return told
    both(twins, script)


@pytest.mark.parametrize("rules, threshold, commands, count", [
    ([{"iotype": "write", "errno": 28}], 2, ["write -P 7 512 4k"], 1),
    ([{"iotype": "write", "errno": 28}] * 2, 2, ["write -P 7 512 4k"], 3),
    ([{"iotype": "write", "errno": 28}, {"iotype": "write", "errno": 5}], 2, ["write -P 7 0 4k"], 3),
    ([{"iotype": "write", "errno": 5}, {"iotype": "write", "errno": 28}], 2, ["write -P 7 0 4k"], 3),
    ([{"iotype": "write-zeroes", "errno": 28}], 2, ["write -z 1M 64k"], 1),
    ([{"iotype": "read"}], 2, ["read -P 1 3584k 512k"], 1),
    ([{"iotype": "read"}] * 2, 2, ["read -P 1 0 1k"], 3),
    # In EIO: qemu-storage-daemon ends the connection where a read fails.
    ([{"iotype": "read"}] * 3, 1, ["read 0 1k"], 4),
    ([{"iotype": "flush"}], 2, ["write -P 7 512 4k; flush"], 1),
    ([{"iotype": "flush", "errno": 28}] * 2, 2, ["write -P 7 512 4k; flush"], 2)], ids=str)
def test_children_that_fail(twins, rules, threshold, commands, count):
    def script(peer, folder):
        names = children(peer, folder, (1, 1, 1))
        nodes = [failing(name, **rules[index]) if index < len(rules) else name for index, name in enumerate(names)]
        told = add_quorum(peer, nodes, threshold)
        mark = peer.mark()
        told.append(qemu_io(folder, *commands))
        told.append(told_since(peer, mark, count)[:count])
        told += [answer(peer, "block-export-del", {"id": "q", "mode": "hard"}),
                 answer(peer, "blockdev-del", {"node-name": "q"})]
        told.append([images.has_pattern(folder / f"n{index}.raw", 7, 512, 512) for index in range(3)])
        return told
    both(twins, script)


def test_fifo_reads_go_to_the_next(twins):
    def script(peer, folder):
        names = children(peer, folder, (1, 2, 3))
        told = add_quorum(peer, [failing(names[0], iotype="read", sector=128), *names[1:]], 1,
                          **{"read-pattern": "fifo"})
        mark = peer.mark()
        return [told, qemu_io(folder, "read -P 1 0 64k", "read -P 2 64k 64k"), told_since(peer, mark, 1)]
    both(twins, script)


def test_holes_are_what_all_call_holes(twins):
    def script(peer, folder):
        for index in range(2):
            images.create(folder / f"n{index}.raw", "4M", form="raw")
            images.write_pattern(folder / f"n{index}.raw", 1, index * MEBIBYTE, MEBIBYTE, form="raw")
            add(peer, folder, f"n{index}")
        told = add_quorum(peer, ["n0", "n1"], 1)
        uri = f"nbd+unix:///v?socket={folder}/nbd.sock"
        return [told, json.loads(images.run("nbdinfo", "--json", "--map", uri).stdout)]
    both(twins, script)


def serve(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})


def test_a_child_that_missed_a_write_has_no_vote(agent, directory):
    # QEMU reads what was there before.
    serve(agent, directory)
    names = children(agent, directory, (1, 1))
    add_quorum(agent, [names[0], failing(names[1], iotype="write")], 1)
    assert qemu_io(directory, "write -P 7 0 64k", "read -P 7 0 64k", "read -P 1 1M 64k") == []
    assert not images.has_pattern(directory / "n1.raw", 7)


def test_a_difference_that_ends_qemu_is_an_error(agent, directory):
    serve(agent, directory)
    add_quorum(agent, children(agent, directory, (1, 2)), 2, blkverify=True)
    mark = agent.mark()
    assert qemu_io(directory, "read 1M 64k") == ["Input/output error"]
    assert told_since(agent, mark, 1) == [
        ["QUORUM_FAILURE", {"reference": "q", "sector-num": 2048, "sectors-count": 128}]]
    assert "quorum 'q': read of 65536 bytes at 1048576: the contents differ from byte 1048576 (sector 2048) on" in agent.log()


def test_events_are_one_in_a_second(agent, directory):
    serve(agent, directory)
    add_quorum(agent, children(agent, directory, (1, 2, 3)), 2)
    mark = agent.mark()
    begin = time.monotonic()
    for _ in range(4):
        images.run("qemu-io", "-f", "raw", *["-c", "read 0 4k"] * 100, "-c", "read 1M 4k",
                   f"nbd+unix:///v?socket={directory}/nbd.sock", check=False)
    told = told_since(agent, mark, 2)
    assert len(told) <= 2 + (time.monotonic() - begin)
    assert [data["sector-num"] for _, data in told][0] == 0


def test_a_slow_child_holds_nobody_else_up(agent, directory):
    serve(agent, directory)
    names = children(agent, directory, (1, 1))
    agent.execute("object-add", qom_type="throttle-group", id="slow", limits={"bps-total": 2048})
    add_quorum(agent, [names[0], {"driver": "throttle", "node-name": "t", "file": names[1], "throttle-group": "slow"}], 2)
    agent.execute("block-set-write-threshold", node_name="t", write_threshold=MEBIBYTE)
    add(agent, directory, "other")
    agent.execute("block-export-add", type="nbd", id="o", node_name="other", name="other", writable=True)
    # The second one waits for half a minute, where the event says that it has come.
    slow = threading.Thread(target=qemu_io, args=(directory, "write 0 64k; write 1M 64k"))
    slow.start()
    agent.wait_event("BLOCK_WRITE_THRESHOLD")
    for _ in range(20):
        write(directory, "write -P 1 0 64k", "flush", export="other")
    agent.execute("query-named-block-nodes")
    assert slow.is_alive()
    agent.execute("qom-set", path="slow", property="limits", value={"bps-total": 0})
    slow.join()


@pytest.mark.parametrize("options", [{}, {"rewrite-corrupted": True}], ids=str)
def test_writers_and_readers_at_once_are_no_differences(agent, directory, options):
    serve(agent, directory)
    add_quorum(agent, children(agent, directory, (0, 0, 0)), 3, **options)
    mark = agent.mark()
    images.run("fio", "--name=q", "--ioengine=nbd", f"--uri=nbd+unix:///v?socket={directory}/nbd.sock", "--rw=randrw",
               "--bs=4k", "--size=256k", "--iodepth=16", "--norandommap", "--io_size=24M", "--randrepeat=0", "--minimal")
    agent.execute("block-export-del", id="q", mode="hard")
    agent.execute("blockdev-del", node_name="q")
    assert told_since(agent, mark, 0) == []
    for index in (1, 2):
        images.same_content(directory / "n0.raw", "raw", directory / f"n{index}.raw", "raw")
