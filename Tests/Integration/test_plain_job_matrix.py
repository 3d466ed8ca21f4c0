"""The jobs `create` and `amend`, which have no speed and no end but their own, side by side with qemu-storage-daemon."""

import time

import pytest

from harness import images
from harness.reference import answer, assert_equal, plain, story

JOB = "j"
VERBS = [
    ("job-finalize", {"id": JOB}), ("job-complete", {"id": JOB}), ("job-resume", {"id": JOB}), ("job-pause", {"id": JOB}),
    ("job-cancel", {"id": JOB}), ("block-job-finalize", {"id": JOB}), ("block-job-dismiss", {"id": JOB}),
    ("block-job-set-speed", {"device": JOB, "speed": 1}), ("block-job-cancel", {"device": JOB}),
    ("block-job-cancel", {"device": JOB, "force": True}), ("block-job-complete", {"device": JOB}),
    ("block-job-pause", {"device": JOB}), ("block-job-resume", {"device": JOB}), ("job-dismiss", {"id": JOB}),
]
FIRST_PARTS = ["refcount table", "qcow2 header"]
WRITES_FAIL = {"inject-error": [{"event": "none", "iotype": "write", "errno": 5}]}


def add_file(peer, folder, faults=None, group=None):
    """The node `file` that an image is to be made in: empty, failing or held back."""
    path = images.create(folder / "new.img", "0", form="raw")
    file = {"driver": "file", "filename": str(path)}
    if faults:
        file = {"driver": "blkdebug", "image": file, **faults}
    if group:
        file = {"driver": "throttle", "throttle-group": group, "file": file}
    peer.execute("blockdev-add", **{key.replace("-", "_"): value for key, value in file.items()}, node_name="file")
    return path


def create(peer, **more):
    options = {"driver": "qcow2", "file": "file", "size": 8 << 20, **more}
    return answer(peer, "blockdev-create", {"job-id": JOB, "options": options})


def add_image(peer, folder):
    path = images.create(folder / "amended.qcow2", "8M")
    peer.execute("blockdev-add", driver="qcow2", node_name="image", file={"driver": "file", "filename": str(path)})


def amend(peer, **options):
    return answer(peer, "x-blockdev-amend", {"job-id": JOB, "node-name": "image", "options": {"driver": "qcow2", **options}})


def wait_concluded(peer, timeout=30):
    deadline = time.monotonic() + timeout
    while peer.job(JOB)["status"] != "concluded":
        assert time.monotonic() < deadline, peer.job(JOB)
        time.sleep(0.002)


def wait_begun(path, timeout=30):
    """A job has written something into a file, of which only the first write passes at once."""
    deadline = time.monotonic() + timeout
    while path.stat().st_size == 0:
        assert time.monotonic() < deadline, f"{path} is empty"
        time.sleep(0.002)


def concluded(peer, mark):
    """What is shown of the job at its end, what every verb says, the last of which makes it go, and its story."""
    wait_concluded(peer)
    told = [peer.execute("query-jobs"), peer.execute("query-block-jobs")]
    told += [[verb, answer(peer, verb, arguments)] for verb, arguments in VERBS]
    return [*told, peer.execute("query-jobs"), story(peer, mark, JOB)]


def both(peers, script):
    results = [plain(script(peer, folder), folder)
               for peer, folder in ((peers.ours, peers.our_folder), (peers.theirs, peers.their_folder))]
    assert_equal(*results)
    return results[0]


@pytest.mark.parametrize("more", [{}, {"size": 1000}, {"cluster-size": 1000}, {"version": "v2", "refcount-bits": 8},
                                  {"preallocation": "metadata"}], ids=str)
def test_an_image_is_made(peers, more):
    def script(peer, folder):
        path = add_file(peer, folder)
        mark = peer.mark()
        told = [create(peer, **more), *concluded(peer, mark)]
        peer.execute("blockdev-del", node_name="file")
        if "error" not in told[1][0]:
            images.check(path)
        return told
    both(peers, script)


def test_an_image_cannot_be_made(peers):
    def script(peer, folder):
        add_file(peer, folder, WRITES_FAIL)
        mark = peer.mark()
        told = [create(peer), *concluded(peer, mark)]
        peer.execute("blockdev-del", node_name="file")
        # What is written first is theirs the header, which here comes last so that a crash leaves no half image.
        assert told[1][0]["error"] in [f"Could not write {part}: Input/output error" for part in FIRST_PARTS]
        del told[1][0]["error"]
        return told
    both(peers, script)


@pytest.mark.parametrize("verbs", [
    ["job-complete", "job-finalize", "job-dismiss", "job-resume"], ["job-pause", "job-pause", "job-resume", "job-resume"],
    ["job-cancel"], ["job-pause", "job-cancel"], ["job-cancel", "job-cancel", "job-complete"]], ids=" ".join)
def test_verbs_while_an_image_is_made(peers, verbs):
    """The file's writes are so slow that all verbs are said before it is done. (To set other limits would be no way to let
    it go: qemu-storage-daemon 7.2 lets what waits already wait by the old ones.)"""
    def script(peer, folder):
        peer.execute("object-add", qom_type="throttle-group", id="tg", limits={"iops-write": 4})
        path = add_file(peer, folder, group="tg")
        mark = peer.mark()
        told = [create(peer)]
        wait_begun(path)
        told += [peer.execute("query-jobs"), peer.execute("query-block-jobs")]
        for verb in verbs:
            told += [answer(peer, verb, {"id": JOB}), peer.execute("query-jobs")]
        told += concluded(peer, mark)
        peer.execute("blockdev-del", node_name="file")
        peer.execute("object-del", id="tg")
        # It is whole also where a cancel came too late to keep it from being made.
        images.check(path)
        return told
    both(peers, script)


def test_an_image_is_amended(peers):
    """By nothing, which is all that both can: theirs amends encryption only, ours all but that."""
    def script(peer, folder):
        add_image(peer, folder)
        mark = peer.mark()
        told = [amend(peer), *concluded(peer, mark)]
        peer.execute("blockdev-del", node_name="image")
        images.check(folder / "amended.qcow2")
        return told
    both(peers, script)


def test_jobs_that_are_not_there(peers):
    def script(peer, folder):
        return [[verb, answer(peer, verb, arguments)] for verb, arguments in VERBS]
    both(peers, script)
