"""Bad input gives a clear error with QEMU's class, changes nothing and stops no guest."""

import struct
import tempfile

import pytest

from harness import images
from harness.agent import GuestAgent
from harness.guests import DISKS
from harness.monitor import CommandError, JobError

GENERIC = "GenericError"


@pytest.fixture(scope="module")
def running():
    """One guest for all of these tests: nothing may happen to it."""
    with tempfile.TemporaryDirectory(prefix="cf-") as directory, GuestAgent(directory) as guest:
        guest.save("t")
        yield guest


@pytest.fixture
def untouched(running):
    """The guest, proven afterwards to run, never to have been stopped, and to have the same snapshots."""
    running.mark_before = running.mark()
    tags = running.execute("query-snapshots")
    yield running
    assert running.events_since(running.mark_before, "STOP") == []
    assert running.execute("query-status")["status"] == "running"
    running.console.assert_advances()
    assert running.execute("query-snapshots") == tags


def save(job_id="bad", tag="u", vmstate="disk0", devices=tuple(DISKS), **more):
    return "snapshot-save", dict(job_id=job_id, tag=tag, vmstate=vmstate, devices=list(devices), **more)


def load(tag="t", vmstate="disk0", devices=tuple(DISKS)):
    return "snapshot-load", dict(job_id="bad", tag=tag, vmstate=vmstate, devices=list(devices))


def delete(tag="t", devices=tuple(DISKS)):
    return "snapshot-delete", dict(job_id="bad", tag=tag, devices=list(devices))


@pytest.mark.parametrize("call, text", [
    (save(tag="t"), "Snapshot 't' already exists in one or more devices"),
    (save(devices=["zz"]), "No block device node 'zz'"),
    (save(devices=[]), "At least one device is required for snapshot"),
    (save(vmstate="zz"), "vmstate block device 'zz' does not exist"),
    (load(tag="missing"), "Snapshot 'missing' does not exist in one or more devices"),
    (load(devices=["zz"]), "No block device node 'zz'"),
    (load(devices=[]), "At least one device is required for snapshot"),
    (load(vmstate="disk1"), "disk-only snapshot"),
    (delete(devices=["zz"]), "No block device node 'zz'"),
    (delete(devices=[]), "At least one device is required for snapshot"),
])
def test_job_errors(untouched, call, text):
    command, arguments = call
    untouched.execute(command, **arguments)
    with pytest.raises(JobError) as caught:
        untouched.wait_job("bad")
    assert text in str(caught.value)


@pytest.mark.parametrize("command, arguments, text", [
    ("snapshot-save", {"tag": "u", "vmstate": "disk0", "devices": DISKS}, "Parameter 'job-id' is missing"),
    ("snapshot-save", {"job_id": "b", "vmstate": "disk0", "devices": DISKS}, "Parameter 'tag' is missing"),
    ("snapshot-save", {"job_id": "b", "tag": 1, "vmstate": "disk0", "devices": DISKS},
     "Invalid parameter type for 'tag', expected: string"),
    ("snapshot-save", {"job_id": "b", "tag": "u", "vmstate": "disk0", "devices": "disk0"},
     "Invalid parameter type for 'devices', expected: array"),
    ("snapshot-save", {"job_id": "b", "tag": "u", "vmstate": "disk0", "devices": DISKS, "mode": "slow"},
     "Parameter 'mode' does not accept value 'slow'"),
    ("snapshot-save", {"job_id": "b", "tag": "u", "vmstate": "disk0", "devices": DISKS, "x": 1},
     "Parameter 'x' is unexpected"),
    ("snapshot-save", {"job_id": "", "tag": "u", "vmstate": "disk0", "devices": DISKS}, "Invalid job ID ''"),
    ("snapshot-delete", {"job_id": "b", "tag": "u", "vmstate": "disk0", "devices": DISKS},
     "Parameter 'vmstate' is unexpected"),
])
def test_argument_errors(untouched, command, arguments, text):
    with pytest.raises(CommandError) as caught:
        untouched.execute(command, **arguments)
    assert (caught.value.error_class, caught.value.description) == (GENERIC, text)


def test_an_empty_tag_is_refused(untouched):
    with pytest.raises((CommandError, JobError)):
        command, arguments = save(tag="")
        untouched.run_job(command, **arguments)


