"""coldframed under test: started with folders of its own, ended in order, its log shown where a test fails."""

import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import time

from . import images
from .fixture import TAG, linux_fixture
from .guests import BUILD, DISKS, QEMU, LinuxConsole, linux_command
from .monitor import Monitor

BINARIES = pathlib.Path(os.environ.get("COLDFRAME_BIN_DIR", BUILD / "debug"))


class Agent:
    """One coldframed. With a name it keeps state below `directory`; `options` are those of the command line."""

    def __init__(self, directory, name="web1", options=(), environment=None, prefix=()):
        self.directory = pathlib.Path(directory)
        self.name = name
        self.prefix = list(prefix)
        self.options = [str(option) for option in options]
        self.runtime = self.directory / "run"
        self.state = self.directory / "state"
        self.environment = {
            **os.environ, "COLDFRAME_RUNTIME_DIR": str(self.runtime), "COLDFRAME_STATE_DIR": str(self.state),
            "PATH": f"{BINARIES}:{os.environ['PATH']}", **(environment or {}),
        }
        self.socket = self.runtime / name / "qmp.sock"
        # The harness has monitors of its own, so that the agent's is free for the command line.
        self.test_socket = self.directory / "test.sock"
        self.second_socket = self.directory / "second.sock"
        self.log_path = self.directory / f"{name}.log"
        self.process = None
        self.monitors = []

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def arguments(self):
        return [str(BINARIES / "coldframed"), "--name", self.name,
                "--chardev", f"socket,id=test,path={self.test_socket},server=on,wait=off",
                "--monitor", "id=test,chardev=test",
                "--chardev", f"socket,id=second,path={self.second_socket},server=on,wait=off",
                "--monitor", "id=second,chardev=second", *self.options]

    def launch(self):
        """Starts the process, and waits for nothing."""
        self.runtime.mkdir(exist_ok=True)
        self.state.mkdir(exist_ok=True)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*self.prefix, *self.arguments], env=self.environment, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)

    def start(self):
        self.launch()
        try:
            self.connect()
        except BaseException:
            self.stop()
            raise
        return self

    def connect(self):
        """The first monitor, once all is done that the options ask for: the agent's own socket is the last."""
        deadline = time.monotonic() + 30
        while not self._is_listening():
            assert self.process.poll() is None, f"coldframed ended with {self.process.returncode}:\n{self.log()}"
            assert time.monotonic() < deadline, f"coldframed does not listen at {self.socket}:\n{self.log()}"
            time.sleep(0.02)
        self.monitors.append(Monitor(self.test_socket))

    def _is_listening(self):
        # The file alone may be a killed agent's.
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def connect_second(self):
        """A monitor on the second socket, beside `monitor`."""
        self.monitors.append(Monitor(self.second_socket))
        return self.monitors[-1]

    @property
    def monitor(self):
        return self.monitors[0]

    def __getattr__(self, name):
        # `agent.execute`, `agent.run_job` and so on are the first monitor's.
        if name in ("execute", "run_job", "wait_job", "wait_event", "mark", "events_since", "job", "job_statuses"):
            return getattr(self.monitor, name)
        raise AttributeError(name)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def kill(self):
        """kill -9; what it leaves stays."""
        self.process.kill()
        self.process.wait()
        self.disconnect()

    def end_agent(self, timeout=30):
        """SIGTERM to the agent alone. Returns the exit code."""
        self.process.terminate()
        return self.wait_end(timeout)

    def wait_end(self, timeout=30):
        self.process.wait(timeout)
        self.disconnect()
        return self.process.returncode

    def disconnect(self):
        """Forgets the monitors of an agent that has ended."""
        for monitor in self.monitors:
            monitor.close()
        self.monitors = []
        # So that the next start is waited for.
        self.test_socket.unlink(missing_ok=True)

    def _pids(self, matches):
        found = {}
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if matches(words):
                found[int(folder.name)] = words
        return found

    def keeper_pids(self):
        runtime = str(self.runtime).encode()
        return list(self._pids(lambda words: words[0].endswith(b"coldframe-keeper") and words[1].startswith(runtime)))

    def qemu_pids(self):
        """QEMU's processes that this agent has started, the one that waits for a state last."""
        sockets = f"path={self.runtime}/{self.name}/qemu/".encode()
        found = self._pids(lambda words: b"qemu" in words[0] and any(sockets in word for word in words))
        return sorted(found, key=lambda pid: b"-incoming" in found[pid])

    def kill_keeper(self):
        for pid in self.keeper_pids():
            os.kill(pid, 9)

    def stop(self, timeout=30):
        """Ends the agent as SIGTERM does, the guest with it. Returns the exit code."""
        if self.process and self.process.poll() is None:
            try:
                self._end_guest()
            finally:
                self.process.terminate()
                try:
                    self.process.wait(timeout)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
                    raise AssertionError(f"coldframed did not end on SIGTERM:\n{self.log()}")
        self.disconnect()
        self._end_left_guest()
        return self.process.returncode if self.process else None

    def _end_left_guest(self):
        """The guest of an agent that cannot be asked any more."""
        for name in ("guest.qmp", "guest-1.qmp"):
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(self.runtime / self.name / "qemu" / name))
                    pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
                os.kill(pid, 9)
            except OSError:
                pass

    def _end_guest(self):
        """A guest outlives its agent by design; a test's must not."""
        try:
            self.execute("guest-del", force=True)
        except Exception:  # No guest, or the test broke the connection on purpose.
            pass

    def cli(self, *arguments, check=True, timeout=120, **options):
        """Runs `coldframe` as a user would."""
        result = subprocess.run([str(BINARIES / "coldframe"), *map(str, arguments)],
                                env=self.environment, capture_output=True, text=True, timeout=timeout, **options)
        if check:
            assert result.returncode == 0, f"coldframe {arguments}: {result.returncode}\n{result.stdout}{result.stderr}"
        return result

    def cli_json(self, *arguments):
        return json.loads(self.cli(*arguments, "--json").stdout)

    # What nearly every test needs

    def add_qcow2(self, node, path, **options):
        self.execute("blockdev-add", driver="qcow2", node_name=node,
                     file={"driver": "file", "filename": str(path)}, **options)

    def node(self, name):
        return next((node for node in self.execute("query-named-block-nodes") if node["node-name"] == name), None)

    def snapshot_names(self, node):
        return [snapshot["name"] for snapshot in self.node(node)["image"].get("snapshots", [])]

    def tags(self):
        return {entry["tag"]: entry for entry in self.execute("query-snapshots")}


