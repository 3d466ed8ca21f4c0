"""A load that fails in the middle: the guest goes on as it was, or stays stopped on its own disks and says why."""

import pytest

from harness import consistency
from harness.guests import DISKS
from harness.monitor import CommandError, JobError
from harness.strike import Striker, points_of, points_of_replacement

# Up to here the guest's memory is what it was.
IN_PLACE = points_of("load")
HARMLESS = IN_PLACE[:IN_PLACE.index("load.state")]
REPLACING = points_of_replacement()[:points_of_replacement().index("load.committed")]


@pytest.fixture
def striker(guest):
    guest.save("t")
    return Striker(guest)


def fail_at(striker, point, **arguments):
    """A load of snapshot `t` that fails there. Returns what the guest's writers had written."""
    striker.restart(f"{point}=error")
    guest = striker.guest
    assert guest.console.ask("quiesce")["whole"] == [True, True, True]
    before = guest.console.report()["writers"]
    with pytest.raises(JobError, match=f"Fault point '{point}' was told to fail"):
        guest.load("t", **arguments)
    assert guest.execute("query-intents") == []
    for disk in DISKS:
        assert guest.snapshot_names(disk) == ["t"], f"{point}: an undo is left"
    return before


def assert_went_on(guest, before):
    assert guest.execute("query-status")["status"] == "running"
    assert guest.console.report()["writers"] == before
    consistency.check_going_on(guest.console)


def assert_loads_later(striker):
    """Nothing of the failures stands in the way, for the next agent either."""
    striker.restart()
    guest = striker.guest
    guest.load("t")
    if guest.execute("query-status")["status"] == "paused":  # As it was when the load began.
        guest.execute("cont")
    consistency.check_going_on(guest.console)
    guest.stop()
    guest.check_images()


def test_before_the_memory_is_touched_the_guest_goes_on(striker):
    for point in HARMLESS:
        assert_went_on(striker.guest, fail_at(striker, point))
    assert_loads_later(striker)


def test_a_replacement_that_fails_leaves_the_old_process(striker):
    guest = striker.guest
    pid = guest.pid
    for point in REPLACING:
        before = fail_at(striker, point, way="replace")
        assert guest.pid == pid and guest.qemu_pids() == [pid]
        assert_went_on(guest, before)
    assert_loads_later(striker)


@pytest.mark.parametrize("point", ["load.state", "load.commit"])
def test_a_guest_without_its_memory_stays_stopped_until_it_is_loaded(striker, point):
    guest = striker.guest
    fail_at(striker, point)
    for _ in range(2):
        information = guest.execute("query-guest")
        assert information["memory-lost"] and information["status"] != "running"
        with pytest.raises(CommandError, match="memory was lost"):
            guest.execute("cont")
        striker.restart()  # The next agent knows it too.
    assert_loads_later(striker)