def test_duplicate_job_id(untouched, directory):
    untouched.execute("blockdev-create", job_id="bad",
                      options={"driver": "file", "filename": str(directory / "x"), "size": 65536})
    untouched.wait_job("bad", dismiss=False)
    with pytest.raises(CommandError, match="Job ID 'bad' already in use"):
        command, arguments = save()
        untouched.execute(command, **arguments)
    untouched.execute("job-dismiss", id="bad")


def test_a_node_without_snapshots_is_named(untouched, directory):
    path = images.create(directory / "r.raw", "1M", form="raw")
    untouched.execute("blockdev-add", driver="raw", node_name="r", file={"driver": "file", "filename": str(path)})
    command, arguments = save(devices=[*DISKS, "r"])
    untouched.execute(command, **arguments)
    with pytest.raises(JobError, match="'r' is writable but does not support snapshots"):
        untouched.wait_job("bad")
    untouched.execute("blockdev-del", node_name="r")


def refuse_image(agent, path, match):
    with pytest.raises(CommandError, match=match) as caught:
        agent.add_qcow2("n", path)
    assert caught.value.error_class == GENERIC
    assert agent.node("n") is None


def test_a_missing_image(agent, directory):
    path = directory / "no.qcow2"
    refuse_image(agent, path, f"Could not open '{path}': No such file or directory")


def test_what_is_no_qcow2(agent, directory):
    path = directory / "x.qcow2"
    path.write_bytes(bytes(65536))
    refuse_image(agent, path, "Image is not in qcow2 format")


@pytest.mark.parametrize("length", [0, 3, 100, 512, 65536, 65536 * 2 + 100])
def test_a_truncated_image_is_refused_or_read_with_errors(agent, directory, length):
    path = images.create(directory / "x.qcow2")
    images.write_pattern(path, 0x11, 0, 1 << 20)
    with open(path, "r+b") as file:
        file.truncate(length)
    before = path.read_bytes()
    with pytest.raises(CommandError):
        agent.add_qcow2("n", path)
    assert path.read_bytes() == before
    assert agent.execute("query-version")


@pytest.mark.parametrize("offset, form, value", [
    (48, ">Q", 1 << 50), (48, ">Q", 12345), (56, ">I", 0xFFFFFFFF), (40, ">Q", 1 << 60), (36, ">I", 0xFFFFFFFF),
    (20, ">I", 63), (60, ">I", 0xFFFFFFFF), (64, ">Q", 1 << 55), (72, ">Q", 1 << 63), (96, ">I", 40), (100, ">I", 4),
], ids=["refcount-table-outside", "refcount-table-unaligned", "refcount-table-size", "l1-outside", "l1-size",
        "cluster-bits", "snapshot-count", "snapshots-outside", "incompatible-bit", "refcount-order", "header-length"])
def test_a_damaged_header_is_refused(agent, directory, offset, form, value):
    path = images.create(directory / "x.qcow2")
    images.run("qemu-img", "snapshot", "-c", "s", path)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack(form, value))
    before = path.read_bytes()
    with pytest.raises(CommandError):
        agent.add_qcow2("n", path)
    assert path.read_bytes() == before
    assert agent.execute("query-version")


def test_a_socket_path_that_is_too_long(agent, directory):
    path = directory / ("x" * 120)
    with pytest.raises(CommandError, match="(?i)too long|at most|108|107"):
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(path)}})


def test_a_missing_mountpoint(agent, directory):
    with pytest.raises(CommandError, match="does not exist"):
        agent.execute("snapshot-export-add", id="x", mountpoint=str(directory / "no"))


def test_a_busy_mountpoint(agent, directory):
    (directory / "tree").mkdir()
    agent.execute("snapshot-export-add", id="one", mountpoint=str(directory / "tree"))
    with pytest.raises(CommandError):
        agent.execute("snapshot-export-add", id="two", mountpoint=str(directory / "tree"))
    with pytest.raises(CommandError):
        agent.execute("snapshot-export-add", id="one", mountpoint=str(directory))
    assert [export["id"] for export in agent.execute("query-snapshot-exports")] == ["one"]


def test_a_mountpoint_that_is_a_file(agent, directory):
    (directory / "file").write_text("x")
    with pytest.raises(CommandError):
        agent.execute("snapshot-export-add", id="x", mountpoint=str(directory / "file"))
    assert (directory / "file").read_text() == "x"
