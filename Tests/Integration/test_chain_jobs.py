"""block-commit and block-stream, side by side with qemu-storage-daemon."""

import threading

import pytest

from harness import images
from harness.agent import Agent
from harness.blockjobs import MEBIBYTE, block_job, without_drains, without_progress, write
from harness.chains import chain, reads
from harness.reference import answer, both, story, wait_gone, wait_status

NODES = ("base", "mid", "top")


def filled(peer, folder, nodes=NODES, size="8M", read_only=True, with_snapshots=None):
    """Each layer holds a pattern of its own, over the one below; one may have two internal snapshots."""
    for number, node in enumerate(nodes):
        path = folder / f"{node}.qcow2"
        images.create(path, size, backing=folder / f"{nodes[number - 1]}.qcow2" if number else None)
        images.write_pattern(path, number + 1, number * MEBIBYTE, 2 * MEBIBYTE)
    for tag in ("a", "b") if with_snapshots else ():
        images.run("qemu-img", "snapshot", "-c", tag, folder / f"{with_snapshots}.qcow2")
    for number, node in enumerate(nodes):
        options = {"read_only": True} if read_only and node != nodes[-1] else {}
        peer.execute("blockdev-add", driver="qcow2", node_name=node, backing=nodes[number - 1] if number else None,
                     file={"driver": "file", "filename": str(folder / f"{node}.qcow2")}, **options)
    peer.execute("block-export-add", type="nbd", id="e", node_name=nodes[-1], name="disk", writable=True)


def shows(path, count=3):
    return reads(path, *[(number + 1, number * MEBIBYTE, MEBIBYTE) for number in range(count)],
                 (count, count * MEBIBYTE, MEBIBYTE), (0, (count + 1) * MEBIBYTE, MEBIBYTE))


def graph(peer):
    return sorted([node["node-name"], node["drv"], node["ro"], node["backing_file_depth"],
                   node["image"].get("backing-filename", "")]
                  for node in peer.execute("query-named-block-nodes") if not node["node-name"].startswith("#"))


def commit(peer, **options):
    return answer(peer, "block-commit", {"job_id": "j", "device": "top", **options})


def stream(peer, **options):
    return answer(peer, "block-stream", {"job_id": "j", "device": "top", **options})


def close(peer, nodes=NODES):
    peer.execute("block-export-del", id="e", mode="hard")
    for node in reversed(nodes):
        answer(peer, "blockdev-del", {"node-name": node})


# Streams

@pytest.mark.parametrize("options", [
    {}, {"base-node": "base"}, {"bottom": "mid"}, {"bottom": "base"}, {"base-node": "mid"},
    {"base-node": "base", "backing-file": "other.qcow2"}, {"base": "DIR/base.qcow2"},
    {"filter-node-name": "cor"}, {"auto-finalize": False, "auto-dismiss": False}], ids=str)
def test_a_stream_fills_the_top(twins, options):
    def script(peer, folder):
        filled(peer, folder)
        mark = peer.mark()
        told = [stream(peer, **{key: value.replace("DIR", str(folder)) if isinstance(value, str) else value
                                for key, value in options.items()})]
        if "auto-finalize" in options:
            wait_status(peer, mark, "j", "pending")
            told += [block_job(peer, "j"), answer(peer, "job-complete", {"id": "j"}),
                     answer(peer, "job-finalize", {"id": "j"})]
            wait_status(peer, mark, "j", "concluded")
            told += [peer.execute("query-jobs"), answer(peer, "job-dismiss", {"id": "j"})]
        wait_gone(peer, "j")
        told.append(graph(peer))
        write(folder, "write -P 9 7M 64k", export="disk")
        close(peer)
        if "backing-file" not in options:
            assert shows(folder / "top.qcow2") and reads(folder / "top.qcow2", (9, 7 * MEBIBYTE, 65536))
            images.check(folder / "top.qcow2")
        return told + story(peer, mark, "j")
    both(twins, script)


def test_a_stream_into_the_middle(twins):
    def script(peer, folder):
        filled(peer, folder)
        mark = peer.mark()
        told = [answer(peer, "block-stream", {"job-id": "j", "device": "mid"})]
        wait_gone(peer, "j")
        told.append(graph(peer))
        close(peer)
        assert shows(folder / "top.qcow2")
        for node in NODES:
            images.check(folder / f"{node}.qcow2")
        return told + story(peer, mark, "j")
    both(twins, script)


