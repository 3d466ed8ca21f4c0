"""blockdev-mirror, side by side with qemu-storage-daemon, and under a writer."""

import threading
import time

import pytest

from harness import images
from harness.agent import Agent
from harness.blockjobs import MEBIBYTE, add, block_job, source_and_target, without_drains, without_progress, write
from harness.reference import answer, both, story, wait_gone, wait_status


def mirror(peer, **options):
    return answer(peer, "blockdev-mirror", {"job_id": "j", "device": "src", "target": "dst", "sync": "full", **options})


def export_nodes(peer):
    # Names that were not given are of each peer's own making.
    return [(export["id"], export["node-name"].rstrip("0123456789"))
            for export in peer.execute("query-block-exports")]


@pytest.mark.parametrize("mode", ["background", "write-blocking"])
@pytest.mark.parametrize("end", ["complete", "soft", "force"])
def test_the_ends_of_a_mirror(twins, mode, end):
    def script(peer, folder):
        source = source_and_target(peer, folder)
        write(folder, "write -P 1 0 8M")
        mark = peer.mark()
        told = [mirror(peer, **{"copy-mode": mode, "filter-node-name": "top"})]
        peer.wait_event("BLOCK_JOB_READY", mark)
        told.append(block_job(peer, "j"))
        told += [answer(peer, f"block-job-{verb}", {"id" if verb in ("finalize", "dismiss") else "device": "j"})
                 for verb in ("finalize", "dismiss", "resume")]
        write(folder, "write -P 2 1M 64k", "write -z 3M 64k", "write -P 3 100 1000", "discard 5M 64k")
        if end == "complete":
            told += [answer(peer, "block-job-complete", {"device": "j"})]
        elif end == "soft":
            told.append(answer(peer, "block-job-cancel", {"device": "j"}))
        else:
            told.append(answer(peer, "block-job-cancel", {"device": "j", "force": True}))
        wait_gone(peer, "j")
        told.append(export_nodes(peer))
        write(folder, "write -P 7 6M 64k")
        told += [answer(peer, "blockdev-del", {"node-name": "dst" if end != "complete" else "src"})]
        if end != "force":
            written, other = (folder / "dst.raw", source) if end == "complete" else (source, folder / "dst.raw")
            assert images.has_pattern(written, 7, 6 * MEBIBYTE) and images.has_pattern(other, 1, 6 * MEBIBYTE)
            for path in (written, other):
                assert images.has_pattern(path, 2, MEBIBYTE) and images.has_pattern(path, 0, 3 * MEBIBYTE)
                assert images.has_pattern(path, 3, 100, 1000) and images.has_pattern(path, 1, 7 * MEBIBYTE)
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


def test_a_mirror_waits_for_finalize(twins):
    def script(peer, folder):
        source_and_target(peer, folder)
        write(folder, "write -P 1 0 8M")
        mark = peer.mark()
        told = [mirror(peer, **{"auto-finalize": False, "auto-dismiss": False})]
        peer.wait_event("BLOCK_JOB_READY", mark)
        told.append(answer(peer, "job-complete", {"id": "j"}))
        wait_status(peer, mark, "j", "pending")
        told += [answer(peer, "job-complete", {"id": "j"}), export_nodes(peer), peer.execute("query-jobs"),
                 answer(peer, "job-finalize", {"id": "j"}), export_nodes(peer), peer.execute("query-jobs"),
                 answer(peer, "job-dismiss", {"id": "j"})]
        return told + story(peer, mark, "j")
    both(twins, script)


@pytest.mark.parametrize("verb", ["pause", "cancel", "force"])
@pytest.mark.parametrize("state", ["running", "ready", "standby", "pending"])
def test_a_mirror_is_stopped_in(twins, state, verb):
    def script(peer, folder):
        source_and_target(peer, folder)
        write(folder, "write -P 1 0 8M")
        mark = peer.mark()
        told = [mirror(peer, **{"auto-finalize": False, "speed": 65536 if state == "running" else 0})]
        if state != "running":
            peer.wait_event("BLOCK_JOB_READY", mark)
        if state == "standby":
            peer.execute("job-pause", id="j")
            wait_status(peer, mark, "j", "standby")
        if state == "pending":
            peer.execute("job-complete", id="j")
            wait_status(peer, mark, "j", "pending")
        if verb == "pause":
            told.append(answer(peer, "block-job-pause", {"device": "j"}))
            if state in ("running", "ready"):
                peer.wait_event("JOB_STATUS_CHANGE", mark, lambda data: data["status"] in ("paused", "standby"))
            told.append(answer(peer, "block-job-cancel", {"device": "j"}))
            told.append(answer(peer, "block-job-complete", {"device": "j"}) if state == "running" else None)
            told.append(answer(peer, "job-cancel", {"id": "j"}))
        else:
            told.append(answer(peer, "block-job-cancel", {"device": "j", "force": verb == "force"}))
            if "is currently paused" in told[-1]:
                told.append(answer(peer, "job-cancel", {"id": "j"}))
        deadline = time.monotonic() + 60
        while job := peer.job("j"):
            assert time.monotonic() < deadline, job
            if job["status"] == "pending":
                told.append(answer(peer, "job-finalize", {"id": "j"}))
        told.append(export_nodes(peer))
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


