"""A mirror or commit that is completed while a save is under way goes on when that has ended."""

import os
import signal
import time

import pytest

from harness import consistency
from harness.chains import add_layer
from harness.guests import DISKS
from harness.moves import add_copies, assert_on
from harness.reference import wait_gone, wait_status


def start_save_and_hold(guest):
    """A live save whose disks are cut and whose state does not come to its end: QEMU is stopped."""
    mark = guest.mark()
    guest.execute("snapshot-save", job_id="save", tag="t", vmstate="disk0", devices=DISKS)
    guest.wait_event("RESUME", mark)
    os.kill(guest.pid, signal.SIGSTOP)


def assert_waits(guest):
    """The mirror is at its end, and stays there as long as the save does."""
    def busy():
        return [job["busy"] for job in guest.execute("query-block-jobs") if job["status"] == "ready"]
    deadline = time.monotonic() + 20
    while busy() == [False]:
        assert time.monotonic() < deadline, "the mirror does not notice that it is to be completed"
    for _ in range(50):
        assert {job["id"]: job["status"] for job in guest.execute("query-jobs")} == {"save": "running", "j": "ready"}
        assert busy() == [True]


def begin_mirror(guest, directory):
    add_copies(guest, directory)
    start_save_and_hold(guest)
    guest.execute("blockdev-mirror", job_id="j", device="disk0", target="copy0", sync="full")


def begin_commit(guest, directory):
    """Of a chain that is not the guest's: a commit begins before a save or after it."""
    for node, backing in (("low", None), ("high", "low")):
        add_layer(guest, directory, node, backing=backing)
    guest.execute("block-commit", job_id="j", device="high")
    guest.wait_event("BLOCK_JOB_READY")
    start_save_and_hold(guest)


@pytest.mark.parametrize("begin, verb", [(begin_mirror, "complete"), (begin_commit, "complete"), (begin_mirror, "cancel"),
                                         (begin_commit, "pause")])
def test_a_pivot_waits_for_a_save(guest, directory, begin, verb):
    mark = guest.mark()
    try:
        begin(guest, directory)
        guest.wait_event("BLOCK_JOB_READY", mark)
        guest.execute("job-complete", id="j")
        assert_waits(guest)
        if verb == "cancel":
            guest.execute("job-cancel", id="j")
            guest.wait_event("BLOCK_JOB_CANCELLED", mark)
            assert guest.job("save")["status"] == "running"
        if verb == "pause":
            guest.execute("job-pause", id="j")
    finally:
        os.kill(guest.pid, signal.SIGCONT)
    guest.wait_job("save")
    if verb == "pause":
        # It takes effect when its turn comes, though nobody has written anything that would have to be copied first.
        wait_status(guest, mark, "j", "standby")
        guest.execute("job-resume", id="j")
    wait_gone(guest, "j")
    ends = [event["event"] for event in guest.events_since(mark)
            if event["event"] in ("SNAPSHOT_SAVED", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")]
    assert ends == (["BLOCK_JOB_CANCELLED", "SNAPSHOT_SAVED"] if verb == "cancel"
                    else ["SNAPSHOT_SAVED", "BLOCK_JOB_COMPLETED"])
    has_moved = verb != "cancel" and begin is begin_mirror
    assert_on(guest, ["copy0", *DISKS[1:]] if has_moved else DISKS)
    if begin is begin_commit:
        guest.execute("blockdev-del", node_name="high")
    consistency.check_going_on(guest.console)
    assert guest.execute("snapshot-check", tag="t")["ok"]
    if not has_moved:
        guest.load("t")
        consistency.check_going_on(guest.console)
