"""Raw disks with a sidecar: what they cost without a snapshot, at the first overwrite, at a create, and far back."""

import contextlib
import os
import pathlib
import random
import statistics
import tempfile
import time

from harness import images

from .serve import daemon_export, fresh_agent, rate

MEBIBYTES = 512
LEVELS = 100
SPARSE = {"1 GiB": 1 << 30, "100 GiB": 100 << 30, "1 TiB": 1 << 40}
# How many writes at once, and whether each is followed by a flush, as a journal's are.
FIRST_WAYS = ((1, True), (16, False), (1, False))


def random_writes(uri, depth, megabytes=None, align=4096, flushes=False):
    """fio's random 4 KiB writes through NBD; IOPS. With `megabytes` every place is written once."""
    more = ["--fsync=1"] if flushes else []
    if megabytes:
        return rate(uri, "randwrite", depth, MEBIBYTES, f"--blockalign={align}", f"--io_size={megabytes}M", *more,
                    seconds=None)
    return rate(uri, "randwrite", depth, MEBIBYTES, f"--blockalign={align}", *more)


@contextlib.contextmanager
def agent_export(directory, path, driver, snapshot=False):
    """The raw file through coldframed; its NBD address."""
    socket = directory / "cf.sock"
    with fresh_agent() as agent:
        options = {"create_sidecar": True} if driver == "raw-sidecar" else {}
        agent.execute("blockdev-add", driver=driver, node_name="n", file={"driver": "file", "filename": str(path)},
                      **options)
        if snapshot:
            agent.execute("blockdev-snapshot-internal-sync", device="n", name="t")
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
        agent.execute("block-export-add", type="nbd", id="e", node_name="n", writable=True)
        yield f"nbd+unix:///n?socket={socket}"


def fresh_raw(directory, content):
    path = directory / "disk.raw"
    pathlib.Path(f"{path}.sidecar").unlink(missing_ok=True)
    images.run("cp", content, path)
    return path


def plain_writes(directory, content, rounds):
    rates = {"raw": [], "raw-sidecar": []}
    for number in range(rounds):
        # In turn the first: what the one before has left in the page cache is written back under the other.
        for driver in sorted(rates, reverse=number % 2 == 1):
            path = fresh_raw(directory, content)
            os.sync()
            with agent_export(directory, path, driver) as uri:
                rates[driver].append(random_writes(uri, 4))
    ratio = statistics.median(rates["raw-sidecar"]) / statistics.median(rates["raw"])
    print(f"\nRandom 4 KiB writes through NBD without a snapshot: raw {statistics.median(rates['raw']):.0f} IOPS, "
          f"raw-sidecar {statistics.median(rates['raw-sidecar']):.0f}: {ratio:.2f} of raw")
    return [] if ratio >= 0.95 else [f"writes without a snapshot: {ratio:.2f} of raw, goal 0.95"]


def first_overwrites(directory, content, rounds):
    missed = []
    for depth, flushes in FIRST_WAYS:
        # A flush takes milliseconds.
        megabytes = MEBIBYTES // (256 if flushes or depth == 1 else 32)
        rates = {"qcow2 in qemu-storage-daemon": [], "raw-sidecar": []}
        for _ in range(rounds):
            image = directory / "disk.qcow2"
            images.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", content, image)
            images.run("qemu-img", "snapshot", "-c", "t", image)
            with daemon_export(directory, image) as uri:
                rates["qcow2 in qemu-storage-daemon"].append(random_writes(uri, depth, megabytes, 65536, flushes))
            with agent_export(directory, fresh_raw(directory, content), "raw-sidecar", snapshot=True) as uri:
                rates["raw-sidecar"].append(random_writes(uri, depth, megabytes, 65536, flushes))
        median = {name: statistics.median(values) for name, values in rates.items()}
        ratio = median["raw-sidecar"] / median["qcow2 in qemu-storage-daemon"]
        words = ", ".join(f"{name} {rate:.0f} IOPS" for name, rate in median.items())
        way = f"{depth} at once" + (", each flushed" if flushes else "")
        print(f"First overwrites after a snapshot, {way}: {words}: {ratio:.2f}")
        if ratio < 1:
            missed.append(f"first overwrite, {way}: {ratio:.2f} of qcow2 in qemu-storage-daemon, goal 1")
    return missed


