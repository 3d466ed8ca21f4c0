"""The filter `blkdebug`, side by side with qemu-storage-daemon."""

import time

import pytest

from harness import images
from harness.reference import answer, both, compare

MEBIBYTE = 1 << 20


def outcomes(folder, *commands, form="raw"):
    """What each of qemu-io's commands on the export ends with: the error's text, or nothing."""
    told = []
    for command in commands:
        result = images.run("qemu-io", "-f", form, "-c", command, f"nbd+unix:///e?socket={folder}/nbd.sock", check=False)
        lines = [line for line in (result.stdout + result.stderr).splitlines() if "failed" in line]
        told.append([line.rsplit(": ", 1)[-1] for line in lines])
    return told


def wait_status(peer, job_id, status):
    deadline = time.monotonic() + 60
    while peer.job(job_id)["status"] != status:
        assert time.monotonic() < deadline, peer.job(job_id)
        time.sleep(0.01)


def add(peer, folder, form="raw", **options):
    """A disk with a blkdebug node above it or, for a format, between it and its file; exported as `e`."""
    images.create(folder / f"n.{form}", "4M", form=form)
    # What is no hole has to be read.
    images.run("qemu-io", "-f", form, "-c", "write -P 9 0 4M", str(folder / f"n.{form}"))
    file = {"driver": "file", "filename": str(folder / f"n.{form}")}
    debug = {"driver": "blkdebug", "image": file, **options}
    told = []
    if form == "raw":
        told.append(answer(peer, "blockdev-add", {"node-name": "n", **debug}))
    else:
        told.append(answer(peer, "blockdev-add", {"node-name": "n", "driver": form, "file": debug}))
    told.append(answer(peer, "block-export-add", {
        "type": "nbd", "id": "e", "node-name": "n", "name": "e", "writable": True}))
    return told


@pytest.mark.parametrize("rule, commands", [
    ({}, ["read 0 64k"] * 2 + ["write 0 64k"]),
    ({"once": True}, ["read 0 64k"] * 2),
    ({"errno": 28, "iotype": "write"}, ["read 0 64k", "write 0 64k", "write 1M 1k"]),
    ({"sector": 16, "iotype": "read"}, ["read 0 8k", "read 8k 1k", "read 0 16k", "read 16k 64k"]),
    ({"iotype": "flush", "errno": 5, "immediately": True}, ["write 0 64k", "flush", "flush"]),
    ({"iotype": "write-zeroes", "errno": 5}, ["write 0 64k", "write -z 0 64k"]),
    ({"state": 2}, ["read 0 64k", "write 0 64k"]),
    ({"errno": 0}, ["read 0 64k"]),
])
def test_requests_fail_by_rules(twins, rule, commands):
    def script(peer, folder):
        return [add(peer, folder, **{"inject-error": [{"event": "none", **rule}]}), outcomes(folder, *commands)]
    both(twins, script)


def test_states_follow_one_another(twins):
    def script(peer, folder):
        told = add(peer, folder, **{
            "set-state": [{"event": "pwritev", "state": 1, "new_state": 2},
                          {"event": "pwritev", "state": 2, "new_state": 3}],
            "inject-error": [{"event": "pwritev_done", "state": 3, "iotype": "read", "once": True}]})
        return [told, outcomes(folder, "write 0 64k", "read 0 64k", "write 0 64k", "read 0 64k", "read 0 64k")]
    both(twins, script)


def test_rules_stand_in_a_file(twins):
    def script(peer, folder):
        (folder / "rules").write_text("""# what fails
[inject-error]
event = "pwritev"
iotype = "write"
errno = "28"
[set-state]
event = "pwritev"
new_state = "5"
""")
        told = add(peer, folder, config=str(folder / "rules"))
        return [told, outcomes(folder, "read 0 64k", "write 0 64k", "read 0 64k")]
    both(twins, script)


def test_sizes_of_requests(twins):
    def script(peer, folder):
        told = add(peer, folder, **{
            "align": 4096, "max-transfer": 65536, "opt-write-zero": 65536, "max-write-zero": 131072,
            "opt-discard": 65536, "max-discard": 131072})
        told += outcomes(folder, "write -P 1 0 1M", "write -P 2 5000 7", "write -z 70000 300000", "discard 600000 300000",
                         "read -P 1 0 5000", "read -P 2 5000 7", "read -P 1 5007 64993", "read -P 0 70000 300000")
        peer.execute("block-export-del", id="e", mode="hard")
        peer.execute("blockdev-del", node_name="n")
        return told
    both(twins, script)
    assert (twins[2] / "n.raw").read_bytes()[:600000] == (twins[3] / "n.raw").read_bytes()[:600000]


