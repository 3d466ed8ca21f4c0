"""The kill campaign without a guest: an agent dies at a named point of an operation on three disks, the next ones perhaps
at points of their recovery, and the last one must have all or nothing on all disks."""

import subprocess
import time

from . import images
from .agent import BINARIES, Agent

NODES = ["a", "b", "c"]
OLD, NEW = 0x11, 0x22
# Passed only when a guest is saved or loaded.
WITH_GUEST = {"save.armed", "save.held", "save.stream", "save.attach", "load.stopped", "load.state", "load.feed",
              "load.lost", "load.continued", "replace.spawned", "replace.fed", "replace.passed", "replace.ended",
              "recovery.settled", "recovery.replaced"}
# Of jobs; under a guest in test_guest_moves.
PIVOTS = {"pivot.moved", "pivot.recorded"}
# In test_reopen_file_safety.
REOPENS = {"reopen.closed", "reopen.opened", "reopen.recorded"}
# In test_quorum_kills.
CHILDREN = {"children.changed", "children.recorded"}


def listed_points(nodes=NODES):
    """All fault points of this coldframed, with a node's name where the list says NODE."""
    listing = subprocess.run([BINARIES / "coldframed", "--fault-points"], check=True, capture_output=True, text=True)
    points = []
    for line in listing.stdout.split():
        points += [line.replace("NODE", node) for node in nodes] if line.endswith(".NODE") else [line]
    return points


def points_of(operation):
    return [point for point in listed_points() if point.split(".")[0] == operation and point not in WITH_GUEST]


class Campaign:
    """Three disks with the snapshot `base` of pattern OLD; NEW stands on the disks themselves."""

    def __init__(self, directory):
        self.directory = directory
        self.paths = [images.create(directory / f"{node}.qcow2", size="8M") for node in NODES]
        for path in self.paths:
            images.write_pattern(path, OLD)
        with self.agent() as agent:
            agent.run_job("snapshot-save", tag="base", devices=NODES)

    def agent(self, fault=None):
        options = []
        for node, path in zip(NODES, self.paths):
            options += ["--blockdev", f"driver=qcow2,node-name={node},file.driver=file,file.filename={path}"]
        return Agent(self.directory, options=options, environment={"COLDFRAME_FAULT": f"{fault}=kill"} if fault else {})

    # The four operations

    def save(self, agent):
        agent.run_job("snapshot-save", tag="t", devices=NODES)

    def load(self, agent):
        agent.run_job("snapshot-load", tag="base", devices=NODES)

    def delete(self, agent):
        agent.run_job("snapshot-delete", tag="base", devices=NODES)

    def transaction(self, agent):
        agent.execute("transaction", actions=[
            {"type": "blockdev-snapshot-internal-sync", "data": {"device": node, "name": "t"}} for node in NODES])

    # One run

    def kill(self, operation, point):
        """Runs the operation in an agent that dies at `point`, after a client has written NEW: so there are clusters
        that were reserved for it and are not given back."""
        agent = self.agent(fault=point).start()
        path = self.directory / "nbd.sock"
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(path)}})
        for node in NODES:
            agent.execute("block-export-add", type="nbd", id=node, node_name=node, writable=True)
            images.run("qemu-io", "-f", "raw", "-c", f"write -q -P {NEW} 0 65536", f"nbd:unix:{path}:exportname={node}")
        try:
            getattr(self, operation)(agent)
        except Exception:  # The reply is lost with the agent.
            pass
        self.wait_for_death(agent, point)

    @staticmethod
    def wait_for_death(agent, point):
        deadline = time.monotonic() + 30
        while agent.process.poll() is None:
            assert time.monotonic() < deadline, f"the agent did not reach {point}"
            time.sleep(0.01)
        assert agent.process.returncode == -9, agent.log()
        agent.stop()

    def kill_in_recovery(self, point):
        """Starts an agent that dies at `point` of its recovery. False: there was nothing to be done there."""
        agent = self.agent(fault=point)
        try:
            agent.start()
        except AssertionError:
            assert agent.process.returncode == -9, agent.log()
            return True
        agent.stop()
        return False

    def outcome(self):
        """What an agent that nobody kills finds: the tags, and the disks' pattern. The same on all, and no leak is left."""
        with self.agent() as agent:
            assert agent.execute("query-intents") == []
            tags = [agent.snapshot_names(node) for node in NODES]
            assert agent.tags().keys() == set(tags[0]), "a snapshot is hidden"
        assert tags == [tags[0]] * len(NODES), tags
        assert list((self.directory / "state/web1/open-images").iterdir()) == []
        patterns = [next(pattern for pattern in (OLD, NEW) if images.has_pattern(path, pattern, form="qcow2"))
                    for path in self.paths]
        assert len(set(patterns)) == 1, patterns
        for path in self.paths:
            images.check(path)
        return tags[0], patterns[0]
