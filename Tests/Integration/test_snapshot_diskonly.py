"""Snapshots without a guest: disks only, all of them or none."""

import pytest

from harness import images
from harness.monitor import JobError

NODES = ["a", "b"]


@pytest.fixture
def disks(agent, directory):
    paths = [images.create(directory / f"{name}.qcow2") for name in NODES]
    for path in paths:
        images.write_pattern(path, 0x11)
    for name, path in zip(NODES, paths):
        agent.add_qcow2(name, path)
    return paths


def save(agent, tag, nodes=NODES):
    agent.run_job("snapshot-save", tag=tag, vmstate=nodes[0], devices=nodes)


def write_through(agent, directory, node, pattern):
    """Overwrites the first clusters of a node through an export of its own."""
    socket = directory / f"{node}-write.sock"
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
    agent.execute("block-export-add", type="nbd", id="w", node_name=node, writable=True)
    images.run("qemu-io", "-f", "raw", "-c", f"write -P {pattern} 0 65536", f"nbd+unix:///{node}?socket={socket}")
    agent.execute("block-export-del", id="w", mode="hard")
    agent.execute("nbd-server-stop")


def close(agent, disks):
    for name in NODES:
        agent.execute("blockdev-del", node_name=name)
    for path in disks:
        images.check(path)


def test_save_makes_what_qemu_img_lists(agent, disks):
    save(agent, "t")
    for path in disks:
        assert images.snapshots(path)["t"]["vm-state-size"] == 0
    entry = agent.tags()["t"]
    assert entry["complete"] and not entry["mixed"] and entry["uuid"]
    assert [node["node-name"] for node in entry["nodes"]] == NODES
    close(agent, disks)


def test_load_rewinds_every_disk(agent, disks, directory):
    save(agent, "t")
    for name in NODES:
        write_through(agent, directory, name, 0x22)
    agent.run_job("snapshot-load", tag="t", vmstate="a", devices=NODES)
    close(agent, disks)
    for path in disks:
        assert images.has_pattern(path, 0x11, form="qcow2")


def test_a_snapshot_keeps_what_was_overwritten(agent, disks, directory):
    save(agent, "t")
    write_through(agent, directory, "a", 0x22)
    raw = images.snapshot_to_raw(disks[0], "t", directory / "t.raw")
    assert images.has_pattern(raw, 0x11)
    close(agent, disks)
    assert images.has_pattern(disks[0], 0x22, form="qcow2")


def test_delete_takes_all_of_it(agent, disks):
    save(agent, "t")
    agent.run_job("snapshot-delete", tag="t", devices=NODES)
    assert agent.tags() == {}
    close(agent, disks)
    assert [images.snapshots(path) for path in disks] == [{}, {}]


def test_many_snapshots_in_any_order_of_deletion(agent, disks, chance, directory):
    tags = [f"t{number}" for number in range(12)]
    for number, tag in enumerate(tags):
        write_through(agent, directory, "a", number + 1)
        save(agent, tag)
    kept = chance.choice(tags)
    for tag in chance.sample([tag for tag in tags if tag != kept], len(tags) - 1):
        agent.run_job("snapshot-delete", tag=tag, devices=NODES)
    raw = images.snapshot_to_raw(disks[0], kept, directory / "kept.raw")
    assert images.has_pattern(raw, tags.index(kept) + 1)
    close(agent, disks)


def test_a_tag_on_one_disk_only_is_no_set(agent, disks):
    agent.execute("blockdev-snapshot-internal-sync", device="a", name="t")
    with pytest.raises(JobError, match="Snapshot 't' already exists in one or more devices"):
        save(agent, "t")
    with pytest.raises(JobError, match="Snapshot 't' does not exist in one or more devices"):
        agent.run_job("snapshot-load", tag="t", vmstate="a", devices=NODES)
    assert agent.snapshot_names("b") == []


def test_strangers_that_share_a_tag_are_mixed(agent, disks):
    for name in NODES:
        agent.execute("blockdev-snapshot-internal-sync", device=name, name="t")
    assert agent.tags()["t"]["mixed"] is True


def test_check_says_that_a_set_is_whole(agent, disks):
    save(agent, "t")
    assert agent.execute("snapshot-check", tag="t") == {"ok": True, "problems": []}
