"""qemu-storage-daemon beside the agent: the same script to both, the same answers and events from both."""

import difflib
import json
import pathlib
import subprocess
import time

from .monitor import CommandError, Monitor


class StorageDaemon:
    """The reference, with the methods of `Agent` that scripts use."""

    def __init__(self, directory, options=()):
        self.directory = pathlib.Path(directory)
        self.socket = self.directory / "qsd.sock"
        self.options = [str(option) for option in options]
        self.process = None
        self.monitor = None

    def __enter__(self):
        self.process = subprocess.Popen(
            ["qemu-storage-daemon", "--chardev", f"socket,id=m,path={self.socket},server=on,wait=off",
             "--monitor", "chardev=m", *self.options], stdin=subprocess.DEVNULL)
        self.monitor = Monitor(self.socket)
        return self

    def __exit__(self, *_):
        self.monitor.close()
        self.process.terminate()
        self.process.wait(30)

    def __getattr__(self, name):
        return getattr(self.monitor, name)


def answer(peer, command, arguments):
    """What a command answers: its result, or class and text of its error."""
    try:
        return peer.execute(command, **{key.replace("-", "_"): value for key, value in arguments.items()})
    except CommandError as error:
        return f"{error.error_class}: {error.description}"


def plain(value, directory):
    """A value without what differs from run to run: the folder's name."""
    return json.loads(json.dumps(value).replace(str(directory), "DIR"))


def compare(script, ours, theirs, our_directory, their_directory):
    """Runs `script`, a list of (command, arguments with DIR for the folder), on both; each answer must be the same."""
    for command, arguments in script:
        answers = []
        for peer, directory in ((ours, our_directory), (theirs, their_directory)):
            filled = json.loads(json.dumps(arguments).replace("DIR", str(directory)))
            answers.append(plain(answer(peer, command, filled), directory))
        assert answers[0] == answers[1], f"{command} {json.dumps(arguments)}"


def wait_gone(peer, job_id, timeout=60):
    deadline = time.monotonic() + timeout
    while peer.job(job_id) is not None:
        assert time.monotonic() < deadline, f"job {job_id} is still {peer.job(job_id)}"
        time.sleep(0.01)


def assert_equal(ours, theirs):
    """Shows what differs line by line."""
    if ours != theirs:
        shown = [json.dumps(result, indent=1, sort_keys=True).splitlines() for result in (theirs, ours)]
        raise AssertionError("\n".join(difflib.unified_diff(*shown, "theirs", "ours", lineterm="")))


def both(pair, script):
    """Runs `script(peer, directory)` on both; what it returns must be the same."""
    ours, theirs, our_directory, their_directory = pair
    results = [plain(script(peer, directory), directory)
               for peer, directory in ((ours, our_directory), (theirs, their_directory))]
    assert_equal(*results)
    return results[0]


def story(peer, mark, job_id):
    """The events of a job from a mark on: states as words, others with their data."""
    told = []
    for event in peer.events_since(mark):
        data = event["data"]
        if job_id not in (data.get("id"), data.get("device")):
            continue
        if event["event"] == "JOB_STATUS_CHANGE":
            told.append(data["status"])
        else:
            told.append([event["event"], data])
    return told


def wait_status(peer, mark, job_id, status, timeout=60):
    peer.wait_event("JOB_STATUS_CHANGE", mark, lambda data: data["id"] == job_id and data["status"] == status, timeout)
