"""What becomes of I/O errors of jobs by their policies, side by side with qemu-storage-daemon, with one blkdebug rule for both."""

import pytest

from harness.jobimages import FAULT_OFFSET, fault
from harness.jobkinds import KINDS
from harness.jobstates import HELD, CellJob, compare_jobs, has_come_to
from test_blkverify import qemu_io

EIO, ENOSPC = 5, 28
# A stream's target gets clusters where the format likes: there the first write fails, wherever it goes.
FIRST_WRITE = {"event": "write_aio", "iotype": "write", "once": True}


# Those that have something to do before they are ready, of backups by a bitmap one, and the sides that a test can put rules on.
SIDES = [(name, side) for name, kind in KINDS.items() if not kind.begins_ready and "bitmap-mode" not in kind.arguments
         for side in ("source", "target") if side == "source" or not kind.makes_target]


def rules(kind, side, errno, **more):
    """The node whose file fails, the option that says what then, and the rules."""
    kind = KINDS[kind]
    if side == "target" and not kind.target:
        return kind.disk, "on-error", {"inject-error": [{**FIRST_WRITE, "errno": errno, **more}]}
    node, option = getattr(kind, side)
    return node, option, fault(node, "read" if side == "source" else "write", errno, **more)


def begin(peer, folder, kind, side, policy, errno, **more):
    job = CellJob(peer, folder, kind)
    node, option, faults = rules(kind, side, errno, **more)
    job.disks.fail(node, faults)
    return job, job.start({"auto-dismiss": False, **({option: policy} if policy else {})})


def has_settled(shown):
    """The job has ended, waits for its user, or is in step with its disk."""
    return any(has_come_to(status, shown) for status in ("concluded", "paused", "ready"))


@pytest.mark.parametrize("errno", [EIO, ENOSPC])
@pytest.mark.parametrize("policy", [None, "report", "ignore", "stop", "enospc", "auto"])
@pytest.mark.parametrize("kind, side", SIDES)
def test_policies(peers, kind, side, policy, errno):
    """One request fails once: the job fails, goes on, or waits for its user, after whom all goes well."""
    def run(peer, folder, like):
        job, reply = begin(peer, folder, kind, side, policy, errno)
        shown = job.settled((lambda shown: shown == like[1]) if like else has_settled)
        return job, [reply, shown, job.lead_out()]
    compare_jobs(peers, run)


# Not the target of a stream: where a file takes no write any more, what the format has begun cannot be taken back either, and
# qemu-img finds leaks.
@pytest.mark.parametrize("kind, side", [case for case in SIDES if case != ("stream", "target")])
def test_an_error_that_stays(peers, kind, side):
    """A job that is resumed meets the error again, until it is cancelled."""
    def run(peer, folder, like):
        job, reply = begin(peer, folder, kind, side, "stop", EIO, once=False)
        told = [reply]

        def see(status):
            place = len(told)
            told.append(job.settled(lambda shown: shown == like[place] if like else has_come_to(status, shown)))
        see("paused")
        for verb in ("job-resume", "block-job-resume"):
            mark = peer.mark()
            told.append(job.ask(verb))
            peer.wait_event("BLOCK_JOB_ERROR", mark)
            see("paused")
        told.append(job.ask("job-cancel"))
        see("concluded")
        return job, [*told, job.lead_out()]
    compare_jobs(peers, run)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("kind", ["backup", "incremental", "bitmap always"])
def test_what_a_client_is_about_to_overwrite_cannot_be_saved(peers, kind, side):
    """His write fails, and has not happened; the job meets no error of its own, and ends well."""
    def run(peer, folder, like):
        job = CellJob(peer, folder, kind, "running")
        job.is_exported = True
        node, _, faults = rules(kind, side, EIO)
        job.disks.fail(node, faults)
        told = [job.start(HELD), job.settled(lambda shown: has_come_to("running", shown))]
        told += [qemu_io(folder, f"write -P 9 {FAULT_OFFSET} 64k", f"write -P 8 {FAULT_OFFSET} 64k", export="e")]
        return job, [*told, job.bitmaps(), job.lead_out()]
    told = compare_jobs(peers, run)
    assert told[2] == ["Input/output error"]
