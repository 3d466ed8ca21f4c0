"""detect-zeroes, side by side with qemu-storage-daemon."""

from harness import images
from harness.blockjobs import write
from harness.reference import answer, both


def add(peer, folder, **options):
    path = folder / "disk.qcow2"
    images.create(path, "4M")
    images.write_pattern(path, 1, 0, 4 << 20)
    return answer(peer, "blockdev-add", {
        "driver": "qcow2", "node-name": "src", "file": {"driver": "file", "filename": str(path), "discard": "unmap"},
        **options})


def outcome(peer, folder):
    peer.execute("block-export-add", type="nbd", id="e", node_name="src", name="src", writable=True)
    write(folder, "write -P 0 0 1M", "write -P 0 1100000 100", "write -P 0 2M 65536", "write -P 3 3M 65536")
    shown = [node["detect_zeroes"] for node in peer.execute("query-named-block-nodes") if node["node-name"] == "src"]
    peer.execute("block-export-del", id="e", mode="hard")
    peer.execute("blockdev-del", node_name="src")
    path = folder / "disk.qcow2"
    images.check(path)
    # What takes space is not compared: unmapping may keep a cluster or not.
    return shown, [{key: part[key] for key in ("start", "length", "zero", "data")} for part in images.extents(path)]


def test_writes_of_zeroes_become_zero_clusters(twins):
    def script(peer, folder):
        return add(peer, folder, **{"detect-zeroes": "on"}), outcome(peer, folder)
    added, (shown, extents) = both(twins, script)
    assert shown == ["on"] and any(part["zero"] for part in extents)


def test_unmap_gives_the_space_back(twins):
    def script(peer, folder):
        return add(peer, folder, discard="unmap", **{"detect-zeroes": "unmap"}), outcome(peer, folder)
    both(twins, script)


def test_off_writes_them(twins):
    def script(peer, folder):
        return add(peer, folder), outcome(peer, folder)
    _, (shown, extents) = both(twins, script)
    assert shown == ["off"] and not any(part["zero"] for part in extents)


def test_unmap_without_discard_is_refused(twins):
    both(twins, lambda peer, folder: add(peer, folder, **{"detect-zeroes": "unmap"}))
