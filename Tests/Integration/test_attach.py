"""A QEMU that somebody else has started on the agent's exports is attached, and is a guest like any other."""

import json
import time

import pytest

from harness import consistency, images
from harness.attached import AttachedAgent
from harness.guests import DISKS
from harness.monitor import JobError, Monitor
from harness.qemu import process_is_alive


@pytest.fixture
def attached(directory):
    with AttachedAgent(directory) as agent:
        agent.attach_and_load()
        yield agent


def test_it_is_a_guest_like_any_other(attached, directory):
    information = attached.execute("query-guest")
    assert information["attached"] and information["pid"] == attached.qemu.pid
    tree = directory / "tree"
    tree.mkdir()
    attached.execute("snapshot-export-add", id="tree", mountpoint=str(tree))
    for mode in ("live", "paused"):
        assert attached.save(mode, mode=mode)["way"] == mode
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
    attached.save("t", mode="live")


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
    attached.save("t")
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
    assert attached.save("t", mode="live")["way"] == "live"


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
