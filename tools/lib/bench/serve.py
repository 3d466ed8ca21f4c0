"""Who serves images over NBD, and fio as their client."""

import contextlib
import json
import subprocess
import tempfile
import time

from harness import images
from harness.agent import Agent


@contextlib.contextmanager
def fresh_agent():
    """A coldframed that remembers nothing of the one before."""
    with tempfile.TemporaryDirectory(prefix="cf-") as folder, Agent(folder) as agent:
        yield agent


@contextlib.contextmanager
def daemon_export(directory, image, options=""):
    """A qcow2 image through qemu-storage-daemon; its NBD address."""
    socket, pid = directory / "qsd.sock", directory / "qsd.pid"
    daemon = subprocess.Popen([
        "qemu-storage-daemon", "--blockdev",
        f"driver=qcow2,node-name=n,file.driver=file,file.filename={image}{options}",
        "--nbd-server", f"addr.type=unix,addr.path={socket}", "--export", "nbd,id=e,node-name=n,writable=on",
        "--pidfile", pid])
    try:
        while not pid.exists():
            if daemon.poll() is not None:
                raise RuntimeError("qemu-storage-daemon did not start")
            time.sleep(0.02)
        yield f"nbd+unix:///n?socket={socket}"
    finally:
        daemon.terminate()
        daemon.wait()
        pid.unlink(missing_ok=True)


def rate(uri, mode, depth, mebibytes, *more, seconds=3):
    """fio's requests of 4 KiB per second, for so long, or until all is done that `more` says."""
    words = ["fio", "--name=w", "--ioengine=nbd", f"--uri={uri}", f"--rw={mode}", "--bs=4k", f"--iodepth={depth}",
             "--output-format=json", "--randrepeat=1", f"--size={mebibytes}M", *more]
    words += ["--time_based", f"--runtime={seconds}"] if seconds else []
    output = images.run(*words).stdout
    # The engine says a line of its own first.
    job = json.loads(output[output.index("{"):])["jobs"][0]
    return job["read"]["iops"] + job["write"]["iops"]
