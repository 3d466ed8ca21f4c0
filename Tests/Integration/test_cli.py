"""coldframe, as a user calls it."""

import json
import os
import signal
import subprocess
import time

import pytest

from harness import images
from harness.agent import BINARIES, Agent
from harness.monitor import Monitor


@pytest.fixture
def node(agent, directory):
    path = images.create(directory / "a.qcow2")
    agent.add_qcow2("a", path)
    return path


def test_status_names_the_agent(agent, node):
    assert agent.name in agent.cli("status").stdout
    assert agent.cli_json("status")


def test_a_client_on_the_agents_socket_locks_nobody_out(agent, node):
    client = Monitor(agent.socket)
    assert agent.name in agent.cli("status", timeout=10).stdout
    client.close()


def test_save_list_show_load_delete(agent, node):
    agent.cli("snapshot", "save", "web1", "t")
    assert "t" in images.snapshots(node)
    assert "t" in agent.cli("snapshot", "list", "web1").stdout
    assert [entry["tag"] for entry in as_list(agent.cli_json("snapshot", "list", "web1"))] == ["t"]
    assert "t" in agent.cli("snapshot", "show", "web1", "t").stdout
    agent.cli("snapshot", "load", "web1", "t")
    agent.cli("snapshot", "delete", "web1", "t")
    assert images.snapshots(node) == {}


def as_list(value):
    """The entries of a list, whether it is bare or the member of an object."""
    return value if isinstance(value, list) else next(part for part in value.values() if isinstance(part, list))


def test_output_has_no_control_characters_without_a_terminal(agent, node):
    for arguments in (["status"], ["snapshot", "save", "web1", "t"], ["snapshot", "list", "web1"], ["jobs", "web1"]):
        result = agent.cli(*arguments)
        assert "\x1b" not in result.stdout + result.stderr and "\r" not in result.stdout


def test_qmp_passes_a_command(agent, node):
    reply = json.loads(agent.cli("qmp", "web1", "query-named-block-nodes").stdout)
    assert "a" in {entry["node-name"] for entry in reply}
    agent.cli("qmp", "web1", "blockdev-snapshot-internal-sync", "device=a", "name=s")
    assert "s" in images.snapshots(node)


def test_an_error_of_the_agent_is_shown(agent, node):
    result = agent.cli("qmp", "web1", "blockdev-del", "node-name=zz", check=False)
    assert result.returncode != 0
    assert "Failed to find node with node-name='zz'" in result.stderr


def test_a_missing_tag_fails_with_a_next_step(agent, node):
    result = agent.cli("snapshot", "load", "web1", "missing", check=False)
    assert result.returncode != 0 and "missing" in result.stderr


def test_an_unknown_agent_is_named(agent):
    result = subprocess.run([BINARIES / "coldframe", "status", "nobody"], env=agent.environment,
                            capture_output=True, text=True)
    assert result.returncode != 0 and "nobody" in result.stderr


def test_jobs_are_listed(agent, node, directory):
    agent.execute("blockdev-create", job_id="made",
                  options={"driver": "file", "filename": str(directory / "x"), "size": 65536})
    agent.wait_job("made", dismiss=False)
    assert "made" in agent.cli("jobs", "web1").stdout
    agent.cli("job", "dismiss", "web1", "made")
    assert agent.execute("query-jobs") == []


def test_an_interrupt_asks_the_job_to_cancel_and_kills_nobody(directory):
    path = images.create(directory / "a.qcow2")
    with Agent(directory, environment={"COLDFRAME_FAULT": "save.cut.a=pause:1500"}) as agent:
        agent.add_qcow2("a", path)
        save = subprocess.Popen([BINARIES / "coldframe", "snapshot", "save", "web1", "t"], env=agent.environment,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.7)
        save.send_signal(signal.SIGINT)
        output, errors = save.communicate(timeout=30)
        assert save.returncode in (0, 1), "the command died of the signal"
        # The job may have been past its last checkpoint.
        assert ("t" in images.snapshots(path)) == (save.returncode == 0), output + errors
        assert agent.execute("query-jobs") == []


def test_a_tag_that_is_no_file_name_is_found_in_the_tree(agent, node, directory):
    (directory / "tree").mkdir()
    agent.cli("snapshot", "save", "web1", "a/b")
    folder = agent.cli("browse", "web1", "a/b", "--mountpoint", directory / "tree").stdout.strip()
    with open(f"{folder}/info.json") as file:
        assert json.load(file)["tag"] == "a/b"


def test_help_names_the_commands():
    text = subprocess.run([BINARIES / "coldframe", "--help"], capture_output=True, text=True, check=True).stdout
    for command in ("status", "snapshot", "browse", "jobs", "job", "qmp"):
        assert command in text
    assert os.access(BINARIES / "coldframed", os.X_OK)


def test_a_live_save_of_a_guest_by_the_cli(guest):
    result = guest.cli("snapshot", "save", "web1", "t", "--mode", "live")
    assert "ms" in result.stdout, "the measured pause is not shown"
    guest.cli("snapshot", "load", "web1", "t")
    guest.console.assert_advances()
    guest.cli("snapshot", "delete", "web1", "t")


def test_a_job_verb_prints_the_job_as_json(agent, directory):
    agent.execute("blockdev-create", job_id="c",
                  options={"driver": "file", "filename": str(directory / "x.raw"), "size": 65536})
    while agent.job("c")["status"] != "concluded":
        pass
    refused = agent.cli("job", "pause", agent.name, "c", "--json", check=False)
    assert refused.returncode != 0 and "cannot accept command verb 'pause'" in refused.stderr
    assert json.loads(agent.cli("job", "dismiss", agent.name, "c", "--json").stdout) is None
