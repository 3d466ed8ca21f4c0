"""Jobs of every kind, brought into every state in which a client can meet them, and led out of it again."""

import dataclasses
import time

from .blockjobs import bitmaps, without_progress, write
from .jobbitmaps import assert_nothing_is_forgotten, clean_ranges
from .jobimages import FAULT_AT_ONCE, FAULT_WHEN_READY, OTHER, Disks, assert_same_after, fault
from .jobkinds import KINDS, SMALL
from .reference import answer, assert_equal, plain, story

JOB = "j"
COMPANION = "k"
# A first request passes any limit; the next one then waits for hours.
HELD = {"speed": 1}
KEPT = {"auto-dismiss": False}


@dataclasses.dataclass(frozen=True)
class State:
    """How a job is started, whose file fails and what that does, how it goes on from there, and the status in which it is
    then."""

    status: str
    options: dict = dataclasses.field(default_factory=dict)
    failing: str | None = None
    policy: str | None = None
    steps: tuple = ()

    @property
    def is_of_ready_jobs(self):
        return self.status in ("ready", "standby") or self.failing == "target"

    @property
    def is_before_ready(self):
        return self.status in ("running", "paused") or self.failing == "source"


STATES = {
    "running": State("running", HELD),
    "paused": State("paused", HELD, steps=("job-pause",)),
    "paused by an error": State("paused", failing="source", policy="stop"),
    "ready": State("ready"),
    "standby": State("standby", steps=("job-pause",)),
    "standby by an error": State("standby", failing="target", policy="stop", steps=("write",)),
    "waiting": State("waiting"),
    "pending": State("pending", {"auto-finalize": False}, steps=("job-complete",)),
    "concluded": State("concluded", KEPT, steps=("job-complete",)),
    "failed": State("concluded", KEPT, failing="source", policy="report"),
    "failed when ready": State("concluded", KEPT, failing="target", policy="report", steps=("write",)),
}


def reached(kind):
    """The states that jobs of a kind come to."""
    kind = KINDS[kind]

    def is_reached(state):
        if state.is_of_ready_jobs and not kind.comes_to_be_ready or state.is_before_ready and kind.begins_ready:
            return False
        if state.failing == "target" and kind.makes_target:
            return False
        # Of the kinds that end by themselves only some can be one of several in a transaction.
        return state.status != "waiting" or kind.can_be_grouped
    return [name for name, state in STATES.items() if is_reached(state)]


class CellJob:
    """One job of one peer, from its nodes' making to their end."""

    def __init__(self, peer, folder, kind, state=None, companion_fails=False):
        self.peer, self.folder, self.kind = peer, folder, KINDS[kind]
        self.state = STATES.get(state, State("concluded", KEPT))
        # Another one of the same transaction, which keeps it waiting.
        self.has_companion = companion_fails or self.state.status == "waiting"
        self.disks = Disks(peer, folder, self.kind.layout | (OTHER if self.has_companion else {}))
        if companion_fails:
            self.disks.fail("other", fault("other", "write"))
        self.is_exported = self.kind.writes or "write" in self.state.steps
        self.has_part = self.kind.is_parallel or self.state.status in ("running", "paused") and not self.state.failing

    def start(self, options):
        """Its nodes, and the job."""
        self.disks.add()
        if self.is_exported:
            self.peer.execute("block-export-add", type="nbd", id="e", name="e", writable=True, node_name=self.kind.disk)
        self.mark = self.peer.mark()
        arguments = {"job-id": JOB, **self.kind.arguments, **options}
        if self.kind.makes_target:
            arguments["target"] = str(self.disks.path("dst"))
        if self.kind.command != "drive-mirror":
            arguments["filter-node-name"] = "filter"
        if not self.has_companion:
            return answer(self.peer, self.kind.command, arguments)
        other = {"job-id": COMPANION, "device": self.kind.disk, "target": "other", "sync": "full", **HELD}
        return answer(self.peer, "transaction", {"properties": {"completion-mode": "grouped"}, "actions": [
            {"type": self.kind.command, "data": arguments}, {"type": "blockdev-backup", "data": other}]})

    def shown(self):
        """What both queries say of it."""
        return plain([next((entry for entry in self.peer.execute(query) if entry[key] == JOB), None)
                      for query, key in (("query-jobs", "id"), ("query-block-jobs", "device"))], self.folder)

    def settled(self, is_reached):
        """What is shown once that is reached, or when it was looked for in vain for 15 seconds, in which the peer ran as well."""
        for _ in range(5000):
            seen = self.comparable(self.shown())
            if is_reached(seen):
                break
            time.sleep(0.002)
        return seen

    def ask(self, command, **arguments):
        """A verb, by the name of the argument that its command has for the job."""
        by_id = command.startswith("job-") or command in ("block-job-finalize", "block-job-dismiss")
        return answer(self.peer, command, {"id" if by_id else "device": JOB, **arguments})

    def step(self, name):
        """A verb, or a client's write to the disk that the job copies."""
        return write(self.folder, self.kind.writes or SMALL, export="e") if name == "write" else self.ask(name)

    def bitmaps(self):
        """Those of a backup; with no number where that is a matter of time."""
        if "bitmap" not in self.kind.arguments:
            return []
        found = bitmaps(self.peer, self.kind.disk)
        return [{**entry, "count": "part"} for entry in found] if self.leaves_part else found

    @property
    def leaves_part(self):
        """What is left to be copied goes into the bitmap, wherever the job was stopped."""
        return self.kind.keeps_what_is_left and (self.has_part or self.state.policy == "stop")

    def lead_out(self):
        """Lets the job end well from wherever it is, and closes its disks. Returns its whole story."""
        for job_id in (JOB, COMPANION):
            answer(self.peer, "block-job-set-speed", {"device": job_id, "speed": 0})
        looks = 0
        while jobs := self.peer.execute("query-jobs"):
            looks += 1
            assert looks < 10000, f"{jobs} stay: {story(self.peer, self.mark, JOB)}"
            match jobs[-1]["id"] == JOB and jobs[-1]["status"]:
                case "paused" | "standby": self.ask("job-resume")
                case "ready": self.ask("job-complete")
                case "pending": self.ask("job-finalize")
                case "concluded": self.ask("job-dismiss")
            time.sleep(0.001)
        self.told = self.comparable_story(story(self.peer, self.mark, JOB))
        companion = without_progress(story(self.peer, self.mark, COMPANION))
        if self.is_exported:
            self.peer.execute("block-export-del", id="e", mode="hard")
            self.peer.wait_event("BLOCK_EXPORT_DELETED", self.mark)
        marks = self.bitmaps()
        if marks and not self.leaves_part:
            marks.append(self.peer.execute("x-debug-block-dirty-bitmap-sha256", node=self.kind.disk, name="b"))
        if self.kind.keeps_what_is_left:
            self.clean = clean_ranges(self.peer, self.folder, self.kind.disk)
        nodes = self.disks.nodes()
        closed = [answer(self.peer, "blockdev-del", {"node-name": node}) for node in reversed(self.disks.layout)]
        return plain([self.told, companion, marks, nodes, closed], self.folder)

    @property
    def succeeded(self):
        return any(isinstance(entry, list) and entry[0] == "BLOCK_JOB_COMPLETED" and "error" not in entry[1]
                   for entry in self.told)

    # What can be compared

    def comparable(self, entries):
        """The answers of queries or the data of events, without what is a matter of time: how far a job has come when
        something stops it halfway."""
        for entry in entries:
            if entry and is_part(entry) and self.has_part:
                for name in ("current-progress", "offset"):
                    if name in entry:
                        entry[name] = "part"
        return entries

    def comparable_story(self, told):
        """The same for the events of a job. A paused one that is cancelled may come to the end of its last requests or
        not, and a backup of QEMU begins some more."""
        self.comparable([entry[1] for entry in told if isinstance(entry, list)])
        for entry in told:
            if entry[0] == "BLOCK_JOB_CANCELLED" and (self.kind.is_parallel or self.kind.can_be_grouped):
                entry[1]["offset"] = "part"
        return told


