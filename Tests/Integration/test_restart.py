"""The agent goes and comes back under a guest that runs."""

import os
import signal
import subprocess
import time

import pytest

from harness import consistency, images, tally
from harness.agent import Agent, GuestAgent
from harness.monitor import CommandError
from harness.qemu import process_is_alive


RESTARTS = int(os.environ.get("COLDFRAME_RESTARTS", "6"))


def test_a_guest_outlives_the_agent_that_is_killed(guest):
    before = guest.execute("query-guest")["pid"]
    guest.kill()
    guest.restart()
    information = guest.execute("query-guest")
    assert (information["pid"], information["status"]) == (before, "running")
    guest.console.assert_advances()
    guest.save("t")
    guest.load("t")
    guest.console.assert_advances()
    assert [writer["errors"] for writer in guest.console.report()["writers"]] == [0, 0, 0]
    guest.stop()
    guest.check_images()


@pytest.mark.parametrize("kind", ["started", "attached"])
def test_restarts_under_full_write_load(guest_for, kind, chance):
    """No I/O error in the guest, every acknowledged write is there, whenever the agent goes and however."""
    guest = guest_for("live", attached=kind == "attached")
    guest.console.ask("spin")
    for _ in range(RESTARTS):
        time.sleep(chance.uniform(0, 0.5))
        chance.choice([guest.kill, guest.end_agent])()
        time.sleep(chance.choice([0, 0, chance.uniform(0, 2)]))
        guest.restart()
        tally.counts[f"restarts under load ({kind})"] += 1
    guest.console.ask("rest")
    consistency.check_going_on(guest.console)
    assert guest.console.report()["longest-gap-ns"] < 60e9
    assert guest.end_agent() == 0
    guest.check_images()
    guest.restart()


def test_sigterm_lets_the_guest_go_on(guest):
    before = guest.execute("query-guest")["pid"]
    assert guest.end_agent() == 0
    assert process_is_alive(before)
    guest.restart()
    assert guest.execute("query-guest")["pid"] == before
    guest.console.assert_advances()


def test_quit_ends_the_guest_and_may_keep_it(guest):
    pid = guest.execute("query-guest")["pid"]
    guest.execute("quit", guest="keep")
    assert guest.wait_end() == 0
    assert process_is_alive(pid)
    guest.restart()
    assert guest.execute("query-guest")["pid"] == pid
    guest.execute("quit")
    assert guest.wait_end() == 0
    assert not process_is_alive(pid)
    # Its user has ended it: it is not started again, the disks are there.
    guest.restart(has_guest=False)
    with pytest.raises(Exception, match="has no guest"):
        guest.execute("query-guest")
    assert guest.node("disk0")


def test_an_option_ends_the_guest_with_the_agent(directory):
    with GuestAgent(directory, options=["--guest-at-exit", "end"]) as guest:
        pid = guest.execute("query-guest")["pid"]
        assert guest.end_agent() == 0
        assert not process_is_alive(pid)


def test_a_guest_that_ends_while_the_agent_is_away_is_not_started_again(guest):
    pid = guest.execute("query-guest")["pid"]
    guest.kill()
    subprocess.run(["kill", "-9", str(pid)], check=True)
    guest.restart(has_guest=False)
    assert guest.tags() == {}
    with pytest.raises(Exception, match="has no guest"):
        guest.execute("query-guest")
    guest.stop()
    guest.check_images()


@pytest.mark.parametrize("answers", [False, True])
def test_a_guest_that_ends_while_it_is_taken_over(guest, answers):
    """A process that is being killed still has its keeper and its sockets: the agent finds it and loses it."""
    guest.kill()
    # Stopped it does not answer: the agent is in the middle of its first words to it.
    os.kill(guest.pid, signal.SIGSTOP)
    words = "sleep 1; kill -CONT {0}; kill -9 {0}" if answers else "sleep 1; kill -9 {0}"
    with subprocess.Popen(["sh", "-c", words.format(guest.pid)]):
        guest.restart(has_guest=False)
    # One that has answered before it died was taken over, and is lost soon.
    with pytest.raises(CommandError, match="has no guest"):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            guest.execute("query-guest")
            time.sleep(0.01)
    guest.stop()
    guest.check_images()


def test_a_paused_guest_stays_paused(guest):
    guest.execute("stop")
    guest.kill()
    guest.restart()
    assert guest.execute("query-guest")["status"] == "paused"
    guest.execute("cont")
    guest.console.assert_advances()


def test_the_keeper_may_die_too(guest):
    pid = guest.execute("query-guest")["pid"]
    guest.kill()
    guest.kill_keeper()
    guest.restart()
    assert guest.execute("query-guest")["pid"] == pid
    guest.console.assert_advances()
    guest.save("t", mode="live")
    guest.execute("guest-del", force=True)
    assert not process_is_alive(pid)


