"""Every verb in every state of every kind of job, side by side with qemu-storage-daemon: replies, fields, events, data."""

import pytest

from harness.jobkinds import KINDS
from harness.jobstates import comes_to, compare_jobs, enter, has_come_to, reached

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
