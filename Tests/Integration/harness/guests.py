"""The test guests: how QEMU is called, what they say, and what their RAM knows."""

import dataclasses
import json
import pathlib
import socket
import struct
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = ROOT / ".build"
PAGE = struct.Struct("<16sQQ9Q")
DISKS = ["disk0", "disk1", "disk2"]
QEMU = "qemu-system-x86_64"
# 9.0 or later (tools/lib/newer-qemu.sh): an older one loses memory in a precopy under TCG.
NEWER_QEMU = str(BUILD / "qemu-newer/qemu-system-x86_64")


class Console:
    """A guest's serial line on a unix socket; a thread reads it and stamps what arrives."""

    def __init__(self, path, timeout=30):
        deadline = time.monotonic() + timeout
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                self.socket.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.lines = []
        self.arrivals = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, name="console", daemon=True).start()

    def _read(self):
        rest = b""
        while True:
            try:
                data = self.socket.recv(65536)
            except OSError:
                data = b""
            with self._changed:
                if not data:
                    self._changed.notify_all()
                    return
                self.arrivals.append(time.monotonic())
                *lines, rest = (rest + data).split(b"\n")
                self.lines += [line.decode(errors="replace").strip("\r") for line in lines]
                self._changed.notify_all()

    def close(self):
        self.socket.close()

    def mark(self):
        with self._changed:
            return len(self.lines)

    def wait_line(self, matches, since=0, timeout=60):
        """The first line at or after `since` for which `matches` is true."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self.lines[since:]:
                    if matches(line):
                        return line
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"the guest did not say it; last lines: {self.lines[-5:]}")

    def send(self, text):
        self.socket.sendall(text.encode() + b"\n")

    def longest_silence(self, since):
        """The longest time in seconds between two arrivals after `since` (monotonic)."""
        with self._changed:
            times = [stamp for stamp in self.arrivals if stamp >= since]
        return max((b - a for a, b in zip(times, times[1:])), default=0.0)


@dataclasses.dataclass
class Numbers:
    """What the Linux guest's RAM knows at one moment."""

    counter: int
    longest_gap_ns: int
    issued: list
    acked: list
    errors: list

    @classmethod
    def parse(cls, page):
        magic, counter, gap, *rest = PAGE.unpack_from(page)
        assert magic.rstrip(b"\0") == b"COLDFRAME GUEST", f"the page is not the guest's: {magic!r}"
        return cls(counter, gap, rest[0::3], rest[1::3], rest[2::3])


class LinuxConsole(Console):
    """The Linux guest's console: commands and their JSON answers (Tests/Guests/linux/writer.c)."""

    _answers = {"report": "report", "reset-gap": "reset", "spin": "spinning", "rest": "resting",
                "quiesce": "quiesced", "resume": "resumed"}

    def ask(self, command, timeout=60):
        event = self._answers.get(command) or "touched"
        mark = self.mark()
        self.send(command)
        line = self.wait_line(lambda line: line.startswith("{") and json.loads(line)["event"] == event, mark, timeout)
        return json.loads(line)

    def report(self):
        return self.ask("report")

    def counter(self):
        return self.report()["counter"]

    def wait_ready(self, timeout=180):
        self.wait_line(lambda line: '"event": "ready"' in line, timeout=timeout)

    def assert_advances(self, timeout=20):
        """The guest is alive: its counter goes on."""
        before, deadline = self.counter(), time.monotonic() + timeout
        while self.counter() <= before:
            assert time.monotonic() < deadline, f"the guest's counter stands at {before}"


def linux_command(directory, memory_mebibytes=192, processors=2, disks=DISKS, files=BUILD / "guests/linux", qemu=QEMU):
    """QEMU's command line for the Linux guest; the block nodes are somebody else's business."""
    command = [
        qemu, "-machine", "pc-q35-7.2", "-accel", "tcg", "-m", str(memory_mebibytes),
        "-smp", str(processors), "-nodefaults", "-display", "none", "-no-user-config",
        "-kernel", str(files / "vmlinuz"), "-initrd", str(files / "initramfs.gz"),
        "-append", "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off",
    ]
    for number, name in enumerate(["console", "heartbeat"]):
        command += ["-chardev", f"socket,id=serial{number},path={directory}/{name}.sock,server=on,wait=off",
                    "-serial", f"chardev:serial{number}"]
    for disk in disks:
        command += ["-device", f"virtio-blk-pci,id={disk}-device,drive={disk},werror=stop,rerror=stop"]
    return command


def counter_command(directory, disks=("disk0", "disk1")):
    """QEMU's command line for the counter guest."""
    command = [QEMU, "-machine", "pc-q35-7.2", "-accel", "tcg", "-m", "64", "-nodefaults",
               "-display", "none", "-no-user-config",
               "-chardev", f"socket,id=serial0,path={directory}/console.sock,server=on,wait=off",
               "-serial", "chardev:serial0"]
    for number, disk in enumerate(disks):
        command += ["-device", f"virtio-blk-pci,drive={disk},bootindex={number}"]
    return command


def read_page(monitor, physical, directory):
    """The Linux guest's numbers, read from its RAM through QMP, whether it runs or not."""
    path = pathlib.Path(directory) / "page.bin"
    monitor.execute("pmemsave", val=physical, size=4096, filename=str(path))
    return Numbers.parse(path.read_bytes())
