"""The filter `copy-on-read`, side by side with qemu-storage-daemon."""

import threading
import time

import pytest

from harness import images
from harness.agent import Agent
from harness.blockjobs import MEBIBYTE, write
from harness.reference import answer, both, compare, wait_gone

NODES = ("base", "mid", "top")


def layers(peer, folder, read_only=True, cluster_sizes=(65536, 65536, 65536)):
    """Three images of 4 MiB; each holds a pattern of its own over the one below, and there are zeros and holes."""
    for number, node in enumerate(NODES):
        path = folder / f"{node}.qcow2"
        images.create(path, "4M", backing=folder / f"{NODES[number - 1]}.qcow2" if number else None,
                      options=f"cluster_size={cluster_sizes[number]}")
        images.write_pattern(path, number + 1, number * MEBIBYTE // 2 + 4096, MEBIBYTE)
    images.run("qemu-io", "-f", "qcow2", "-c", "write -z 3M 64k", "-c", "write -P 9 3200k 10k", "-c",
               "write -P 9 4000k 96k", folder / "base.qcow2")
    for number, node in enumerate(NODES):
        options = {"read_only": True} if read_only and node != "top" else {}
        peer.execute("blockdev-add", driver="qcow2", node_name=node, backing=NODES[number - 1] if number else None,
                     file={"driver": "file", "filename": str(folder / f"{node}.qcow2")}, **options)


def add(peer, node="cor", writable=True, **options):
    """The filter above the topmost image, exported as `e`."""
    return [answer(peer, "blockdev-add", {"driver": "copy-on-read", "node-name": node, "file": "top", **options}),
            answer(peer, "block-export-add", {
                "type": "nbd", "id": "e", "node-name": node, "name": "e", "writable": writable})]


def close(peer):
    answer(peer, "block-export-del", {"id": "e", "mode": "hard"})
    return [answer(peer, "blockdev-del", {"node-name": node}) for node in ("cor", *reversed(NODES))]


def allocated(path):
    """What lies in the image itself, and what of it is zeros."""
    return [[extent["start"], extent["length"], extent["zero"], extent["data"]]
            for extent in images.extents(path) if extent["depth"] == 0 and extent["present"]]


@pytest.mark.parametrize("options", [{}, {"bottom": "mid"}, {"bottom": "base"}])
@pytest.mark.parametrize("cluster_sizes", [(65536, 65536, 65536), (65536, 4096, 65536), (4096, 65536, 16384)])
def test_what_is_read_is_allocated_as_in_qemu(twins, options, cluster_sizes):
    def script(peer, folder):
        layers(peer, folder, cluster_sizes=cluster_sizes)
        told = add(peer, **options)
        # Not from 0 on: QEMU's export answers a hole of the lowest image without a read.
        write(folder, "read 4k 100", "read 66000 4k", "read 500k 600k", "read 1500k 1", "read 3000k 300k",
              "write -P 7 700k 3k", "write -z 1800k 100k", "discard 1M 64k", "read 1700k 300k", "read 4090k 6k", export="e")
        told += [close(peer), allocated(folder / "top.qcow2")]
        images.check(folder / "top.qcow2")
        return told
    both(twins, script)
    ours, theirs = [folder / "top.qcow2" for folder in twins[2:]]
    images.run("qemu-img", "compare", ours, theirs)


def test_answers_are_qemus(twins):
    ours, theirs, *folders = twins
    for peer, folder in ((ours, folders[0]), (theirs, folders[1])):
        layers(peer, folder, read_only=False)
        images.create(folder / "plain.raw", "1M", form="raw")
    cor = {"driver": "copy-on-read", "node-name": "cor", "file": "top"}
    filtered = {"driver": "copy-on-read", "node-name": "f", "file": "base"}
    script = [
        ("blockdev-add", {**cor, "file": "none"}),
        ("blockdev-add", {"driver": "copy-on-read", "node-name": "cor"}),
        ("blockdev-add", {**cor, "bottom": "none"}),
        ("blockdev-add", {**cor, "bottom": 5}),
        ("blockdev-add", {**cor, "copy-on-read": True}),
        ("blockdev-add", {"driver": "raw", "node-name": "r", "copy-on-read": True,
                          "file": {"driver": "file", "filename": "DIR/top.qcow2"}}),
        ("blockdev-add", filtered),
        ("blockdev-add", {**cor, "bottom": "f"}),
        ("blockdev-del", {"node-name": "f"}),
        ("blockdev-add", {**cor, "bottom": "mid"}),
        ("blockdev-add", {**cor, "node-name": "second", "bottom": "base"}),
        # The chain down to the bottom is fixed.
        ("block-stream", {"job-id": "j", "device": "top", "base-node": "base"}),
        ("block-stream", {"job-id": "j", "device": "cor", "base-node": "base"}),
        ("block-stream", {"job-id": "j", "device": "top"}),
        ("block-commit", {"job-id": "j", "device": "cor", "top-node": "top", "base-node": "mid"}),
        ("block-commit", {"job-id": "j", "device": "cor", "top-node": "top", "base-node": "base"}),
        ("block-commit", {"job-id": "j", "device": "cor", "base-node": "base"}),
        ("blockdev-reopen", {"options": [{"driver": "qcow2", "node-name": "top", "backing": None, "file": "DIR"}]}),
        ("blockdev-reopen", {"options": [{"driver": "qcow2", "node-name": "top", "backing": "base", "file": {
            "driver": "file", "filename": "DIR/top.qcow2"}}]}),
        ("blockdev-snapshot-sync", {"node-name": "top", "snapshot-file": "DIR/over.qcow2", "snapshot-node-name": "over"}),
        ("blockdev-del", {"node-name": "top"}),
        ("blockdev-del", {"node-name": "cor"}),
        # Not any more.
        ("blockdev-add", {**cor, "bottom": "top"}),
        ("blockdev-del", {"node-name": "cor"}),
        ("blockdev-del", {"node-name": "top"}),
        ("blockdev-add", {"driver": "copy-on-read", "node-name": "ro", "read-only": True, "file": {
            "driver": "raw", "file": {"driver": "file", "filename": "DIR/plain.raw"}}}),
        ("blockdev-add", {**cor, "read-only": True, "file": "mid"}),
        ("blockdev-reopen", {"options": [{"driver": "qcow2", "node-name": "mid", "read-only": True, "backing": "base",
                                          "file": {"driver": "file", "filename": "DIR/mid.qcow2"}}]}),
        ("blockdev-del", {"node-name": "cor"}),
    ]
    compare(script, ours, theirs, *folders)


def test_a_bottom_that_is_not_below_is_an_error(agent, directory):
    # qemu-storage-daemon 7.2 looks for it without an end.
    layers(agent, directory, read_only=False)
    assert answer(agent, "blockdev-add", {"driver": "copy-on-read", "node-name": "c", "file": "mid", "bottom": "top"}) \
        == "GenericError: Node 'top' is not in a chain starting from 'mid'"


def test_an_image_that_is_its_own_bottom_copies_nothing(agent, directory):
    # So the documentation has it; QEMU 7.2 copies all.
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    layers(agent, directory)
    before = allocated(directory / "top.qcow2")
    add(agent, bottom="top")
    write(directory, "read 0 4M", export="e")
    close(agent)
    assert allocated(directory / "top.qcow2") == before


def test_a_writer_beside_the_filter_is_refused(agent, directory):
    # It would not be kept apart from the copies.
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    layers(agent, directory)
    add(agent, writable=False)
    refused = answer(agent, "block-export-add", {"type": "nbd", "id": "w", "node-name": "top", "writable": True})
    assert "permissions 'write' are both required by block export 'w'" in refused
    assert answer(agent, "block-export-add", {"type": "nbd", "id": "r", "node-name": "top"}) == {}


def test_copies_are_no_writes(twins):
    def script(peer, folder):
        layers(peer, folder)
        peer.execute("block-dirty-bitmap-add", node="top", name="b")
        told = add(peer)
        write(folder, "read 0 4M", "write -P 7 2M 64k", "read 2M 1M", export="e")
        bitmaps = [node["dirty-bitmaps"] for node in peer.execute("query-named-block-nodes", flat=True)
                   if node["node-name"] == "top"]
        return told + [bitmaps]
    both(twins, script)


def test_an_image_that_is_read_whole_can_stand_alone(twins):
    def script(peer, folder):
        layers(peer, folder)
        told = add(peer)
        write(folder, "read 0 4M", export="e")
        told.append(answer(peer, "block-stream", {"job-id": "j", "device": "top"}))
        wait_gone(peer, "j")
        told.append(close(peer))
        return told
    ours, theirs, *folders = twins
    both(twins, script)
    images.run("qemu-img", "compare", *[folder / "top.qcow2" for folder in folders])


def test_a_failed_copy_is_a_failed_read(twins):
    def script(peer, folder):
        layers(peer, folder)
        answers = [answer(peer, "blockdev-del", {"node-name": "top"}), answer(peer, "blockdev-add", {
            "driver": "qcow2", "node-name": "top", "backing": "mid", "file": {
                "driver": "blkdebug", "inject-error": [{"event": "write_aio", "iotype": "write", "errno": 28, "once": True}],
                "image": {"driver": "file", "filename": str(folder / "top.qcow2")}}})]
        answers += add(peer)
        for _ in range(2):
            result = images.run("qemu-io", "-r", "-f", "raw", "-c", "read -P 1 4k 8k",
                                f"nbd+unix:///e?socket={folder}/nbd.sock", check=False)
            answers.append(result.returncode)
        return answers
    # How QEMU tells it is another thing: it breaks the connection.
    assert both(twins, script)[-2:] == [1, 0]


def test_a_killed_agent_has_lost_no_write(directory):
    """Writers and readers of the same clusters; what was acknowledged is in the image, and the rest is as it was."""
    acknowledged = set()
    with Agent(directory) as agent:
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
        layers(agent, directory)
        add(agent)

        def writer(number):
            # Each writes its own 4 KiB of each cluster.
            for cluster in range(64):
                offset = cluster * 65536 + number * 4096
                result = images.run("qemu-io", "-f", "raw", "-c", f"write -P {50 + number} {offset} 4k", "-c",
                                    f"read {cluster * 65536} 64k", f"nbd+unix:///e?socket={directory}/nbd.sock", check=False)
                if "wrote 4096/4096" not in result.stdout:
                    return
                acknowledged.add((number, offset))

        writers = [threading.Thread(target=writer, args=(number,)) for number in (2, 7, 11)]
        for thread in writers:
            thread.start()
        deadline = time.monotonic() + 60
        while len(acknowledged) < 60:
            assert time.monotonic() < deadline, f"{len(acknowledged)} writes in a minute"
            time.sleep(0.001)
        agent.kill()
        for thread in writers:
            thread.join()
    for number, offset in acknowledged:
        assert images.has_pattern(directory / "top.qcow2", 50 + number, offset, 4096, form="qcow2")
    images.run("qemu-img", "check", "-q", "-r", "leaks", directory / "top.qcow2")
    images.check(directory / "top.qcow2")
