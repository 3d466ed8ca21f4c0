"""Jobs on nodes, side by side with qemu-storage-daemon: the same answers, the same events in the same order."""

import pytest

from harness import images
from harness.blockjobs import add, bitmaps, block_job, source_and_target, without_drains, without_progress, write
from harness.reference import answer, both, story, wait_gone, wait_status

MEBIBYTE = 1 << 20


def backup(peer, **options):
    arguments = {"job_id": "j", "device": "src", "target": "dst", "sync": "full", **options}
    return answer(peer, "blockdev-backup", arguments)


# Backups

def test_a_backup_is_the_disk_of_its_beginning(twins):
    def script(peer, folder):
        source = source_and_target(peer, folder)
        write(folder, "write -P 1 0 3M", "write -P 2 5M 1M")
        mark = peer.mark()
        replies = [backup(peer, speed=MEBIBYTE, **{"filter-node-name": "cbw"})]
        replies.append(block_job(peer, "j"))
        replies.append(sorted((node["node-name"], node["drv"]) for node in peer.execute("query-named-block-nodes")
                              if not node["node-name"].startswith("#")))
        # Overwritten before the job comes there.
        write(folder, "write -P 9 4M 2M", "write -z 2M 1M", "write -P 8 100 100")
        peer.execute("block-job-set-speed", device="j", speed=0)
        wait_gone(peer, "j")
        peer.execute("blockdev-del", node_name="dst")
        assert images.has_pattern(folder / "dst.raw", 1, 0, 3 * MEBIBYTE)
        assert images.has_pattern(folder / "dst.raw", 0, 3 * MEBIBYTE, 2 * MEBIBYTE)
        assert images.has_pattern(folder / "dst.raw", 2, 5 * MEBIBYTE, MEBIBYTE)
        assert images.has_pattern(source, 9, 4 * MEBIBYTE, 2 * MEBIBYTE)
        return replies + story(peer, mark, "j")
    told = both(twins, script)
    assert told[-9:-3] == ["created", "running", "paused", "running", "waiting", "pending"]


@pytest.mark.parametrize("options", [{}, {"auto-finalize": False}, {"auto-dismiss": False},
                                     {"auto-finalize": False, "auto-dismiss": False}], ids=str)
@pytest.mark.parametrize("family", ["job", "block-job"])
def test_the_ends_of_a_backup(twins, options, family):
    def script(peer, folder):
        source_and_target(peer, folder)
        mark = peer.mark()
        told = [backup(peer, **options)]
        if "auto-finalize" in options:
            wait_status(peer, mark, "j", "pending")
            told += [peer.execute("query-jobs"), block_job(peer, "j")]
            for verb in ("pause", "resume", "complete", "dismiss"):
                key = "id" if family == "job" or verb == "dismiss" else "device"
                told.append(answer(peer, f"{family}-{verb}", {key: "j"}))
            told.append(answer(peer, f"{family}-finalize", {"id": "j"}))
        wait_status(peer, mark, "j", "concluded")
        if "auto-dismiss" in options:
            told += [peer.execute("query-jobs"), block_job(peer, "j"), backup(peer)]
            for verb in ("pause", "resume", "cancel", "complete", "finalize"):
                key = "id" if family == "job" or verb == "finalize" else "device"
                told.append(answer(peer, f"{family}-{verb}", {key: "j"}))
            told.append(answer(peer, f"{family}-dismiss", {"id": "j"}))
        wait_gone(peer, "j")
        return told + story(peer, mark, "j")
    both(twins, script)


def slow(peer, folder, **options):
    source_and_target(peer, folder)
    write(folder, "write -P 1 0 8M")
    return backup(peer, speed=65536, **options)


