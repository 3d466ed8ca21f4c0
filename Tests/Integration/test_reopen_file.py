"""`blockdev-reopen` that puts another node below one (`file`), side by side with qemu-storage-daemon."""

import json

import pytest

from harness import images
from harness.blockjobs import MEBIBYTE, write
from harness.reference import answer, both
from harness.reopening import add, export, files, nodes, raw, reopen, shows, two_disks, unexport


# What is refused

def test_what_cannot_be_the_file(twins):
    def script(peer, folder):
        files(peer, folder, "a", "b")
        files(peer, folder, "ro", **{"read-only": True})
        add(peer, raw("a"), {"driver": "blkdebug", "node-name": "above", "image": "hd"})
        told = [reopen(peer, options) for options in (
            raw("zz"), raw(""), raw(None), raw(5), raw([]), {"driver": "raw", "node-name": "hd"}, raw("hd"),
            raw("above"), raw("ro", **{"read-only": True}), raw("b"), raw("b", wrong=1),
            raw("b", **{"detect-zeroes": "unmap"}),
            raw({"driver": "file", "node-name": "c", "filename": str(folder / "b.img")}))]
        told.append(nodes(peer))
        # Somebody who writes needs a file that can be written.
        told += [reopen(peer, raw("a"))]
        export(peer, "above")
        told += [reopen(peer, raw("ro", **{"read-only": True})), reopen(peer, raw("ro")), nodes(peer)]
        unexport(peer)
        return told
    both(twins, script)


def test_an_inline_file_stays_as_it_is(twins):
    def script(peer, folder):
        files(peer, folder, "a")
        file = {"driver": "file", "node-name": "in", "filename": str(images.create(folder / "in.img", "1M", form="raw"))}
        add(peer, raw(file))
        told = [reopen(peer, raw({**file, **change})) for change in (
            {"filename": str(folder / "a.img")}, {"driver": "null-co"}, {"node-name": "zz"}, {"locking": "off"}, {})]
        told.append(nodes(peer))
        # The node that was made with its parent goes when it is not used any more.
        told += [reopen(peer, raw("a")), nodes(peer), reopen(peer, raw("in")), reopen(peer, raw(file))[:50]]
        return told + [nodes(peer), answer(peer, "blockdev-del", {"node-name": "hd"}), nodes(peer)]
    both(twins, script)


def test_filters_that_have_no_other_file(twins):
    def script(peer, folder):
        files(peer, folder, "a", "b")
        for path in "xy":
            add(peer, {"driver": "qcow2", "node-name": path, "file": {
                "driver": "file", "filename": str(images.create(folder / f"{path}.qcow2", "1M"))}})
        told = []
        for options, changes in (
                ({"driver": "blkdebug", "image": "a"}, {"image": "b"}), ({"driver": "compress", "file": "x"}, {"file": "y"}),
                ({"driver": "copy-on-read", "file": "a"}, {"file": "b"}),
                ({"driver": "blkverify", "raw": "a", "test": "x"}, {"raw": "b"}),
                ({"driver": "blklogwrites", "file": "a", "log": "b"}, {"file": "b"})):
            options = {**options, "node-name": "f"}
            told += [answer(peer, "blockdev-add", options), reopen(peer, {**options, **changes}),
                     answer(peer, "blockdev-del", {"node-name": "f"})]
        return told
    both(twins, script)


# What is done

def test_a_raw_disk_goes_to_another_file_and_back(twins):
    def script(peer, folder):
        files(peer, folder, "a", "b")
        add(peer, raw("a"))
        export(peer, "hd")
        told = []
        for file, number in (("b", 2), ("a", 1), ("a", 1), ("b", 7)):
            told.append(reopen(peer, raw(file)))
            shows(folder, (number, 0, 65536), (2 if file == "b" else 1, 65536, 65536))
            write(folder, "write -P 7 0 64k" if file == "b" else "write -q -P 1 0 64k")
        unexport(peer)
        told += [answer(peer, "blockdev-del", {"node-name": name}) for name in ("b", "hd", "a", "b")]
        assert images.has_pattern(folder / "b.img", 7, 0, 65536) and images.has_pattern(folder / "a.img", 1, 0, MEBIBYTE)
        return told
    both(twins, script)