def test_what_a_stream_refuses(twins):
    def script(peer, folder):
        filled(peer, folder)
        told = []
        mark = peer.mark()
        for options in (
                {"device": "zz"}, {"base": "x", "base-node": "base"}, {"base": "x", "bottom": "mid"},
                {"bottom": "mid", "base-node": "base"}, {"base": "x"}, {"base-node": "zz"}, {"base-node": "top"},
                {"bottom": "zz"}, {"backing-file": "x"}, {"speed": -1}, {"job-id": "1"}, {"on-error": "zz"},
                {"filter-node-name": "mid"}, {"filter-node-name": "1"}):
            told.append([options, stream(peer, **options)])
        told.append(stream(peer, speed=1))
        told += [answer(peer, "block-stream", {"job-id": "k", "device": node}) for node in ("top", "mid")]
        told += [answer(peer, "block-commit", {"job-id": "k", "device": "top"}),
                 answer(peer, "blockdev-del", {"node-name": "mid"})]
        peer.execute("job-cancel", id="j")
        wait_gone(peer, "j")
        told.append(graph(peer))
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


# Commits in the middle

@pytest.mark.parametrize("options", [
    {}, {"base-node": "base"}, {"top": "DIR/mid.qcow2", "base": "DIR/base.qcow2"}, {"backing-file": "DIR/base.qcow2"},
    {"filter-node-name": "ct"}, {"auto-finalize": False, "auto-dismiss": False}], ids=str)
def test_a_commit_in_the_middle(twins, options):
    def script(peer, folder):
        filled(peer, folder)
        mark = peer.mark()
        filled_in = {key: value.replace("DIR", str(folder)) if isinstance(value, str) else value
                     for key, value in options.items()}
        told = [commit(peer, **({} if "top" in options else {"top-node": "mid"}), **filled_in)]
        if "auto-finalize" in options:
            wait_status(peer, mark, "j", "pending")
            told += [block_job(peer, "j"), answer(peer, "job-finalize", {"id": "j"})]
            wait_status(peer, mark, "j", "concluded")
            told += [peer.execute("query-jobs"), answer(peer, "job-dismiss", {"id": "j"})]
        wait_gone(peer, "j")
        told.append(graph(peer))
        close(peer)
        assert shows(folder / "top.qcow2")
        for node in ("base", "top"):
            images.check(folder / f"{node}.qcow2")
        return told + story(peer, mark, "j")
    both(twins, script)


def test_what_a_commit_refuses(twins):
    def script(peer, folder):
        filled(peer, folder)
        told = []
        mark = peer.mark()
        for options in (
                {"device": "zz"}, {"device": "mid"}, {"top": "x", "top-node": "mid"}, {"top-node": "zz"},
                {"top": "x"}, {"base": "x", "base-node": "base"}, {"base-node": "zz"}, {"base": "x"},
                {"top-node": "mid", "base-node": "top"}, {"top-node": "mid", "base-node": "mid"},
                {"top-node": "base"}, {"backing-file": "x"}, {"top-node": "mid", "speed": -1},
                {"top-node": "mid", "job-id": "1"}, {"speed": -1}):
            told.append([options, commit(peer, **options)])
        told.append(commit(peer, **{"top-node": "mid", "speed": 1}))
        told += [answer(peer, "block-commit", {"job-id": "k", "device": "top"}),
                 answer(peer, "block-stream", {"job-id": "k", "device": "top"}),
                 answer(peer, "blockdev-del", {"node-name": "mid"})]
        peer.execute("job-cancel", id="j")
        wait_gone(peer, "j")
        told.append(graph(peer))
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


# The topmost image