def test_a_writer_who_comes_later_is_followed_or_refused(agent, directory):
    """His way to the disk is not that of the mirror's filter, which is what writes to both sides in write-blocking mode: such
    a mirror of QEMU 7.2 lets him in, misses what he writes, and says that it is ready."""
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    for node in ("src", "dst"):
        add(agent, directory, node)
    export = {"type": "nbd", "id": "e", "node-name": "src", "name": "src", "writable": True}
    for mode in ("write-blocking", "background"):
        mark = agent.mark()
        mirror(agent, **{"copy-mode": mode})
        agent.wait_event("BLOCK_JOB_READY", mark)
        if mode == "write-blocking":
            assert "permissions 'write' are both required by block export 'e'" in answer(agent, "block-export-add", export)
            agent.execute("job-cancel", id="j")
            wait_gone(agent, "j")
    assert answer(agent, "block-export-add", export) == {}
    write(directory, "write -P 9 1M 64k")
    agent.execute("job-complete", id="j")
    wait_gone(agent, "j")
    agent.execute("block-export-del", id="e", mode="hard")
    agent.execute("blockdev-del", node_name="src")
    images.same_content(directory / "src.raw", "raw", directory / "dst.raw", "raw")
    assert images.has_pattern(directory / "dst.raw", 9, MEBIBYTE)


@pytest.mark.parametrize("command, discard", [("blockdev-mirror", "unmap"), ("blockdev-mirror", "ignore"),
                                              ("drive-mirror", "unmap"), ("drive-mirror", "ignore")])
@pytest.mark.parametrize("mode", ["existing", "absolute-paths"])
def test_holes_count_where_they_are_written(twins, command, discard, mode):
    """A target that is known to read as zeros, or that gives space back, has none of them to be written."""
    def script(peer, folder):
        images.write_pattern(images.create(folder / "src.qcow2", "8M"), 1, 2 * MEBIBYTE, MEBIBYTE)
        images.write_pattern(images.create(folder / "dst.qcow2", "8M"), 2, 5 * MEBIBYTE, MEBIBYTE)

        def add_node(node, discard):
            peer.execute("blockdev-add", driver="qcow2", node_name=node, discard=discard,
                         file={"driver": "file", "filename": str(folder / f"{node}.qcow2")})
        add_node("src", "ignore")
        mark = peer.mark()
        if command == "blockdev-mirror":
            add_node("dst", discard)
            told = [mirror(peer)]
        else:
            told = [answer(peer, command, {
                "job-id": "j", "device": "src", "target": str(folder / "dst.qcow2"), "sync": "full", "mode": mode,
                "format": "qcow2", "unmap": discard == "unmap", "node-name": "dst"})]
        peer.wait_event("BLOCK_JOB_READY", mark)
        told += [block_job(peer, "j"), answer(peer, "job-complete", {"id": "j"})]
        wait_gone(peer, "j")
        answer(peer, "blockdev-del", {"node-name": "dst"})
        images.check(folder / "dst.qcow2")
        images.same_content(folder / "src.qcow2", "qcow2", folder / "dst.qcow2", "qcow2")
        return told + story(peer, mark, "j")
    both(twins, script)


def test_what_a_mirror_refuses(twins):
    def script(peer, folder):
        source_and_target(peer, folder)
        add(peer, folder, "small", size="4M")
        peer.execute("blockdev-add", driver="raw", node_name="above", file="small")
        told = []
        mark = peer.mark()
        for options in (
                {"device": "zz"}, {"target": "zz"}, {"target": "src"}, {"device": "small"}, {"sync": "incremental"},
                {"sync": "bitmap"}, {"granularity": 100}, {"granularity": 1000}, {"granularity": 1 << 27},
                {"buf-size": -1}, {"speed": -1}, {"job-id": "1"}, {"replaces": "zz"}, {"replaces": "dst"},
                {"filter-node-name": "dst"}, {"copy-mode": "zz"}):
            told.append([options, mirror(peer, **options)])
        told.append(mirror(peer))
        told += [mirror(peer, **{"job-id": "k"}), answer(peer, "blockdev-del", {"node-name": "dst"}),
                 answer(peer, "blockdev-backup", {"job-id": "k", "device": "above", "target": "dst", "sync": "full"}),
                 answer(peer, "blockdev-backup", {"job-id": "k", "device": "src", "target": "above", "sync": "full"})]
        peer.execute("job-cancel", id="j")
        wait_gone(peer, "j")
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


