"""Jobs of every type, brought into every state in which a client can meet them, and led out of it again."""

import copy
import time

from .jobimages import CHAIN, FAULT_WHEN_READY, PAIR, PAIR_AND_OTHER, Disks, assert_same_after, fault
from .blockjobs import write
from .reference import answer, assert_equal, plain, story

JOB = "j"
COMPANION = "k"
# A first request passes any limit; the next one then waits for hours.
HELD = {"speed": 1}

# Type: command, arguments, images, whose file is read and whose is written, the options for errors there.
KINDS = {
    "backup": ("blockdev-backup", {"device": "src", "target": "dst", "sync": "full"}, PAIR,
               ("src", "on-source-error"), ("dst", "on-target-error")),
    "mirror": ("blockdev-mirror", {"device": "src", "target": "dst", "sync": "full"}, PAIR,
               ("src", "on-source-error"), ("dst", "on-target-error")),
    "blocking": ("blockdev-mirror", {"device": "src", "target": "dst", "sync": "full", "copy-mode": "write-blocking"}, PAIR,
                 ("src", "on-source-error"), ("dst", "on-target-error")),
    "commit": ("block-commit", {"device": "top", "top-node": "mid", "base-node": "base"}, CHAIN,
               ("mid", "on-error"), ("base", "on-error")),
    "active": ("block-commit", {"device": "top", "base-node": "base"}, CHAIN, ("mid", "on-error"), ("base", "on-error")),
    "stream": ("block-stream", {"device": "top", "base-node": "base"}, CHAIN, ("mid", "on-error"), None),
}
COMES_TO_BE_READY = ("mirror", "blocking", "active")
STATES = {
    # How it is started, whose file fails, how it goes on from there, and the status in which it is then.
    "running": (HELD, None, [], "running"),
    "paused": (HELD, None, ["job-pause"], "paused"),
    "paused by an error": ({"error": "stop"}, "source", [], "paused"),
    "ready": ({}, None, [], "ready"),
    "standby": ({}, None, ["job-pause"], "standby"),
    "standby by an error": ({"error": "stop"}, "target", ["write"], "standby"),
    "waiting": ({}, None, [], "waiting"),
    "pending": ({"auto-finalize": False}, None, ["job-complete"], "pending"),
    "concluded": ({"auto-dismiss": False}, None, ["job-complete"], "concluded"),
    "failed": ({"auto-dismiss": False, "error": "report"}, "source", [], "concluded"),
}


def reached(kind):
    """The states that jobs of a type come to."""
    def comes_to(status):
        if status in ("ready", "standby"):
            return kind in COMES_TO_BE_READY
        # Of the types that end by themselves only a backup can be one of several in a transaction.
        return status != "waiting" or kind == "backup"
    return [state for state, (_, _, _, status) in STATES.items() if comes_to(status)]


class CellJob:
    """One job of one peer, from its nodes' making to their end."""

    def __init__(self, peer, folder, kind, state):
        self.peer, self.folder, self.kind, self.state = peer, folder, kind, state
        self.command, self.arguments, layout, self.source, self.target = KINDS[kind]
        self.disks = Disks(peer, folder, PAIR_AND_OTHER if state == "waiting" else layout)
        self.is_exported = False

    def start(self, options):
        """Its nodes, and the job; in the state `waiting` it has a companion that keeps it there."""
        self.disks.add()
        if self.is_exported:
            self.peer.execute("block-export-add", type="nbd", id="e", name="e", writable=True,
                              node_name="top" if "top" in self.disks.layout else "src")
        self.mark = self.peer.mark()
        arguments = {"job-id": JOB, "filter-node-name": "filter", **self.arguments, **options}
        if self.state != "waiting":
            return answer(self.peer, self.command, arguments)
        other = {**self.arguments, "job-id": COMPANION, "target": "other", **HELD}
        return answer(self.peer, "transaction", {"properties": {"completion-mode": "grouped"}, "actions": [
            {"type": self.command, "data": data} for data in (arguments, other)]})

    def shown(self):
        """What both queries say of it."""
        return plain([next((entry for entry in self.peer.execute(query) if entry[key] == JOB), None)
                      for query, key in (("query-jobs", "id"), ("query-block-jobs", "device"))], self.folder)

    def settled(self, is_reached=None, timeout=10):
        """What is shown once that is reached, or once the job stays as it is for a while."""
        start = time.monotonic()
        last, since = None, start
        while True:
            shown = self.shown()
            now = time.monotonic()
            if shown != last:
                last, since = shown, now
            seen = comparable(copy.deepcopy(shown), self.kind, self.state)
            if is_reached and is_reached(seen) or now - start > timeout:
                return seen
            if not is_reached and now - since > 0.03 and not (shown[1] and shown[1]["busy"]):
                return seen
            time.sleep(0.002)

    def ask(self, command, **arguments):
        """A verb, by the name of the argument that its command has for the job."""
        by_id = command.startswith("job-") or command in ("block-job-finalize", "block-job-dismiss")
        return answer(self.peer, command, {"id" if by_id else "device": JOB, **arguments})

    def step(self, name):
        """A verb, or a client's write to the disk that the job copies."""
        return write(self.folder, "write -P 9 1M 64k", export="e") if name == "write" else self.ask(name)

    def lead_out(self, timeout=30):
        """Lets the job end well from wherever it is, and closes its disks. Returns its whole story."""
        for job_id in (JOB, COMPANION):
            answer(self.peer, "block-job-set-speed", {"device": job_id, "speed": 0})
        deadline = time.monotonic() + timeout
        while jobs := self.peer.execute("query-jobs"):
            assert time.monotonic() < deadline, f"{jobs} stay: {story(self.peer, self.mark, JOB)}"
            match jobs[-1]["id"] == JOB and jobs[-1]["status"]:
                case "paused" | "standby": self.ask("job-resume")
                case "ready": self.ask("job-complete")
                case "pending": self.ask("job-finalize")
                case "concluded": self.ask("job-dismiss")
            time.sleep(0.001)
        self.told = comparable_story(story(self.peer, self.mark, JOB), self.kind, self.state)
        if self.is_exported:
            self.peer.execute("block-export-del", id="e", mode="hard")
            self.peer.wait_event("BLOCK_EXPORT_DELETED", self.mark)
        nodes = self.disks.nodes()
        closed = [answer(self.peer, "blockdev-del", {"node-name": node}) for node in reversed(self.disks.layout)]
        return plain([self.told, nodes, closed], self.folder)

    @property
    def succeeded(self):
        return any(isinstance(entry, list) and entry[0] == "BLOCK_JOB_COMPLETED" and "error" not in entry[1]
                   for entry in self.told)