def test_a_raw_disk_gets_the_size_of_the_other_file(twins):
    def script(peer, folder):
        files(peer, folder, "a")
        files(peer, folder, "long", size="4M")
        add(peer, raw("a"))

        def size():
            return next(node["image"]["virtual-size"] for node in peer.execute("query-named-block-nodes")
                        if node["node-name"] == "hd")
        told = [reopen(peer, raw("long")), size()]
        export(peer, "hd")
        write(folder, "write -P 9 3M 64k")
        told += [reopen(peer, raw("long", offset=MEBIBYTE, size=MEBIBYTE)), size(), reopen(peer, raw("a")), size()]
        unexport(peer)
        assert images.has_pattern(folder / "long.img", 9, 3 * MEBIBYTE, 65536)
        return told
    both(twins, script)


@pytest.mark.parametrize("driver", ["throttle", "preallocate"])
def test_a_filter_shows_another_node(twins, driver):
    def script(peer, folder):
        files(peer, folder, "a", "b")
        files(peer, folder, "ro", **{"read-only": True})
        peer.execute("object-add", id="tg", qom_type="throttle-group")
        own = {"throttle": {"throttle-group": "tg"}, "preallocate": {}}[driver]

        def options(file, **more):
            return {"driver": driver, "node-name": "f", "file": file, **own, **more}
        files(peer, folder, "used", form="qcow2")
        add(peer, options("a"), {**options("f"), "node-name": "g"},
            {"driver": "qcow2", "node-name": "user", "file": "used"})
        told = [reopen(peer, options(file)) for file in ("zz", "f", "g", "ro", "a")]
        export(peer, "f")
        told += [reopen(peer, options(file)) for file in ("ro", "used", "b")] + [nodes(peer)]
        shows(folder, (2, 0, MEBIBYTE))
        write(folder, "write -P 9 0 64k")
        told += [answer(peer, "blockdev-del", {"node-name": "b"}), reopen(peer, options("a"))]
        shows(folder, (1, 0, MEBIBYTE))
        unexport(peer)
        assert images.has_pattern(folder / "b.img", 9, 0, 65536)
        return told + [answer(peer, "blockdev-del", {"node-name": name}) for name in ("g", "f", "a", "b")]
    both(twins, script)


def test_a_filter_comes_between_an_image_and_its_file(twins):
    def script(peer, folder):
        files(peer, folder, "a", form="qcow2")
        peer.execute("object-add", id="tg", qom_type="throttle-group")
        disk = {"driver": "qcow2", "node-name": "hd", "file": "a"}
        add(peer, disk)
        export(peer, "hd")
        write(folder, "write -P 5 0 64k")
        add(peer, {"driver": "throttle", "node-name": "t", "throttle-group": "tg", "file": "a"})
        told = [reopen(peer, {**disk, "file": "t"}), nodes(peer)]
        write(folder, "write -P 6 64k 64k")
        told += [answer(peer, "blockdev-del", {"node-name": "t"}), reopen(peer, {**disk, "file": "a"}),
                 answer(peer, "blockdev-del", {"node-name": "t"})]
        write(folder, "write -P 7 128k 64k")
        shows(folder, (5, 0, 65536), (6, 65536, 65536), (7, 131072, 65536), (1, 196608, 65536))
        unexport(peer)
        told += [answer(peer, "blockdev-del", {"node-name": name}) for name in ("hd", "a")]
        images.check(folder / "a.img")
        return told
    both(twins, script)


