"""The agent is killed at every named point of every operation, under a guest that writes: nothing is half done.

tools/test runs a slice that the seed chooses; tools/soak sets COLDFRAME_KILLS=all and a number of random moments.
"""

import os
import random
import time

import pytest

from conftest import SEED
from harness import consistency
from harness.monitor import JobError
from harness.strike import MODES, RECOVERY_POINTS, Striker, points_of, points_of_replacement

ALL = os.environ.get("COLDFRAME_KILLS") == "all"
MOMENTS = int(os.environ.get("COLDFRAME_MOMENTS", "6"))


@pytest.fixture(params=["started", "attached"])
def kind(request):
    return request.param


@pytest.fixture
def striker(guest_for, kind):
    return Striker(guest_for("live", attached=kind == "attached"))


def slice_of(points, chance, count=3):
    return points if ALL else sorted(chance.sample(points, count), key=points.index)


def chosen(points, count):
    """The same for tests of which each has a guest of its own."""
    return slice_of(points, random.Random(f"{SEED} chosen {len(points)}"), count)


@pytest.mark.parametrize("mode", MODES)
def test_killed_in_a_save(guest_for, kind, chance, mode):
    striker = Striker(guest_for(mode, attached=kind == "attached"))
    for point in slice_of(points_of("save"), chance, 2):
        striker.kill_at(point, "snapshot-save", "t", mode=mode)
        if striker.check("t", exists=point == "save.committed"):
            striker.guest.delete("t")
        print(f"{mode}: killed at {point}, whole or gone")
    striker.guest.save("after", mode=mode)
    striker.guest.stop()
    striker.guest.check_images()


def test_killed_in_a_load(striker, chance):
    guest, points = striker.guest, points_of("load")
    guest.save("t")
    for point in slice_of(points, chance, 3):
        # The saved guest writes, this one does not any more: so they can be told apart.
        assert guest.console.ask("quiesce")["whole"] == [True, True, True]
        before = guest.console.report()["writers"]
        striker.kill_at(point, "snapshot-load", "t")
        striker.check("t", exists=True)
        loaded = striker.seen["writers"] != before
        assert loaded == (points.index(point) >= points.index("load.feed")), \
            f"killed at {point}, the guest is {'the loaded one' if loaded else 'the old one'}"
        print(f"killed at {point}: {'loaded' if loaded else 'as before'}")
    guest.load("t")
    guest.console.assert_advances()


def test_killed_in_a_load_by_replacement(guest, chance):
    striker, points = Striker(guest), points_of_replacement()
    guest.save("t")
    for point in slice_of(points, chance, 4):
        assert guest.console.ask("quiesce")["whole"] == [True, True, True]
        before, pid = guest.console.report()["writers"], guest.pid
        striker.kill_at(point, "snapshot-load", "t", way="replace")
        striker.check("t", exists=True)
        loaded = striker.seen["writers"] != before
        assert loaded == (guest.pid != pid) == (points.index(point) >= points.index("load.committed")), \
            f"killed at {point}, the guest is {'the loaded one' if loaded else 'the old one'}"
        print(f"killed at {point}: {'the new process' if loaded else 'the old process'}")
    guest.load("t", way="replace")
    guest.console.assert_advances()


def test_killed_in_a_delete(striker, chance):
    for point in slice_of(points_of("delete"), chance):
        if not striker.guest.tags():
            striker.guest.save("t")
        striker.kill_at(point, "snapshot-delete", "t")
        striker.check("t", exists=point == "delete.begin")
        print(f"killed at {point}")


def test_killed_again_while_it_recovers(guest, chance):
    striker = Striker(guest)
    pairs = [(first, second) for first, seconds in RECOVERY_POINTS.items() for second in seconds]
    for first, second in slice_of(pairs, chance, 3):
        operation = first.split(".")[0]
        way = {"way": "replace"} if first in ("replace.passed", "load.continued") else {}
        command = "snapshot-" + ("load" if operation == "replace" else operation)
        if command != "snapshot-save" and not striker.guest.tags():
            striker.guest.save("t")
        elif command == "snapshot-save" and striker.guest.tags():
            striker.guest.delete("t")
        striker.kill_at(first, command, "t", **way)
        striker.kill_recovery_at(second)
        striker.check("t", exists=command == "snapshot-load")
        print(f"killed at {first}, then at {second}")


def test_killed_at_any_moment(striker, kind, chance):
    for _ in range(MOMENTS):
        command = chance.choice(["snapshot-save", "snapshot-load", "snapshot-delete"])
        there = "t" in striker.guest.tags()
        arguments = {}
        if command == "snapshot-save":
            arguments["mode"] = chance.choice(["live", "paused"])
            if there:
                striker.guest.delete("t")
        elif not there:
            striker.guest.save("t")
        if command == "snapshot-load":
            arguments["way"] = "in-place" if kind == "attached" else chance.choice(["in-place", "replace"])
        moment = chance.uniform(0, 1.2)
        striker.begin(command, "t", **arguments)
        time.sleep(moment)
        striker.guest.kill()
        striker.count("kills at random moments")
        whole = striker.check("t")
        print(f"{command} {' '.join(arguments.values())} killed after {moment * 1000:.0f} ms: "
              f"{'there' if whole else 'gone'}")