@pytest.mark.parametrize("family", ["job", "block-job"])
def test_a_running_backup(twins, family):
    key = "id" if family == "job" else "device"

    def script(peer, folder):
        mark = peer.mark()
        told = [slow(peer, folder)]
        for verb, name in (("complete", key), ("finalize", "id"), ("dismiss", "id"), ("resume", key), ("pause", key),
                           ("pause", key)):
            told.append(answer(peer, f"{family}-{verb}", {name: "j"}))
        peer.wait_event("JOB_STATUS_CHANGE", mark + 3, lambda data: data["status"] == "paused")
        told.append(block_job(peer, "j"))
        for verb, name in (("complete", key), ("finalize", "id"), ("dismiss", "id")):
            told.append(answer(peer, f"{family}-{verb}", {name: "j"}))
        told += [answer(peer, "block-job-set-speed", {"device": "j", "speed": speed}) for speed in (-1, 70000)]
        told.append(block_job(peer, "j"))
        told.append(answer(peer, "block-job-cancel", {"device": "j"}))
        told.append(answer(peer, f"{family}-resume", {key: "j"}))
        told.append(answer(peer, f"{family}-resume", {key: "j"}))
        told.append(answer(peer, f"{family}-cancel", {key: "j"}))
        wait_gone(peer, "j")
        told.append(answer(peer, f"{family}-cancel", {key: "j"}))
        return told + without_progress(story(peer, mark, "j"))
    both(twins, script)


def test_a_paused_backup_is_cancelled(twins):
    def script(peer, folder):
        mark = peer.mark()
        told = [slow(peer, folder), answer(peer, "job-pause", {"id": "j"})]
        peer.wait_event("JOB_STATUS_CHANGE", mark + 3, lambda data: data["status"] == "paused")
        told.append(answer(peer, "block-job-cancel", {"device": "j", "force": True}))
        wait_gone(peer, "j")
        # Filter and target are free again.
        told += [answer(peer, "blockdev-del", {"node_name": "dst"}), answer(peer, "block-export-del", {"id": "e"}),
                 answer(peer, "blockdev-del", {"node_name": "src"})]
        return told + without_progress(story(peer, mark, "j"))
    both(twins, script)


def test_what_a_backup_refuses(twins):
    def script(peer, folder):
        source_and_target(peer, folder)
        add(peer, folder, "small", size="4M")
        peer.execute("block-dirty-bitmap-add", node="src", name="b")
        told = []
        mark = peer.mark()
        for options in (
                {"device": "zz"}, {"target": "zz"}, {"target": "src"}, {"target": "small"}, {"sync": "zz"},
                {"job-id": ""}, {"job-id": "1"}, {"speed": -1}, {"compress": True}, {"sync": "incremental"},
                {"sync": "bitmap"}, {"sync": "bitmap", "bitmap": "zz"}, {"sync": "bitmap", "bitmap": "b"},
                {"sync": "incremental", "bitmap": "b", "bitmap-mode": "never"},
                {"sync": "none", "bitmap": "b", "bitmap-mode": "always"},
                {"sync": "full", "bitmap": "b", "bitmap-mode": "never"}, {"bitmap-mode": "never"},
                {"x-perf": {"max-workers": 0}}, {"x-perf": {"max-chunk": -1}}, {"x-perf": {"max-chunk": 4096}},
                {"filter-node-name": "dst"}, {"filter-node-name": "1"}):
            told.append([options, backup(peer, **options)])
        told.append(slow_here(peer))
        told.append(answer(peer, "blockdev-backup", {"job-id": "k", "device": "small", "target": "dst", "sync": "full"}))
        told += [answer(peer, "blockdev-del", {"node-name": node}) for node in ("dst", "src")]
        told.append(answer(peer, "blockdev-snapshot-internal-sync", {"device": "src", "name": "t"}))
        peer.execute("job-cancel", id="j")
        wait_gone(peer, "j")
        assert all(not node["node-name"].startswith("#block") or node["drv"] == "file"
                   for node in peer.execute("query-named-block-nodes"))
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


def slow_here(peer):
    return backup(peer, speed=1)


