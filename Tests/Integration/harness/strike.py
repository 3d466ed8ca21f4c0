"""Kills agents, keepers and guests in the middle of what they do, and looks at what is left."""

import os
import time

import pytest

from . import consistency, tally
from .attached import AttachedAgent
from .campaign import listed_points
from .guests import DISKS

MODES = ["live", "precopy", "paused"]
# Passed by the agent that brings an interrupted operation to its end.
RECOVERY_POINTS = {
    "save.stream": ["recovery.begin", "recovery.delete.disk1", "recovery.done", "recovery.settled",
                    "recovery.leaks.disk0", "recovery.leaks-freed.disk0"],
    "load.rewind.disk2": ["recovery.revert.disk2", "recovery.delete.disk0", "recovery.done", "recovery.settled"],
    "load.state": ["recovery.revert.disk0", "recovery.delete.disk2", "recovery.settled"],
    "load.commit": ["recovery.delete.disk1", "recovery.settled"],
    "replace.passed": ["recovery.replaced", "recovery.revert.disk1", "recovery.settled"],
    "load.continued": ["recovery.replaced", "recovery.delete.disk1", "recovery.settled"],
    "delete.disk1": ["recovery.delete.disk2", "recovery.done"],
}


def points_of(operation):
    """Fault points of an operation under a guest, in the order in which they are passed."""
    return [point for point in listed_points(DISKS) if point.split(".")[0] == operation and point != "load.lost"]


def points_of_replacement():
    """The same for a load by replacement. At `load.committed` the new process is the guest."""
    rewinds = [point for point in listed_points(DISKS) if point.startswith("load.rewind.")]
    return ["load.begin", "load.intent", "replace.spawned", "replace.fed", "load.stopped", *rewinds, "replace.passed",
            "load.committed", "load.continued", "replace.ended"]


class Striker:
    """One guest, and agents that come and go over it. The same guest lives through any number of strikes."""

    def __init__(self, guest):
        self.guest = guest
        self.errors_before = self._errors()
        self.seen = None  # What the guest said right after the last restart.

    # Striking

    def restart(self, fault=None):
        """A new agent, with a fault point or without; the old one has ended or is ended in order."""
        if self.guest.process.poll() is None:
            assert self.guest.end_agent() == 0
        else:
            self.guest.disconnect()
        if fault:
            self.guest.environment["COLDFRAME_FAULT"] = fault
        else:
            self.guest.environment.pop("COLDFRAME_FAULT", None)
        self.guest.restart()

    def begin(self, command, tag, **arguments):
        """Starts the job, whatever becomes of it."""
        if command != "snapshot-delete":
            arguments["vmstate"] = DISKS[0]
        try:
            self.guest.execute(command, job_id=f"j-{tag}", tag=tag, devices=DISKS, **arguments)
        except Exception:  # The reply may be lost with the agent.
            pass

    def wait_for_death(self, point, timeout=60):
        deadline = time.monotonic() + timeout
        while self.guest.process.poll() is None:
            assert time.monotonic() < deadline, f"the agent did not come to '{point}':\n{self.guest.log()[-2000:]}"
            time.sleep(0.005)
        assert self.guest.process.returncode == -9, f"the agent ended by itself before '{point}':\n{self.guest.log()[-2000:]}"

    def kill_at(self, point, command, tag, **arguments):
        """The agent dies at a fault point of an operation."""
        self.restart(f"{point}=kill")
        self.begin(command, tag, **arguments)
        self.wait_for_death(point)
        self.count(f"kills at points of {command.split('-')[1]}")

    def kill_recovery_at(self, point):
        """So does the one that comes after it."""
        self.guest.disconnect()
        self.guest.environment["COLDFRAME_FAULT"] = f"{point}=kill"
        self.guest.launch()
        self.wait_for_death(point)
        self.count("kills at points of recovery")

    def count(self, what):
        tally.counts[what + (" (attached)" if isinstance(self.guest, AttachedAgent) else "")] += 1

    # Looking

    def check(self, tag=None, exists=None):
        """A new agent, and everything is as it should be. `exists`: whether the set must be there; None: either way.

        Returns whether it is there.
        """
        self.restart()
        guest = self.guest
        assert guest.execute("query-intents") == []
        self.seen = guest.console.report()
        found = [tag in guest.snapshot_names(disk) for disk in DISKS]
        assert len(set(found)) == 1, f"'{tag}' is on some disks only: {found}"
        assert exists in (None, found[0]), f"'{tag}' is {'there' if found[0] else 'gone'}"
        if found[0]:
            entry = guest.tags()[tag]
            assert entry["complete"] and not entry["mixed"], entry
            assert guest.execute("snapshot-check", tag=tag)["ok"]
        leftovers = [name for disk in DISKS for name in guest.snapshot_names(disk) if name.startswith("coldframe-")]
        assert leftovers == []
        assert guest.execute("query-status")["status"] == "running", guest.log()[-2000:]
        assert guest.qemu_pids() == [guest.pid]
        consistency.check_going_on(guest.console)
        assert self._errors() == self.errors_before, "the guest saw I/O errors"
        self.check_images()
        return found[0]

    def check_images(self):
        """While the agent is away, and the guest waits for its disks."""
        assert self.guest.end_agent() == 0
        self.guest.check_images()
        self.guest.restart()

    def _errors(self):
        return [writer["errors"] for writer in self.guest.console.report()["writers"]]

    def kill_guest(self):
        os.kill(self.guest.execute("query-guest")["pid"], 9)

    def check_without_guest(self, tags):
        """The guest is gone: its disks are whole, the agent goes on, and nothing is left of what was under way."""
        guest = self.guest
        deadline = time.monotonic() + 30
        while any(job["status"] != "concluded" for job in guest.execute("query-jobs")):
            assert time.monotonic() < deadline, guest.execute("query-jobs")
            time.sleep(0.05)
        assert guest.execute("query-intents") == []
        assert set(guest.tags()) == tags
        with pytest.raises(Exception, match="has no guest"):
            guest.execute("query-guest")
        assert guest.qemu_pids() == []
        assert guest.end_agent() == 0
        guest.check_images()
