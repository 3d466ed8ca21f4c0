"""Jobs on a disk that fio writes through NBD meanwhile, and reads back at the end."""

import contextlib
import subprocess

import pytest

from harness import images
from harness.blockjobs import MEBIBYTE, write
from harness.chains import add_layer
from harness.reference import wait_gone

MEBIBYTES = 24


@contextlib.contextmanager
def fio(directory):
    """Writes each block of the disk once, in no order, for two seconds; then all are there as they were written."""
    running = subprocess.Popen(
        ["fio", "--name=w", "--ioengine=nbd", f"--uri=nbd+unix:///disk?socket={directory}/nbd.sock", "--rw=randwrite",
         "--bs=4k", f"--size={MEBIBYTES}M", f"--rate={MEBIBYTES // 2}m", "--iodepth=8", "--verify=crc32c", "--verify_fatal=1",
         "--do_verify=1", "--minimal"], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield
        output = running.communicate(timeout=60)[0]
        assert running.returncode == 0, output
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def disk(agent, directory):
    """Three layers with content of their own, and the disk that they make as an export."""
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    for number, (node, backing) in enumerate((("base", None), ("mid", "base"), ("top", "mid"))):
        path = add_layer(agent, directory, node, backing=backing, size=f"{MEBIBYTES}M")
        agent.execute("block-export-add", type="nbd", id="e", node_name=node, name="disk", writable=True)
        write(directory, f"write -P {number + 1} {number * 4}M 8M", export="disk")
        if node != "top":
            agent.execute("block-export-del", id="e", mode="hard")
            agent.wait_event("BLOCK_EXPORT_DELETED")
    return path


def begin(agent, directory, command, **arguments):
    if "target" in arguments:
        add_layer(agent, directory, "target", size=f"{MEBIBYTES}M")
    mark = agent.mark()
    agent.execute(command, job_id="j", **arguments)
    return mark


def end(agent, mark, verb=None):
    """The job ends well."""
    if verb:
        agent.wait_event("BLOCK_JOB_READY", mark)
        agent.execute(verb, device="j")
    wait_gone(agent, "j")
    told = [event for event in agent.events_since(mark) if event["event"].startswith("BLOCK_JOB_")]
    assert told[-1]["event"] == "BLOCK_JOB_COMPLETED" and "error" not in told[-1]["data"], told


def close(agent, directory, *nodes):
    agent.execute("block-export-del", id="e", mode="hard")
    agent.wait_event("BLOCK_EXPORT_DELETED")
    for node in nodes:
        agent.execute("blockdev-del", node_name=node)
    for node in nodes:
        images.check(directory / f"{node}.qcow2")


def test_a_backup_is_the_disk_of_its_beginning(agent, directory, disk):
    before = directory / "before.raw"
    images.run("qemu-img", "convert", "-f", "raw", "-O", "raw", f"nbd+unix:///disk?socket={directory}/nbd.sock", before)
    mark = begin(agent, directory, "blockdev-backup", device="top", target="target", sync="full", speed=8 * MEBIBYTE)
    with fio(directory):
        end(agent, mark)
    close(agent, directory, "target", "top", "mid", "base")
    images.same_content(before, "raw", directory / "target.qcow2", "qcow2")


@pytest.mark.parametrize("mode", ["background", "write-blocking"])
def test_a_mirror_is_the_disk_of_its_end(agent, directory, disk, mode):
    with fio(directory):
        mark = begin(agent, directory, "blockdev-mirror", device="top", target="target", sync="full", copy_mode=mode)
        agent.wait_event("BLOCK_JOB_READY", mark)
    end(agent, mark, "block-job-cancel")
    close(agent, directory, "target", "top", "mid", "base")
    images.same_content(disk, "qcow2", directory / "target.qcow2", "qcow2")


@pytest.mark.parametrize("command, arguments, verb", [
    ("block-commit", {"top_node": "mid", "base_node": "base"}, None),
    ("block-commit", {"base_node": "base"}, "block-job-complete"),
    ("block-stream", {}, None),
    ("blockdev-mirror", {"target": "target", "sync": "full"}, "block-job-complete"),
], ids=["commit", "active commit", "stream", "mirror that pivots"])
def test_the_chain_changes_below_fio(agent, directory, disk, command, arguments, verb):
    with fio(directory):
        mark = begin(agent, directory, command, device="top", speed=0 if verb else 16 * MEBIBYTE, **arguments)
        end(agent, mark, verb)
    close(agent, directory, *(["target"] if "target" in arguments else []), "top", "mid", "base")