def test_options_that_do_not_fit(twins):
    ours, theirs, *folders = twins
    for folder in folders:
        images.create(folder / "n.raw", "1M", form="raw")
    node = {"driver": "blkdebug", "node-name": "n", "image": {"driver": "file", "filename": "DIR/n.raw"}}
    faults = [
        {"align": 3}, {"align": 4096, "max-transfer": 4097}, {"opt-write-zero": 512, "max-write-zero": 700},
        {"opt-discard": 512, "max-discard": 700}, {"config": "DIR/none"}, {"inject-error": [{"event": "wrong"}]},
        {"inject-error": [{}]}, {"set-state": [{"event": "none"}]},
        {"inject-error": [{"event": "none", "iotype": "wrong"}]}, {"take-child-perms": ["wrong"]}, {"wrong": 1},
    ]
    compare([("blockdev-add", {**node, **fault}) for fault in faults] + [
        ("blockdev-add", node), ("blockdev-del", {"node-name": "n"})], ours, theirs, *folders)


def test_permissions_beyond_those_needed(twins):
    """Nobody may write what a filter has forbidden, and nobody may keep what it has taken from others."""
    export = {"type": "nbd", "id": "e", "node-name": "n", "name": "e", "writable": True}
    debug = {"driver": "blkdebug", "node-name": "d", "image": "n"}

    def script(peer, folder):
        images.create(folder / "n.raw", "1M", form="raw")
        told = [answer(peer, *command) for command in [
            ("blockdev-add", {"driver": "file", "node-name": "n", "filename": str(folder / "n.raw")}),
            ("blockdev-add", {**debug, "unshare-child-perms": ["write"]}),
            ("block-export-add", export),
            ("blockdev-del", {"node-name": "d"}),
            ("block-export-add", export),
            ("blockdev-add", {**debug, "unshare-child-perms": ["write"]}),
            ("blockdev-add", {**debug, "take-child-perms": ["write"]}),
        ]]
        # Whose device it is, the agent knows and QEMU does not.
        return [str(each).replace("block export 'e'", "an unnamed block device") for each in told]
    both(twins, script)


@pytest.mark.parametrize("event", ["read_aio", "write_aio", "l2_load", "pwritev", "flush_to_disk"])
def test_a_format_announces_what_it_does(twins, event):
    """Below qcow2: an event from which on requests fail for ever makes the next disk request that needs the file fail."""
    def script(peer, folder):
        told = add(peer, folder, form="qcow2", **{"inject-error": [{"event": event}]})
        found = outcomes(folder, "write -P 1 0 64k", "flush", "read 0 64k")
        return [told, any(found)]
    both(twins, script)


def test_a_job_fails_as_qemus(twins):
    def script(peer, folder):
        add(peer, folder, **{"inject-error": [{"event": "none", "iotype": "read", "errno": 28, "sector": 2048}]})
        images.create(folder / "t.raw", "4M", form="raw")
        peer.execute("blockdev-add", driver="file", node_name="t", filename=str(folder / "t.raw"))
        peer.execute("blockdev-backup", job_id="j", device="n", target="t", sync="full", auto_dismiss=False)
        wait_status(peer, "j", "concluded")
        return peer.job("j")["error"]
    both(twins, script)


def test_a_full_disk_stops_a_mirror(agent, directory):
    """The error policy `enospc` of a job, by a target that is full once."""
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    add(agent, directory, **{"inject-error": [{"event": "none", "iotype": "write", "errno": 28, "once": True}]})
    agent.execute("block-export-del", id="e", mode="hard")
    images.create(directory / "s.raw", "4M", form="raw")
    images.run("qemu-io", "-f", "raw", "-c", "write -P 1 0 4M", str(directory / "s.raw"))
    agent.execute("blockdev-add", driver="file", node_name="s", filename=str(directory / "s.raw"))
    agent.execute("blockdev-mirror", job_id="j", device="s", target="n", sync="full", on_target_error="enospc")
    wait_status(agent, "j", "paused")
    agent.execute("job-resume", id="j")
    wait_status(agent, "j", "ready")
    agent.execute("block-job-cancel", device="j")
    deadline = time.monotonic() + 60
    while agent.job("j") is not None:
        assert time.monotonic() < deadline, agent.job("j")
        time.sleep(0.01)
    assert images.has_pattern(directory / "n.raw", 1, 0, 4 * MEBIBYTE)
