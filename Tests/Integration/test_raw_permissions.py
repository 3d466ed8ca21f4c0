"""Who may use a file beside a raw node, side by side with qemu-storage-daemon: a raw node has nothing of its own there."""

from harness import images
from harness.blockjobs import MEBIBYTE
from harness.reference import answer, both
from harness.reopening import files, raw, reopen


def test_who_may_use_the_file_of_a_raw_node(twins):
    def export(node):
        return "block-export-add", {"type": "nbd", "id": node, "node-name": node, "name": node, "writable": True}

    def script(peer, folder):
        files(peer, folder, "a", "b")
        files(peer, folder, "q", form="qcow2")
        files(peer, folder, "ro", **{"read-only": True})
        return [answer(peer, command, arguments) for command, arguments in (
            ("blockdev-add", raw("a")), ("blockdev-add", {**raw("a"), "node-name": "second"}), export("hd"),
            export("second"), export("a"), ("blockdev-add", {**raw("a", offset=512), "node-name": "window"}),
            export("window"), ("blockdev-add", {**raw("b", offset=512), "node-name": "w1"}),
            ("blockdev-add", {**raw("b", size=512), "node-name": "w2"}), export("w1"), export("w2"),
            ("blockdev-add", {**raw("ro"), "node-name": "r"}),
            ("blockdev-add", {**raw("ro"), "node-name": "rr", "read-only": True}),
            # A format that has something of its own there.
            ("blockdev-add", {**raw("q"), "node-name": "over"}), export("over"),
            ("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "q"}),
            ("block-export-del", {"id": "over", "mode": "hard"}),
            ("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "q"}),
            ("blockdev-add", {"driver": "qcow2", "node-name": "disk2", "file": "over"}))]
    both(twins, script)


def test_a_raw_node_goes_to_a_file_that_others_use(twins):
    def script(peer, folder):
        files(peer, folder, "a", "b")
        files(peer, folder, "ro", **{"read-only": True})
        for options in (raw("a"), {**raw("b"), "node-name": "other"}, {**raw("hd"), "node-name": "above"}):
            assert answer(peer, "blockdev-add", options) == {}
        told = [reopen(peer, options) for options in (
            raw("b"), raw("ro"), raw("ro", **{"read-only": True}), raw("b", offset=MEBIBYTE // 2), raw("a"))]
        told.append(answer(peer, "block-export-add", {
            "type": "nbd", "id": "e", "node-name": "above", "name": "e", "writable": True}))
        told += [reopen(peer, options) for options in (raw("ro"), raw("ro", **{"read-only": True}), raw("b"))]
        images.run("qemu-io", "-f", "raw", "-c", "write -P 9 0 64k", f"nbd+unix:///e?socket={folder}/nbd.sock")
        assert images.has_pattern(folder / "b.img", 9, 0, 65536)
        return told
    both(twins, script)
