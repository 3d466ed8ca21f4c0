"""The tree: snapshots as folders, read-only, while the guest runs."""

import errno
import json
import os
import subprocess
import time

import pytest

from harness import images
from harness.agent import BINARIES, Agent
from harness.guests import DISKS


def mounts():
    with open("/proc/self/mounts") as file:
        return [line.split()[1] for line in file]


def wait_until(condition, what, timeout=20):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture
def mountpoint(directory):
    path = directory / "tree"
    path.mkdir()
    yield path
    if str(path) in mounts():
        subprocess.run(["fusermount3", "-uz", path])


@pytest.fixture
def browsed(agent, directory, mountpoint):
    """An agent with one disk, one snapshot `t` and the tree."""
    path = images.create(directory / "a.qcow2")
    images.write_pattern(path, 0x11, 0, 1 << 20)
    agent.add_qcow2("a", path)
    agent.run_job("snapshot-save", tag="t", vmstate="a", devices=["a"])
    agent.execute("snapshot-export-add", id="tree", mountpoint=str(mountpoint))
    return path


def test_a_snapshot_is_a_folder(browsed, mountpoint):
    assert os.listdir(mountpoint) == ["t"]
    assert {"info.json", "a"} <= set(os.listdir(mountpoint / "t"))
    info = json.loads((mountpoint / "t/info.json").read_text())
    assert info["tag"] == "t"
    assert (mountpoint / "t/a/disk.raw").stat().st_size == 64 * images.MEBIBYTE


def test_the_disk_is_what_qemu_img_reads(browsed, mountpoint, directory):
    expected = images.snapshot_to_raw(browsed, "t", directory / "expected.raw")
    images.same_content(mountpoint / "t/a/disk.raw", "raw", expected, "raw")


def test_ordinary_tools_work(browsed, mountpoint, directory):
    images.run("cp", mountpoint / "t/a/disk.raw", directory / "copy.raw")
    assert images.has_pattern(directory / "copy.raw", 0x11, 0, 1 << 20)
    images.run("cmp", mountpoint / "t/a/disk.raw", directory / "copy.raw")
    found = images.run("grep", "-c", "-a", "-m", "1", "\x11\x11\x11\x11", mountpoint / "t/a/disk.raw")
    assert found.stdout.strip() == "1"


def test_nothing_can_be_written(browsed, mountpoint):
    for attempt in (lambda: open(mountpoint / "t/a/disk.raw", "r+b"), lambda: os.unlink(mountpoint / "t/info.json"),
                    lambda: os.mkdir(mountpoint / "x"), lambda: os.rmdir(mountpoint / "t")):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def test_it_does_not_change_when_the_disk_does(agent, browsed, mountpoint, directory):
    socket = directory / "w.sock"
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
    agent.execute("block-export-add", type="nbd", id="w", node_name="a", writable=True)
    images.run("qemu-io", "-f", "raw", "-c", "write -P 0x99 0 1M", f"nbd+unix:///a?socket={socket}")
    assert images.has_pattern(mountpoint / "t/a/disk.raw", 0x11, 0, 1 << 20)


def test_snapshots_appear_and_vanish(agent, browsed, mountpoint):
    agent.run_job("snapshot-save", tag="u", vmstate="a", devices=["a"])
    wait_until(lambda: sorted(os.listdir(mountpoint)) == ["t", "u"], "u did not appear")
    assert (mountpoint / "u/a/disk.raw").exists()
    agent.run_job("snapshot-delete", tag="t", devices=["a"])
    wait_until(lambda: os.listdir(mountpoint) == ["u"], "t did not vanish")
    assert not (mountpoint / "t").exists()


def test_a_tag_that_is_no_file_name_is_escaped(agent, browsed, mountpoint):
    for tag in ("a/b", ".."):
        agent.run_job("snapshot-save", tag=tag, vmstate="a", devices=["a"])
    wait_until(lambda: len(os.listdir(mountpoint)) == 3, "the tags did not appear")
    tags = {json.loads((mountpoint / name / "info.json").read_text())["tag"] for name in os.listdir(mountpoint)}
    assert tags == {"t", "a/b", ".."}