def test_what_is_written_through_a_compressing_filter(twins):
    def script(peer, folder):
        path = images.create(folder / "q.qcow2", "1M")
        image = {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": str(path)}}
        add(peer, raw(image), {"driver": "compress", "node-name": "c", "file": "q"})
        export(peer, "hd")
        told = []
        for step, file in enumerate(("q", "c", "q")):
            told.append(reopen(peer, raw(file)))
            write(folder, f"write -P {step + 1} {step * 64}k 64k")
        unexport(peer)
        told += [answer(peer, "blockdev-del", {"node-name": name}) for name in ("hd", "c")]
        told.append(json.loads(images.run("qemu-img", "check", "--output=json", path).stdout)["compressed-clusters"])
        images.check(path)
        return told
    both(twins, script)


def test_who_is_named_in_a_conflict(twins):
    def script(peer, folder):
        files(peer, folder, "a", form="qcow2")
        disk = {"driver": "qcow2", "node-name": "first", "file": "a"}
        add(peer, disk)
        told = [answer(peer, "blockdev-add", {**disk, "node-name": "second"})]
        refused = answer(peer, "block-export-add", {
            "type": "nbd", "id": "e", "node-name": "a", "name": "e", "writable": True})
        return told + [refused.replace("an unnamed block device", "block export 'e'")]
    both(twins, script)


def test_two_disks_swap_their_files(twins):
    def script(peer, folder):
        first, second = two_disks(peer, folder)
        told = [reopen(peer, {**first, "file": "hd2-file"}), reopen(peer, {**second, "file": "hd0-file"})]
        crossed = ({**first, "file": "hd2-file"}, {**second, "file": "hd0-file"})
        straight = ({**first, "file": "hd0-file"}, {**second, "file": "hd2-file"})
        for options, patterns in ((crossed, (3, 1)), (straight, (1, 3)), (crossed[::-1], (3, 1)), (straight, (1, 3))):
            told += [reopen(peer, *options), nodes(peer)]
            for name, pattern in zip(("hd0", "hd2"), patterns):
                shows(folder, (pattern, 0, 65536), name=name)
        # One of them cannot be: all stay.
        told += [reopen(peer, *crossed, {"driver": "raw", "node-name": "hd0-file"}),
                 reopen(peer, crossed[0], {**second, "file": "zz"}), reopen(peer, crossed[0], straight[1])]
        for name, pattern in (("hd0", 1), ("hd2", 3)):
            write(folder, f"write -P {pattern} 64k 64k", export=name)
            shows(folder, (pattern, 0, 131072), name=name)
            unexport(peer, name)
        told += [answer(peer, "blockdev-del", {"node-name": name}) for name in ("hd0", "hd2")] + [nodes(peer)]
        for number in (0, 2):
            images.check(folder / f"hd{number}.qcow2")
        return told
    both(twins, script)


@pytest.mark.parametrize("order", [1, -1], ids=["parent-first", "child-first"])
def test_access_changes_with_the_file(twins, order):
    """All nodes of a list are as they will be when it is seen who may write."""
    def script(peer, folder):
        # Of the same make: QEMU writes what it knows of the one into the other.
        a, b = ({"driver": "file", "node-name": name, "filename": str(images.create(folder / f"{name}.img", "1M"))}
                for name in "ab")

        def disk(file, **more):
            return {"driver": "qcow2", "node-name": "hd", "file": file, **more}
        read_only = {"read-only": True}
        add(peer, a, {**b, **read_only}, disk("a"))
        told = [reopen(peer, disk("b")), reopen(peer, *(disk("b"), b)[::order]), nodes(peer)]
        export(peer, "hd")
        write(folder, "write -P 9 0 64k")
        told.append(reopen(peer, *(disk("b", **read_only), {**b, **read_only})[::order]))
        unexport(peer)
        told += [reopen(peer, {**b, **read_only}), reopen(peer, *(disk("b", **read_only), {**b, **read_only})[::order]),
                 nodes(peer), reopen(peer, disk("b")), reopen(peer, *(disk("a"), {**b, **read_only})[::order]), nodes(peer)]
        told += [answer(peer, "blockdev-del", {"node-name": name}) for name in ("hd", "a", "b")]
        for name in "ab":
            images.check(folder / f"{name}.img")
        return told
    both(twins, script)


def test_backing_and_file_at_once(twins):
    def script(peer, folder):
        disks = two_disks(peer, folder)
        for name in ("hd0", "hd2"):
            unexport(peer, name)
        path = images.create(folder / "base.qcow2", "1M")
        images.write_pattern(path, 8, 0, MEBIBYTE)
        add(peer, {"driver": "qcow2", "node-name": "base", "read-only": True, "file": {
            "driver": "file", "filename": str(path)}})
        told = [reopen(peer, {**disks[0], "file": "hd2-file", "backing": "base"},
                       {**disks[1], "file": "hd0-file", "backing": "hd0"}),
                reopen(peer, {**disks[0], "file": "hd2-file", "backing": "base"},
                       {**disks[1], "file": "hd0-file", "backing": "base"})]
        for name, pattern in (("hd0", 3), ("hd2", 1)):
            export(peer, name, name)
            shows(folder, (pattern, 0, 65536), (8, 65536, 65536), name=name)
            unexport(peer, name)
        told += [reopen(peer, {**disks[0], "file": "hd2-file"}), nodes(peer),
                 answer(peer, "blockdev-del", {"node-name": "base"})]
        return told
    both(twins, script)
