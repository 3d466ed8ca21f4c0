"""The running guest's disks go on to other nodes: to copies, to overlays, and back. Everything follows them."""

import pytest

from harness import consistency, images
from harness.agent import Agent
from harness.campaign import listed_points
from harness.chains import overlay_all, pivot
from harness.guests import DISKS, QEMU
from harness.monitor import CommandError, JobError
from harness.moves import COPIES, OVERLAYS, add_copies, assert_on
from harness.strike import Striker


def move_to_copies(guest, directory, **options):
    paths = add_copies(guest, directory)
    for disk, copy in zip(DISKS, COPIES):
        pivot(guest, "blockdev-mirror", device=disk, target=copy, sync="full", **options)
    guest.nodes, left, guest.images = list(COPIES), guest.images, paths
    return left


def move_to_overlays(guest, directory):
    left, guest.images = guest.images, overlay_all(guest, directory, guest.nodes, OVERLAYS)
    guest.nodes = list(OVERLAYS)
    return left


@pytest.mark.parametrize("mode", ["background", "write-blocking"])
def test_a_guest_runs_on_through_mirrors_that_pivot(guest, directory, mode):
    guest.save("old")
    left = move_to_copies(guest, directory, copy_mode=mode)
    assert_on(guest, COPIES)
    consistency.check_going_on(guest.console)
    # Snapshots are where they were made, and what names the old nodes is told so.
    assert [node["node-name"] for node in guest.tags()["old"]["nodes"]] == DISKS and guest.tags()["old"]["complete"]
    with pytest.raises(JobError, match="'disk0' is on node 'copy0' now"):
        guest.save("t", devices=DISKS, vmstate="disk0")
    for devices in (DISKS, COPIES):
        with pytest.raises(JobError, match="a snapshot stays in the image in which it was made"):
            guest.load("old", devices=devices, vmstate=devices[0])
    assert consistency.save_load_check(guest, "live", "live", directory)["way"] == "live"
    guest.load("live", way="replace")
    assert_on(guest, COPIES)
    consistency.check_going_on(guest.console)
    guest.kill()
    guest.restart()
    assert_on(guest, COPIES)
    consistency.check_going_on(guest.console)
    guest.delete("live")
    guest.delete("old", devices=DISKS)
    assert guest.tags() == {}
    for disk in DISKS:
        guest.execute("blockdev-del", node_name=disk)
    guest.stop()
    guest.check_images()
    for image in left:
        images.check(image)


def test_overlays_of_all_disks_and_the_way_back(guest, directory):
    guest.save("old")
    left = move_to_overlays(guest, directory)
    assert_on(guest, OVERLAYS)
    assert [node["node-name"] for node in guest.tags()["old"]["nodes"]] == DISKS
    consistency.save_load_check(guest, "t", "live", directory)
    assert [node["node-name"] for node in guest.tags()["t"]["nodes"]] == OVERLAYS
    guest.kill()
    guest.restart()
    assert_on(guest, OVERLAYS)
    guest.load("t")
    consistency.check_going_on(guest.console)
    with pytest.raises(CommandError, match="would change what the internal snapshots of node 'over0' show: 't'"):
        guest.execute("block-commit", job_id="j", device="over0")
    guest.delete("t")
    for overlay in OVERLAYS:
        pivot(guest, "block-commit", device=overlay)
    guest.nodes, overlays, guest.images = list(DISKS), guest.images, left
    assert_on(guest, DISKS)
    consistency.save_load_check(guest, "again", "live", directory)
    # What was saved before the overlays is the guest's again.
    guest.load("old")
    consistency.check_going_on(guest.console)
    guest.stop()
    guest.check_images()
    for image in overlays:
        images.check(image)


def test_the_events_are_those_of_any_mirror(guest, directory):
    add_copies(guest, directory)
    mark = guest.mark()
    pivot(guest, "blockdev-mirror", device="disk0", target="copy0", sync="full")
    names = [event["event"] for event in guest.events_since(mark)]
    assert "STOP" not in names and "BLOCK_IO_ERROR" not in names
    assert names.index("BLOCK_JOB_READY") < names.index("BLOCK_JOB_COMPLETED")
    assert guest.execute("query-guest")["nodes"] == ["copy0", "disk1", "disk2"]
    # Only a set of all the nodes is one.
    with pytest.raises(JobError, match="'disk0' is on node 'copy0' now"):
        guest.save("t")
    guest.save("t", devices=["copy0", "disk1", "disk2"], vmstate="copy0")


