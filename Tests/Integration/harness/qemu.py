"""A plain QEMU without an agent: to make fixtures, to compare with, and to boot what the agent saved."""

import pathlib
import subprocess

from .guests import LinuxConsole
from .monitor import Monitor


def process_is_alive(pid):
    """The process runs: not gone, and not waiting to be buried either."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class PlainQEMU:
    """QEMU started from `command`, its disks qcow2 (or raw) files opened by itself, with a monitor."""

    def __init__(self, command, directory, images=(), form="qcow2", options=(), console=LinuxConsole):
        self.directory = pathlib.Path(directory)
        socket = self.directory / "qemu.sock"
        arguments = [command[0]]
        for node, image in images:
            arguments += ["-blockdev", f"driver=file,node-name={node}-file,filename={image}",
                          "-blockdev", f"driver={form},node-name={node},file={node}-file"]
        arguments += [*command[1:], "-qmp", f"unix:{socket},server=on,wait=off", *options]
        self.log = open(self.directory / "qemu.log", "wb")
        self.monitor = None
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            self.console = console(self.directory / "console.sock") if console else None
            self.monitor = Monitor(socket)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.monitor:
            self.monitor.close()
        self.log.close()

    def quit(self):
        """Ends it in order, so that its images are closed."""
        self.monitor.execute("quit")
        self.process.wait(30)
        self.close()
