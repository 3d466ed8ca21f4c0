"""An internal snapshot as a node: exported, backed up and compared while its disk is written."""

import json

import pytest

from harness import images
from harness.monitor import CommandError, JobError

MEBIBYTE = 1 << 20


@pytest.fixture
def disk(agent, directory):
    """`disk0`, 8 MiB, which was full of 1s at `monday` and is full of 2s now, with an export for writers."""
    path = images.create(directory / "disk.qcow2", "8M")
    images.write_pattern(path, 1, 0, 8 * MEBIBYTE)
    agent.add_qcow2("disk0", path)
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    agent.execute("block-export-add", type="nbd", id="w", node_name="disk0", name="disk0", writable=True)
    agent.execute("blockdev-snapshot-internal-sync", device="disk0", name="monday")
    write(directory, 2)
    return path


def uri(directory, name):
    return f"nbd+unix:///{name}?socket={directory}/nbd.sock"


def write(directory, pattern, offset=0, length=8 * MEBIBYTE):
    images.run("qemu-io", "-f", "raw", "-c", f"write -q -P {pattern} {offset} {length}", uri(directory, "disk0"))


def export(agent, node="old", **options):
    agent.execute("blockdev-add", driver="snapshot", node_name=node, file="disk0", **options)
    agent.execute("block-export-add", type="nbd", id=node, node_name=node, name=node)


def test_readers_see_the_disk_as_it_was(agent, directory, disk):
    export(agent, tag="monday")
    assert images.has_pattern(uri(directory, "old"), 1, 0, 8 * MEBIBYTE)
    write(directory, 3, MEBIBYTE, MEBIBYTE)
    assert images.has_pattern(uri(directory, "old"), 1, 0, 8 * MEBIBYTE)
    assert images.has_pattern(uri(directory, "disk0"), 3, MEBIBYTE, MEBIBYTE)
    refused = images.run("qemu-io", "-f", "raw", "-c", "write 0 512", uri(directory, "old"), check=False)
    assert refused.returncode != 0


def test_a_disk_that_was_resized_keeps_its_old_size(agent, directory, disk):
    agent.execute("block-export-del", id="w", mode="hard")
    agent.execute("block_resize", node_name="disk0", size=4 * MEBIBYTE)
    export(agent, tag="monday")
    size = json.loads(images.run("qemu-img", "info", "--output=json", uri(directory, "old")).stdout)["virtual-size"]
    assert size == 8 * MEBIBYTE
    assert images.has_pattern(uri(directory, "old"), 1, 0, 8 * MEBIBYTE)


def test_a_backup_of_the_past(agent, directory, disk):
    agent.execute("blockdev-add", driver="snapshot", node_name="old", file="disk0", tag="monday")
    target = directory / "copy.raw"
    images.create(target, "8M", form="raw")
    agent.execute("blockdev-add", driver="raw", node_name="copy", file={"driver": "file", "filename": str(target)})
    agent.run_job("blockdev-backup", device="old", target="copy", sync="full", auto_dismiss=False)
    agent.execute("blockdev-del", node_name="copy")
    assert images.has_pattern(target, 1, 0, 8 * MEBIBYTE)
    raw = images.snapshot_to_raw(disk, "monday", directory / "monday.raw")
    images.same_content(raw, "raw", target, "raw")


def test_what_is_read_cannot_be_deleted(agent, directory, disk):
    export(agent, tag="monday")
    with pytest.raises(JobError, match="open in node 'old'"):
        agent.run_job("snapshot-delete", tag="monday", devices=["disk0"])
    with pytest.raises(CommandError, match="node 'old'"):
        agent.execute("blockdev-snapshot-delete-internal-sync", device="disk0", name="monday")
    with pytest.raises(CommandError):
        agent.execute("blockdev-del", node_name="disk0")
    agent.execute("block-export-del", id="old", mode="hard")
    agent.execute("blockdev-del", node_name="old")
    agent.run_job("snapshot-delete", tag="monday", devices=["disk0"])
    agent.execute("block-export-del", id="w", mode="hard")
    agent.execute("blockdev-del", node_name="disk0")
    images.check(disk)


def test_the_disk_takes_snapshots_all_the_same(agent, directory, disk):
    export(agent, tag="monday")
    agent.execute("blockdev-snapshot-internal-sync", device="disk0", name="tuesday")
    agent.run_job("snapshot-save", tag="wednesday", vmstate="disk0", devices=["disk0"])
    write(directory, 3)
    agent.run_job("snapshot-load", tag="tuesday", vmstate="disk0", devices=["disk0"])
    assert images.has_pattern(uri(directory, "old"), 1, 0, 8 * MEBIBYTE)
    assert images.has_pattern(uri(directory, "disk0"), 2, 0, 8 * MEBIBYTE)
    agent.execute("blockdev-snapshot-delete-internal-sync", device="disk0", name="tuesday")
    agent.run_job("snapshot-delete", tag="wednesday", devices=["disk0"])


def test_a_snapshot_is_chosen_by_tag_id_or_both(agent, disk):
    agent.execute("blockdev-add", driver="snapshot", node_name="a", file="disk0", id="1")
    agent.execute("blockdev-add", driver="snapshot", node_name="b", file="disk0", id="1", tag="monday")
    for options, text in (({}, "needs 'tag' or 'id'"), ({"tag": "no"}, "name 'no' does not exist on device 'disk0'"),
                          ({"id": "1", "tag": "no"}, "id '1' and name 'no' does not exist")):
        with pytest.raises(CommandError, match=text):
            agent.execute("blockdev-add", driver="snapshot", node_name="c", file="disk0", **options)
    agent.execute("blockdev-del", node_name="a")
    agent.execute("blockdev-del", node_name="b")


def test_an_image_that_nobody_has_open_is_only_read(agent, directory):
    path = images.create(directory / "alone.qcow2", "1M")
    images.write_pattern(path, 5)
    images.run("qemu-img", "snapshot", "-c", "t", path)
    before = path.read_bytes()
    agent.execute("blockdev-add", driver="snapshot", node_name="old", tag="t",
                  file={"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}})
    # Nobody who writes is kept out by a reader of an image that is closed to writers; QEMU's own reader comes in.
    images.run("qemu-img", "info", path)
    agent.execute("blockdev-del", node_name="old")
    assert path.read_bytes() == before
