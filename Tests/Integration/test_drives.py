"""drive-backup and drive-mirror, which open their targets themselves, compressed backups and amending, side by side with
qemu-storage-daemon."""

import pytest

from harness import images
from harness.blockjobs import MEBIBYTE, without_drains, without_progress, write
from harness.chains import add_layer, reads
from harness.reference import answer, both, story, wait_gone


def layered(peer, folder):
    """`base` under `src`, which is exported; the first holds 1, the second 2 above it."""
    for node, backing in (("base", None), ("src", "base")):
        add_layer(peer, folder, node, backing=backing, discard="unmap", **({} if backing else {"read_only": True}))
        if backing:
            peer.execute("block-export-add", type="nbd", id="e", node_name=node, name="src", writable=True)
            write(folder, "write -P 2 1M 1M")




def names(peer):
    return sorted(node["node-name"] for node in peer.execute("query-named-block-nodes")
                  if not node["node-name"].startswith("#"))


def drive(peer, command, folder, **options):
    return answer(peer, command, {"job_id": "j", "device": "src", "target": str(folder / "dst.qcow2"),
                                  "format": "qcow2", **options})


@pytest.mark.parametrize("way", ["command", "transaction"])
@pytest.mark.parametrize("sync", ["full", "top"])
def test_a_backup_into_a_file(twins, sync, way):
    def script(peer, folder):
        layered(peer, folder)
        mark = peer.mark()
        data = {"job-id": "j", "device": "src", "target": str(folder / "dst.qcow2"), "format": "qcow2", "sync": sync}
        told = [answer(peer, "drive-backup", data) if way == "command" else
                answer(peer, "transaction", {"actions": [{"type": "drive-backup", "data": data}]})]
        wait_gone(peer, "j")
        told.append(names(peer))
        # The target is closed: others may open it.
        images.check(folder / "dst.qcow2")
        assert reads(folder / "dst.qcow2", (2, MEBIBYTE, MEBIBYTE), (0, 0, MEBIBYTE))
        info = images.run("qemu-img", "info", folder / "dst.qcow2").stdout
        assert ("backing file: " in info) == (sync == "top")
        return told + story(peer, mark, "j")
    both(twins, script)


def test_a_backup_of_nothing_shows_the_source(twins):
    def script(peer, folder):
        layered(peer, folder)
        mark = peer.mark()
        told = [drive(peer, "drive-backup", folder, sync="none")]
        write(folder, "write -P 3 1M 64k")
        peer.execute("job-cancel", id="j")
        wait_gone(peer, "j")
        told.append(names(peer))
        peer.execute("block-export-del", id="e", mode="hard")
        peer.execute("blockdev-del", node_name="src")
        assert reads(folder / "dst.qcow2", (2, MEBIBYTE, MEBIBYTE)) and reads(folder / "src.qcow2", (3, MEBIBYTE, 65536))
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


@pytest.mark.parametrize("sync", ["full", "top", "none"])
@pytest.mark.parametrize("end", ["complete", "cancel"])
def test_a_mirror_into_a_file(twins, sync, end):
    def script(peer, folder):
        layered(peer, folder)
        mark = peer.mark()
        told = [drive(peer, "drive-mirror", folder, sync=sync, **{"node-name": "dst"})]
        peer.wait_event("BLOCK_JOB_READY", mark)
        write(folder, "write -P 4 3M 64k", "write -P 5 100 1000")
        told.append(answer(peer, "block-job-complete" if end == "complete" else "block-job-cancel", {"device": "j"}))
        wait_gone(peer, "j")
        told.append([entry["node-name"] for entry in peer.execute("query-block-exports")])
        told.append(names(peer))
        write(folder, "write -P 6 5M 64k")
        peer.execute("block-export-del", id="e", mode="hard")
        shown = (4, 3 * MEBIBYTE, 65536), (5, 100, 1000)
        if end == "complete" and sync != "none":
            peer.execute("blockdev-del", node_name="src")
            assert reads(folder / "dst.qcow2", (2, MEBIBYTE, MEBIBYTE), (6, 5 * MEBIBYTE, 65536), *shown)
            images.check(folder / "dst.qcow2")
        else:
            told.append(answer(peer, "blockdev-del", {"node-name": "src"}))
            assert reads(folder / "dst.qcow2", (2, MEBIBYTE, MEBIBYTE), *shown)
        return told + without_drains(without_progress(story(peer, mark, "j")))
    both(twins, script)


def test_what_drives_refuse(twins):
    def script(peer, folder):
        layered(peer, folder)
        told = []
        for options in ({"device": "zz"}, {"sync": "zz"}, {"format": "zzz"}, {"job-id": "1"}, {"speed": -1},
                        {"sync": "incremental"}, {"mode": "zz"}, {"mode": "existing"}):
            told.append([options, drive(peer, "drive-backup", folder, **{"sync": "full", **options})])
            (folder / "dst.qcow2").unlink(missing_ok=True)
        for options in ({"device": "zz"}, {"device": "base"}, {"format": "zzz"}, {"job-id": "1"}, {"speed": -1},
                        {"replaces": "src"}, {"sync": "incremental"}, {"mode": "existing"}):
            told.append([options, drive(peer, "drive-mirror", folder, **{"sync": "full", **options})])
            (folder / "dst.qcow2").unlink(missing_ok=True)
        return told + [names(peer), peer.execute("query-jobs")]
    both(twins, script)


