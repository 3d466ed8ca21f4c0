"""A systemd of its own: this host's files in a container, where nothing that is written stays."""

import pathlib
import shutil
import subprocess
import time


class Container:
    """`files` maps paths in the container to those that stand for them here."""

    def __init__(self, directory, files):
        self.root = pathlib.Path(directory) / "root"
        self.log_path = pathlib.Path(directory) / "container.log"
        self.files = files
        self.process = None
        self.leader = None

    @staticmethod
    def missing():
        """Why there can be none here, or None."""
        for tool in ("systemd-nspawn", "nsenter", "unshare"):
            if not shutil.which(tool):
                return f"{tool} is not installed"
        probe = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
        return probe.stderr.strip() or None

    def __enter__(self):
        self.root.mkdir()
        # The mount of the root goes with the namespace; nspawn does not take the root itself.
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                   'mount --bind / "$0" && exec systemd-nspawn -D "$0" "$@"', str(self.root),
                   "--volatile=overlay", "--register=no", "--keep-unit", "--machine=coldframe", "--console=pipe",
                   "--capability=all", "--system-call-filter=userfaultfd",
                   *(f"--bind={here}:{there}" for there, here in self.files.items()),
                   "--boot", "--", "--unit=sysinit.target", "--log-target=console"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait("a leader", self._find_leader)
            self._wait("systemd", lambda: self.systemctl("is-active", "sysinit.target", check=False) == "active")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.leader:
            # As process 1 of its namespace it takes all others with it.
            subprocess.run(["kill", "-9", str(self.leader)], check=False)
        self.process.terminate()
        self.process.wait(30)

    def _find_leader(self):
        pending = [self.process.pid]
        while pending:
            pid = pending.pop()
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            inner = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
            if inner[-1] == "1" and len(inner) > 2 and "Name:\tsystemd\n" in status:
                self.leader = pid
                return True
            pending += map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return False

    def _wait(self, what, is_there, timeout=90):
        deadline = time.monotonic() + timeout
        while not is_there():
            assert self.process.poll() is None and time.monotonic() < deadline, \
                f"{what} is not there:\n{self.log_path.read_text(errors='replace')[-3000:]}"
            time.sleep(0.1)

    def run(self, *words, check=True):
        """Standard output of a command in the container."""
        result = subprocess.run(["nsenter", f"--target={self.leader}", "--all", "--", *words], capture_output=True,
                                text=True, timeout=120)
        assert not check or result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
        return result.stdout.strip()

    def systemctl(self, *words, check=True):
        return self.run("systemctl", *words, check=check)

    def path(self, there):
        """How a file of the container is reached from outside."""
        return pathlib.Path(f"/proc/{self.leader}/root{there}")
