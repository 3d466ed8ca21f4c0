"""Sequential read of a snapshot's disk.raw against the host file and qemu-storage-daemon's FUSE export."""

import contextlib
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from harness import images
from harness.agent import Agent

MEBIBYTES = 1024


def read_rate(path):
    """Reads the whole file in pieces of 1 MiB; GB/s."""
    buffer = bytearray(1 << 20)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        start, total = time.monotonic(), 0
        while count := os.preadv(descriptor, [buffer], total):
            total += count
        return total / (time.monotonic() - start) / 1e9
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_daemon(image, directory):
    """The image as a file that qemu-storage-daemon exports by FUSE."""
    point = directory / "qsd.raw"
    point.touch()
    daemon = subprocess.Popen([
        "qemu-storage-daemon", "--blockdev", f"driver=file,node-name=f,filename={image},read-only=on",
        "--blockdev", "driver=qcow2,node-name=q,file=f,read-only=on", "--export",
        f"type=fuse,id=e,node-name=q,mountpoint={point}", "--pidfile", directory / "qsd.pid"])
    try:
        while not (directory / "qsd.pid").exists():
            if daemon.poll() is not None:
                raise RuntimeError("qemu-storage-daemon did not start")
            time.sleep(0.02)
        yield point
    finally:
        daemon.terminate()
        daemon.wait()
        (directory / "qsd.pid").unlink(missing_ok=True)


@contextlib.contextmanager
def tree(image, directory):
    """The image's snapshot `t` as the agent's tree shows it."""
    # A named agent would find its nodes and trees again.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tree", dir=directory))
    point = folder / "tree"
    point.mkdir()
    with Agent(folder) as agent:
        agent.add_qcow2("n", image, read_only=True)
        agent.execute("snapshot-export-add", id="tree", mountpoint=str(point))
        yield point / "t/n/disk.raw"


def run(rounds, qemu_only):
    with tempfile.TemporaryDirectory(prefix="cf-", dir="/var/tmp") as name:
        directory = pathlib.Path(name)
        raw = directory / "disk.raw"
        with open(raw, "wb") as file:
            for _ in range(MEBIBYTES):
                file.write(os.urandom(1 << 20))
        image = directory / "disk.qcow2"
        images.run("qemu-img", "convert", "-O", "qcow2", raw, image)
        images.run("qemu-img", "snapshot", "-c", "t", image)
        rates = {"host file": [], "qemu-storage-daemon": [], "disk.raw": [], "disk.raw again": []}
        read_rate(image)
        for _ in range(rounds):
            rates["host file"].append(read_rate(raw))
            with storage_daemon(image, directory) as path:
                rates["qemu-storage-daemon"].append(read_rate(path))
            if not qemu_only:
                with tree(image, directory) as path:
                    rates["disk.raw"].append(read_rate(path))
                    rates["disk.raw again"].append(read_rate(path))
    return report({name: statistics.median(values) for name, values in rates.items() if values})


def report(median):
    print(f"\nSequential read of {MEBIBYTES} MiB, host cache warm, GB/s, median")
    for name, rate in median.items():
        print(f"  {name:20s} {rate:6.2f}  {rate / median['host file']:5.2f} of the host file")
    if "disk.raw" in median:
        factor = median["disk.raw"] / median["qemu-storage-daemon"]
        print(f"  disk.raw is {factor:.2f} times as fast as qemu-storage-daemon's FUSE export")
        if factor < 1:
            return [f"disk.raw: {factor:.2f} of qemu-storage-daemon's rate, goal 1"]
    return []
