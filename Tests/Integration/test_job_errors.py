"""What becomes of I/O errors of jobs by their policies, side by side with qemu-storage-daemon, with one blkdebug rule for both."""

import pytest

from harness.jobimages import fault
from harness.jobstates import KINDS, CellJob, compare_jobs

EIO, ENOSPC = 5, 28
# A stream's target gets clusters where the format likes: there the first write fails, wherever it goes.
FIRST_WRITE = {"event": "write_aio", "iotype": "write", "once": True}


def rules(kind, side, errno, **more):
    """The node whose file fails, the option that says what then, and the rules."""
    reads, writes = KINDS[kind][3:]
    if side == "target" and kind == "stream":
        return "top", "on-error", {"inject-error": [{**FIRST_WRITE, "errno": errno, **more}]}
    node, option = reads if side == "source" else writes
    return node, option, fault(node, "read" if side == "source" else "write", errno, **more)


def begin(peer, folder, kind, side, policy, errno, **more):
    job = CellJob(peer, folder, kind, "failing")
    node, option, faults = rules(kind, side, errno, **more)
    job.disks.fail(node, faults)
    return job, job.start({"auto-dismiss": False, **({option: policy} if policy else {})})


@pytest.mark.parametrize("errno", [EIO, ENOSPC])
@pytest.mark.parametrize("policy", [None, "report", "ignore", "stop", "enospc", "auto"])
@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("kind", KINDS)
def test_policies(peers, kind, side, policy, errno):
    """One request fails once: the job fails, goes on, or waits for its user, after whom all goes well."""
    def run(peer, folder, like):
        job, reply = begin(peer, folder, kind, side, policy, errno)
        shown = job.settled(like and (lambda shown: shown == like[1]))
        return job, [reply, shown, job.lead_out()]
    compare_jobs(peers, run)


# Not the target of a stream: where a file takes no write any more, what the format has begun cannot be taken back either, and
# qemu-img finds leaks.
@pytest.mark.parametrize("kind, side", [(kind, side) for kind in KINDS for side in ("source", "target")
                                        if (kind, side) != ("stream", "target")])
def test_an_error_that_stays(peers, kind, side):
    """A job that is resumed meets the error again, until it is cancelled."""
    def run(peer, folder, like):
        job, reply = begin(peer, folder, kind, side, "stop", EIO, once=False)
        told = [reply]

        def see():
            place = len(told)
            told.append(job.settled(like and (lambda shown: shown == like[place])))
        see()
        for verb in ("job-resume", "block-job-resume"):
            mark = peer.mark()
            told.append(job.ask(verb))
            peer.wait_event("BLOCK_JOB_ERROR", mark)
            see()
        told.append(job.ask("job-cancel"))
        see()
        return job, [*told, job.lead_out()]
    compare_jobs(peers, run)
