"""Every verb in every state of every kind of job, side by side with qemu-storage-daemon: replies, fields, events, data."""

import pytest

from harness.jobkinds import KINDS
from harness.jobstates import COMPANION, comes_to, compare_jobs, enter, has_come_to, reached
from harness.reference import answer

VERBS = [
    ("job-finalize", {}), ("job-dismiss", {}), ("job-complete", {}), ("job-resume", {}),
    ("block-job-finalize", {}), ("block-job-dismiss", {}), ("block-job-complete", {}), ("block-job-resume", {}),
    ("block-job-set-speed", {"speed": -1}), ("block-job-set-speed", {"speed": 70000}),
    ("job-pause", {}), ("block-job-pause", {}), ("block-job-cancel", {}), ("block-job-cancel", {"force": True}),
    ("job-cancel", {}),
]


@pytest.mark.parametrize("kind, state", [(kind, state) for kind in KINDS for state in reached(kind)])
def test_verbs(peers, kind, state):
    verbs = VERBS
    while verbs:
        told = compare_jobs(peers, lambda *peer_and_like: run(*peer_and_like, kind, state, verbs))
        verbs = verbs[len(told) - 2:]


def run(peer, folder, like, kind, state, verbs):
    """Brings a job into a state and asks for one thing after the other until one has an effect. Returns the job and what
    was told and shown; with `like`, what the other peer told, the same is asked for."""
    job, entered = enter(peer, folder, kind, state, like and like[0][-1])
    told = [entered]
    for number, (verb, arguments) in enumerate(verbs[:len(like) - 2] if like else verbs):
        reply = job.ask(verb, **arguments)
        if like or isinstance(reply, str):
            expected = like[number + 1][-1] if like else entered[-1]
            shown = job.settled(lambda shown: shown == expected)
        else:
            shown = job.settled(lambda shown: has_come_to(comes_to(kind, state, verb), shown))
        told.append([verb, arguments, reply, shown])
        if not like and (not isinstance(reply, str) or shown != entered[-1]):
            break
    told.append(job.lead_out())
    return job, told


@pytest.mark.parametrize("state", ["running", "paused", "waiting"])
@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.can_be_grouped])
def test_another_of_its_transaction_fails(peers, kind, state):
    """Then it goes as well, wherever it is, and its bitmap is as after a failure of its own."""
    def run(peer, folder, like):
        job, entered = enter(peer, folder, kind, state, like and like[0][-1], companion_fails=True)
        reply = answer(peer, "block-job-set-speed", {"device": COMPANION, "speed": 0})
        shown = job.settled(lambda shown: has_come_to(None, shown))
        return job, [entered, reply, shown, job.lead_out()]
    told = compare_jobs(peers, run)
    assert told[2] == [None, None] and "BLOCK_JOB_CANCELLED" in [entry[0] for entry in told[-1][0]]