def test_delete_waits_for_no_reader_but_names_it(agent, browsed, mountpoint):
    with open(mountpoint / "t/a/disk.raw", "rb") as held:
        held.read(512)
        with pytest.raises(Exception, match="(?i)tree"):
            agent.run_job("snapshot-delete", tag="t", devices=["a"])
        assert "t" in images.snapshots(browsed)
    wait_until(lambda: not agent.tags()["t"]["holders"], "the lease outlived its reader")
    agent.run_job("snapshot-delete", tag="t", devices=["a"])


def test_del_unmounts(agent, browsed, mountpoint):
    agent.execute("snapshot-export-del", id="tree")
    assert str(mountpoint) not in mounts()
    assert agent.execute("query-snapshot-exports") == []


def test_the_agents_end_unmounts(agent, browsed, mountpoint):
    agent.process.terminate()
    agent.process.wait(20)
    assert str(mountpoint) not in mounts()


def test_a_killed_agents_mount_is_cleaned(agent, browsed, mountpoint, directory):
    agent.process.kill()
    agent.process.wait()
    with Agent(directory) as again:
        again.execute("query-version")
        exports = again.execute("query-snapshot-exports")
        if not exports:
            again.add_qcow2("a", browsed)
            again.execute("snapshot-export-add", id="tree", mountpoint=str(mountpoint))
        assert os.listdir(mountpoint) == ["t"]


def start_browse(directory, mountpoint, path):
    """`coldframe browse --image` until the tree is there."""
    browse = subprocess.Popen([BINARIES / "coldframe", "browse", "--image", path, "--mountpoint", mountpoint],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env={**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}",
                                   "COLDFRAME_RUNTIME_DIR": str(directory / "run"),
                                   "COLDFRAME_STATE_DIR": str(directory / "state")})
    wait_until(lambda: browse.poll() is not None or os.listdir(mountpoint), "nothing was mounted")
    return browse


def test_browse_of_an_image_needs_no_guest_and_no_daemon(directory, mountpoint):
    path = images.create(directory / "b.qcow2")
    images.write_pattern(path, 0x42)
    images.run("qemu-img", "snapshot", "-c", "made by qemu-img", path)
    before = path.read_bytes()
    browse = start_browse(directory, mountpoint, path)
    try:
        folder = mountpoint / os.listdir(mountpoint)[0]
        disk = next(folder.glob("*/disk.raw"))
        assert images.has_pattern(disk, 0x42)
    finally:
        browse.terminate()
        browse.wait(20)
    assert str(mountpoint) not in mounts()
    assert path.read_bytes() == before


def test_a_killed_browse_leaves_no_mount_and_no_lock(directory, mountpoint):
    path = images.create(directory / "b.qcow2")
    images.run("qemu-img", "snapshot", "-c", "t", path)
    browse = start_browse(directory, mountpoint, path)
    browse.kill()
    browse.wait()
    wait_until(lambda: str(mountpoint) not in mounts(), "the tree is still mounted")
    wait_until(lambda: images.run("qemu-img", "snapshot", "-d", "t", path, check=False).returncode == 0,
               "the image is still locked")


def test_the_tree_is_read_while_the_guest_runs(guest, mountpoint, directory):
    guest.save("t", mode="live")
    guest.execute("snapshot-export-add", id="tree", mountpoint=str(mountpoint))
    for disk, image in zip(DISKS, guest.images):
        expected = images.snapshot_to_raw(image, "t", directory / "expected.raw")
        images.same_content(mountpoint / "t" / disk / "disk.raw", "raw", expected, "raw")
    state = mountpoint / "t/vmstate.bin"
    assert state.stat().st_size == guest.tags()["t"]["vm-state-size"]
    assert state.read_bytes()[:4] == b"QEVM"
    guest.console.assert_advances()