@pytest.mark.parametrize("sync", ["bitmap", "full"])
@pytest.mark.parametrize("mode", ["on-success", "never", "always"])
@pytest.mark.parametrize("outcome", ["success", "cancel"])
def test_bitmaps_of_backups(twins, sync, mode, outcome):
    def script(peer, folder):
        source_and_target(peer, folder)
        peer.execute("block-dirty-bitmap-add", node="src", name="b")
        write(folder, "write -P 1 0 1M", "write -P 2 4M 512k")
        options = {"sync": sync, "bitmap": "b", "bitmap-mode": mode}
        mark = peer.mark()
        told = [backup(peer, speed=65536, **options)]
        if isinstance(told[0], str):
            return told
        told.append(bitmaps(peer))
        told += [answer(peer, f"block-dirty-bitmap-{verb}", {"node": "src", "name": "b"})
                 for verb in ("remove", "clear", "disable")]
        write(folder, "write -P 3 6M 64k")
        told.append(bitmaps(peer))
        if outcome == "cancel":
            peer.execute("job-cancel", id="j")
        else:
            peer.execute("block-job-set-speed", device="j", speed=0)
        wait_gone(peer, "j")
        after = bitmaps(peer)
        if outcome == "cancel" and mode == "always":
            # How far it came is a matter of time.
            after = [{key: value for key, value in entry.items() if key != "count"} for entry in after]
        peer.execute("blockdev-del", node_name="dst")
        if outcome == "success":
            assert images.has_pattern(folder / "dst.raw", 2, 4 * MEBIBYTE, 512 << 10)
        return told + [after] + without_progress(story(peer, mark, "j"))
    both(twins, script)


def test_a_backup_of_nothing_runs_until_it_is_cancelled(twins):
    def script(peer, folder):
        source_and_target(peer, folder)
        write(folder, "write -P 1 0 8M")
        mark = peer.mark()
        told = [backup(peer, sync="none")]
        write(folder, "write -P 2 1M 64k")
        told.append(block_job(peer, "j"))
        peer.execute("block-job-cancel", device="j")
        wait_gone(peer, "j")
        peer.execute("blockdev-del", node_name="dst")
        assert images.has_pattern(folder / "dst.raw", 1, MEBIBYTE, 64 << 10)
        assert images.has_pattern(folder / "dst.raw", 0, 2 * MEBIBYTE, 64 << 10)
        return told + without_progress(story(peer, mark, "j"))
    both(twins, script)


# Transactions with jobs

def backup_action(**data):
    return {"type": "blockdev-backup", "data": {"sync": "full", "device": "src", **data}}


def grouped(peer, folder):
    source_and_target(peer, folder)
    add(peer, folder, "dst2")
    write(folder, "write -P 1 0 8M")


def stories(peer, mark, exact=True):
    told = [story(peer, mark, job) for job in ("j", "k")]
    return told if exact else [without_progress(entry) for entry in told]


@pytest.mark.parametrize("end", ["finalize j", "finalize k", "cancel j", "cancel k"])
def test_a_group_ends_together(twins, end):
    def script(peer, folder):
        grouped(peer, folder)
        mark = peer.mark()
        told = [answer(peer, "transaction", {"properties": {"completion-mode": "grouped"}, "actions": [
            backup_action(**{"job-id": "j", "target": "dst", "auto-finalize": False}),
            backup_action(**{"job-id": "k", "target": "dst2"})]})]
        for job in ("j", "k"):
            wait_status(peer, mark, job, "pending")
        verb, job = end.split()
        told.append(answer(peer, f"job-{verb}", {"id": job}))
        for job in ("j", "k"):
            wait_gone(peer, job)
        return told + stories(peer, mark)
    both(twins, script)


def test_a_cancelled_member_ends_its_group(twins):
    def script(peer, folder):
        grouped(peer, folder)
        peer.execute("block-dirty-bitmap-add", node="src", name="b")
        write(folder, "write -P 2 0 1M")
        mark = peer.mark()
        told = [answer(peer, "transaction", {"properties": {"completion-mode": "grouped"}, "actions": [
            backup_action(**{"job-id": "j", "target": "dst", "speed": 65536}),
            backup_action(**{"job-id": "k", "target": "dst2", "sync": "incremental", "bitmap": "b"})]})]
        wait_status(peer, mark, "k", "waiting")
        told.append(bitmaps(peer))
        peer.execute("job-cancel", id="j")
        for job in ("j", "k"):
            wait_gone(peer, job)
        return told + [bitmaps(peer)] + stories(peer, mark, exact=False)
    both(twins, script)


