"""Jobs on nodes against qemu-storage-daemon: backup, mirror, commit and stream of an allocated image, many small jobs, and what
a guest's writes feel of a backup."""

import contextlib
import functools
import json
import os
import pathlib
import shutil
import socket
import statistics
import tempfile
import time

from harness import images
from harness.agent import Agent
from harness.reference import StorageDaemon

MEBIBYTES = 4096
SMALL_JOBS = 1000
# How fast memory is varies more than the two do.
COPYING_ROUNDS = 6
GOALS = {"time": 1, "cpu": 1.33, "small": 3, "p99": 1}
MEBIBYTE = 1 << 20


@contextlib.contextmanager
def peer(which, directory):
    # A named agent would find its nodes again.
    folder = pathlib.Path(tempfile.mkdtemp(prefix=which, dir=directory))
    second = ["--chardev", f"socket,id=s,path={folder}/second.sock,server=on,wait=off", "--monitor", "chardev=s"]
    with (Agent(folder) if which == "ours" else StorageDaemon(folder, options=second)) as running:
        yield running


class LeanClient:
    """A monitor without a library, which would take longer than what is measured."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")
        self.lines.readline()
        self.execute(b'{"execute": "qmp_capabilities"}')

    def execute(self, command):
        """Sends it and reads up to its reply. Events before that are dropped."""
        self.socket.sendall(command)
        self.wait(b'"return"')

    def wait(self, words):
        """Reads up to the line that has the words."""
        for line in self.lines:
            assert not line.startswith(b'{"error"'), line
            if words in line:
                return

    def close(self):
        self.lines.close()
        self.socket.close()


def processor_seconds(running):
    fields = pathlib.Path(f"/proc/{running.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def add(running, path, node, **options):
    running.execute("blockdev-add", driver="qcow2", node_name=node, file={"driver": "file", "filename": str(path)},
                    **options)


def finish(running, mark, complete=False):
    if complete:
        running.wait_event("BLOCK_JOB_READY", mark, timeout=600)
        running.execute("job-complete", id="j")
    running.wait_event("JOB_STATUS_CHANGE", mark,
                       lambda data: data["id"] == "j" and data["status"] == "concluded", timeout=600)
    ends = [event["data"] for event in running.events_since(mark) if event["event"] == "BLOCK_JOB_COMPLETED"]
    assert ends and "error" not in ends[0], ends


def empty_image(path):
    """A target whose file has its space already: how fast this host finds memory or disk for one is not what is measured."""
    images.create(path, f"{MEBIBYTES}M")
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, (MEBIBYTES + 64) * MEBIBYTE)
    return path


def backup(running, directory, full):
    add(running, full, "src", read_only=True)
    add(running, empty_image(directory / "dst.qcow2"), "dst")
    yield
    running.execute("blockdev-backup", job_id="j", device="src", target="dst", sync="full")
    yield False


def mirror(running, directory, full):
    add(running, full, "src", read_only=True)
    add(running, empty_image(directory / "dst.qcow2"), "dst")
    yield
    running.execute("blockdev-mirror", job_id="j", device="src", target="dst", sync="full")
    yield True


def commit(running, directory, full):
    add(running, empty_image(directory / "base.qcow2"), "base")
    add(running, full, "mid", read_only=True, backing="base")
    add(running, images.create(directory / "top.qcow2", f"{MEBIBYTES}M"), "top", backing="mid")
    yield
    running.execute("block-commit", job_id="j", device="top", top_node="mid", base_node="base")
    yield False


def stream(running, directory, full):
    add(running, full, "base", read_only=True)
    add(running, empty_image(directory / "top.qcow2"), "top", backing="base")
    yield
    running.execute("block-stream", job_id="j", device="top")
    yield False


def measure(directory, full, job, which):
    work = directory / "work"
    work.mkdir()
    try:
        with peer(which, directory) as running:
            steps = job(running, work, full)
            next(steps)
            mark, cpu, start = running.mark(), processor_seconds(running), time.monotonic()
            finish(running, mark, next(steps))
            return time.monotonic() - start, processor_seconds(running) - cpu
    finally:
        shutil.rmtree(work)


def small_jobs(directory, which):
    with peer(which, directory) as running:
        for node in ("src", "dst"):
            path = directory / f"{which}-{node}.raw"
            images.create(path, "64k", "raw")
            running.execute("blockdev-add", driver="file", node_name=node, filename=str(path))
        # It would read every event, and take longer over that than either of the two over the job.
        running.monitor.close()
        client = LeanClient(running.directory / "second.sock")
        start = time.monotonic()
        for number in range(SMALL_JOBS):
            client.execute(b'{"execute": "blockdev-backup", "arguments": {"job-id": "j%d", "device": "src", "target": "dst", '
                           b'"sync": "full", "auto-dismiss": false}}' % number)
            client.wait(b'"concluded"')
            client.execute(b'{"execute": "job-dismiss", "arguments": {"id": "j%d"}}' % number)
        client.close()
        return SMALL_JOBS / (time.monotonic() - start)


def latency(directory, full, which):
    """fio's 99th percentile of writes of 4 KiB through NBD while a backup runs, in milliseconds."""
    work = directory / "work"
    work.mkdir()
    try:
        disk = work / "disk.qcow2"
        shutil.copyfile(full, disk)
        with peer(which, directory) as running:
            add(running, disk, "src")
            add(running, empty_image(work / "dst.qcow2"), "dst")
            export = work / "nbd.sock"
            running.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(export)}})
            running.execute("block-export-add", type="nbd", id="e", node_name="src", name="n", writable=True)
            mark = running.mark()
            running.execute("blockdev-backup", job_id="j", device="src", target="dst", sync="full", speed=200 * MEBIBYTE)
            output = images.run(
                "fio", "--name=w", "--ioengine=nbd", f"--uri=nbd+unix:///n?socket={export}", "--rw=randwrite", "--bs=4k",
                "--iodepth=1", "--output-format=json", "--randrepeat=1", f"--size={MEBIBYTES}M", "--time_based",
                "--runtime=10").stdout
            finish(running, mark)
        job = json.loads(output[output.index("{"):])["jobs"][0]
        return job["write"]["clat_ns"]["percentile"]["99.000000"] / 1e6
    finally:
        shutil.rmtree(work)


