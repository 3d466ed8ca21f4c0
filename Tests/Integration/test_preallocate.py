"""The filter `preallocate`, side by side with qemu-storage-daemon."""

import pytest

from harness import images
from harness.agent import Agent
from harness.blockjobs import MEBIBYTE, write
from harness.reference import answer, both, compare

AHEAD = 16 * MEBIBYTE


def add(peer, folder, form="qcow2", size="64M", reference=False, **options):
    """An image with the filter between it and its file, exported as `e`. The file's path."""
    path = folder / f"disk.{form}"
    if not path.exists():
        images.create(path, size, form=form)
    filter_options = {"driver": "preallocate", "node-name": "pre", "prealloc-size": AHEAD,
                      "file": {"driver": "file", "filename": str(path)}, **options}
    if reference:
        peer.execute("blockdev-add", **{key.replace("-", "_"): value for key, value in filter_options.items()})
    peer.execute("blockdev-add", driver=form, node_name="disk", file="pre" if reference else filter_options)
    peer.execute("block-export-add", type="nbd", id="e", node_name="disk", name="e", writable=True)
    return path


def close(peer):
    peer.execute("block-export-del", id="e", mode="hard")
    peer.execute("blockdev-del", node_name="disk")


def test_answers_are_qemus(twins):
    ours, theirs, *folders = twins
    for folder in folders:
        images.create(folder / "disk.qcow2", "1M")
    file = {"driver": "file", "filename": "DIR/disk.qcow2", "node-name": "file"}
    pre = {"driver": "preallocate", "node-name": "pre", "file": file}
    disk = {"driver": "qcow2", "node-name": "disk", "file": "pre"}
    compare([
        ("blockdev-add", {**pre, "prealloc-align": 1000}),
        ("blockdev-add", {**pre, "prealloc-size": "1M"}),
        ("blockdev-add", {**pre, "prealloc-size": -1}),
        ("blockdev-add", {**pre, "wrong": 1}),
        ("blockdev-add", {"driver": "preallocate", "node-name": "pre"}),
        ("blockdev-add", {**pre, "prealloc-align": 65536}),
        ("blockdev-add", disk),
        ("blockdev-reopen", {"options": [{**pre, "file": "file", "prealloc-align": 65536, "prealloc-size": 4096}]}),
        ("blockdev-reopen", {"options": [{**pre, "file": "file", "prealloc-align": 5, "prealloc-size": 4096}]}),
        ("blockdev-del", {"node-name": "disk"}),
        ("block-export-add", {"type": "nbd", "id": "w", "node-name": "pre", "writable": True}),
        ("block-export-del", {"id": "w", "mode": "hard"}),
        ("blockdev-del", {"node-name": "pre"}),
    ], ours, theirs, *folders)


def test_who_owns_the_size_shares_it_with_nobody(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    path = add(agent, directory, file={"driver": "file", "node-name": "file", "filename": str(directory / "disk.qcow2")})
    assert path.exists()
    for node, owner in (("pre", "disk"), ("file", "pre")):
        refused = answer(agent, "block-export-add", {"type": "nbd", "id": "w", "node-name": node, "writable": True})
        assert f"unshared by node '{owner}'" in refused


@pytest.mark.parametrize("options", [{}, {"prealloc-align": 8 * MEBIBYTE}, {"prealloc-size": 4096, "prealloc-align": 512}])
def test_the_file_is_longer_while_it_is_written_and_only_then(twins, options):
    def script(peer, folder):
        path = add(peer, folder, **options)
        write(folder, "write -P 1 0 8M", "write -P 2 20M 1M", "flush", export="e")
        size, align = path.stat().st_size, options.get("prealloc-align", MEBIBYTE)
        ahead = options.get("prealloc-size", AHEAD)
        data = 9 * MEBIBYTE
        # What is allocated takes its blocks. A format adds more at once than it needs.
        told = [size % align, size >= data + min(ahead, 4096), size < data + 2 * ahead + 2 * align + 8 * MEBIBYTE,
                path.stat().st_blocks * 512 >= size]
        write(folder, "read -P 1 0 8M", "read -P 2 20M 1M", "read -P 0 30M 1M", export="e")
        close(peer)
        told.append(path.stat().st_size < data + MEBIBYTE)
        images.check(path)
        return told
    assert both(twins, script) == [0, True, True, True, True]
    images.run("qemu-img", "compare", *[folder / "disk.qcow2" for folder in twins[2:]])


def test_a_file_with_a_name_is_cut_when_its_format_goes_or_reads_only(twins):
    def script(peer, folder):
        path = add(peer, folder, reference=True)
        write(folder, "write -P 1 0 8M", export="e")
        told = [path.stat().st_size > AHEAD]
        close(peer)
        told.append(path.stat().st_size < 9 * MEBIBYTE)
        peer.execute("blockdev-del", node_name="pre")
        add(peer, folder, **{"node-name": "again"})
        write(folder, "write -P 1 8M 1M", export="e")
        told.append(path.stat().st_size > AHEAD)
        peer.execute("block-export-del", id="e", mode="hard")
        told.append(answer(peer, "blockdev-reopen", {"options": [{
            "driver": "qcow2", "node-name": "disk", "read-only": True, "file": "again"}]}))
        told.append(path.stat().st_size < 10 * MEBIBYTE)
        peer.execute("blockdev-del", node_name="disk")
        images.check(path)
        return told
    both(twins, script)


def test_a_raw_disk_stays_as_long_as_it_was_made(twins):
    def script(peer, folder):
        path = add(peer, folder, form="raw", size="1M")
        write(folder, "write -P 1 512k 512k", export="e")
        sizes = [path.stat().st_size]
        for size in (3 * MEBIBYTE, 2 * MEBIBYTE):
            peer.execute("block-export-del", id="e", mode="hard")
            sizes.append(answer(peer, "block_resize", {"node-name": "disk", "size": size}))
            peer.execute("block-export-add", type="nbd", id="e", node_name="disk", name="e", writable=True)
            write(folder, f"write -P 2 {size - 65536} 64k", export="e")
            sizes.append(path.stat().st_size)
        close(peer)
        return sizes + [path.stat().st_size]
    both(twins, script)


def test_a_killed_agent_has_lost_no_write(directory):
    with Agent(directory) as agent:
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
        path = add(agent, directory)
        for number in range(20):
            write(directory, f"write -P {number + 1} {number}M 1M", export="e")
        agent.kill()
        size = path.stat().st_size
        assert size > 20 * MEBIBYTE + 4096
        for number in range(20):
            assert images.has_pattern(path, number + 1, number * MEBIBYTE, MEBIBYTE, form="qcow2")
        agent.start()
        # Nodes and exports are there again; the image is sound, and goes on.
        write(directory, "write -P 77 30M 1M", "read -P 20 19M 1M", export="e")
        agent.stop()
    images.run("qemu-img", "check", "-q", "-r", "leaks", path)
    images.check(path)
    assert images.has_pattern(path, 20, 19 * MEBIBYTE, MEBIBYTE, form="qcow2")
