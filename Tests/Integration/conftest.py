"""Fixtures of the integration tests."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from harness import tally  # noqa: E402
from harness.agent import Agent, GuestAgent  # noqa: E402
from harness.attached import AttachedAgent  # noqa: E402
from harness.guests import NEWER_QEMU, QEMU  # noqa: E402
from harness.reference import StorageDaemon  # noqa: E402
from harness.twins import LastingTwins  # noqa: E402

SEED = int(os.environ.get("COLDFRAME_TEST_SEED") or random.SystemRandom().randrange(1 << 32))


# A test run that is told to end takes its agents and guests with it.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def pytest_report_header():
    return f"seed: {SEED} (COLDFRAME_TEST_SEED repeats it)"


def pytest_terminal_summary(terminalreporter):
    if tally.counts:
        terminalreporter.write_line(f"counts: {tally.line()}")


@pytest.fixture
def chance(request):
    """Random choices that the printed seed repeats, whatever else runs."""
    return random.Random(f"{SEED} {request.node.nodeid}")


@pytest.fixture
def directory():
    """A folder with a name short enough for sockets."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="cf-"))
    yield path
    # What a killed agent left must not outlive its test.
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[1].startswith(f"{path}/"):
            subprocess.run(["fusermount3", "-uz", line.split()[1]], check=False)
    shutil.rmtree(path, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of its agent's log."""
    report = yield
    item.has_passed = report.when == "call" and report.passed
    if report.when == "call" and report.failed:
        for name in ("agent", "guest"):
            agent = item.funcargs.get(name)
            if isinstance(agent, Agent):
                report.sections.append(("coldframed", agent.log()[-4000:]))
    return report


@pytest.fixture
def agent(directory):
    """A coldframed without a guest."""
    with Agent(directory) as running:
        yield running


@pytest.fixture
def guest(directory):
    """A coldframed with the running Linux guest."""
    with GuestAgent(directory) as running:
        yield running


@pytest.fixture
def guest_for(directory):
    """Starts a guest that can be saved in the given mode, started or attached; called once."""
    running = []

    def start(mode, attached=False):
        guest = (AttachedAgent if attached else GuestAgent)(directory, qemu=NEWER_QEMU if mode == "precopy" else QEMU)
        running.append(guest)
        guest.start()
        if attached:
            guest.attach_and_load()
        return guest

    yield start
    for guest in running:
        guest.stop()


@pytest.fixture
def twins(agent, directory):
    """The agent and the reference, each with folders and an NBD server of its own."""
    folders = []
    with StorageDaemon(directory) as daemon:
        for name, peer in (("ours", agent), ("theirs", daemon)):
            folder = directory / name
            folder.mkdir()
            folders.append(folder)
            peer.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(folder / "nbd.sock")}})
        yield agent, daemon, *folders


@pytest.fixture(scope="module")
def lasting_twins():
    """Twins for many tests of a file; after a failure new ones."""
    with LastingTwins() as twins:
        yield twins


@pytest.fixture
def peers(lasting_twins, request):
    """Twins that other tests have left as they found them."""
    yield lasting_twins.ready()
    if not getattr(request.node, "has_passed", False):
        lasting_twins.end()