def test_a_transaction_that_fails_starts_no_job(twins):
    def script(peer, folder):
        grouped(peer, folder)
        mark = peer.mark()
        told = [answer(peer, "transaction", {"actions": [
            backup_action(**{"job-id": "j", "target": "dst"}), backup_action(**{"job-id": "k", "target": "zz"})]}),
            answer(peer, "transaction", {"properties": {"completion-mode": "grouped"}, "actions": [
                backup_action(**{"job-id": "j", "target": "dst"}),
                backup_action(**{"job-id": "k", "target": "dst2", "speed": -1})]}),
            answer(peer, "transaction", {"actions": [
                {"type": "block-dirty-bitmap-add", "data": {"node": "src", "name": "n"}},
                backup_action(**{"job-id": "j", "target": "dst", "sync": "incremental", "bitmap": "n"}),
                {"type": "abort", "data": {}}]})]
        assert bitmaps(peer) == []
        told.append(answer(peer, "transaction", {"actions": [
            {"type": "block-dirty-bitmap-add", "data": {"node": "src", "name": "n"}},
            backup_action(**{"job-id": "j", "target": "dst", "sync": "incremental", "bitmap": "n"})]}))
        wait_gone(peer, "j")
        return told + [bitmaps(peer), peer.execute("query-jobs")] + stories(peer, mark)
    both(twins, script)


# Layers

@pytest.mark.parametrize("command", ["blockdev-backup", "blockdev-mirror"])
def test_only_the_topmost_image_is_copied(twins, command):
    def script(peer, folder):
        images.write_pattern(images.create(folder / "base.qcow2", "8M"), 1, 0, 4 << 20)
        images.create(folder / "top.qcow2", "8M", backing=folder / "base.qcow2")
        images.write_pattern(folder / "top.qcow2", 2, 1 << 20, 65536)
        images.write_pattern(folder / "top.qcow2", 3, 7 << 20, 65536)
        images.create(folder / "dst.qcow2", "8M", backing=folder / "base.qcow2")
        for node in ("base", "top", "dst"):
            file = {"driver": "file", "filename": str(folder / f"{node}.qcow2")}
            peer.execute("blockdev-add", driver="qcow2", node_name=node, file=file, discard="unmap",
                         **({"backing": "base"} if node != "base" else {"read-only": True}))
        mark = peer.mark()
        told = [answer(peer, command, {"job-id": "j", "device": "top", "target": "dst", "sync": "top"})]
        if command == "blockdev-mirror":
            peer.wait_event("BLOCK_JOB_READY", mark)
            told.append(answer(peer, "block-job-cancel", {"device": "j"}))
        wait_gone(peer, "j")
        for node in ("dst", "top", "base"):
            told.append(answer(peer, "blockdev-del", {"node-name": node}))
        images.check(folder / "dst.qcow2")
        images.same_content(folder / "dst.qcow2", "qcow2", folder / "top.qcow2", "qcow2")
        # Nothing of the backing image came along.
        assert sum(extent["length"] for extent in images.extents(folder / "dst.qcow2") if extent["depth"] == 0) == 2 << 16
        return told + without_progress(story(peer, mark, "j"))
    both(twins, script)


def test_a_backup_into_an_overlay_of_its_source(twins):
    """The way to keep only what is overwritten: the filter must not come between the overlay and its backing image."""
    def script(peer, folder):
        images.write_pattern(images.create(folder / "src.qcow2", "8M"), 1, 0, 4 << 20)
        images.create(folder / "dst.qcow2", "8M", backing=folder / "src.qcow2")
        for node, more in (("src", {}), ("dst", {"backing": "src"})):
            file = {"driver": "file", "filename": str(folder / f"{node}.qcow2")}
            peer.execute("blockdev-add", driver="qcow2", node_name=node, file=file, **more)
        peer.execute("block-export-add", type="nbd", id="e", node_name="src", name="src", writable=True)
        mark = peer.mark()
        told = [backup(peer, sync="none")]
        write(folder, "write -P 9 1M 64k")
        told.append(answer(peer, "job-cancel", {"id": "j"}))
        wait_gone(peer, "j")
        peer.execute("block-export-del", id="e", mode="hard")
        for node in ("dst", "src"):
            told.append(answer(peer, "blockdev-del", {"node-name": node}))
        images.check(folder / "dst.qcow2")
        # The overlay shows the moment of the backup, the source what was written since.
        assert images.has_pattern(folder / "dst.qcow2", 1, 0, 4 << 20, form="qcow2")
        assert images.has_pattern(folder / "src.qcow2", 9, 1 << 20, 65536, form="qcow2")
        return told + without_progress(story(peer, mark, "j"))
    both(twins, script)
