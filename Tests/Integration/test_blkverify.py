"""The filter `blkverify`: side by side with qemu-storage-daemon while its nodes agree, and alone where they do not."""

import pytest

from harness import images
from harness.blockjobs import MEBIBYTE, add, write
from harness.monitor import CommandError
from harness.reference import answer, both


def qemu_io(folder, *commands, export="v"):
    """How each connection ends that does one command, or several with a semicolon between: the errors' texts, or nothing. A flush
    is none without a write before it, and its error has no text."""
    told = []
    for command in commands:
        arguments = [word for part in command.split("; ") for word in ("-c", part)]
        result = images.run("qemu-io", "-t", "writeback", "-f", "raw", *arguments,
                            f"nbd+unix:///{export}?socket={folder}/nbd.sock", check=False)
        failures = [line.rsplit(": ", 1)[-1] for line in (result.stdout + result.stderr).splitlines()
                    if "failed" in line]
        told += failures or (["failed"] if result.returncode else [])
    return told


def verified(peer, folder, export=True):
    """A qcow2 image that a raw file verifies, exported as `v`."""
    add(peer, folder, "t", form="qcow2")
    add(peer, folder, "r")
    told = [answer(peer, "blockdev-add", {"driver": "blkverify", "node-name": "v", "test": "t", "raw": "r"})]
    if export:
        told.append(answer(peer, "block-export-add", {
            "type": "nbd", "id": "e", "node-name": "v", "name": "v", "writable": True}))
    return told


def test_two_nodes_are_written_as_one(twins):
    def script(peer, folder):
        told = verified(peer, folder)
        node = next(node for node in peer.execute("query-named-block-nodes") if node["node-name"] == "v")
        told.append([node["file"], node["ro"], node["drv"], node["image"]["virtual-size"], node["backing_file_depth"]])
        # No request to zero: QEMU 7.2 ends there, its assertion fails.
        told.append(qemu_io(folder, "write -P 1 0 1M", "write -P 2 512 100k", "write -P 3 8191k 1k",
                            "discard 0 64k", "write -P 4 4M 64k; flush", "read -P 2 512 100k",
                            "read -P 1 512k 64k", "read -P 0 2M 2M",
                            "write 8M 1k"))
        told += [answer(peer, command, arguments) for command, arguments in (
            ("x-blockdev-change", {"parent": "v", "node": "r"}),
            ("x-blockdev-change", {"parent": "v", "child": "test"}),
            ("x-blockdev-change", {"parent": "v", "child": "file"}),
            ("blockdev-reopen", {"options": [{"driver": "blkverify", "node-name": "v", "test": "t", "raw": "r"}]}),
            ("blockdev-del", {"node-name": "t"}), ("blockdev-del", {"node-name": "r"}),
            ("block-export-del", {"id": "e"}), ("blockdev-del", {"node-name": "v"}),
            ("blockdev-del", {"node-name": "t"}), ("blockdev-del", {"node-name": "r"}))]
        images.check(folder / "t.qcow2")
        images.same_content(folder / "t.qcow2", "qcow2", folder / "r.raw", "raw")
        for pattern, offset, length in ((2, 512, 102400), (1, 512 << 10, 65536), (0, 2 * MEBIBYTE, 65536),
                                        (3, 8191 << 10, 1024)):
            assert images.has_pattern(folder / "r.raw", pattern, offset, length)
        return told
    both(twins, script)


def test_options_that_are_refused(twins):
    def script(peer, folder):
        add(peer, folder, "t")
        return [answer(peer, "blockdev-add", {"driver": "blkverify", "node-name": "v", **options}) for options in (
            {"test": "t"}, {"raw": "t"}, {"test": "t", "raw": "zz"}, {"test": "zz", "raw": "t"},
            {"test": "t", "raw": "t", "wrong": 1})]
    both(twins, script)


