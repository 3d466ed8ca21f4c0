"""Cancel at random moments: no trace of the tag, the guest runs on, the images are clean."""

import os
import time

import pytest

from harness import consistency, images
from harness.agent import GuestAgent
from harness.guests import DISKS, NEWER_QEMU, QEMU
from harness.monitor import CommandError, JobError

CANCELS = int(os.environ.get("COLDFRAME_CANCELS", "3"))


def cancel_after(guest, mode, seconds):
    """Starts a save, cancels it then; returns whether the cancel came in time."""
    guest.execute("snapshot-save", job_id="j", tag="t", vmstate=DISKS[0], devices=DISKS, mode=mode)
    time.sleep(seconds)
    try:
        guest.execute("job-cancel", id="j")
    except CommandError as error:
        assert "cannot accept command verb 'cancel'" in error.description
    try:
        guest.wait_job("j")
        return False
    except JobError as error:
        assert "cancel" in str(error).lower(), error
        return True


def assert_no_trace(guest):
    assert guest.execute("query-status")["status"] == "running"
    guest.console.assert_advances()
    assert "t" not in guest.tags()
    for image in guest.images:
        assert "t" not in images.snapshots(image)


@pytest.mark.parametrize("qemu, modes, share", [(QEMU, ["live", "paused"], 2), (NEWER_QEMU, ["precopy"], 1)],
                         ids=["qemu", "newer-qemu"])
def test_cancels_at_random_moments_leave_no_trace(directory, chance, qemu, modes, share):
    with GuestAgent(directory, qemu=qemu) as guest:
        guest.console.ask("touch 64")
        length = {}
        for mode in modes:
            start = time.monotonic()
            guest.save(mode, mode=mode)
            length[mode] = time.monotonic() - start
        in_time = 0
        for number in range(max(2, CANCELS * share // 3)):
            mode = modes[number % len(modes)]
            moment = chance.uniform(0, 0.7 * length[mode])
            start = time.monotonic()
            cancelled = cancel_after(guest, mode, moment)
            print(f"cancel {number + 1}: {mode} after {moment * 1000:.0f} ms, "
                  f"{'in time' if cancelled else 'too late'}")
            if cancelled:
                in_time += 1
                assert_no_trace(guest)
            else:
                # The machine was busy when the first save was timed.
                length[mode] = min(length[mode], time.monotonic() - start)
                guest.delete("t")
        saved = guest.save("after", mode="live")
        assert saved["way"] == "live"
        guest.load("after")
        consistency.check_going_on(guest.console)
        guest.stop()
        guest.check_images()
        assert in_time > 0, "no cancel came in time: the save is over too soon"


@pytest.mark.parametrize("mode", ["live", "precopy", "paused"])
def test_cancel_at_once(guest_for, mode):
    guest = guest_for(mode)
    if cancel_after(guest, mode, 0):
        assert_no_trace(guest)


def test_cancel_while_the_guest_was_paused_leaves_it_paused(guest):
    guest.execute("stop")
    cancel_after(guest, "auto", 0.02)
    assert guest.execute("query-status")["running"] is False


@pytest.mark.parametrize("point", ["save.begin", "save.armed", "save.held", "save.cut.disk1", "save.stream",
                                   "save.attach", "save.commit"])
def test_a_failure_at_each_step_leaves_no_trace(directory, point):
    with GuestAgent(directory, environment={"COLDFRAME_FAULT": f"{point}=error"}) as guest:
        with pytest.raises(JobError, match="was told to fail"):
            guest.save("t", mode="live")
        assert_no_trace(guest)
        guest.stop()
        guest.check_images()