def test_what_clients_made_is_there_again(directory):
    paths = [images.create(directory / f"{name}.qcow2") for name in "ab"]
    (directory / "tree").mkdir()
    options = ["--blockdev", f"driver=qcow2,node-name=a,file.driver=file,file.filename={paths[0]}"]
    agent = Agent(directory, options=options).start()
    try:
        agent.add_qcow2("b", paths[1])
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
        agent.execute("block-export-add", type="nbd", id="e", node_name="b", name="b")
        agent.execute("snapshot-export-add", id="tree", mountpoint=str(directory / "tree"))
        for end in (agent.kill, agent.end_agent):
            end()
            agent.start()
            assert {export["id"] for export in agent.execute("query-block-exports")} == {"e"}
            assert agent.node("a") and agent.node("b")
            assert (directory / "tree").is_mount()
            size = subprocess.run(["nbdinfo", "--size", f"nbd+unix:///b?socket={directory}/nbd.sock"],
                                  check=True, capture_output=True, text=True).stdout
            assert int(size) == agent.node("b")["image"]["virtual-size"]
        agent.execute("block-export-del", id="e", mode="hard")
        agent.execute("blockdev-del", node_name="b")
        agent.execute("blockdev-del", node_name="a")
        agent.kill()
        agent.start()
        # What is configured comes back with the next start, what a client had made and taken away does not.
        assert agent.node("a") and not agent.node("b")
        assert agent.execute("query-block-exports") == []
    finally:
        agent.stop()


def test_an_image_that_is_missing_is_tried_again(directory):
    path = images.create(directory / "a.qcow2")
    agent = Agent(directory).start()
    try:
        agent.add_qcow2("a", path)
        agent.kill()
        path.rename(directory / "away.qcow2")
        agent.start()
        assert agent.node("a") is None
        agent.end_agent()
        (directory / "away.qcow2").rename(path)
        agent.start()
        assert agent.node("a")
    finally:
        agent.stop()


def test_a_damaged_record_is_refused_with_its_name(directory):
    agent = Agent(directory).start()
    agent.add_qcow2("a", images.create(directory / "a.qcow2"))
    agent.kill()
    record = directory / "state/web1/record.json"
    record.write_text(record.read_text().replace("qcow2", "qcow3"))
    with pytest.raises(AssertionError, match="record.json"):
        agent.start()
    agent.process = None
    record.unlink()
    with agent:
        assert agent.node("a") is None


def test_what_cannot_be_recorded_is_not_done(directory):
    """A state folder that cannot be written costs a command, not what it would have made after a restart."""
    old, new = (images.create(directory / f"{name}.qcow2") for name in ("old", "new"))
    socket = directory / "nbd.sock"
    with Agent(directory) as agent:
        agent.add_qcow2("old", old)
        agent.add_qcow2("new", new)
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
        agent.execute("block-export-add", type="nbd", id="e", node_name="old", name="e", writable=True)
        record = directory / "state/web1/record.json"
        before = record.read_bytes()
        record.unlink()
        (record / "in-the-way").mkdir(parents=True)
        with pytest.raises(Exception, match="record could not be written.*node 'a' was taken back"):
            agent.add_qcow2("a", images.create(directory / "a.qcow2"))
        assert agent.node("a") is None
        with pytest.raises(Exception, match="export 'f' was taken back"):
            agent.execute("block-export-add", type="nbd", id="f", node_name="new", name="f")
        with pytest.raises(Exception, match="record could not be written.*Nothing was changed"):
            agent.execute("guest-add", driver="qemu", command=["qemu-system-x86_64"])
        # A pivot would send clients' writes where the next agent does not look for them.
        agent.execute("blockdev-mirror", job_id="m", device="old", target="new", sync="full")
        agent.wait_event("BLOCK_JOB_READY")
        agent.execute("block-job-complete", device="m")
        with pytest.raises(Exception, match="m is gone|could not be recorded"):
            agent.wait_job("m")
        images.run("qemu-io", "-f", "raw", "-c", "write -q -P 7 0 65536", f"nbd:unix:{socket}:exportname=e")
        assert [export["node-name"] for export in agent.execute("query-block-exports")] == ["old"]
        (record / "in-the-way").rmdir()
        record.rmdir()
        record.write_bytes(before)
        agent.kill()
        agent.start()
        assert [export["node-name"] for export in agent.execute("query-block-exports")] == ["old"]
    assert images.has_pattern(old, 7, form="qcow2")


def test_the_configuration_waits_for_the_guests_end(directory):
    """Whoever writes another disk into the file must not find it under the running guest."""
    with GuestAgent(directory) as guest:
        guest.kill()
        other = images.create(directory / "other.qcow2")
        options = guest.options
        guest.options = [*options, "--blockdev",
                         f"driver=qcow2,node-name=disk0,file.driver=file,file.filename={other}"]
        guest.restart()
        assert guest.node("disk0")["image"]["filename"] != str(other)
        assert "takes effect when the guest has ended" in guest.log()
        guest.console.assert_advances()
        guest.options = options


def test_leaks_of_a_killed_agent_are_freed(guest):
    time.sleep(1)
    guest.kill()
    guest.restart()
    guest.console.assert_advances()
    guest.execute("guest-del", force=True)
    guest.stop()
    guest.check_images()
