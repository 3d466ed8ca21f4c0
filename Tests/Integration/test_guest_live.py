"""The main job: a running guest is saved in each way under load, and loaded back; RAM and disks are of one moment."""

import os
import pathlib
import time

import pytest

from harness import consistency, images
from harness.agent import GuestAgent
from harness.guests import DISKS, NEWER_QEMU, QEMU, read_page
from harness.monitor import JobError

SAVES = int(os.environ.get("COLDFRAME_SAVES", "10"))
LONGEST_PAUSE_NS = 20_000_000


@pytest.mark.parametrize("qemu, modes", [(QEMU, ["live", "paused", "auto"]), (NEWER_QEMU, ["precopy", "live"])],
                         ids=["qemu", "newer-qemu"])
def test_saves_in_each_way_are_of_one_moment(directory, chance, qemu, modes):
    with GuestAgent(directory, qemu=qemu) as guest:
        for number in range((SAVES + 1) // 2):
            mode, tag = modes[number % len(modes)], f"t{number}"
            time.sleep(chance.uniform(0, 0.5))
            saved = consistency.save_load_check(guest, tag, mode, directory)
            print(f"save {number + 1}: {mode} went {saved['way']}, pause {saved['pause-ns'] / 1e6:.1f} ms")
            assert mode in (saved["way"], "auto")
            guest.delete(tag)
        assert guest.tags() == {}
        guest.stop()
        guest.check_images()


def test_precopy_is_refused_where_qemu_loses_memory(guest):
    mark = guest.mark()
    with pytest.raises(JobError, match="without KVM loses memory that the guest writes during a precopy"):
        guest.save("t", mode="precopy")
    guest.console.assert_advances()
    assert "STOP" not in [event["event"] for event in guest.events_since(mark)]
    assert guest.tags() == {}


def test_the_pause_that_is_told_is_the_one_between_the_events(guest):
    mark = guest.mark()
    saved = guest.save("t", mode="live")
    stamps = {}
    for name in ("STOP", "RESUME"):
        stamp = guest.wait_event(name, mark)["timestamp"]
        stamps[name] = stamp["seconds"] * 1_000_000 + stamp["microseconds"]
    pause_us = stamps["RESUME"] - stamps["STOP"]
    assert abs(pause_us * 1000 - saved["pause-ns"]) < 1_000_000
    assert saved["bytes"] > images.MEBIBYTE


@pytest.mark.parametrize("mode", ["live", "precopy", "paused"])
def test_the_guests_clock_is_that_of_the_moment(guest_for, mode):
    guest = guest_for(mode)

    def saved(tag):
        """The clock that the snapshot tells, and when QEMU stopped and went on, in seconds."""
        mark = guest.mark()
        guest.save(tag, mode=mode)
        stamps = [guest.wait_event(name, mark)["timestamp"] for name in ("STOP", "RESUME")]
        entry = next(entry for entry in guest.node(DISKS[0])["image"]["snapshots"] if entry["name"] == tag)
        return (entry["vm-clock-sec"] + entry["vm-clock-nsec"] / 1e9,
                *(stamp["seconds"] + stamp["microseconds"] / 1e6 for stamp in stamps))

    clock, _, resumed = saved("a")
    time.sleep(3)
    asked = time.time()
    later, stopped, _ = saved("b")
    # The clock goes on a little after RESUME and stands still a little before STOP: on a busy machine by how much is open.
    assert asked - resumed - 1 < later - clock < stopped - resumed + 0.05
    assert clock > 1, "the guest was booted before its fixture was saved"


def test_the_pause_of_a_live_save_is_short(guest):
    # One vCPU thread and a compiler beside it can hold the agent up for longer than the pause itself; the distribution
    # is what tools/bench measures, on a machine of its own.
    pauses = []
    while len(pauses) < 8 and min(pauses, default=LONGEST_PAUSE_NS + 1) > LONGEST_PAUSE_NS:
        pauses.append(guest.save(f"t{len(pauses)}", mode="live")["pause-ns"])
    assert min(pauses) <= LONGEST_PAUSE_NS, pauses


def test_auto_is_live_where_the_host_allows_it(guest):
    saved = guest.save("t")
    if os.geteuid() == 0 or pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() == "1":
        assert saved["way"] == "live", saved
    else:
        assert saved["way"] == "paused" and saved["reason"]


def test_load_of_a_running_guest_goes_on_running(guest):
    guest.save("t")
    saved_at = guest.console.counter()
    time.sleep(1)
    later = guest.console.counter()
    guest.load("t")
    assert guest.execute("query-status")["running"] is True
    assert guest.console.counter() < later and later > saved_at
    consistency.check_going_on(guest.console)


def test_a_paused_guest_stays_paused(guest):
    guest.execute("stop")
    for tag in ("first", "second"):
        saved = guest.save(tag)
        assert saved["way"] == "paused" and "pause-ns" not in saved
        assert guest.execute("query-status")["status"] == "paused"
    guest.load("first")
    assert guest.execute("query-status")["status"] == "paused"
    guest.execute("cont")
    consistency.check_going_on(guest.console)


def test_disks_alone_can_be_saved_beside_a_guest(guest):
    saved = guest.save("t", mode="disks")
    assert saved["way"] == "disks" and saved["bytes"] == 0
    guest.console.assert_advances()
    for image in guest.images:
        assert images.snapshots(image)["t"]["vm-state-size"] == 0


def test_progress_moves_in_bytes(guest):
    guest.console.ask("touch 48")
    guest.execute("snapshot-save", job_id="j", tag="t", vmstate=DISKS[0], devices=DISKS, mode="live")
    seen = set()
    while (job := guest.job("j"))["status"] != "concluded":
        seen.add(job["current-progress"])
    guest.wait_job("j")
    assert len(seen) > 2 and max(seen) > images.MEBIBYTE, sorted(seen)


def test_the_monitor_answers_during_a_save(guest):
    guest.console.ask("touch 48")
    guest.execute("snapshot-save", job_id="j", tag="t", vmstate=DISKS[0], devices=DISKS, mode="live")
    slowest = 0.0
    while guest.job("j")["status"] != "concluded":
        start = time.monotonic()
        guest.execute("query-version")
        slowest = max(slowest, time.monotonic() - start)
    guest.wait_job("j")
    assert slowest < 1.0


def test_an_earlier_snapshot_survives_a_later_one(guest, directory):
    guest.save("one", mode="live")
    consistency.let_it_write(guest.console)
    guest.save("two", mode="live")
    guest.delete("two")
    physical = guest.console.report()["physical"]
    guest.execute("stop")
    guest.load("one")
    consistency.check_snapshot(read_page(guest, physical, directory), guest.images, "one", directory)
    guest.execute("cont")
    consistency.check_going_on(guest.console)


def test_a_snapshot_that_qemu_made_is_loaded(directory):
    with GuestAgent(directory, loads=False) as guest:
        assert guest.tags()["booted"]["mixed"] is True
        guest.load("booted")
        assert guest.execute("query-status")["running"] is False
        guest.execute("cont")
        consistency.check_going_on(guest.console)


def test_delete_is_refused_while_the_tree_is_read(guest, directory):
    mountpoint = directory / "tree"
    mountpoint.mkdir()
    guest.save("t")
    guest.execute("snapshot-export-add", id="tree", mountpoint=str(mountpoint))
    with open(mountpoint / "t" / "disk0" / "disk.raw", "rb") as held:
        held.read(4096)
        with pytest.raises(Exception, match="(?i)in use|open|held|tree"):
            guest.delete("t")
        assert "t" in guest.tags()
        assert all("t" in images.snapshots(image) for image in guest.images)