def test_an_attached_guest_follows_its_exports(guest_for, directory):
    guest = guest_for("live", attached=True)
    move_to_copies(guest, directory)
    assert_on(guest, COPIES)
    guest.kill()
    guest.restart()
    assert_on(guest, COPIES)
    consistency.save_load_check(guest, "t", "live", directory)
    assert guest.end_agent() == 0
    guest.check_images()
    guest.restart()


CONFIGURATION = """
[[blockdev]]
node-name = "disk0"
driver = "qcow2"
file = {{ driver = "file", filename = "{disk}" }}
[guest]
driver = "qemu"
command = ["{qemu}", "-accel", "tcg", "-m", "32", "-nodefaults", "-display", "none", "-no-user-config",
           "-device", "virtio-blk-pci,drive=disk0"]
disks = [{disks}]
"""


@pytest.mark.parametrize("way", ["overlay", "copy"])
def test_a_configured_guest_is_started_where_its_disk_was_last(directory, way):
    disk = images.create(directory / "disk.qcow2", "16M")
    configuration = directory / "web1.toml"

    def configure(disks):
        configuration.write_text(CONFIGURATION.format(disk=disk, qemu=QEMU, disks=disks))

    configure('"disk0"')
    agent = Agent(directory, options=["--config", configuration]).start()
    try:
        if way == "overlay":
            overlay_all(agent, directory, ["disk0"], ["moved"])
        else:
            agent.add_qcow2("moved", images.create(directory / "moved.qcow2", "16M"))
            pivot(agent, "blockdev-mirror", device="disk0", target="moved", sync="full")
        for _ in range(2):
            assert agent.execute("query-guest")["nodes"] == ["moved"]
            agent.execute("guest-del", force=True)
            assert agent.node("moved")
            assert agent.end_agent() == 0
            agent.start()
        agent.execute("guest-del", force=True)
        assert agent.end_agent() == 0
        if way == "copy":
            configure('{ name = "disk0", node-name = "disk0" }')
            agent.start()
            assert agent.execute("query-guest")["nodes"] == ["disk0"]
    finally:
        agent.stop()


# kill -9 in the moment of going

@pytest.mark.parametrize("point, expected", [("pivot.moved", "disk1"), ("pivot.recorded", "copy1")])
def test_an_agent_is_killed_at_a_pivot(guest, directory, point, expected):
    paths = add_copies(guest, directory)
    striker = Striker(guest)
    striker.restart(f"{point}=kill")
    mark = guest.mark()
    guest.execute("blockdev-mirror", job_id="j", device="disk1", target="copy1", sync="full")
    guest.wait_event("BLOCK_JOB_READY", mark)
    guest.execute("job-complete", id="j")
    striker.wait_for_death(point)
    striker.restart()
    guest.nodes[1] = expected
    if expected == "copy1":
        guest.images[1] = paths[1]
    assert_on(guest, guest.nodes)
    assert guest.execute("query-jobs") == []
    consistency.check_going_on(guest.console)
    consistency.save_load_check(guest, "t", "live", directory)
    striker.check_images()


def test_an_agent_is_killed_at_each_point_of_overlays(guest, directory):
    striker = Striker(guest)
    points = [point for point in listed_points(["NODE"]) if point.startswith("transaction.")]
    assert len(points) == 6, points
    for number, point in enumerate(points):
        point = point.replace("NODE", guest.nodes[1])
        striker.restart(f"{point}=kill")
        overlays = [f"over{number}-{disk}" for disk in range(3)]
        with pytest.raises(Exception):
            overlay_all(guest, directory, guest.nodes, overlays)
        striker.wait_for_death(point)
        striker.restart()
        assert guest.execute("query-intents") == []
        nodes = guest.execute("query-guest")["nodes"]
        assert nodes in (guest.nodes, overlays)
        if point.endswith((".recorded", ".committed")):
            assert nodes == overlays
        if point.endswith((".begin", ".intent")) or ".cut." in point:
            assert nodes == guest.nodes
        if nodes == overlays:
            guest.images = guest.images + [directory / f"{node}.qcow2" for node in nodes]
        guest.nodes = nodes
        assert_on(guest, nodes)
        consistency.check_going_on(guest.console)
        striker.check_images()
