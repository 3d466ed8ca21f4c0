"""Guests and clients that do the wrong thing at the worst moment."""

import os
import signal
import time

import pytest

from harness import consistency
from harness.agent import GuestAgent
from harness.guests import DISKS
from harness.monitor import Monitor


def begin(guest, command, tag, **arguments):
    guest.execute(command, job_id="j", tag=tag, vmstate=DISKS[0], devices=DISKS, **arguments)


def conclude(guest, timeout=60):
    """Waits for the job and takes it away; its error or None."""
    deadline = time.monotonic() + timeout
    while (job := guest.job("j"))["status"] != "concluded":
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
    guest.execute("job-dismiss", id="j")
    return job.get("error")


def test_a_qemu_that_hangs_holds_up_nobody(guest):
    pid = guest.execute("query-guest")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert guest.execute("query-guest")["status"] == "unresponsive"
        assert time.monotonic() - started < 10
        assert len(guest.execute("query-named-block-nodes")) >= len(DISKS)
        guest.connect_second().execute("query-jobs")
    finally:
        os.kill(pid, signal.SIGCONT)
    guest.console.assert_advances()
    guest.save("t")


def test_a_qemu_that_hangs_in_a_save_goes_on_when_it_can(guest):
    pid = guest.execute("query-guest")["pid"]
    begin(guest, "snapshot-save", "t", mode="live")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5)
    guest.execute("job-cancel", id="j")
    os.kill(pid, signal.SIGCONT)
    error = conclude(guest)
    assert set(guest.tags()) == (set() if error else {"t"})
    consistency.check_going_on(guest.console)


def test_a_qemu_that_hangs_for_good_can_be_ended(guest):
    pid = guest.execute("query-guest")["pid"]
    os.kill(pid, signal.SIGSTOP)
    guest.execute("guest-del", force=True)
    with pytest.raises(Exception, match="has no guest"):
        guest.execute("query-guest")
    guest.stop()
    guest.check_images()


@pytest.mark.parametrize("point", ["save.armed", "save.stream"])
def test_a_guest_that_powers_off_in_a_save(directory, point):
    with GuestAgent(directory, environment={"COLDFRAME_FAULT": f"{point}=pause:400"}) as guest:
        begin(guest, "snapshot-save", "t", mode="live")
        guest.console.send("poweroff")
        conclude(guest)
        deadline = time.monotonic() + 60
        while True:
            try:
                guest.execute("query-guest")
            except Exception as error:
                assert "has no guest" in str(error)
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert guest.execute("query-intents") == []
        # Whole or gone, as the race went.
        assert len({tuple(guest.snapshot_names(disk)) for disk in DISKS}) == 1
        guest.stop()
        guest.check_images()


@pytest.mark.parametrize("command", ["stop", "cont", "migrate_cancel", "system_reset", "yank", "snapshot-save"])
def test_commands_that_would_disturb_a_save_are_refused(guest, command):
    arguments = {"yank": {"instances": []},
                 "snapshot-save": {"job_id": "k", "tag": "k", "vmstate": DISKS[0], "devices": DISKS}}
    # So much that the RAM is still on its way when the guest goes on.
    guest.console.ask("touch 80")
    mark = guest.mark()
    begin(guest, "snapshot-save", "t", mode="live")
    guest.wait_event("RESUME", mark)
    if command == "snapshot-save":
        guest.execute(command, **arguments[command])  # It waits for its turn.
    else:
        with pytest.raises(Exception, match="has to wait"):
            guest.execute(command, **arguments.get(command, {}))
    assert conclude(guest) is None
    if command == "snapshot-save":
        guest.wait_job("k")
    consistency.check_going_on(guest.console)


def test_quit_in_a_save_ends_all_in_order(directory):
    with GuestAgent(directory, environment={"COLDFRAME_FAULT": "save.stream=pause:300"}) as guest:
        begin(guest, "snapshot-save", "t", mode="live")
        guest.execute("quit")
        assert guest.wait_end(60) == 0
        guest.check_images()


def test_a_guest_that_is_made_to_run_in_a_load_is_left_as_it_was(directory):
    """By a monitor of its own, behind the agent's back."""
    own = directory / "own.qmp"
    guest = GuestAgent(directory, environment={"COLDFRAME_FAULT": "load.stopped=pause:600"})
    guest.extra = ["-qmp", f"unix:{own},server=on,wait=off"]
    with guest:
        guest.save("t")
        before = guest.console.counter()
        begin(guest, "snapshot-load", "t")
        monitor = Monitor(own)
        deadline = time.monotonic() + 20
        while monitor.execute("query-status")["status"] == "running":
            assert time.monotonic() < deadline
        monitor.execute("cont")
        assert "was made to run" in conclude(guest)
        assert guest.console.counter() > before
        consistency.check_going_on(guest.console)
        assert set(guest.tags()) == {"t"}
        monitor.close()