def flush_cost(directory, count=50):
    """What one fdatasync of a file at rest, written a little, takes on this disk: median in ms."""
    with open(directory / "flushed", "wb") as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        took = []
        for _ in range(count):
            time.sleep(random.random() / 100)
            os.pwrite(file.fileno(), b"x", 0)
            start = time.monotonic()
            os.fdatasync(file.fileno())
            took.append((time.monotonic() - start) * 1000)
    median = statistics.median(took)
    print(f"One fdatasync on this disk: {median:.2f} ms, worst {max(took):.2f}")


def creates(directory, rounds):
    missed = []
    for name, size in SPARSE.items():
        path = directory / "sparse.raw"
        pathlib.Path(f"{path}.sidecar").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        with open(path, "wb") as file:
            file.truncate(size)
        took = []
        with fresh_agent() as agent:
            agent.execute("blockdev-add", driver="raw-sidecar", node_name="n", create_sidecar=True,
                          file={"driver": "file", "filename": str(path)})
            for number in range(5 * rounds):
                start = time.monotonic()
                agent.execute("blockdev-snapshot-internal-sync", device="n", name=f"t{number}")
                took.append((time.monotonic() - start) * 1000)
        median = statistics.median(took)
        print(f"Snapshot of a sparse disk of {name}: {median:.2f} ms, worst {max(took):.2f}")
        if median >= 5:
            missed.append(f"create on {name}: {median:.2f} ms, goal 5")
    return missed


def read_rate(path):
    buffer = bytearray(1 << 20)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        start, total = time.monotonic(), 0
        while count := os.preadv(descriptor, [buffer], total):
            total += count
        return total / (time.monotonic() - start) / 1e9
    finally:
        os.close(descriptor)


def far_back(directory, content, rounds):
    path = fresh_raw(directory, content)
    point = directory / "tree"
    point.mkdir(exist_ok=True)
    socket = directory / "cf.sock"
    chance = random.Random(1)
    rates = {"newest": [], "oldest": []}
    with fresh_agent() as agent:
        agent.execute("blockdev-add", driver="raw-sidecar", node_name="n", create_sidecar=True,
                      file={"driver": "file", "filename": str(path)})
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
        agent.execute("block-export-add", type="nbd", id="e", node_name="n", writable=True)
        for level in range(LEVELS):
            agent.execute("blockdev-snapshot-internal-sync", device="n", name=f"t{level}")
            offsets = [chance.randrange(MEBIBYTES * 16) * 65536 for _ in range(64)]
            images.run("qemu-io", "-f", "raw", *(word for offset in offsets for word in ("-c", f"write -q {offset} 4096")),
                       f"nbd+unix:///n?socket={socket}")
        for _ in range(rounds):
            for name, tag in (("newest", f"t{LEVELS - 1}"), ("oldest", "t0")):
                # Mounted anew, so that the kernel has nothing of it yet.
                agent.execute("snapshot-export-add", id="tree", mountpoint=str(point))
                rates[name].append(read_rate(point / tag / "n" / "disk.raw"))
                agent.execute("snapshot-export-del", id="tree")
    median = {name: statistics.median(values) for name, values in rates.items()}
    ratio = median["newest"] / median["oldest"]
    print(f"Sequential read of a snapshot {LEVELS} levels back: {median['oldest']:.2f} GB/s, "
          f"the newest {median['newest']:.2f}: {ratio:.2f} times as long")
    return [] if ratio <= 2 else [f"read {LEVELS} levels back: {ratio:.2f} times the newest, goal 2"]


def run(rounds):
    with tempfile.TemporaryDirectory(prefix="cf-", dir="/var/tmp") as name:
        directory = pathlib.Path(name)
        content = directory / "content.raw"
        with open(content, "wb") as file:
            for _ in range(MEBIBYTES):
                file.write(os.urandom(1 << 20))
        flush_cost(directory)
        return (plain_writes(directory, content, rounds) + first_overwrites(directory, content, rounds)
                + creates(directory, rounds) + far_back(directory, content, rounds))
