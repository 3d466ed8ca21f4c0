"""The unit under a systemd of its own: start, restart, kill, watchdog, stop; the guest goes on through all of it."""

import time

import pytest

from harness import images
from harness.agent import BINARIES
from harness.container import Container
from harness.guests import QEMU, ROOT
from harness.monitor import Monitor

UNIT = "coldframed@web1.service"

pytestmark = pytest.mark.skipif(Container.missing() is not None, reason=f"no container here: {Container.missing()}")


@pytest.fixture
def service(directory):
    configuration = directory / "etc"
    configuration.mkdir()
    disk = images.create(directory / "disk.qcow2", size="16M")
    (configuration / "web1.toml").write_text(f"""
[[blockdev]]
node-name = "disk0"
driver = "qcow2"
file = {{ driver = "file", filename = "{disk}" }}
[guest]
driver = "qemu"
command = ["{QEMU}", "-accel", "tcg", "-m", "32", "-nodefaults", "-display", "none", "-no-user-config",
           "-device", "virtio-blk-pci,drive=disk0"]
disks = ["disk0"]
""")
    drop_in = directory / "drop-in"
    drop_in.mkdir()
    # Half a minute is long for a test.
    (drop_in / "watchdog.conf").write_text("[Service]\nWatchdogSec=3\n")
    files = {f"/usr/bin/{name}": BINARIES / name for name in ("coldframed", "coldframe-keeper", "coldframe")}
    files |= {"/etc/coldframe": configuration, "/etc/systemd/system/coldframed@.service": ROOT / "etc/systemd/coldframed@.service",
              "/etc/systemd/system/coldframed@.service.d": drop_in, str(directory): directory}
    with Container(directory, files) as container:
        yield container


def show(service, name):
    return service.systemctl("show", "--value", f"--property={name}", UNIT)


def ask(service, command, **arguments):
    monitor = Monitor(service.path("/run/coldframe/web1/qmp.sock"))
    try:
        return monitor.execute(command, **arguments)
    finally:
        monitor.close()


def wait_restarted(service, before):
    deadline = time.monotonic() + 60
    while show(service, "ActiveState") != "active" or show(service, "MainPID") == before:
        assert time.monotonic() < deadline, service.systemctl("status", UNIT, check=False)
        time.sleep(0.2)


def test_the_guest_goes_on_whatever_becomes_of_the_service(service):
    service.systemctl("start", UNIT)
    guest = ask(service, "query-guest")
    assert guest["status"] == "running"
    groups = service.run("cat", f"/proc/{guest['pid']}/cgroup")
    assert "coldframed@" not in groups and ".scope" in groups, groups

    def is_the_same():
        now = ask(service, "query-guest")
        return (now["pid"], now["status"]) == (guest["pid"], "running")

    service.systemctl("restart", UNIT)
    assert is_the_same()
    for blow in (["kill", "--kill-whom=main", "--signal=KILL", UNIT], ["kill", "--kill-whom=main", "--signal=STOP", UNIT]):
        # A killed agent is started again at once, one that stands still when the watchdog has noticed.
        before = show(service, "MainPID")
        service.systemctl(*blow)
        wait_restarted(service, before)
        assert is_the_same()
    service.systemctl("stop", UNIT)
    assert service.run("cat", f"/proc/{guest['pid']}/comm").startswith("qemu")
    service.systemctl("start", UNIT)
    assert is_the_same()
    # What the unit allows is enough for a save and a load in each way.
    for command, arguments in (("save", ["--mode", "live"]), ("load", []), ("load", ["--way", "replace"])):
        service.run("coldframe", "snapshot", command, "web1", "t", *arguments)
    last = ask(service, "query-guest")
    assert last["status"] == "running" and last["pid"] != guest["pid"]
    assert ".scope" in service.run("cat", f"/proc/{last['pid']}/cgroup")
    service.run("coldframe", "qmp", "web1", "quit")
    deadline = time.monotonic() + 30
    while show(service, "ActiveState") != "inactive":
        assert time.monotonic() < deadline, service.systemctl("status", UNIT, check=False)
        time.sleep(0.1)
    assert service.run("cat", f"/proc/{last['pid']}/comm", check=False) == ""
