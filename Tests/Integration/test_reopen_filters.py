"""`blockdev-reopen` of the filters throttle and blkdebug, side by side with qemu-storage-daemon."""

import time

from harness import images
from harness.blockjobs import MEBIBYTE, write
from harness.reference import answer, both, story, wait_gone


def add_disk(peer, folder, **filter_options):
    """A raw disk `n` and a filter `f` above it, exported as `src`."""
    images.create(folder / "n.raw", "4M", form="raw")
    told = [answer(peer, "blockdev-add", {
        "driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": str(folder / "n.raw")}}),
        answer(peer, "blockdev-add", filter_options),
        answer(peer, "block-export-add", {
            "type": "nbd", "id": "e", "node-name": "f", "name": "src", "writable": True})]
    assert told == [{}] * 3, told


def reopen(peer, *options):
    return answer(peer, "blockdev-reopen", {"options": list(options)})


def nodes(peer):
    return sorted([node["node-name"], node["drv"], node["ro"]] for node in peer.execute("query-named-block-nodes")
                  if not node["node-name"].startswith("#"))


def close(peer):
    peer.execute("block-export-del", id="e", mode="hard")
    return [answer(peer, "blockdev-del", {"node-name": node}) for node in ("f", "n")]


def test_a_throttled_node_goes_to_another_group(twins):
    throttle = {"driver": "throttle", "node-name": "f", "throttle-group": "slow", "file": "n"}

    def script(peer, folder):
        for group, limits in (("slow", {"bps-total": MEBIBYTE}), ("fast", {"bps-total": 1 << 40})):
            peer.execute("object-add", id=group, limits=limits, qom_type="throttle-group")
        add_disk(peer, folder, **throttle)
        told = [answer(peer, "object-del", {"id": "slow"})]
        told += [reopen(peer, options) for options in (
            {**throttle, "throttle-group": "none"}, {**throttle, "wrong": 1}, {**throttle, "file": "none"},
            {"driver": "throttle", "node-name": "f", "file": "n"}, throttle, {**throttle, "throttle-group": "fast"})]
        # Now the first group has no nodes, and its limits count for nobody.
        told.append(answer(peer, "object-del", {"id": "slow"}))
        start = time.monotonic()
        write(folder, "write -P 1 0 1M", "write -P 2 1M 1M", "write -P 3 2M 1M", "write -P 4 3M 1M")
        assert time.monotonic() - start < 2.5
        told.append(answer(peer, "object-del", {"id": "fast"}))
        # Two nodes at once, of which the second cannot be: the first stays where it is.
        told.append(reopen(peer, throttle, {"driver": "raw", "node-name": "n"}))
        told += [nodes(peer), *close(peer), answer(peer, "object-del", {"id": "fast"})]
        assert images.has_pattern(folder / "n.raw", 4, 3 * MEBIBYTE, MEBIBYTE)
        return told
    both(twins, script)


def test_a_throttled_node_goes_to_a_slower_group(twins):
    throttle = {"driver": "throttle", "node-name": "f", "throttle-group": "fast", "file": "n"}

    def script(peer, folder):
        for group, limits in (("slow", {"bps-total": 2 * MEBIBYTE}), ("fast", {"bps-total": 1 << 40})):
            peer.execute("object-add", id=group, limits=limits, qom_type="throttle-group")
        add_disk(peer, folder, **throttle)
        told = [reopen(peer, {**throttle, "throttle-group": "slow"})]
        start = time.monotonic()
        # Of 4 MiB one request and a tenth of a second's worth pass at once: (4 - 1 - 0.2) / 2 = 1.4 s.
        write(folder, *[f"write -P 1 {place}M 1M" for place in range(4)])
        assert time.monotonic() - start >= 1.3
        return told + close(peer)
    both(twins, script)


def test_the_rules_of_blkdebug_stay(twins):
    """All options must be given as they were; what the rules have come to is not forgotten."""
    rule = {"event": "pwritev", "iotype": "write", "errno": 28, "once": True}
    debug = {"driver": "blkdebug", "node-name": "f", "image": "n", "inject-error": [rule], "align": 512}

    def script(peer, folder):
        def outcome():
            result = images.run("qemu-io", "-f", "raw", "-c", "write -P 1 0 64k",
                                f"nbd+unix:///src?socket={folder}/nbd.sock", check=False)
            return [line.rsplit(": ", 1)[-1] for line in (result.stdout + result.stderr).splitlines() if "failed" in line]
        add_disk(peer, folder, **debug)
        told = [reopen(peer, options) for options in (
            {**debug, "inject-error": [{**rule, "errno": 5}]}, {**debug, "align": 4096}, {**debug, "max-transfer": 4096},
            {**debug, "image": "none"}, {**debug, "inject-error": [rule, {"event": "read_aio"}]},
            {key: value for key, value in debug.items() if key != "align"},
            {**debug, "inject-error": [{key: value for key, value in rule.items() if key != "once"}]},
            {**debug, "wrong": 1}, debug)]
        told.append(outcome())
        told += [reopen(peer, {**debug, "discard": "unmap"}), outcome(), nodes(peer)]
        return told + close(peer)
    told = both(twins, script)
    assert told[9] == ["No space left on device"] and told[11] == []


def test_filters_become_read_only(twins):
    def script(peer, folder):
        peer.execute("object-add", id="tg", qom_type="throttle-group")
        told = []
        for options in ({"driver": "throttle", "node-name": "f", "throttle-group": "tg", "file": "n"},
                        {"driver": "blkdebug", "node-name": "f", "image": "n"}):
            add_disk(peer, folder, **options)
            # The export writes.
            told.append(reopen(peer, {**options, "read-only": True}))
            peer.execute("block-export-del", id="e", mode="hard")
            export = {"type": "nbd", "id": "e", "node-name": "f", "name": "src", "writable": True}
            for value in (True, False):
                told += [reopen(peer, {**options, "read-only": value}), nodes(peer),
                         answer(peer, "block-export-add", export)]
            told += close(peer)
        # The read-only nodes were members of it as well.
        return told + [answer(peer, "object-del", {"id": "tg"})]
    both(twins, script)


def test_a_job_makes_the_file_below_the_rules_writable(twins):
    """And read-only again: a format's own file, with blkdebug in between."""
    def script(peer, folder):
        for node, below in (("base", None), ("mid", "base"), ("top", "mid")):
            path = images.create(folder / f"{node}.qcow2", "4M", backing=below and folder / f"{below}.qcow2")
            images.write_pattern(path, 1 + len(node), 0, MEBIBYTE)
            file = {"driver": "blkdebug", "image": {"driver": "file", "filename": str(path)}}
            peer.execute("blockdev-add", driver="qcow2", node_name=node, file=file, backing=below,
                         **({"read-only": True} if node != "top" else {}))
        told = [nodes(peer)]
        mark = peer.mark()
        told.append(answer(peer, "block-commit", {"job-id": "j", "device": "top", "top-node": "mid"}))
        wait_gone(peer, "j")
        told += [story(peer, mark, "j"), nodes(peer)]
        told += [answer(peer, "blockdev-del", {"node-name": node}) for node in ("top", "mid", "base")]
        for node in ("base", "top"):
            images.check(folder / f"{node}.qcow2")
        return told
    both(twins, script)
