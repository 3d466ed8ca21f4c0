"""How long a save stops the guest: coldframed's live and precopy against QEMU's own snapshot-save.

`live later` are the second and third live save of one QEMU process. `precopy` runs on a newer QEMU, since 7.2 loses memory
in it under TCG, and is compared with that one's own snapshot-save.
"""

import contextlib
import os
import pathlib
import shutil
import statistics
import tempfile
import time

from harness.agent import GuestAgent
from harness.fixture import linux_fixture
from harness.guests import DISKS, NEWER_QEMU, QEMU, Console, linux_command
from harness.qemu import PlainQEMU

GOAL_PAUSE_MS = 20
GOAL_FACTOR_AT_LARGEST = 100
LARGEST_MEBIBYTES = 4096
SPARE_MEBIBYTES = 512


def pause_ms(monitor, mark):
    """STOP to RESUME by the stamps of QEMU's events."""
    stamps = [monitor.wait_event(name, mark)["timestamp"] for name in ("STOP", "RESUME")]
    stop, resume = (stamp["seconds"] * 1e3 + stamp["microseconds"] / 1e3 for stamp in stamps)
    return resume - stop


class Probe:
    """The pause as the guest's spinning counter sees it: by its own clock, and by bytes that it sends to the host's."""

    def __init__(self, console, heartbeat):
        self.console, self.heartbeat = console, heartbeat

    def measure(self, action):
        """Runs `action`; returns (longest gap by the guest's clock, longest silence by the host's) in ms."""
        self.console.ask("reset-gap")
        start = time.monotonic()
        action()
        done = time.monotonic()
        while self.heartbeat.arrivals[-1] < done + 0.1 and time.monotonic() < done + 10:
            time.sleep(0.05)
        gap = self.console.report()["longest-gap-ns"] / 1e6
        return gap, self.heartbeat.longest_silence(start) * 1e3


@contextlib.contextmanager
def agent_guest(mebibytes, qemu=QEMU):
    with tempfile.TemporaryDirectory(prefix="cf-") as directory:
        with GuestAgent(directory, memory_mebibytes=mebibytes + SPARE_MEBIBYTES, qemu=qemu) as guest:
            yield guest, guest.console, Console(guest.directory / "heartbeat.sock")


@contextlib.contextmanager
def qemu_guest(mebibytes, binary):
    memory = mebibytes + SPARE_MEBIBYTES
    fixture = linux_fixture(memory, qemu=binary)
    with tempfile.TemporaryDirectory(prefix="cf-") as name:
        directory = pathlib.Path(name)
        for disk in DISKS:
            shutil.copy(fixture / f"{disk}.qcow2", directory)
        images = [(disk, directory / f"{disk}.qcow2") for disk in DISKS]
        incoming = ["-incoming", f"exec:cat '{fixture}/state.bin'"]
        command = linux_command(directory, memory, qemu=binary)
        with PlainQEMU(command, directory, images, options=incoming) as qemu:
            while qemu.monitor.execute("query-status")["status"] == "inmigrate":
                time.sleep(0.05)
            qemu.monitor.execute("cont")
            qemu.console.assert_advances()
            yield qemu, qemu.console, Console(directory / "heartbeat.sock")


def prepare(console, mebibytes):
    console.ask(f"touch {mebibytes}", timeout=600)
    console.ask("spin")
    time.sleep(0.5)


# Row, QEMU, and the row of its own QEMU.
OWN = {"live": "QEMU", "live later": "QEMU", "precopy": "QEMU, newer"}
BINARIES = {"QEMU": QEMU, "QEMU, newer": NEWER_QEMU}


def measure_agent(mebibytes, results, own, rows):
    """Saves in one QEMU process, a row each, and then an `auto`."""
    with agent_guest(mebibytes, BINARIES[own]) as (guest, console, heartbeat):
        prepare(console, mebibytes)
        probe = Probe(console, heartbeat)
        for row in rows:
            mark = guest.mark()
            gap, silence = probe.measure(lambda: guest.save("t", mode=row.split()[0]))
            results[row].append((pause_ms(guest, mark), gap, silence))
            guest.delete("t")
        results["auto"].append(guest.save("auto")["way"])


def measure_qemu(mebibytes, results, own):
    with qemu_guest(mebibytes, BINARIES[own]) as (qemu, console, heartbeat):
        prepare(console, mebibytes)
        mark = qemu.monitor.mark()
        arguments = {"job_id": "j", "tag": "t", "vmstate": DISKS[0], "devices": DISKS}

        def save():
            qemu.monitor.execute("snapshot-save", timeout=600, **arguments)
            qemu.monitor.wait_job("j")

        gap, silence = Probe(console, heartbeat).measure(save)
        results[own].append((pause_ms(qemu.monitor, mark), gap, silence))


def run(sizes, rounds, qemu_only):
    missed = []
    print("\nGuest pause of a save, ms, median (worst): by QMP events | guest's own clock | heartbeat on the host's clock")
    for size in sizes:
        results = {name: [] for name in [*OWN, *BINARIES, "auto"]}
        for _ in range(rounds if size < LARGEST_MEBIBYTES else 1):
            if not qemu_only:
                measure_agent(size, results, "QEMU", ["live", "live later", "live later"])
                measure_agent(size, results, "QEMU, newer", ["precopy", "precopy"])
            for own in BINARIES:
                measure_qemu(size, results, own)
        missed += report(size, results)
    return missed


def report(size, results):
    missed = []
    median = {}
    for row in [*OWN, *BINARIES]:
        if not results[row]:
            continue
        columns = list(zip(*results[row]))
        median[row] = statistics.median(columns[0])
        cells = " | ".join(f"{statistics.median(column):9.1f} ({max(column):9.1f})" for column in columns)
        print(f"  {size:5d} MiB  {row:11s} {cells}")
    for row, own in OWN.items():
        if row in median:
            factor = median[own] / median[row]
            print(f"  {size:5d} MiB  {row} stops the guest {factor:.0f} times shorter than snapshot-save of {own}")
            if median[row] > GOAL_PAUSE_MS:
                missed.append(f"{row} at {size} MiB: pause {median[row]:.1f} ms, goal {GOAL_PAUSE_MS}")
            if size >= LARGEST_MEBIBYTES and factor < GOAL_FACTOR_AT_LARGEST:
                missed.append(f"{row} at {size} MiB: {factor:.0f} times shorter, goal {GOAL_FACTOR_AT_LARGEST}")
    if live_is_allowed():
        missed += [f"auto at {size} MiB was {way}, not live" for way in results["auto"] if way != "live"]
    return missed


def live_is_allowed():
    """Whether the host gives this user a full userfaultfd by system call."""
    return os.geteuid() == 0 or pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() == "1"