def test_a_mirror_replaces_what_a_filter_shows(twins):
    def script(peer, folder):
        source = add(peer, folder, "src")
        for node in ("dst", "before"):
            add(peer, folder, node)
        peer.execute("blockdev-add", driver="copy-before-write", node_name="cbw", file="src", target="before")
        peer.execute("block-export-add", type="nbd", id="e", node_name="cbw", name="src", writable=True)
        write(folder, "write -P 1 0 8M")
        mark = peer.mark()
        told = [mirror(peer, device="cbw", replaces="dst"), mirror(peer, device="cbw", replaces="src")]
        peer.wait_event("BLOCK_JOB_READY", mark)
        told.append(answer(peer, "job-complete", {"id": "j"}))
        wait_gone(peer, "j")
        write(folder, "write -P 2 1M 64k")
        told.append(export_nodes(peer))
        # The node that was replaced is not deleted here: qemu-storage-daemon 7.2 dies of it.
        told.append(answer(peer, "blockdev-del", {"node-name": "dst"}))
        assert images.has_pattern(folder / "dst.raw", 2, MEBIBYTE) and images.has_pattern(folder / "dst.raw", 1, 0)
        assert images.has_pattern(source, 1, MEBIBYTE)
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


@pytest.mark.parametrize("mode", ["background", "write-blocking"])
def test_a_writer_loses_nothing_over_a_pivot(agent, directory, mode, chance):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    source_and_target(agent, directory, size="32M")
    seed = chance.randrange(1 << 30)
    stop = threading.Event()
    failures = []

    def writer(number):
        # Each writes blocks of its own, so that the last pattern of each is known.
        rounds = 0
        while not stop.is_set():
            rounds += 1
            commands = [f"write -q -P {(rounds + block) % 255 + 1} {(block * 4 + number) * 65536 + 512} 40000"
                        for block in range(0, 128, 8)]
            result = images.run("qemu-io", "-f", "raw", *[word for command in commands for word in ("-c", command)],
                                f"nbd+unix:///src?socket={directory}/nbd.sock", check=False)
            if result.returncode:
                failures.append(result.stderr)
                return
        last[number] = rounds

    last = {}
    threads = [threading.Thread(target=writer, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        mark = agent.mark()
        agent.execute("blockdev-mirror", job_id="j", device="src", target="dst", sync="full", copy_mode=mode)
        agent.wait_event("BLOCK_JOB_READY", mark)
        agent.execute("job-complete", id="j")
        wait_gone(agent, "j")
        mark = agent.mark()
        # And back, while they go on.
        agent.execute("blockdev-mirror", job_id="j", device="dst", target="src", sync="full", copy_mode=mode)
        agent.wait_event("BLOCK_JOB_READY", mark)
        agent.execute("job-complete", id="j")
        wait_gone(agent, "j")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert export_nodes(agent) == [("e", "src")]
    agent.execute("block-export-del", id="e", mode="hard")
    agent.execute("blockdev-del", node_name="src")
    for number, rounds in last.items():
        for block in range(0, 128, 8):
            offset = (block * 4 + number) * 65536 + 512
            assert images.has_pattern(directory / "src.raw", (rounds + block) % 255 + 1, offset, 40000), (seed, offset)


def test_a_restarted_agent_finds_the_export_where_the_writes_went(agent, directory):
    url = f"nbd+unix:///src?socket={directory}/nbd.sock"
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    source_and_target(agent, directory, size="4M")
    mark = agent.mark()
    agent.execute("blockdev-mirror", job_id="j", device="src", target="dst", sync="full")
    agent.wait_event("BLOCK_JOB_READY", mark)
    agent.execute("job-complete", id="j")
    wait_gone(agent, "j")
    images.run("qemu-io", "-f", "raw", "-c", "write -q -P 0x77 0 64k", url)
    agent.process.kill()
    agent.process.wait()
    agent.stop()
    with Agent(directory) as again:
        assert [export["node-name"] for export in again.execute("query-block-exports")] == ["dst"]
        images.run("qemu-io", "-f", "raw", "-r", "-c", "read -q -P 0x77 0 64k", url)
