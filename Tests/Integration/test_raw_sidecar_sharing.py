"""Raw disks on a filesystem whose files can share blocks: what a snapshot keeps takes no space of its own."""

import os
import pathlib
import subprocess

import pytest

from harness import images
from harness.agent import Agent
from test_raw_sidecar import add_raw, write_through

MEBIBYTES = 32


@pytest.fixture
def shared_blocks(directory):
    """A small XFS in a file."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a filesystem that shares blocks")
    image, point = directory / "xfs.img", directory / "xfs"
    point.mkdir()
    with open(image, "wb") as file:
        file.truncate(512 << 20)
    made = subprocess.run([images.tool("mkfs.xfs"), "-q", "-m", "reflink=1", image], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no XFS can be made: {made.stderr.strip()}")
    mounted = subprocess.run(["mount", "-o", "loop", image, point], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no XFS can be mounted: {mounted.stderr.strip()}")
    yield point
    subprocess.run(["umount", point], check=True)


def used_mebibytes(point):
    os.sync()
    status = os.statvfs(point)
    return (status.f_blocks - status.f_bfree) * status.f_frsize / images.MEBIBYTE


def test_what_is_kept_is_shared_and_right(shared_blocks, directory, chance):
    disk = shared_blocks / "disk.raw"
    # Its last cluster is not whole, and so cannot be shared.
    before = chance.randbytes(MEBIBYTES * images.MEBIBYTE - 4096)
    disk.write_bytes(before)
    point = directory / "tree"
    point.mkdir()
    with Agent(directory) as agent:
        add_raw(agent, "n", disk)
        agent.execute("blockdev-snapshot-internal-sync", device="n", name="t")
        start = used_mebibytes(shared_blocks)
        write_through(agent, directory, "n", 7, len(before))
        grown = used_mebibytes(shared_blocks) - start
        # The new content, and next to nothing for the old.
        assert grown < MEBIBYTES * 1.25, f"{grown} MiB"
        assert pathlib.Path(f"{disk}.sidecar").stat().st_size > (MEBIBYTES - 1) << 20
        expect_snapshot(agent, point, before)
        agent.kill()
    with Agent(directory) as agent:
        # The record of the killed agent has the node.
        assert disk.read_bytes() == bytes([7]) * len(before)
        expect_snapshot(agent, point, before)
        write_through(agent, directory, "n", 8, 3 << 20)
        agent.run_job("snapshot-load", tag="t", vmstate="n", devices=["n"])
        assert disk.read_bytes() == before


def expect_snapshot(agent, point, content):
    agent.execute("snapshot-export-add", id="tree", mountpoint=str(point))
    assert (point / "t" / "n" / "disk.raw").read_bytes() == content
    agent.execute("snapshot-export-del", id="tree")
