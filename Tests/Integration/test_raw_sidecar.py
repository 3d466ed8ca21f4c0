"""Raw images with a sidecar: snapshots of files that stay plain raw files, alone and in a set with qcow2."""

import os
import pathlib
import time

import pytest

from harness import consistency, images
from harness.agent import Agent, GuestAgent
from harness.fixture import TAG
from harness.guests import DISKS, read_page
from harness.monitor import CommandError, JobError

KIBIBYTE = 1024


def make_raw(path, size, pattern=0x11):
    path.write_bytes(bytes([pattern]) * size)
    return path


def add_raw(agent, node, path, create=True, **options):
    agent.execute("blockdev-add", driver="raw-sidecar", node_name=node, create_sidecar=create,
                  file={"driver": "file", "filename": str(path)}, **options)


def write_through(agent, directory, node, pattern, size=64 * KIBIBYTE):
    """Overwrites the beginning of a node through an export of its own."""
    socket = directory / f"{node}-write.sock"
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
    agent.execute("block-export-add", type="nbd", id="w", node_name=node, writable=True)
    images.run("qemu-io", "-f", "raw", "-c", f"write -P {pattern} 0 {size}", f"nbd+unix:///{node}?socket={socket}")
    agent.execute("block-export-del", id="w", mode="hard")
    agent.execute("nbd-server-stop")


@pytest.fixture
def disks(agent, directory):
    """A qcow2 and a raw disk."""
    images.create(directory / "a.qcow2")
    images.write_pattern(directory / "a.qcow2", 0x11)
    agent.add_qcow2("a", directory / "a.qcow2")
    raw = make_raw(directory / "b.raw", images.MEBIBYTE)
    add_raw(agent, "b", raw)
    return raw


def save(agent, tag, devices=("a", "b")):
    agent.run_job("snapshot-save", tag=tag, vmstate=devices[0], devices=list(devices))


def test_a_raw_disk_and_a_qcow2_disk_are_one_set(agent, disks, directory):
    save(agent, "t")
    assert agent.tags()["t"]["complete"]
    write_through(agent, directory, "a", 0x22)
    write_through(agent, directory, "b", 0x22)
    assert disks.read_bytes()[:65536] == b"\x22" * 65536
    agent.run_job("snapshot-load", tag="t", vmstate="a", devices=["a", "b"])
    assert disks.read_bytes() == b"\x11" * images.MEBIBYTE
    agent.run_job("snapshot-delete", tag="t", devices=["a", "b"])
    assert agent.tags() == {}


def test_the_tree_shows_the_raw_disk_as_it_was(agent, disks, directory):
    mountpoint = directory / "tree"
    mountpoint.mkdir()
    save(agent, "t")
    agent.execute("snapshot-export-add", id="tree", mountpoint=str(mountpoint))
    shown = mountpoint / "t" / "b" / "disk.raw"
    assert shown.read_bytes() == b"\x11" * images.MEBIBYTE
    write_through(agent, directory, "b", 0x22, images.MEBIBYTE)
    assert disks.read_bytes() == b"\x22" * images.MEBIBYTE
    with open(shown, "rb", buffering=0) as file:
        assert file.read(images.MEBIBYTE) == b"\x11" * images.MEBIBYTE
    agent.execute("snapshot-export-del", id="tree")


@pytest.mark.parametrize("size", [64 * KIBIBYTE, 528 * KIBIBYTE, 4096 * KIBIBYTE])
def test_a_variable_store_is_in_a_set(agent, directory, size):
    images.create(directory / "a.qcow2")
    agent.add_qcow2("a", directory / "a.qcow2")
    store = make_raw(directory / "vars.fd", size, 0xFF)
    add_raw(agent, "vars", store)
    save(agent, "t", ("a", "vars"))
    write_through(agent, directory, "vars", 0x33, 4 * KIBIBYTE)
    agent.run_job("snapshot-load", tag="t", vmstate="a", devices=["a", "vars"])
    assert store.read_bytes() == b"\xff" * size


def test_snapshots_survive_a_kill_of_the_agent(agent, disks, directory):
    save(agent, "t", ("b",))
    write_through(agent, directory, "b", 0x22)
    agent.process.kill()
    agent.process.wait()
    agent.stop()
    assert disks.read_bytes()[:65536] == b"\x22" * 65536
    with Agent(directory, name="web2") as second:
        add_raw(second, "b", disks, create=False)
        assert second.snapshot_names("b") == ["t"]
        second.run_job("snapshot-load", tag="t", vmstate="b", devices=["b"])
        assert disks.read_bytes() == b"\x11" * images.MEBIBYTE


def test_a_write_behind_the_agents_back_is_noticed(agent, disks, directory):
    save(agent, "t", ("b",))
    agent.execute("blockdev-del", node_name="b")
    images.run("qemu-io", "-f", "raw", "-c", "write -P 0x44 4096 4096", disks)
    add_raw(agent, "b", disks, create=False)
    specific = agent.node("b")["image"]["format-specific"]["data"]
    assert specific["suspect-snapshots"] == ["1"]
    with pytest.raises(JobError, match="something else wrote to the raw image"):
        agent.run_job("snapshot-load", tag="t", vmstate="b", devices=["b"])
    assert disks.read_bytes()[4096:8192] == b"\x44" * 4096
    agent.execute("blockdev-del", node_name="b")
    add_raw(agent, "b", disks, create=False, allow_suspect=True)
    agent.run_job("snapshot-load", tag="t", vmstate="b", devices=["b"])