def interleaved(rounds, measured):
    """Both in turn, each as often first as second, so that what else the machine does meets both."""
    found = {"ours": [], "theirs": []}
    for number in range(rounds):
        for which in sorted(found, reverse=number % 2 == 1):
            found[which].append(measured(which))
    return found


def compare(name, ours, theirs, goal, unit, higher=False):
    a, b = statistics.median(ours), statistics.median(theirs)
    factor = a / b if higher else b / a
    print(f"  {name:34s} {a:10.2f} {b:10.2f} {unit:6s} {factor:5.2f} (goal {goal})")
    return [f"{name}: {factor:.2f} of QEMU, goal {goal}"] if factor < goal else []


COPYING = (backup, mirror, commit, stream)
PARTS = (*(job.__name__ for job in COPYING), "small", "latency")


def run(rounds, parts):
    missed = []
    # In memory where there is room for three images: a disk that both wait for hides what they do.
    place = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 4 * MEBIBYTES * MEBIBYTE else "/var/tmp"
    print(f"\nJobs on an image of {MEBIBYTES} MiB that is all allocated, in {place}: coldframed, qemu-storage-daemon")
    with tempfile.TemporaryDirectory(prefix="cf-", dir=place) as name:
        directory = pathlib.Path(name)
        full = images.create(directory / "full.qcow2", f"{MEBIBYTES}M")
        for start in range(0, MEBIBYTES, 512):
            images.write_pattern(full, start // 512 + 1, start * MEBIBYTE, 512 * MEBIBYTE)
        # The first copy takes two to three times as long, whoever makes it.
        measure(directory, full, mirror, "theirs")
        for job in COPYING:
            if job.__name__ not in parts:
                continue
            found = interleaved(max(rounds, COPYING_ROUNDS), functools.partial(measure, directory, full, job))
            for index, what in enumerate(("time", "cpu")):
                missed += compare(f"{job.__name__}, {what}", [entry[index] for entry in found["ours"]],
                                  [entry[index] for entry in found["theirs"]], GOALS[what], "s")
        if "small" in parts:
            rates = interleaved(rounds, functools.partial(small_jobs, directory))
            missed += compare("small jobs", rates["ours"], rates["theirs"], GOALS["small"], "per s", higher=True)
        if "latency" in parts:
            waits = interleaved(rounds, functools.partial(latency, directory, full))
            missed += compare("writes during a backup, p99", waits["ours"], waits["theirs"], GOALS["p99"], "ms")
    return missed
