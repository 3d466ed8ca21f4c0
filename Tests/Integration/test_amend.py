"""Other options for images that exist: `coldframe image amend` and the job of `x-blockdev-amend`, under a writer."""

import json
import subprocess
import threading

import pytest

from harness import images
from harness.agent import BINARIES
from harness.monitor import CommandError


def amend(path, options, status=0):
    done = subprocess.run([BINARIES / "coldframe", "image", "amend", "-q", "-o", options, str(path)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr


def info(path):
    return json.loads(images.run("qemu-img", "info", "-U", "--output=json", path).stdout)


@pytest.mark.parametrize("options", ["compat=0.10", "lazy_refcounts=on", "refcount_bits=8", "refcount_bits=64", "size=9M",
                                     "size=3M"])
def test_an_image_becomes_what_qemu_img_makes_of_it(directory, options):
    said = []
    for name in ("ours", "theirs"):
        path = images.create(directory / name, "6M", options="cluster_size=4k")
        images.run("qemu-io", "-c", "write -P 3 100k 2M", "-c", "write -z -u 1M 500k", path)
        if name == "ours":
            amend(path, options)
        else:
            # Their way to cut needs a word more.
            verb = ["resize", "--shrink", path, "3M"] if options == "size=3M" else ["amend", "-o", options, path]
            images.run("qemu-img", *verb)
        images.check(path)
        said.append({key: value for key, value in info(path).items() if key not in ("filename", "actual-size", "children")})
    assert said[0] == said[1]
    images.same_content(directory / "ours", "qcow2", directory / "theirs", "qcow2")


def test_names_in_an_image(directory):
    for name in ("base", "other"):
        images.create(directory / name, "4M", form="raw")
        images.run("qemu-io", "-f", "raw", "-c", "write -P 5 0 4M", directory / name)
    top = directory / "top"
    images.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", top)
    images.write_pattern(top, 7, 1 << 20)
    amend(top, f"backing_file={directory / 'other'},backing_fmt=raw")
    assert info(top)["backing-filename"] == str(directory / "other")
    images.check(top)
    assert images.has_pattern(top, 5, form="qcow2") and images.has_pattern(top, 7, 1 << 20, form="qcow2")
    # The file need not be there: only its name is written.
    amend(top, "backing_file=gone,backing_fmt=qcow2")
    assert info(top)["backing-filename"] == "gone"
    # But what decides what has to be written must be.
    assert "gone" in amend(top, "size=8M", status=1)
    amend(top, "backing_file=")
    assert "backing-filename" not in info(top)
    assert "multiple of 512" in amend(top, "size=1000", status=1)
    assert images.create(directory / "data", "1M", options=f"data_file={directory / 'raw'}")
    amend(directory / "data", f"data_file={directory / 'moved'}")
    assert info(directory / "data")["format-specific"]["data"]["data-file"] == str(directory / "moved")


def test_a_disk_in_use_is_amended_under_its_writer(agent, directory):
    path = images.create(directory / "a.qcow2", "64M")
    # The snapshot shares it with the disk to the end.
    images.write_pattern(path, 251, 60 << 20, 1 << 20)
    agent.add_qcow2("a", path)
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    agent.execute("block-export-add", type="nbd", id="e", node_name="a", name="a", writable=True)
    agent.execute("blockdev-snapshot-internal-sync", device="a", name="before")
    ended = threading.Event()
    failures = []
    written = []

    def write():
        while not ended.is_set():
            place = len(written) % 60
            done = images.run("qemu-io", "-f", "raw", "-c", f"write -P {len(written) % 250 + 1} {place}M 1M",
                              f"nbd+unix:///a?socket={directory}/nbd.sock", check=False)
            if done.returncode or "rror" in done.stdout + done.stderr:
                failures.append(done.stdout + done.stderr)
                return
            written.append(place)
    writer = threading.Thread(target=write)
    writer.start()

    def amend_node(**options):
        mark = agent.mark()
        agent.execute("x-blockdev-amend", job_id="j", node_name="a", options={"driver": "qcow2", **options})
        agent.wait_event("JOB_STATUS_CHANGE", mark, lambda data: data["status"] == "concluded")
        (job,) = agent.execute("query-jobs")
        agent.execute("job-dismiss", id="j")
        return job.get("error")
    try:
        for options in ({"refcount-bits": 64}, {"version": "v2", "refcount-bits": 16}, {"version": "v3"},
                        {"lazy-refcounts": True, "refcount-bits": 8}):
            assert amend_node(**options) is None
        # The snapshot's clusters have two references, which one bit cannot say.
        assert "more than refcounts of 1 bits can hold" in amend_node(**{"refcount-bits": 1})
        # An export shows one size as long as it is there, as with block_resize.
        with pytest.raises(CommandError, match="'resize' are both required by block job: amend"):
            amend_node(size=80 << 20)
    finally:
        ended.set()
        writer.join()
    assert not failures and written
    # Whether or not the server has noticed that its client is gone.
    agent.execute("block-export-del", id="e", mode="hard")
    assert amend_node(size=80 << 20) is None
    (node,) = [node for node in agent.execute("query-named-block-nodes") if node["node-name"] == "a"]
    data = node["image"]["format-specific"]["data"]
    assert (data["compat"], data["refcount-bits"], data["lazy-refcounts"]) == ("1.1", 8, True)
    assert node["image"]["virtual-size"] == 80 << 20
    agent.execute("blockdev-del", node_name="a")
    images.check(path)
    assert images.has_pattern(path, 251, 60 << 20, 1 << 20, form="qcow2")
    last = {place: count % 250 + 1 for count, place in enumerate(written)}
    for place, pattern in last.items():
        assert images.has_pattern(path, pattern, place << 20, 1 << 20, form="qcow2"), place