def enter(peer, folder, kind, state, like=None):
    """A job in a state, and what is shown of it there: what is `like` what the other peer has shown."""
    options, failing, steps, status = STATES[state]
    job = CellJob(peer, folder, kind, state)
    options = dict(options)
    if failing:
        node, option = getattr(job, failing)
        job.disks.fail(node, fault(node, "read") if failing == "source" else FAULT_WHEN_READY)
        options[option] = options.pop("error")
    job.is_exported = "write" in steps
    told = [job.start(options)]
    if kind in COMES_TO_BE_READY and status not in ("running", "paused") and state != "failed":
        job.peer.wait_event("BLOCK_JOB_READY", job.mark)
    else:
        steps = [step for step in steps if step != "job-complete"]
    if "job-pause" in steps:
        # A pause that comes before the work shows nothing of what the work had come to.
        job.settled(is_at_rest)
    told += [job.step(step) for step in steps]
    told.append(job.settled(
        (lambda shown: shown == like) if like else lambda shown: is_at_rest(shown) and shown[0]["status"] == status))
    assert told[-1][0] and told[-1][0]["status"] == status, told
    return job, told


def is_at_rest(shown):
    """It is doing nothing, and has begun."""
    return shown[0] and not shown[1]["busy"] and shown[0]["total-progress"] > 0


def compare_jobs(peers, run):
    """Runs `run(peer, folder, like)` with both peers, which returns a job and what it told; what is told is the same, and so
    are the disks. Returns what was told."""
    their_job, theirs = run(peers.theirs, peers.their_folder, None)
    our_job, ours = run(peers.ours, peers.our_folder, theirs)
    assert_equal(ours, theirs)
    assert_same_after(our_job.disks, their_job.disks, their_job.succeeded)
    return theirs


# Jobs that have many requests under way at a time: what of them is done when one fails is different each time.
IN_PARALLEL = ("backup", "mirror", "blocking", "active")


def comparable(entries, kind, state):
    """The answers of queries or the data of events, without what is a matter of time: how far a job has come when something
    stops it halfway."""
    for entry in entries:
        if entry and is_part(entry) and (state in ("running", "paused") or kind in IN_PARALLEL):
            for name in ("current-progress", "offset"):
                if name in entry:
                    entry[name] = "part"
    return entries


def is_part(entry):
    current, total = (entry.get(*names) for names in (("offset", entry.get("current-progress")),
                                                      ("len", entry.get("total-progress"))))
    return current != total


def comparable_story(told, kind, state):
    """The same for the events of a job. A paused one that is cancelled may come to the end of its last requests or not."""
    comparable([entry[1] for entry in told if isinstance(entry, list)], kind, state)
    for entry in told:
        if entry[0] == "BLOCK_JOB_CANCELLED" and kind in IN_PARALLEL:
            entry[1]["offset"] = "part"
    return told