def enter(peer, folder, kind, state, like=None, companion_fails=False):
    """A job in a state, and what is shown of it there: what is `like` what the other peer has shown."""
    job = CellJob(peer, folder, kind, state, companion_fails)
    kind, state = job.kind, job.state
    options, steps = dict(state.options), list(state.steps)
    if state.failing:
        node, option = getattr(kind, state.failing)
        # QEMU does not flush what was not written.
        when_ready = FAULT_AT_ONCE if kind.begins_ready else FAULT_WHEN_READY
        job.disks.fail(node, fault(node, "read") if state.failing == "source" else when_ready)
        options[option] = state.policy
    if kind.writes and "write" not in steps:
        steps.insert(0, "write")
    told = [job.start(options)]
    if kind.comes_to_be_ready and not state.is_before_ready:
        job.peer.wait_event("BLOCK_JOB_READY", job.mark)
    else:
        steps = [step for step in steps if step != "job-complete"]
    for step in steps:
        if step == "job-pause":
            # A pause that comes before the work shows nothing of what the work had come to.
            job.settled(is_at_rest)
        told.append(job.step(step))
    shown = job.settled((lambda shown: shown == like) if like else lambda shown: has_come_to(state.status, shown))
    told += [job.bitmaps(), shown]
    assert told[-1][0] and told[-1][0]["status"] == state.status, told
    return job, told


def is_at_rest(shown):
    """It is doing nothing, and has begun; it is in step with its disk if it says so."""
    job, block_job = shown
    if not job or not block_job or block_job["busy"] or job["total-progress"] == 0:
        return False
    return job["status"] != "ready" or job["current-progress"] == job["total-progress"]


def has_come_to(status, shown):
    """It is in that status and does nothing there; `None` for a job that is gone."""
    if status is None:
        return shown == [None, None]
    return is_at_rest(shown) and shown[0]["status"] == status


def comes_to(kind, state, verb):
    """The status into which a verb that is accepted in a state brings a job in the end; `None`: it goes."""
    kind, state = KINDS[kind], STATES[state]
    match verb.removeprefix("block-").removeprefix("job-"):
        case "pause":
            return "standby" if state.status == "ready" else "paused"
        case "resume" if state.failing:
            return "ready" if kind.comes_to_be_ready else None
        case "resume":
            return "ready" if state.status == "standby" else "running"
        case "complete" if state.status == "standby":
            return "standby"
        case "set-speed":
            return state.status
    return None


def compare_jobs(peers, run):
    """Runs `run(peer, folder, like)` with both peers, which returns a job and what it told; what is told is the same, and so
    are the disks. Returns what was told."""
    their_job, theirs = run(peers.theirs, peers.their_folder, None)
    our_job, ours = run(peers.ours, peers.our_folder, theirs)
    assert_equal(ours, theirs)
    # How much of a copy is there that was not finished is a matter of time; the disk that was copied is whole.
    kind = our_job.kind
    assert_same_after(our_job.disks, their_job.disks, [kind.disk, kind.copy] if their_job.succeeded else [kind.disk])
    for job in (our_job, their_job):
        if kind.keeps_what_is_left:
            assert_nothing_is_forgotten(job.disks, job.clean)
    return theirs


def is_part(entry):
    current, total = (entry.get(*names) for names in (("offset", entry.get("current-progress")),
                                                      ("len", entry.get("total-progress"))))
    return current != total