class GuestAgent(Agent):
    """An agent with the Linux guest on three qcow2 disks, running from the fixture's state.

    The state comes with the disks, as QEMU's own internal snapshot, and is loaded by the agent; with `loads=False` the
    guest stands before its first instruction.
    """

    def __init__(self, directory, loads=True, memory_mebibytes=192, processors=2, qemu=QEMU, **options):
        super().__init__(directory, **options)
        self.fixture = linux_fixture(memory_mebibytes, processors, qemu)
        self.loads, self.qemu = loads, qemu
        self.extra = []  # Further words of QEMU's command line.
        self.memory_mebibytes, self.processors = memory_mebibytes, processors
        self.images = [self.directory / f"{disk}.qcow2" for disk in DISKS]
        self.nodes = list(DISKS)  # That serve the guest's disks now.
        self.console = None
        self.pid = None  # Of the process that the console is connected to.

    def start(self):
        for disk, image in zip(DISKS, self.images):
            shutil.copy(self.fixture / "with-snapshot" / f"{disk}.qcow2", image)
        super().start()
        try:
            for disk, image in zip(DISKS, self.images):
                self.add_disk(disk, image)
            command = [*linux_command(self.directory, self.memory_mebibytes, self.processors, qemu=self.qemu), "-S",
                       *self.extra]
            self.execute("guest-add", driver="qemu", id="vm", command=command, disks=DISKS)
            self.follow()
            if self.loads:
                self.load(TAG)
                self.delete(TAG)
                self.execute("cont")
                self.console.assert_advances()
        except BaseException:
            self.stop()
            raise
        return self

    def add_disk(self, disk, image):
        self.add_qcow2(disk, image)

    def save(self, tag, devices=None, vmstate=None, **arguments):
        """snapshot-save to its end; returns the data of SNAPSHOT_SAVED."""
        mark = self.mark()
        self.run_job("snapshot-save", tag=tag, vmstate=vmstate or self.nodes[0],
                     devices=list(devices or self.nodes), **arguments)
        return self.wait_event("SNAPSHOT_SAVED", mark, lambda data: data["tag"] == tag)["data"]

    def load(self, tag, devices=None, vmstate=None, **arguments):
        self.run_job("snapshot-load", tag=tag, vmstate=vmstate or self.nodes[0],
                     devices=list(devices or self.nodes), **arguments)
        self.follow()

    def follow(self):
        """The console of the guest's process, which may be another one than before."""
        pid = self.execute("query-guest")["pid"]
        if pid != self.pid:
            if self.console:
                self.console.close()
            self.console = LinuxConsole(self.directory / "console.sock")
            self.pid = pid

    def delete(self, tag, devices=None, **arguments):
        self.run_job("snapshot-delete", tag=tag, devices=list(devices or self.nodes), **arguments)

    def restart(self, has_guest=True):
        """A new agent on what the killed one has left. The console belongs to the guest and stays."""
        Agent.start(self)
        if has_guest:
            self.follow()
        return self

    def check_images(self):
        """After the agent's end: qemu-img finds nothing on any disk."""
        for image in self.images:
            images.check(image)
