"""The agent as a service: etc/systemd/coldframed@.service, what systemd is told, and where the keeper runs."""

import pathlib
import re
import socket
import subprocess

import pytest

from harness.agent import BINARIES, Agent, GuestAgent
from harness.guests import ROOT

UNIT = ROOT / "etc/systemd/coldframed@.service"


def settings():
    """Name to values, in their order."""
    found = {}
    for line in UNIT.read_text().splitlines():
        if match := re.match(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def test_systemd_understands_the_unit(directory):
    unit = directory / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/coldframed", str(BINARIES / "coldframed")))
    result = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    complaints = [line for line in result.stderr.splitlines() if UNIT.stem.split("@")[0] in line]
    assert (result.returncode, complaints) == (0, []), result.stderr


def test_its_exposure_is_what_it_was():
    """What systemd thinks of what the unit may do, 10 the worst; more than this is to be noticed."""
    result = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)], capture_output=True,
                            text=True, check=True)
    score = re.search(r"exposure level for .*: ([\d.]+)", result.stdout)
    assert float(score[1]) <= 7.4, result.stdout


@pytest.fixture
def manager(directory):
    """The socket at which systemd waits for word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(directory / "notify"))
        listener.settimeout(20)
        yield listener


def test_it_says_when_it_is_ready_alive_and_ending(directory, manager):
    agent = Agent(directory, environment={"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "300000"})
    with agent:
        assert manager.recv(4096).startswith(b"READY=1\n")
        # The agent's own socket is there when it says so.
        assert agent.socket.exists()
        assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        agent.process.terminate()
        while (word := manager.recv(4096)) == b"WATCHDOG=1":
            pass
        assert word == b"STOPPING=1"
        assert agent.wait_end() == 0


def test_the_keeper_gets_a_scope_of_its_own(directory, manager):
    """Under systemd it is started through systemd-run, which is played here."""
    tools = directory / "tools"
    tools.mkdir()
    (tools / "systemd-run").write_text('#!/bin/sh\necho "$@" > "$0.words"\nwhile [ "$1" != -- ]; do shift; done\nshift\n'
                                       'exec "$@"\n')
    (tools / "systemd-run").chmod(0o755)
    environment = {"NOTIFY_SOCKET": str(directory / "notify"), "INVOCATION_ID": "0" * 32}
    guest = GuestAgent(directory, environment=environment)
    guest.environment["PATH"] = f"{tools}:{guest.environment['PATH']}"
    with guest:
        words = (tools / "systemd-run.words").read_text().split()
        assert "--scope" in words and words[-2].endswith("coldframe-keeper")
        guest.kill()
        guest.restart()
        guest.console.assert_advances()


def test_without_systemd_run_the_keeper_is_started_all_the_same(directory, manager):
    environment = {"NOTIFY_SOCKET": str(directory / "notify"), "INVOCATION_ID": "0" * 32}
    with GuestAgent(directory, environment=environment) as guest:
        guest.console.assert_advances()


def test_its_capabilities_are_enough(directory):
    """A live save and a tree under the unit's bounding set."""
    names = [name.lower().removeprefix("cap_") for line in settings()["CapabilityBoundingSet"] for name in line.split()]
    guest = GuestAgent(directory, prefix=["setpriv", "--bounding-set", ",".join(["-all", *(f"+{name}" for name in names)])])
    with guest:
        status = pathlib.Path(f"/proc/{guest.process.pid}/status").read_text()
        # Some of them this host may not give to anybody.
        assert 0 < int(re.search(r"CapBnd:\s*(\w+)", status)[1], 16).bit_count() <= len(names)
        tree = directory / "tree"
        tree.mkdir()
        guest.execute("snapshot-export-add", id="tree", mountpoint=str(tree))
        assert guest.save("t", mode="live")["way"] == "live"
        assert (tree / "t/disk0/disk.raw").stat().st_size > 0
        guest.kill()
        guest.restart()
        guest.console.assert_advances()