def test_a_lost_sidecar_loses_the_snapshots_and_not_the_disk(agent, disks, directory):
    save(agent, "t", ("b",))
    agent.execute("blockdev-del", node_name="b")
    pathlib.Path(f"{disks}.sidecar").unlink()
    with pytest.raises(CommandError, match="Could not open sidecar .*create-sidecar=on"):
        add_raw(agent, "b", disks, create=False)
    add_raw(agent, "b", disks)
    assert agent.snapshot_names("b") == []
    assert disks.read_bytes() == b"\x11" * images.MEBIBYTE


def test_blockdev_create_makes_a_sidecar_and_overwrites_none(agent, directory):
    raw = make_raw(directory / "c.raw", images.MEBIBYTE)
    sidecar = directory / "c.side"
    agent.run_job("blockdev-create", options={"driver": "file", "filename": str(sidecar), "size": 0})
    agent.execute("blockdev-add", driver="file", node_name="f", filename=str(raw))
    agent.execute("blockdev-add", driver="file", node_name="s", filename=str(sidecar))
    options = {"driver": "raw-sidecar", "file": "f", "sidecar": "s", "size": 2 * images.MEBIBYTE}
    agent.run_job("blockdev-create", options=options)
    agent.execute("blockdev-add", driver="raw-sidecar", node_name="c", file="f", sidecar="s")
    assert agent.node("c")["image"]["virtual-size"] == 2 * images.MEBIBYTE
    save(agent, "t", ("c",))
    agent.execute("blockdev-del", node_name="c")
    with pytest.raises(JobError, match="holds a sidecar already"):
        agent.run_job("blockdev-create", options=options)


def test_neither_file_can_be_written_by_another_program(agent, disks):
    for path in (disks, pathlib.Path(f"{disks}.sidecar")):
        result = images.run("qemu-io", "-f", "raw", "-c", "write 0 512", path, check=False)
        assert result.returncode != 0 and "lock" in result.stdout + result.stderr


def test_a_snapshot_of_a_large_sparse_disk_takes_no_time(agent, directory):
    raw = directory / "large.raw"
    with open(raw, "wb") as file:
        file.truncate(1 << 40)
    add_raw(agent, "large", raw)
    start = time.monotonic()
    agent.execute("blockdev-snapshot-internal-sync", device="large", name="t")
    # Two flushes; what they take is the host's, what it must not take is the time of a walk over the disk.
    assert time.monotonic() - start < 2
    assert os.stat(f"{raw}.sidecar").st_blocks * 512 < images.MEBIBYTE


class MixedGuest(GuestAgent):
    """The Linux guest with its second disk as a raw file with a sidecar."""

    def add_disk(self, disk, image):
        if disk != DISKS[1]:
            return super().add_disk(disk, image)
        self.raw = images.snapshot_to_raw(image, TAG, self.directory / f"{disk}.raw")
        add_raw(self, disk, self.raw)
        return self.execute("blockdev-snapshot-internal-sync", device=disk, name=TAG)


@pytest.fixture
def mixed(directory):
    with MixedGuest(directory) as running:
        yield running


def test_a_guest_with_both_kinds_of_disk_is_saved_browsed_loaded_and_deleted(mixed, directory):
    mountpoint = directory / "tree"
    mountpoint.mkdir()
    mixed.execute("snapshot-export-add", id="tree", mountpoint=str(mountpoint))
    for number, mode in enumerate(["live", "paused"]):
        tag = f"t{number}"
        before = mixed.console.report()
        saved = mixed.save(tag, mode=mode)
        assert saved["way"] == mode
        time.sleep(2)
        mixed.execute("stop")
        mixed.load(tag)
        numbers = read_page(mixed, before["physical"], directory)
        raws = []
        for disk in DISKS:
            raws.append(directory / f"{disk}-{tag}.copy")
            raws[-1].write_bytes((mountpoint / tag / disk / "disk.raw").read_bytes())
        consistency.check_moment(numbers, raws)
        for raw in raws:
            raw.unlink()
        mixed.execute("cont")
        consistency.check_going_on(mixed.console)
        mixed.delete(tag)
    assert mixed.tags() == {}
    mixed.execute("snapshot-export-del", id="tree")


def test_the_state_lies_in_the_sidecar_if_it_is_to(mixed):
    mixed.save("t", vmstate=DISKS[1], mode="live")
    counter = mixed.console.counter()
    time.sleep(1)
    mixed.load("t", vmstate=DISKS[1])
    consistency.check_going_on(mixed.console)
    assert counter > 0
    assert mixed.execute("snapshot-check", tag="t")["ok"]


def test_a_damaged_sidecar_is_mended_from_the_command_line(agent, disks, directory):
    save(agent, "t", ("b",))
    write_through(agent, directory, "b", 0x22)
    agent.execute("blockdev-del", node_name="b")
    sidecar = pathlib.Path(f"{disks}.sidecar")
    assert agent.cli("image", "check", "-f", "raw-sidecar", sidecar).returncode == 0
    data = bytearray(sidecar.read_bytes())
    where = data.index(b"\x11" * 4096)
    data[where] ^= 1
    sidecar.write_bytes(data)
    found = agent.cli("image", "check", "-f", "raw-sidecar", sidecar, check=False)
    assert found.returncode == 2 and "does not match its checksum" in found.stdout + found.stderr
    agent.cli("image", "check", "-f", "raw-sidecar", "-r", "all", sidecar)
    add_raw(agent, "b", disks, create=False)
    assert agent.node("b")["image"]["format-specific"]["data"]["suspect-snapshots"] == ["1"]
