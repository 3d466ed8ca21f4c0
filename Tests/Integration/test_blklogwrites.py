"""The filter `blklogwrites`, side by side with qemu-storage-daemon."""

import struct

import pytest

from harness import images
from harness.agent import Agent
from harness.blockjobs import MEBIBYTE
from harness.reference import answer, both, compare

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4


def entries(path):
    """The entries that a log's superblock tells of: sector of the log's size, flags, data; and the size."""
    log = path.read_bytes()
    magic, version, count, size = struct.unpack_from("<QQQI", log)
    assert (magic, version) == (MAGIC, 1)
    found, position = [], size
    for _ in range(count):
        sector, sectors, flags, length = struct.unpack_from("<QQQQ", log, position)
        position += size
        assert length == 0 and flags <= 15
        data = b"" if flags & DISCARD else log[position:position + sectors * size]
        assert len(data) == (0 if flags & DISCARD else sectors * size)
        position += len(data)
        found.append((sector, sectors, flags, data))
    return size, found


def replay(path, disk):
    """What the log makes of a disk of zeros."""
    size, found = entries(path)
    content = bytearray(disk)
    for sector, sectors, flags, data in found:
        content[sector * size:sector * size + sectors * size] = bytes(sectors * size) if flags & DISCARD else data
    return content


def add(peer, folder, **options):
    """A raw disk of 4 MiB with the filter above it, exported as `e`, and its log."""
    for name, size in (("disk.raw", "4M"), ("log.raw", "0")):
        if not (folder / name).exists():
            images.create(folder / name, size, form="raw")
    told = [answer(peer, "blockdev-add", {
        "driver": "blklogwrites", "node-name": "logged", "discard": "unmap",
        "file": {"driver": "file", "filename": str(folder / "disk.raw")},
        "log": {"driver": "file", "filename": str(folder / "log.raw")}, **options})]
    return told + [answer(peer, "block-export-add", {
        "type": "nbd", "id": "e", "node-name": "logged", "name": "e", "writable": True})]


def write(folder, *commands, cache="writeback"):
    """With the cache of qemu-io as it is by default each write is one with FUA."""
    arguments = [word for command in commands for word in ("-c", command)]
    images.run("qemu-io", "-t", cache, "-f", "raw", *arguments, f"nbd+unix:///e?socket={folder}/nbd.sock")


def close(peer):
    return [answer(peer, "block-export-del", {"id": "e", "mode": "hard"}),
            answer(peer, "blockdev-del", {"node-name": "logged"})]


@pytest.mark.parametrize("options", [{}, {"log-sector-size": 4096}, {"log-super-update-interval": 2}])
def test_the_log_is_qemus_byte_for_byte(twins, options):
    def script(peer, folder):
        told = add(peer, folder, **options)
        write(folder, "write -P 1 0 64k", "write -P 2 1000 5", "write -P 3 4095 10000", "write -z 1M 128k",
              "write -z 2000000 10000", "flush", "flush", "write -P 4 3M 1M", "discard 2M 64k", "flush",
              "write -P 5 100k 4k")
        before = (folder / "log.raw").read_bytes().hex()
        told.append(close(peer))
        return [told, before, (folder / "log.raw").read_bytes().hex()]
    ours, theirs, *folders = twins
    results = [script(peer, folder) for peer, folder in ((ours, folders[0]), (theirs, folders[1]))]
    assert results[0][0] == results[1][0]
    for ours_hex, theirs_hex in zip(results[0][1:], results[1][1:]):
        assert ours_hex == theirs_hex
    for folder in folders:
        assert replay(folder / "log.raw", bytes(4 * MEBIBYTE)) == (folder / "disk.raw").read_bytes()


def test_a_log_is_continued_by_either(twins):
    ours, theirs, *folders = twins
    for folder in folders:
        add(ours, folder)
        write(folders[0], "write -P 1 0 64k", "discard 1M 64k")
        close(ours)
        add(theirs, folder, **{"log-append": True})
        write(folders[1], "write -P 2 32k 64k")
        close(theirs)
        add(ours, folder, **{"log-append": True})
        write(folders[0], "write -P 3 3M 64k", "flush")
        close(ours)
        assert [entry[2] for entry in entries(folder / "log.raw")[1]] == [0, DISCARD, FLUSH, 0, FLUSH, 0, FLUSH]
        assert replay(folder / "log.raw", bytes(4 * MEBIBYTE)) == (folder / "disk.raw").read_bytes()


def test_answers_are_qemus(twins):
    ours, theirs, *folders = twins
    for folder in folders:
        images.create(folder / "disk.raw", "1M", form="raw")
        images.create(folder / "log.raw", "0", form="raw")
        (folder / "none.raw").write_bytes(bytes(4096))
        for name, content in (
                ("version", struct.pack("<QQQI", MAGIC, 2, 0, 512)), ("size", struct.pack("<QQQI", MAGIC, 1, 0, 31)),
                ("flags", struct.pack("<QQQI", MAGIC, 1, 1, 512).ljust(512, b"\0") + struct.pack("<QQQQ", 0, 0, 16, 0))):
            (folder / f"{name}.raw").write_bytes(content.ljust(4096, b"\0"))
    options = {"driver": "blklogwrites", "node-name": "l", "file": {"driver": "file", "filename": "DIR/disk.raw"}}

    def log(name, **more):
        return ("blockdev-add", {**options, "log": {"driver": "file", "filename": f"DIR/{name}.raw"}, **more})
    append = {"log-append": True}
    compare([
        ("blockdev-add", options), log("missing"),
        *[log("log", **{"log-sector-size": size}) for size in (0, 16, 31, 100, 1 << 24, 1 << 32, -1)],
        log("log", **{"log-super-update-interval": 0}), log("log", **append, **{"log-sector-size": 512}),
        *[log(name, **append) for name in ("none", "version", "size", "flags")],
        log("log", **append, **{"read-only": True}), ("blockdev-del", {"node-name": "l"}),
        log("log", **append),
        ("block-export-add", {"type": "nbd", "id": "e", "node-name": "l", "writable": True}),
        ("blockdev-del", {"node-name": "l"}), ("block-export-del", {"id": "e", "mode": "hard"}),
        ("blockdev-del", {"node-name": "l"}),
    ], ours, theirs, *folders)


def test_what_is_forced_to_the_disk_says_so(agent, directory):
    # QEMU 7.2 logs a plain write.
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    add(agent, directory)
    write(directory, "write -P 1 0 4k", cache="writethrough")
    assert [entry[:3] for entry in entries(directory / "log.raw")[1]] == [(0, 8, FUA), (0, 0, FLUSH)]


def test_a_killed_agent_has_lost_no_write(directory):
    """What a flush has acknowledged is in the log; what a write has, on the disk."""
    with Agent(directory) as agent:
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
        add(agent, directory)
        write(directory, *[f"write -P {number + 1} {number * 65536} 64k" for number in range(20)], "flush")
        write(directory, "write -P 99 2M 64k")
        agent.kill()
    assert images.has_pattern(directory / "disk.raw", 99, 2 * MEBIBYTE, 65536)
    disk = replay(directory / "log.raw", bytes(4 * MEBIBYTE))
    for number in range(20):
        assert disk[number * 65536:(number + 1) * 65536] == bytes([number + 1]) * 65536
