"""A load by replacement: a second QEMU takes the state while the first one runs, and then its place."""

import socket
import struct
import time

import pytest

from harness import consistency
from harness.agent import GuestAgent
from harness.fixture import TAG
from harness.guests import DISKS, read_page
from harness.monitor import JobError
from harness.qemu import process_is_alive

REPLACE = {"way": "replace"}


def test_a_running_guest_is_replaced_again_and_again(guest):
    guest.save("t")
    for _ in range(3):
        time.sleep(0.5)
        before, old = guest.console.counter(), guest.pid
        mark = guest.mark()
        guest.load("t", **REPLACE)
        assert guest.pid != old and not process_is_alive(old)
        assert guest.qemu_pids() == [guest.pid]
        assert guest.execute("query-guest")["status"] == "running"
        assert guest.console.counter() < before
        # The end of the old process is nobody's business.
        assert {event["event"] for event in guest.events_since(mark)} == {"STOP", "RESUME", "JOB_STATUS_CHANGE"}
        consistency.check_going_on(guest.console)
    # It is a guest as any other.
    guest.kill()
    guest.restart()
    for way in ("live", "paused"):
        assert guest.save(way, mode=way)["way"] == way
    guest.load("live")
    consistency.check_going_on(guest.console)
    assert set(guest.tags()) == {"t", "live", "paused"}
    guest.stop()
    guest.check_images()


@pytest.mark.parametrize("mode", ["live", "precopy", "paused"])
def test_ram_and_disks_are_of_the_moment_of_the_save(guest_for, directory, mode):
    guest = guest_for(mode)
    assert guest.save("t", mode=mode)["way"] == mode
    physical = guest.console.report()["physical"]
    time.sleep(0.5)
    guest.execute("stop")
    guest.load("t", **REPLACE)
    assert guest.execute("query-status")["running"] is False
    consistency.check_snapshot(read_page(guest, physical, directory), guest.images, "t", directory)
    guest.execute("cont")
    consistency.check_going_on(guest.console)


def test_sockets_of_the_command_are_the_new_processs(guest, directory):
    names = sorted(path.name for path in directory.glob("*.sock*"))
    guest.save("t")
    guest.load("t", **REPLACE)
    assert sorted(path.name for path in directory.glob("*.sock*")) == names
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(directory / "heartbeat.sock"))
        pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    assert pid == guest.pid


def test_a_state_that_does_not_load_costs_nothing(directory):
    guest = GuestAgent(directory, loads=False)
    guest.extra = ["-m", "256"]
    with guest:
        pid = guest.execute("query-guest")["pid"]
        with pytest.raises(JobError, match="has not taken the state.*ize mismatch"):
            guest.load(TAG, **REPLACE)
        information = guest.execute("query-guest")
        assert (information["pid"], information["status"]) == (pid, "prelaunch")
        assert "memory-lost" not in information
        assert guest.qemu_pids() == [pid]
        assert guest.execute("query-intents") == []
        assert set(guest.tags()) == {TAG}


def test_what_two_processes_cannot_have_is_named_before_anything_is_done(directory):
    guest = GuestAgent(directory)
    guest.extra = ["-pidfile", str(directory / "pid"), "-chardev", f"file,id=log,path={directory}/log"]
    with guest:
        guest.save("t")
        with pytest.raises(JobError) as refusal:
            guest.load("t", **REPLACE)
        for words in ("'-pidfile'", "chardev 'log'", "append=on", "way 'in-place'"):
            assert words in str(refusal.value)
        assert guest.qemu_pids() == [guest.pid]
        guest.console.assert_advances()


def test_a_cancel_leaves_the_guest_as_it_was(directory):
    with GuestAgent(directory, environment={"COLDFRAME_FAULT": "replace.fed=pause:400"}) as guest:
        guest.save("t")
        before = guest.console.counter()
        guest.execute("snapshot-load", job_id="j", tag="t", vmstate=DISKS[0], devices=DISKS, **REPLACE)
        while len(guest.qemu_pids()) < 2:
            time.sleep(0.01)
        guest.execute("job-cancel", id="j")
        with pytest.raises(JobError, match="canceled"):
            guest.wait_job("j")
        assert guest.qemu_pids() == [guest.pid]
        assert guest.console.counter() > before
        consistency.check_going_on(guest.console)


def test_the_command_line_can_ask_for_it(guest):
    guest.save("t")
    old = guest.pid
    guest.cli("snapshot", "load", guest.name, "t", "--way", "replace")
    guest.follow()
    assert guest.pid != old
    guest.console.assert_advances()
