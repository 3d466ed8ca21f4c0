"""A guest whose QMP says what is no QMP, or breaks off, while QEMU itself lives."""

import contextlib
import time

import pytest

from harness import consistency
from harness.guests import DISKS
from harness.monitor import JobError
from harness.proxy import QMPProxy

GARBAGE = {
    "no JSON": b"\x00\xff{]garbage\n", "no end": b"[" * 100_000, "a list": b"[1, 2, 3]\n", "a number": b"17\n",
    "an answer to nobody": b'{"return": {}, "id": 99999999}\n', "an event without a name": b'{"event": 5}\n',
    "an event without data": b'{"event": "STOP"}\n', "an error of no kind": b'{"error": {"class": 1}}\n',
    "a second greeting": b'{"QMP": {"version": {}, "capabilities": []}}\n', "a half word": b'{"return": ',
}


@pytest.fixture
def proxy(guest):
    """The agent speaks to its guest through it."""
    assert guest.end_agent() == 0
    between = QMPProxy(guest.runtime / guest.name / "qemu/guest.qmp")
    guest.restart()
    yield between
    between.close()


def wait_answer(guest, timeout=30):
    deadline = time.monotonic() + timeout
    while guest.execute("query-guest")["status"] != "running":
        assert time.monotonic() < deadline, guest.execute("query-guest")
        time.sleep(0.1)


def test_garbage_costs_a_connection_at_most(guest, proxy):
    for what, words in GARBAGE.items():
        # The agent may be gone before all is said.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            proxy.say(words)
        if what == "a half word":
            proxy.cut()
        wait_answer(guest)
        print(f"{what}: connection {proxy.connections}")
    assert proxy.connections > 2
    assert guest.save("t", mode="live")["way"] == "live"
    guest.load("t")
    consistency.check_going_on(guest.console)


@pytest.mark.parametrize("how", ["garbage", "cut"])
@pytest.mark.parametrize("point", ["save.armed", "save.held", "save.stream", "save.attach"])
def test_a_connection_that_is_lost_in_a_save(guest, point, how):
    assert guest.end_agent() == 0
    guest.environment["COLDFRAME_FAULT"] = f"{point}=pause:500"
    proxy = QMPProxy(guest.runtime / guest.name / "qemu/guest.qmp")
    guest.restart()
    guest.execute("snapshot-save", job_id="j", tag="t", vmstate=DISKS[0], devices=DISKS, mode="live")
    time.sleep(0.3)
    proxy.say(GARBAGE["no JSON"]) if how == "garbage" else proxy.cut()
    try:
        guest.wait_job("j")
        assert set(guest.tags()) == {"t"}
    except JobError:
        assert guest.tags() == {}
    wait_answer(guest)
    assert guest.execute("query-intents") == []
    consistency.check_going_on(guest.console)
    assert guest.save("after", mode="live")["way"] == "live"
    guest.stop()
    guest.check_images()
    proxy.close()