def test_the_keeper_alone_is_killed_in_a_save(striker, chance):
    """The agent goes on without, and has another one for the next save."""
    guest = striker.guest
    for point in slice_of(points_of("save"), chance, 2):
        for mode in ["live", "paused"] if ALL else [chance.choice(["live", "paused"])]:
            # Short enough that the save behind it, which waits there too, holds the guest for less than it may.
            striker.restart(f"{point}=pause:250")
            striker.begin("snapshot-save", "t", mode=mode)
            time.sleep(0.15)
            guest.kill_keeper()
            striker.count("kills of the keeper alone")
            try:
                guest.wait_job("j-t")
            except JobError as error:
                assert "keeper" in str(error) or "barrier" in str(error) or "held" in str(error), error
                assert guest.tags() == {}
            consistency.check_going_on(guest.console)
            guest.save("after", mode="live")
            assert len(guest.keeper_pids()) == 1
            striker.check("after", exists=True)
            for tag in guest.tags():
                guest.delete(tag)


@pytest.mark.parametrize("point", ["save.armed", "save.held", "save.stream", "save.attach"])
def test_keeper_and_agent_are_killed_in_a_live_save(guest, point):
    """Nobody is left to read the capture; the next agent thaws the guest."""
    striker = Striker(guest)
    striker.restart(f"{point}=pause:700")
    striker.begin("snapshot-save", "t", mode="live")
    time.sleep(0.35)
    striker.guest.kill_keeper()
    striker.guest.kill()
    striker.check("t", exists=False)
    assert striker.guest.save("after", mode="live")["way"] == "live"


@pytest.mark.parametrize("point", ["save.armed", "save.held", "save.stream", "save.attach", "load.stopped", "load.state"])
def test_the_guest_is_killed(guest, point):
    """Its disks are whole, the agent goes on, and nothing is left of what was under way."""
    striker = Striker(guest)
    if point.startswith("load"):
        guest.save("t")
    striker.restart(f"{point}=pause:500")
    striker.begin("snapshot-" + point.split(".")[0], "t", **({"mode": "live"} if point.startswith("save") else {}))
    time.sleep(0.25)
    striker.kill_guest()
    striker.check_without_guest({"t"} if point.startswith("load") else set())
    guest.restart(has_guest=False)


@pytest.mark.parametrize("point", chosen(points_of("save") + points_of("load") + points_of("delete"), 3))
def test_the_guest_and_the_agent_are_killed(guest, point):
    striker, operation = Striker(guest), point.split(".")[0]
    if operation != "save":
        guest.save("t")
    striker.kill_at(point, f"snapshot-{operation}", "t", **({"mode": "live"} if operation == "save" else {}))
    os.kill(guest.pid, 9)
    striker.count("kills of guest and agent")
    guest.disconnect()
    guest.environment.pop("COLDFRAME_FAULT")
    guest.restart(has_guest=False)
    is_there = operation == "load" or point in ("save.committed", "delete.begin")
    striker.check_without_guest({"t"} if is_there else set())
    guest.restart(has_guest=False)


@pytest.mark.parametrize("point", ["replace.spawned", "replace.fed", "load.stopped", "replace.passed"])
def test_the_old_process_is_killed_in_a_load_by_replacement(guest, point):
    """Before the commit the guest has died, and its disks are what it had written; after it the new process is the guest."""
    striker = Striker(guest)
    guest.save("t")
    striker.restart(f"{point}=pause:2000")
    mark, old = guest.mark(), guest.pid
    striker.begin("snapshot-load", "t", way="replace")
    wait_for_point(guest, point, mark)
    os.kill(old, 9)
    if point == "replace.passed":
        guest.wait_job("j-t")
        guest.follow()
        assert guest.pid != old
        striker.check("t", exists=True)
    else:
        with pytest.raises(Exception, match="(?i)guest|QEMU"):
            guest.wait_job("j-t")
        striker.check_without_guest({"t"})
        guest.restart(has_guest=False)


@pytest.mark.parametrize("point", ["replace.spawned", "replace.fed", "load.stopped"])
def test_the_new_process_is_killed_in_a_load_by_replacement(guest, point):
    """The old one goes on as if nothing had been."""
    striker = Striker(guest)
    guest.save("t")
    striker.restart(f"{point}=pause:2000")
    mark, pid, before = guest.mark(), guest.pid, guest.console.counter()
    striker.begin("snapshot-load", "t", way="replace")
    os.kill(wait_for_point(guest, point, mark), 9)
    with pytest.raises(Exception, match="new process has not taken the state"):
        guest.wait_job("j-t")
    assert guest.console.counter() > before
    striker.check("t", exists=True)
    assert guest.pid == pid


@pytest.mark.parametrize("victim", ["old", "new"])
@pytest.mark.parametrize("point", ["replace.fed", "replace.passed", "load.continued"])
def test_a_process_and_the_agent_are_killed_in_a_load_by_replacement(guest, point, victim):
    striker = Striker(guest)
    guest.save("t")
    pid = guest.pid
    striker.kill_at(point, "snapshot-load", "t", way="replace")
    processes = guest.qemu_pids()
    assert len(processes) == 2 and processes[0] == pid
    os.kill(processes[0 if victim == "old" else 1], 9)
    goes_on = (victim == "old") == (point == "load.continued")
    if goes_on:
        striker.check("t", exists=True)
        assert (guest.pid == pid) == (point != "load.continued")
    else:
        guest.disconnect()
        guest.environment.pop("COLDFRAME_FAULT")
        guest.restart(has_guest=False)
        striker.check_without_guest({"t"})
        guest.restart(has_guest=False)


def wait_for_point(guest, point, mark):
    """Until the agent waits at a point of a load by replacement, or soon will. Returns the new process."""
    deadline = time.monotonic() + 30
    while len(processes := guest.qemu_pids()) < 2:
        assert time.monotonic() < deadline, "no second process"
        time.sleep(0.02)
    if point in ("load.stopped", "replace.passed"):
        guest.wait_event("STOP", mark)
    time.sleep(1)
    return processes[-1]