@pytest.mark.parametrize("cluster", ["4k", "64k", "2M"])
@pytest.mark.parametrize("compress", [True, False])
def test_a_backup_into_clusters_of(twins, cluster, compress):
    def script(peer, folder):
        images.create(folder / "src.raw", "9M", "raw")
        peer.execute("blockdev-add", driver="raw", node_name="src",
                     file={"driver": "file", "filename": str(folder / "src.raw")})
        peer.execute("block-export-add", type="nbd", id="e", node_name="src", name="src", writable=True)
        write(folder, "write -P 1 0 3M", "write -P 2 5000k 1000k", "write -P 3 8700k 516k")
        images.create(folder / "dst.qcow2", "9M", options=f"cluster_size={cluster}")
        peer.execute("blockdev-add", driver="qcow2", node_name="dst", discard="unmap",
                     file={"driver": "file", "filename": str(folder / "dst.qcow2")})
        mark = peer.mark()
        told = [answer(peer, "blockdev-backup", {
            "job-id": "j", "device": "src", "target": "dst", "sync": "full", "compress": compress})]
        wait_gone(peer, "j")
        peer.execute("blockdev-del", node_name="dst")
        images.check(folder / "dst.qcow2")
        images.same_content(folder / "src.raw", "raw", folder / "dst.qcow2", "qcow2")
        check = images.run("qemu-img", "check", folder / "dst.qcow2").stdout
        assert (" 0.00% compressed" in check) != compress, check
        return told + without_progress(story(peer, mark, "j"))
    both(twins, script)


def test_an_image_is_amended(twins):
    def script(peer, folder):
        layered(peer, folder)
        mark = peer.mark()
        told = [answer(peer, "x-blockdev-amend", {"job-id": "j", "node-name": node, "options": options})
                for node, options in (("zz", {"driver": "qcow2"}), ("src", {"driver": "qcow2", "x": 1}),
                                      ("src", {"driver": "qcow2"}))]
        peer.wait_event("JOB_STATUS_CHANGE", mark, lambda data: data["status"] == "concluded")
        told += [peer.execute("query-jobs"), answer(peer, "x-blockdev-amend", {
            "job-id": "j", "node-name": "src", "options": {"driver": "qcow2"}}), answer(peer, "job-dismiss", {"id": "j"})]
        return told + story(peer, mark, "j")
    both(twins, script)


def test_the_encryption_of_an_image_that_has_none_is_not_amended(twins):
    def script(peer, folder):
        layered(peer, folder)
        told = []
        for encrypt in (1, {}, {"format": "x"}, {"format": "luks"}, {"format": "luks", "state": "x"},
                        {"format": "luks", "state": "active", "keyslot": "1"}, {"format": "qcow"},
                        {"format": "luks", "state": "active", "new-secret": "s", "keyslot": 1}):
            mark = peer.mark()
            told.append(answer(peer, "x-blockdev-amend", {
                "job-id": "j", "node-name": "src", "options": {"driver": "qcow2", "encrypt": encrypt}}))
            if told[-1] != {}:
                continue
            peer.wait_event("JOB_STATUS_CHANGE", mark, lambda data: data["status"] == "concluded")
            told += [peer.execute("query-jobs"), answer(peer, "job-dismiss", {"id": "j"})] + story(peer, mark, "j")
        # The disk goes on.
        write(folder, "write -P 3 0 1M")
        return told
    both(twins, script)


@pytest.mark.parametrize("options, given_back", [
    ({}, 0), ({"discard": "unmap"}, 1), ({"discard": "unmap", "pass-discard-request": False}, 0),
    ({"discard": "ignore", "pass-discard-request": True}, 0)])
def test_what_the_host_gets_back_of_a_discard(twins, options, given_back):
    def script(peer, folder):
        image = images.create(folder / "src.qcow2", "16M")
        peer.execute("blockdev-add", driver="qcow2", node_name="src", **{
            key.replace("-", "_"): value for key, value in options.items()},
            file={"driver": "file", "filename": str(image), "discard": "unmap"})
        peer.execute("block-export-add", type="nbd", id="e", node_name="src", name="src", writable=True)
        write(folder, "write -P 1 0 8M", "flush")
        before = image.stat().st_blocks
        write(folder, "discard 2M 4M", "flush", "flush")
        given = (before - image.stat().st_blocks) * 512 / MEBIBYTE
        mark = peer.mark()
        peer.execute("block-export-del", id="e", mode="hard")
        peer.wait_event("BLOCK_EXPORT_DELETED", mark)
        peer.execute("blockdev-del", node_name="src")
        images.check(image)
        return round(given / 4)
    assert both(twins, script) == given_back
