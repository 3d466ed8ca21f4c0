"""qcow2 against QEMU on the same images: requests through NBD, conversions, snapshots, tables larger than their cache."""

import contextlib
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from harness import images
from harness.agent import BINARIES

from .serve import daemon_export, fresh_agent, rate

MEBIBYTES = 512
GOAL_REQUESTS = 1.5
GOAL_SNAPSHOTS = 2
WORKERS = 8
# The disk's own pace varies more than the tools do.
CONVERSION_ROUNDS = 8
DEPTHS = (1, 16)


@contextlib.contextmanager
def agent_export(directory, image, **options):
    """The image through coldframed; its NBD address."""
    socket = directory / "cf.sock"
    with fresh_agent() as agent:
        agent.execute("blockdev-add", driver="qcow2", node_name="n", file={"driver": "file", "filename": str(image)},
                      **options)
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
        agent.execute("block-export-add", type="nbd", id="e", node_name="n", writable=True)
        yield f"nbd+unix:///n?socket={socket}"


def compare(name, ours, theirs, goal, unit, higher=True):
    """Prints medians and their ratio; returns what was missed."""
    a, b = statistics.median(ours), statistics.median(theirs)
    factor = a / b if higher else b / a
    print(f"  {name:42s} {a:10.1f} {b:10.1f} {unit:5s} {factor:5.2f} (goal {goal})")
    return [f"{name}: {factor:.2f} of QEMU, goal {goal}"] if factor < goal else []


def requests(directory, content, rounds):
    """4 KiB requests on an image that is full, and writes into one that is empty."""
    print("\nRequests of 4 KiB through NBD: coldframed, qemu-storage-daemon")
    missed = []
    image = directory / "disk.qcow2"
    images.run("qemu-img", "convert", "-O", "qcow2", content, image)
    for mode in ("read", "randread", "write", "randwrite"):
        for depth in DEPTHS:
            ours, theirs = [], []
            for _ in range(rounds):
                with agent_export(directory, image) as uri:
                    ours.append(rate(uri, mode, depth, MEBIBYTES))
                with daemon_export(directory, image) as uri:
                    theirs.append(rate(uri, mode, depth, MEBIBYTES))
            missed += compare(f"{mode}, {depth} at once", ours, theirs, GOAL_REQUESTS, "IOPS")
    for depth in DEPTHS:
        ours, theirs = [], []
        for _ in range(rounds):
            # Each place once: every write allocates.
            for serve, found in ((agent_export, ours), (daemon_export, theirs)):
                images.create(image, f"{MEBIBYTES * 16}M")
                with serve(directory, image) as uri:
                    found.append(rate(uri, "randwrite", depth, MEBIBYTES * 16, "--blockalign=64k", seconds=2))
        missed += compare(f"randwrite that allocates, {depth} at once", ours, theirs, GOAL_REQUESTS, "IOPS")
    return missed


def large_tables(directory, rounds):
    """64 GiB of clusters of 4 KiB have 128 MiB of L2 tables, for which both caches are too small."""
    image = directory / "tables.qcow2"
    images.create(image, "64G", options="cluster_size=4k,preallocation=metadata")
    ours, theirs = [], []
    for _ in range(rounds):
        with agent_export(directory, image) as uri:
            ours.append(rate(uri, "randread", 16, 65536))
        with daemon_export(directory, image) as uri:
            theirs.append(rate(uri, "randread", 16, 65536))
    image.unlink()
    return compare("randread where L2 exceeds the cache, 16", ours, theirs, GOAL_REQUESTS, "IOPS")


def took(*command):
    start = time.monotonic()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def conversions(directory, content, rounds):
    print(f"\nConversions, {WORKERS} workers: coldframe image convert, qemu-img convert")
    missed = []
    full, sparse = directory / "full.qcow2", directory / "sparse.qcow2"
    images.run("qemu-img", "convert", "-O", "qcow2", content, full)
    images.create(sparse, "64G")
    images.run("qemu-io", "-f", "qcow2", *(word for index in range(64)
                                          for word in ("-c", f"write -q -P {index + 1} {index}G 1M")), sparse)
    target = directory / "target"
    # Both leave a copy that a power loss does not take.
    tools = {"ours": [BINARIES / "coldframe", "image", "convert", "-q"],
             "theirs": ["qemu-img", "convert", "-W", "-t", "writeback"]}
    cases = [("full to raw", full, ["-O", "raw"], 1), ("full to compressed", full, ["-c", "-O", "qcow2"], 1),
             ("sparse to raw", sparse, ["-O", "raw"], 1), ("sparse to qcow2", sparse, ["-O", "qcow2"], 1)]
    for name, source, options, goal in cases:
        found = {tool: [] for tool in tools}
        # Each is first as often as second. The first round warms the memory up and does not count.
        for index in range(max(rounds, CONVERSION_ROUNDS) + 1):
            for tool in tools if index % 2 else reversed(tools):
                target.unlink(missing_ok=True)
                # What the one before has left to be written, or freed, is not this one's.
                os.sync()
                seconds = took(*tools[tool], "-m", WORKERS, *options, source, target)
                if index:
                    found[tool].append(seconds * 1000)
        missed += compare(name, found["ours"], found["theirs"], goal, "ms", higher=False)
    return missed


def snapshots(directory, rounds):
    print("\nSnapshots of 100 GiB that are all mapped: coldframed, qemu-img snapshot")
    image = directory / "mapped.qcow2"
    images.create(image, "100G", options="preallocation=metadata")
    ours, theirs = {"create": [], "delete": []}, {"create": [], "delete": []}
    for _ in range(rounds):
        theirs["create"].append(took("qemu-img", "snapshot", "-c", "t", image) * 1000)
        theirs["delete"].append(took("qemu-img", "snapshot", "-d", "t", image) * 1000)
        with fresh_agent() as agent:
            agent.add_qcow2("n", image)
            start = time.monotonic()
            agent.execute("blockdev-snapshot-internal-sync", device="n", name="t")
            ours["create"].append((time.monotonic() - start) * 1000)
            start = time.monotonic()
            agent.execute("blockdev-snapshot-delete-internal-sync", device="n", name="t")
            ours["delete"].append((time.monotonic() - start) * 1000)
    images.check(image)
    return [text for name in ours for text in compare(name, ours[name], theirs[name], GOAL_SNAPSHOTS, "ms", False)]


PARTS = ("requests", "tables", "convert", "snapshots")


def run(rounds, parts):
    missed = []
    with tempfile.TemporaryDirectory(prefix="cf-", dir="/var/tmp") as name:
        directory = pathlib.Path(name)
        content = directory / "content.raw"
        with open(content, "wb") as file:
            for _ in range(MEBIBYTES // 2):
                # Half of it compresses.
                file.write(os.urandom(1 << 20) + b"text that repeats itself" * 43690 + bytes(16))
        if "requests" in parts:
            missed += requests(directory, content, rounds)
        if "tables" in parts:
            missed += large_tables(directory, rounds)
        if "convert" in parts:
            missed += conversions(directory, content, rounds)
        if "snapshots" in parts:
            missed += snapshots(directory, rounds)
    return missed
