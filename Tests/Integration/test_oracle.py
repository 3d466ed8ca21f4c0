"""The checks themselves, against a plain QEMU: they accept what QEMU saved and refuse what is of two moments."""

import shutil
import time

import pytest

from harness import consistency, images
from harness.fixture import linux_fixture, save_stream
from harness.guests import DISKS, Console, counter_command, linux_command, read_page
from harness.qemu import PlainQEMU


@pytest.fixture
def plain(directory):
    """The booted Linux guest in a plain QEMU, going on from the fixture."""
    fixture = linux_fixture()
    disks = [directory / f"{disk}.qcow2" for disk in DISKS]
    for disk in disks:
        shutil.copy(fixture / disk.name, disk)
    incoming = ["-incoming", f"exec:cat '{fixture}/state.bin'"]
    with PlainQEMU(linux_command(directory), directory, list(zip(DISKS, disks)), options=incoming) as qemu:
        while qemu.monitor.execute("query-status")["status"] == "inmigrate":
            time.sleep(0.05)
        qemu.monitor.execute("cont")
        qemu.console.assert_advances()
        qemu.disks = disks
        qemu.physical = qemu.console.report()["physical"]
        yield qemu


def run_on(qemu, records=60):
    """Lets the guest write that many records more on each disk."""
    goal = [writer["acked"] + records for writer in qemu.console.report()["writers"]]
    while any(writer["acked"] < least for writer, least in zip(qemu.console.report()["writers"], goal)):
        time.sleep(0.1)


def test_what_qemu_saved_is_of_one_moment(plain, directory):
    run_on(plain)
    plain.monitor.run_job("snapshot-save", tag="t", vmstate="disk0", devices=DISKS)
    run_on(plain)
    plain.monitor.execute("stop")
    plain.monitor.run_job("snapshot-load", tag="t", vmstate="disk0", devices=DISKS)
    numbers = read_page(plain.monitor, plain.physical, directory)
    assert min(numbers.acked) >= 60
    consistency.check_snapshot(numbers, plain.disks, "t", directory)
    plain.monitor.execute("cont")
    consistency.check_going_on(plain.console)


@pytest.mark.parametrize("writer", [0, 1, 2])
def test_a_disk_that_is_ahead_is_found(plain, directory, writer):
    run_on(plain)
    plain.monitor.execute("stop")
    early = read_page(plain.monitor, plain.physical, directory)
    plain.monitor.execute("cont")
    run_on(plain)
    plain.console.ask("quiesce")
    plain.monitor.execute("stop")
    numbers = read_page(plain.monitor, plain.physical, directory)
    numbers.issued[writer], numbers.acked[writer] = early.issued[writer], early.acked[writer]
    with pytest.raises(AssertionError, match=f"disk {writer} holds record"):
        check_disks(plain, numbers, directory)


@pytest.mark.parametrize("writer", [0, 2])
def test_a_disk_that_is_behind_is_found(plain, directory, writer):
    run_on(plain)
    plain.monitor.execute("stop")
    numbers = read_page(plain.monitor, plain.physical, directory)
    numbers.issued[writer] += 2
    numbers.acked[writer] += 2
    with pytest.raises(AssertionError, match=f"disk {writer} ends at record"):
        check_disks(plain, numbers, directory)


@pytest.mark.parametrize("writer", [0, 1, 2])
def test_the_guest_finds_a_disk_of_an_earlier_moment(directory, plain, writer):
    run_on(plain)
    plain.monitor.execute("stop")
    early = shutil.copy(plain.disks[writer], directory / "early.qcow2")
    plain.monitor.execute("cont")
    run_on(plain)
    plain.monitor.execute("stop")
    save_stream(plain.monitor, directory / "late.bin")
    plain.quit()
    shutil.copy(early, plain.disks[writer])
    incoming = ["-incoming", f"exec:cat '{directory}/late.bin'"]
    with PlainQEMU(linux_command(directory), directory, list(zip(DISKS, plain.disks)), options=incoming) as mixed:
        while mixed.monitor.execute("query-status")["status"] == "inmigrate":
            time.sleep(0.05)
        mixed.monitor.execute("cont")
        assert mixed.console.ask("quiesce")["whole"][writer] is False


def check_disks(qemu, numbers, directory):
    raws = []
    for disk in qemu.disks:
        raws.append(directory / f"{disk.stem}.raw")
        images.run("qemu-img", "convert", "-U", "-O", "raw", disk, raws[-1])
    consistency.check_moment(numbers, raws)


def test_the_counter_guest_writes_what_it_counts(directory):
    disks = [images.create(directory / f"disk{number}.qcow2", "16M") for number in range(2)]
    images.install_counter(disks[0])
    nodes = list(zip(["disk0", "disk1"], disks))
    with PlainQEMU(counter_command(directory), directory, nodes, console=Console) as qemu:
        qemu.console.wait_line(lambda line: line == "count 20")
        qemu.monitor.run_job("snapshot-save", tag="t", vmstate="disk0", devices=["disk0", "disk1"])
        qemu.console.wait_line(lambda line: line == "count 40")
        mark = qemu.console.mark()
        qemu.monitor.run_job("snapshot-load", tag="t", vmstate="disk0", devices=["disk0", "disk1"])
        qemu.console.wait_line(lambda line: line == "count 30", mark)
        assert not [line for line in qemu.console.lines if line.startswith("disk")], qemu.console.lines
        qemu.quit()
    assert images.counter_on_disk(disks[0]) == images.counter_on_disk(disks[1]) >= 30