@pytest.mark.parametrize("end", ["complete", "soft", "force"])
def test_the_ends_of_an_active_commit(twins, end):
    def script(peer, folder):
        filled(peer, folder)
        mark = peer.mark()
        told = [commit(peer, **{"filter-node-name": "ct"})]
        peer.wait_event("BLOCK_JOB_READY", mark)
        told.append(block_job(peer, "j"))
        write(folder, "write -P 7 6M 64k", export="disk")
        verb = {"complete": ("block-job-complete", {}), "soft": ("block-job-cancel", {}),
                "force": ("block-job-cancel", {"force": True})}[end]
        told.append(answer(peer, verb[0], {"device": "j", **verb[1]}))
        wait_gone(peer, "j")
        told.append([(entry["id"], entry["node-name"]) for entry in peer.execute("query-block-exports")])
        write(folder, "write -P 8 5M 64k", export="disk")
        told += [answer(peer, "blockdev-del", {"node-name": "base"})]
        close(peer)
        shown = folder / ("base.qcow2" if end == "complete" else "top.qcow2")
        assert shows(shown) and reads(shown, (8, 5 * MEBIBYTE, 65536), (7, 6 * MEBIBYTE, 65536))
        images.check(shown)
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


def test_a_larger_overlay_is_committed(twins):
    def script(peer, folder):
        images.create(folder / "base.qcow2", "4M")
        images.create(folder / "top.qcow2", "8M")
        images.write_pattern(folder / "top.qcow2", 5, 6 * MEBIBYTE, MEBIBYTE)
        for node, backing in (("base", None), ("top", "base")):
            peer.execute("blockdev-add", driver="qcow2", node_name=node, backing=backing,
                         file={"driver": "file", "filename": str(folder / f"{node}.qcow2")})
        peer.execute("block-export-add", type="nbd", id="e", node_name="top", name="disk", writable=True)
        mark = peer.mark()
        told = [commit(peer)]
        peer.wait_event("BLOCK_JOB_READY", mark)
        told.append(answer(peer, "job-complete", {"id": "j"}))
        wait_gone(peer, "j")
        close(peer, ("base", "top"))
        assert reads(folder / "base.qcow2", (5, 6 * MEBIBYTE, MEBIBYTE), (0, 0, MEBIBYTE))
        return told + without_progress(story(peer, mark, "j"))
    both(twins, script)


# Verbs in states

START = {"stream": stream, "commit": lambda peer, **options: commit(peer, **{"top-node": "mid", **options})}


@pytest.mark.parametrize("kind", ["stream", "commit"])
@pytest.mark.parametrize("family", ["job", "block-job"])
def test_wrong_verbs(twins, kind, family):
    key = "id" if family == "job" else "device"

    def script(peer, folder):
        filled(peer, folder)
        mark = peer.mark()
        told = [START[kind](peer, **{"speed": 65536, "auto-finalize": False})]
        for verb, name in (("complete", key), ("finalize", "id"), ("dismiss", "id"), ("resume", key), ("pause", key),
                           ("pause", key)):
            told.append(answer(peer, f"{family}-{verb}", {name: "j"}))
        peer.wait_event("JOB_STATUS_CHANGE", mark, lambda data: data["status"] == "paused")
        for verb, name in (("complete", key), ("finalize", "id"), ("dismiss", "id")):
            told.append(answer(peer, f"{family}-{verb}", {name: "j"}))
        told.append(answer(peer, "block-job-cancel", {"device": "j"}))
        told.append(answer(peer, f"{family}-resume", {key: "j"}))
        told.append(answer(peer, "block-job-set-speed", {"device": "j", "speed": 0}))
        wait_status(peer, mark, "j", "pending")
        for verb, name in (("complete", key), ("dismiss", "id"), ("resume", key), ("pause", key)):
            told.append(answer(peer, f"{family}-{verb}", {name: "j"}))
        told.append(answer(peer, f"{family}-finalize", {"id": "j"}))
        wait_gone(peer, "j")
        close(peer)
        assert shows(folder / "top.qcow2")
        return told + without_drains(story(peer, mark, "j"))
    both(twins, script)


@pytest.mark.parametrize("kind", ["stream", "commit"])
@pytest.mark.parametrize("state", ["running", "paused", "pending"])
def test_a_cancel_leaves_the_disk_as_it_is(twins, kind, state):
    def script(peer, folder):
        filled(peer, folder)
        mark = peer.mark()
        told = [START[kind](peer, **{"speed": 0 if state == "pending" else 65536, "auto-finalize": False})]
        if state == "paused":
            told.append(answer(peer, "job-pause", {"id": "j"}))
        if state != "running":
            wait_status(peer, mark, "j", state)
        told.append(answer(peer, "job-cancel", {"id": "j"}))
        wait_gone(peer, "j")
        told.append(graph(peer))
        write(folder, "write -P 9 7M 64k", export="disk")
        close(peer)
        assert shows(folder / "top.qcow2") and reads(folder / "top.qcow2", (9, 7 * MEBIBYTE, 65536))
        for node in NODES:
            images.check(folder / f"{node}.qcow2")
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


