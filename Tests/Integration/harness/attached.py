"""A QEMU that the tests have started, and an agent that attaches it."""

import shlex
import shutil
import subprocess

from .agent import Agent, GuestAgent
from .fixture import TAG
from .guests import DISKS, LinuxConsole, linux_command


class AttachedAgent(GuestAgent):
    """An agent with three exports, and a QEMU of somebody else on them, which is attached by `attach_and_load`."""

    def __init__(self, directory, **options):
        super().__init__(directory, loads=False, **options)
        self.program = self.qemu
        self.monitor_path = self.directory / "theirs.qmp"
        self.qemu = None

    def start(self):
        for disk, image in zip(DISKS, self.images):
            shutil.copy(self.fixture / "with-snapshot" / f"{disk}.qcow2", image)
        Agent.start(self)
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
        command = [*linux_command(self.directory, qemu=self.program), *disk_options, "-S",
                   "-qmp", f"unix:{self.monitor_path},server=on,wait=off"]
        with open(self.directory / "qemu.log", "wb") as log:
            self.qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.qemu.pid
        self.console = LinuxConsole(self.directory / "console.sock")

    def attach_and_load(self):
        self.cli("attach", self.name, self.monitor_path)
        self.load(TAG)
        self.delete(TAG)
        self.execute("cont")
        self.console.assert_advances()

    def follow(self):
        """It is one process for good."""
        assert self.execute("query-guest")["pid"] == self.pid

    def qemu_pids(self):
        return [self.pid] if self.qemu.poll() is None else []

    def stop(self, timeout=30):
        if self.qemu and self.qemu.poll() is None:
            self.qemu.kill()
            self.qemu.wait()
        return super().stop(timeout)
