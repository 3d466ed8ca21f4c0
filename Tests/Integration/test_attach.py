"""A QEMU that somebody else has started on the agent's exports is attached, and is a guest like any other."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import time

import pytest

from harness import consistency, images
from harness.agent import Agent
from harness.fixture import TAG, linux_fixture
from harness.guests import DISKS, LinuxConsole, linux_command
from harness.monitor import JobError, Monitor
from harness.qemu import process_is_alive


class AttachedAgent(Agent):
    """An agent with three exports, and a QEMU of somebody else on them."""

    def __init__(self, directory, **options):
        super().__init__(directory, **options)
        self.fixture = linux_fixture()
        self.images = [self.directory / f"{disk}.qcow2" for disk in DISKS]
        self.monitor_path = self.directory / "theirs.qmp"
        self.qemu = None
        self.console = None

    def start(self):
        for disk, image in zip(DISKS, self.images):
            shutil.copy(self.fixture / "with-snapshot" / f"{disk}.qcow2", image)
        super().start()
        try:
            for disk, image in zip(DISKS, self.images):
                self.add_qcow2(disk, image)
            self.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(self.directory / "nbd.sock")}})
            for disk in DISKS:
                self.execute("block-export-add", type="nbd", id=disk, node_name=disk, writable=True)
            self.start_qemu(shlex.split(self.cli("attach", self.name).stdout))
        except BaseException:
            self.stop()
            raise
        return self

    def start_qemu(self, disk_options):
        command = [*linux_command(self.directory), *disk_options, "-S",
                   "-qmp", f"unix:{self.monitor_path},server=on,wait=off"]
        with open(self.directory / "qemu.log", "wb") as log:
            self.qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.console = LinuxConsole(self.directory / "console.sock")

    def attach_and_load(self):
        self.cli("attach", self.name, self.monitor_path)
        self.run_job("snapshot-load", tag=TAG, vmstate=DISKS[0], devices=DISKS)
        self.run_job("snapshot-delete", tag=TAG, devices=DISKS)
        self.execute("cont")
        self.console.assert_advances()

    def restart(self):
        Agent.start(self)
        self.execute("query-guest")

    def stop(self, timeout=30):
        if self.qemu and self.qemu.poll() is None:
            self.qemu.kill()
            self.qemu.wait()
        return super().stop(timeout)


@pytest.fixture
def attached(directory):
    with AttachedAgent(directory) as agent:
        agent.attach_and_load()
        yield agent


def save(agent, tag, **arguments):
    mark = agent.mark()
    agent.run_job("snapshot-save", tag=tag, vmstate=DISKS[0], devices=DISKS, **arguments)
    return agent.wait_event("SNAPSHOT_SAVED", mark, lambda data: data["tag"] == tag)["data"]


def test_it_is_a_guest_like_any_other(attached, directory):
    information = attached.execute("query-guest")
    assert information["attached"] and information["pid"] == attached.qemu.pid
    tree = directory / "tree"
    tree.mkdir()
    attached.execute("snapshot-export-add", id="tree", mountpoint=str(tree))
    for mode in ("live", "paused"):
        assert save(attached, mode, mode=mode)["way"] == mode
    assert sorted(path.name for path in tree.iterdir() if not path.name.startswith(".")) == ["live", "paused"]
    assert (tree / "live/disk0/disk.raw").stat().st_size == 64 * images.MEBIBYTE
    with pytest.raises(JobError, match="started by somebody else"):
        attached.run_job("snapshot-load", tag="live", vmstate=DISKS[0], devices=DISKS, way="replace")
    attached.run_job("snapshot-load", tag="live", vmstate=DISKS[0], devices=DISKS)
    consistency.check_going_on(attached.console)
    attached.execute("snapshot-save", job_id="c", tag="c", vmstate=DISKS[0], devices=DISKS)
    attached.execute("job-cancel", id="c")
    with pytest.raises(JobError, match="canceled"):
        attached.wait_job("c")
    assert set(attached.tags()) <= {"live", "paused"}
    attached.run_job("snapshot-delete", tag="live", devices=DISKS)
    consistency.check_going_on(attached.console)


def test_the_agent_comes_and_goes(attached):
    for end in (attached.kill, attached.end_agent, attached.kill):
        end()
        assert process_is_alive(attached.qemu.pid)
        attached.restart()
        assert attached.execute("query-guest")["pid"] == attached.qemu.pid
        consistency.check_going_on(attached.console)
    save(attached, "t", mode="live")


def test_quit_and_detach_do_no_harm(attached):
    attached.cli("detach", attached.name)
    with pytest.raises(Exception, match="has no guest"):
        attached.execute("query-guest")
    attached.console.assert_advances()
    theirs = Monitor(attached.monitor_path)
    names = {node["node-name"] for node in theirs.execute("query-named-block-nodes")}
    assert "coldframe-barrier" not in names
    theirs.close()
    deadline = time.monotonic() + 20
    while attached.keeper_pids():
        assert time.monotonic() < deadline, "the keeper of a guest that was let go stays"
        time.sleep(0.05)
    attached.cli("attach", attached.name, attached.monitor_path)
    save(attached, "t")
    attached.console.assert_advances()


def test_killed_in_a_save(attached):
    attached.end_agent()
    attached.environment["COLDFRAME_FAULT"] = "save.stream=kill"
    attached.restart()
    attached.execute("snapshot-save", job_id="j", tag="t", vmstate=DISKS[0], devices=DISKS)
    attached.process.wait(30)
    attached.disconnect()
    del attached.environment["COLDFRAME_FAULT"]
    attached.restart()
    assert attached.tags() == {} and attached.execute("query-intents") == []
    consistency.check_going_on(attached.console)
    assert save(attached, "t", mode="live")["way"] == "live"


def test_a_qemu_that_is_not_fit_is_refused_with_all_reasons(directory):
    agent = AttachedAgent(directory)
    options = []

    def without_delay(disk_options):
        for word in disk_options:
            if word.startswith("{"):
                node = json.loads(word)
                if node["node-name"] == "disk1":
                    del node["reconnect-delay"]
                word = json.dumps(node)
            options.append(word)
        AttachedAgent.start_qemu(agent, options)

    agent.start_qemu = without_delay
    with agent:
        result = agent.cli("attach", agent.name, agent.monitor_path, "--disk", "disk1", check=False)
        assert result.returncode == 1 and "'disk1' has no reconnect-delay" in result.stderr
        agent.execute("block-export-del", id="disk2", mode="hard")
        with pytest.raises(Exception) as refusal:
            agent.execute("guest-add", driver="qemu", attach=str(agent.monitor_path), disks=["disk1", "disk2"])
        assert "reconnect-delay" in str(refusal.value) and "'disk2' has no writable NBD export" in str(refusal.value)
        assert process_is_alive(agent.qemu.pid)
        # What was refused has left nothing.
        agent.execute("guest-add", driver="qemu", attach=str(agent.monitor_path), disks=["disk0"])