def test_a_difference_is_an_error_and_a_line_in_the_log(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    images.create(directory / "t.raw", "8M", form="raw")
    images.write_pattern(directory / "t.raw", 5, 1 << 20, 512, form="raw")
    verified_raw(agent, directory)
    assert qemu_io(directory, "read 0 1M", "read 1M 64k", f"read {(1 << 20) - 4096} 8k", "read 1025k 64k") \
        == ["Input/output error"] * 2
    # The export reads what is no hole in both.
    assert ("blkverify 'v': read of 4096 bytes at 1048576 (sector 2048): the contents differ from byte 1048576 (sector 2048) on"
            in agent.log())
    # The agent and the rest of the disk are as they were; what is written anew is equal again.
    assert qemu_io(directory, "write -P 9 1M 512", "read -P 9 1M 512", "write -P 9 2M 64k", "write -z 2M 64k",
                   "read -P 0 2M 64k", "read 0 8M") == []
    assert agent.execute("query-named-block-nodes")


def verified_raw(agent, directory, **options):
    for node in ("t", "r"):
        add(agent, directory, node)
    agent.execute("blockdev-add", driver="blkverify", node_name="v", test="t", raw="r", **options)
    agent.execute("block-export-add", type="nbd", id="e", node_name="v", name="v", writable=True)


@pytest.mark.parametrize("failing, other", [("test", "raw"), ("raw", "test")])
def test_a_request_that_fails_on_one_node_only_is_a_difference(agent, directory, failing, other):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    for node in ("bad", "good"):
        add(agent, directory, node)
    agent.execute("blockdev-add", driver="blkverify", node_name="v", **{
        failing: {"driver": "blkdebug", "image": "bad", "inject-error": [
            {"event": "none", "iotype": "write", "sector": 2048, "errno": 28},
            {"event": "none", "iotype": "flush"}]},
        other: "good"})
    agent.execute("block-export-add", type="nbd", id="e", node_name="v", name="v", writable=True)
    assert qemu_io(directory, "write -P 1 0 64k", "read -P 1 0 64k", "write -P 2 1M 64k", "write -P 1 0 64k; flush",
                   "read 0 1M", "read 1M 64k") == ["Input/output error", "failed", "Input/output error"]
    assert f"'{failing}' ends with" in agent.log() or f"'{failing}' with" in agent.log()


def test_nobody_else_writes_the_nodes(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    verified_raw(agent, directory)
    for node in ("t", "r"):
        with pytest.raises(CommandError, match="Permission conflict"):
            agent.execute("block-export-add", type="nbd", id=node, node_name=node, name=node, writable=True)
        agent.execute("block-export-add", type="nbd", id=node, node_name=node, name=node)
    add(agent, directory, "small", size="4M")
    add(agent, directory, "big")
    assert answer(agent, "blockdev-add", {"driver": "blkverify", "node-name": "w", "test": "big", "raw": "small"}) \
        .startswith("GenericError: Node 'small' of 4194304 bytes cannot verify node 'big' of 8388608")


def test_a_format_above_grows_both(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    files = {node: {"driver": "file", "filename": str(images.create(directory / f"{node}.qcow2", "8M"))}
             for node in ("test", "raw")}
    agent.execute("blockdev-add", driver="qcow2", node_name="img", file={"driver": "blkverify", **files})
    agent.execute("block-export-add", type="nbd", id="e", node_name="img", name="v", writable=True)
    assert qemu_io(directory, "write -P 1 1M 4M", "read -P 1 1M 4M") == []
    agent.execute("block-export-del", id="e", mode="hard")
    agent.execute("blockdev-del", node_name="img")
    assert (directory / "test.qcow2").read_bytes() == (directory / "raw.qcow2").read_bytes()
    images.check(directory / "test.qcow2")
    assert images.has_pattern(directory / "test.qcow2", 1, MEBIBYTE, 4 * MEBIBYTE, form="qcow2")


def test_writers_and_readers_at_once_are_no_differences(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    verified(agent, directory)
    # Many requests for the same few sectors at once; an I/O error ends it.
    images.run("fio", "--name=v", "--ioengine=nbd", f"--uri=nbd+unix:///v?socket={directory}/nbd.sock", "--rw=randrw",
               "--bs=4k", "--size=256k", "--iodepth=16", "--norandommap", "--io_size=24M", "--randrepeat=0",
               "--minimal")
    assert "differ" not in agent.log()
    write(directory, "read 0 8M", export="v")
    agent.execute("block-export-del", id="e", mode="hard")
    for node in ("v", "t", "r"):
        agent.execute("blockdev-del", node_name=node)
    images.same_content(directory / "t.qcow2", "qcow2", directory / "r.raw", "raw")
