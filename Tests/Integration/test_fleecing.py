"""Image fleecing: a reader of one moment beside a writer, side by side with qemu-storage-daemon."""

import json

from harness import images
from harness.blockjobs import MEBIBYTE, add, write
from harness.reference import answer, both


def fleece(peer, folder, **options):
    add(peer, folder, "src")
    add(peer, folder, "tmp", form="qcow2")
    peer.execute("block-export-add", type="nbd", id="first", node_name="src", name="first", writable=True)
    peer.execute("block-dirty-bitmap-add", node="src", name="b")
    write(folder, "write -P 1 0 8M", export="first")
    peer.execute("block-export-del", id="first", mode="hard")
    peer.execute("block-dirty-bitmap-disable", node="src", name="b")
    return [
        answer(peer, "blockdev-add", {"driver": "copy-before-write", "node-name": "cbw", "file": "src", "target": "tmp",
                                      **options}),
        answer(peer, "block-export-add", {"type": "nbd", "id": "guest", "node-name": "cbw", "name": "guest",
                                          "writable": True}),
        answer(peer, "blockdev-add", {"driver": "snapshot-access", "node-name": "moment", "file": "cbw"}),
        answer(peer, "block-export-add", {"type": "nbd", "id": "backup", "node-name": "moment", "name": "backup"})]


def read(folder, pattern, offset, length, export="backup"):
    result = images.run("qemu-io", "-r", "-f", "raw", "-c", f"read -P {pattern} {offset} {length}",
                        f"nbd+unix:///{export}?socket={folder}/nbd.sock", check=False)
    return result.returncode, "verification failed" in result.stdout, "Permission denied" in result.stdout + result.stderr


def test_the_reader_sees_one_moment(twins):
    def script(peer, folder):
        told = fleece(peer, folder)
        write(folder, "write -P 2 1M 1M", "discard 3M 100k", "write -P 3 5000 7", export="guest")
        told += [read(folder, 1, 0, 8 * MEBIBYTE), read(folder, 2, MEBIBYTE, MEBIBYTE, "guest")]
        told += [answer(peer, "blockdev-del", {"node-name": node}) for node in ("tmp", "cbw", "src")]
        for export in ("backup", "guest"):
            peer.execute("block-export-del", id=export, mode="hard")
        for node in ("moment", "cbw", "tmp", "src"):
            told.append(answer(peer, "blockdev-del", {"node-name": node}))
        images.check(folder / "tmp.qcow2")
        assert images.has_pattern(folder / "src.raw", 2, MEBIBYTE, MEBIBYTE)
        return told
    both(twins, script)


def test_zeroes_are_kept_from_the_reader(agent, directory):
    # qemu-storage-daemon 7.2 shows them: it loses the moment there.
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    fleece(agent, directory)
    write(directory, "write -z 3M 100k", "write -zu 5M 1M", export="guest")
    assert read(directory, 1, 0, 8 * MEBIBYTE) == (0, False, False)
    assert read(directory, 0, 5 * MEBIBYTE, MEBIBYTE, "guest") == (0, False, False)


def test_only_what_a_bitmap_marks_is_kept(twins):
    def script(peer, folder):
        add(peer, folder, "other", size="8M")
        peer.execute("block-dirty-bitmap-add", node="other", name="part")
        peer.execute("block-export-add", type="nbd", id="o", node_name="other", name="other", writable=True)
        write(folder, "write 1M 1M", export="other")
        told = fleece(peer, folder, bitmap={"node": "other", "name": "part"})
        write(folder, "write -P 2 0 8M", export="guest")
        told += [read(folder, 1, MEBIBYTE, MEBIBYTE), read(folder, 1, 4 * MEBIBYTE, 65536)]
        return told
    both(twins, script)


def test_a_reader_sees_bitmaps_as_block_status(twins):
    def script(peer, folder):
        told = fleece(peer, folder)
        peer.execute("block-export-del", id="backup", mode="hard")
        told.append(answer(peer, "block-export-add", {
            "type": "nbd", "id": "backup", "node-name": "moment", "name": "backup",
            "bitmaps": [{"node": "src", "name": "b"}]}))
        result = images.run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:b",
                            f"nbd+unix:///backup?socket={folder}/nbd.sock")
        return told + [json.loads(result.stdout)]
    both(twins, script)