# Writers

@pytest.mark.parametrize("kind", ["stream", "commit", "active"])
def test_a_writer_loses_nothing(agent, directory, kind):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    filled(agent, directory, size="32M")
    stop = threading.Event()
    failures, last = [], {}

    def writer(number):
        rounds = 0
        while not stop.is_set():
            rounds += 1
            commands = [f"write -q -P {(rounds + block) % 255 + 1} {(block * 4 + number) * 65536 + 512} 40000"
                        for block in range(0, 128, 8)]
            result = images.run("qemu-io", "-f", "raw", *[word for command in commands for word in ("-c", command)],
                                f"nbd+unix:///disk?socket={directory}/nbd.sock", check=False)
            if result.returncode:
                failures.append(result.stderr)
                return
            last[number] = rounds

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        mark = agent.mark()
        told = {"stream": stream, "commit": START["commit"], "active": commit}[kind](
            agent, **({} if kind == "active" else {"speed": 4 * MEBIBYTE}))
        assert told == {}, told
        if kind == "active":
            agent.wait_event("BLOCK_JOB_READY", mark)
            agent.execute("job-complete", id="j")
        wait_gone(agent, "j")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert not any("error" in event["data"] for event in agent.events_since(mark))
    close(agent)
    path = directory / ("base.qcow2" if kind == "active" else "top.qcow2")
    for number, rounds in last.items():
        for block in range(0, 128, 8):
            offset = (block * 4 + number) * 65536 + 512
            assert images.has_pattern(path, (rounds + block) % 255 + 1, offset, 40000, form="qcow2"), offset
    images.check(path)


# Snapshots that show what is below

@pytest.mark.parametrize("kind", ["stream", "commit", "active", "change-backing-file", "blockdev-reopen"])
def test_snapshots_are_not_changed_unless_forced(agent, directory, kind):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    holder = "mid" if kind == "commit" else "top"
    filled(agent, directory, with_snapshots=holder)
    command, arguments = {
        "stream": ("block-stream", {"job-id": "j", "device": "top"}),
        "commit": ("block-commit", {"job-id": "j", "device": "top", "top-node": "mid"}),
        "active": ("block-commit", {"job-id": "j", "device": "top"}),
        "change-backing-file": ("change-backing-file", {
            "device": "top", "image-node-name": "top", "backing-file": str(directory / "mid.qcow2")}),
        "blockdev-reopen": ("blockdev-reopen", {"options": [{
            "driver": "qcow2", "node-name": "top", "backing": None,
            "file": {"driver": "file", "filename": str(directory / "top.qcow2")}}]})}[kind]
    told = answer(agent, command, arguments)
    assert f"internal snapshots of node '{holder}' show: 'a', 'b'" in told and "force" in told, told
    assert agent.execute("query-jobs") == []
    mark = agent.mark()
    assert answer(agent, command, {**arguments, "force": True}) == {}
    if kind == "active":
        agent.wait_event("BLOCK_JOB_READY", mark)
        agent.execute("job-complete", id="j")
    wait_gone(agent, "j")


# A restart

@pytest.mark.parametrize("kind", ["stream", "commit", "active"])
def test_a_restarted_agent_finds_the_chain(agent, directory, kind):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    filled(agent, directory)
    mark = agent.mark()
    {"stream": stream, "commit": START["commit"], "active": commit}[kind](agent)
    if kind == "active":
        agent.wait_event("BLOCK_JOB_READY", mark)
        agent.execute("job-complete", id="j")
    wait_gone(agent, "j")
    write(directory, "write -P 9 7M 64k", export="disk")
    before = graph(agent)
    agent.process.kill()
    agent.process.wait()
    agent.stop()
    with Agent(directory) as again:
        assert graph(again) == before
        assert [entry["node-name"] for entry in again.execute("query-block-exports")] == [
            "base" if kind == "active" else "top"]
        url = f"nbd+unix:///disk?socket={directory}/nbd.sock"
        images.run("qemu-io", "-f", "raw", "-r", "-c", "read -q -P 9 7M 64k", "-c", "read -q -P 3 2M 2M", url)
