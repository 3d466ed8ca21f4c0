"""Dirty bitmaps, side by side with qemu-storage-daemon: the same answers to the same commands."""

import json

import pytest

from harness import images
from harness.monitor import CommandError
from harness.reference import StorageDaemon, answer, compare

MEBIBYTE = 1 << 20


@pytest.fixture
def pair(agent, directory):
    """The agent and the reference, each with two disks of its own and an NBD server."""
    folders = []
    with StorageDaemon(directory) as daemon:
        for name, peer in (("ours", agent), ("theirs", daemon)):
            folder = directory / name
            folder.mkdir()
            folders.append(folder)
            # Without `discard` QEMU drops discards before its bitmaps see them.
            for node in ("a", "b"):
                path = images.create(folder / f"{node}.raw", "16M", form="raw")
                peer.execute("blockdev-add", driver="file", node_name=f"{node}-file", filename=str(path), discard="unmap")
                peer.execute("blockdev-add", driver="raw", node_name=node, file=f"{node}-file", discard="unmap")
            peer.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(folder / "nbd.sock")}})
        yield agent, daemon, *folders


def bitmap(name="b0", node="a"):
    return {"node": node, "name": name}


def bitmaps(peer, node="a"):
    nodes = peer.execute("query-named-block-nodes")
    return next(entry for entry in nodes if entry["node-name"] == node).get("dirty-bitmaps", [])


def write(folder, offset, length, export="a", pattern=1):
    images.run("qemu-io", "-f", "raw", "-c", f"write -P {pattern} {offset} {length}",
               f"nbd+unix:///{export}?socket={folder}/nbd.sock")


def export(node="a", **options):
    return ("block-export-add", {"type": "nbd", "id": f"e-{node}", "node-name": node, "name": node, **options})


def agree(pair, script):
    ours, theirs, our_folder, their_folder = pair
    compare(script, ours, theirs, our_folder, their_folder)
    for node in ("a", "b", "a-file"):
        assert bitmaps(ours, node) == bitmaps(theirs, node), node


REFUSALS = [
    ("block-dirty-bitmap-add", bitmap("")),
    ("block-dirty-bitmap-add", bitmap(node="zz")),
    ("block-dirty-bitmap-add", {**bitmap(), "granularity": 500}),
    ("block-dirty-bitmap-add", {**bitmap(), "granularity": 256}),
    ("block-dirty-bitmap-add", {**bitmap(), "granularity": 0}),
    ("block-dirty-bitmap-add", {**bitmap(), "granularity": -1}),
    ("block-dirty-bitmap-add", {**bitmap(), "persistent": True}),
    ("block-dirty-bitmap-add", bitmap("x" * 1024)),
    ("block-dirty-bitmap-add", bitmap("x" * 1023)),
    ("block-dirty-bitmap-remove", bitmap("x" * 1023)),
    ("block-dirty-bitmap-add", {"node": "a"}),
    ("block-dirty-bitmap-add", bitmap()),
    ("block-dirty-bitmap-add", bitmap()),
    *[(f"block-dirty-bitmap-{verb}", arguments) for verb in ("remove", "clear", "enable", "disable")
      for arguments in (bitmap("zz"), bitmap(node="zz"), {"node": "a"})],
    ("block-dirty-bitmap-merge", {"node": "a", "target": "zz", "bitmaps": ["b0"]}),
    ("block-dirty-bitmap-merge", {"node": "zz", "target": "b0", "bitmaps": ["b0"]}),
    ("block-dirty-bitmap-merge", {"node": "a", "target": "b0", "bitmaps": ["zz"]}),
    ("block-dirty-bitmap-merge", {"node": "a", "target": "b0", "bitmaps": [{"node": "zz", "name": "b0"}]}),
    ("block-dirty-bitmap-merge", {"node": "a", "target": "b0", "bitmaps": [{"node": "b", "name": "b0"}]}),
    ("block-dirty-bitmap-merge", {"node": "a", "target": "b0", "bitmaps": [7]}),
    ("x-debug-block-dirty-bitmap-sha256", bitmap("zz")),
    export(bitmaps=["zz"]),
    export(bitmaps=[{"node": "b", "name": "zz"}]),
    export(bitmaps=["b0"]),
]


def test_the_same_is_refused(pair):
    agree(pair, REFUSALS)


def test_writes_zeroes_and_discards_are_noted(pair):
    agree(pair, [
        ("block-dirty-bitmap-add", bitmap("b0")),
        ("block-dirty-bitmap-add", {**bitmap("fine"), "granularity": 512}),
        ("block-dirty-bitmap-add", {**bitmap("off"), "disabled": True}),
        ("block-dirty-bitmap-add", bitmap("below", "a-file")),
        export(writable=True)])
    for folder in pair[2:]:
        write(folder, 65536 * 3 + 5, 70000)
        images.run("qemu-io", "-f", "raw", "-c", "write -z 2M 1M", "-c", "discard 8M 512k",
                   f"nbd+unix:///a?socket={folder}/nbd.sock")
    digests = [("x-debug-block-dirty-bitmap-sha256", bitmap(name)) for name in ("b0", "fine", "off")]
    agree(pair, digests)
    agree(pair, [
        ("block-dirty-bitmap-disable", bitmap("b0")), ("block-dirty-bitmap-enable", bitmap("off")),
        ("block-dirty-bitmap-clear", bitmap("fine"))])
    for folder in pair[2:]:
        write(folder, 12 * MEBIBYTE, 4096)
    agree(pair, digests)
    agree(pair, [
        ("block-dirty-bitmap-add", bitmap("all", "b")),
        ("block-dirty-bitmap-merge",
         {"node": "b", "target": "all", "bitmaps": [{"node": "a", "name": "fine"}, {"node": "a", "name": "off"}]}),
        ("x-debug-block-dirty-bitmap-sha256", bitmap("all", "b")),
        ("block-dirty-bitmap-remove", bitmap("off"))])


def action(verb, **data):
    return {"type": f"block-dirty-bitmap-{verb}", "data": data}


def test_transactions_undo(pair):
    agree(pair, [("block-dirty-bitmap-add", bitmap("b0")), ("block-dirty-bitmap-add", bitmap("b1")),
                 export(writable=True)])
    for folder in pair[2:]:
        write(folder, MEBIBYTE, MEBIBYTE)
    abort = {"type": "abort", "data": {}}
    actions = [
        action("add", node="a", name="new"), action("clear", **bitmap("b0")), action("disable", **bitmap("b1")),
        action("merge", node="a", target="new", bitmaps=["b1"]), action("remove", **bitmap("b1"))]
    before = bitmaps(pair[0])
    agree(pair, [
        ("transaction", {"actions": [*actions, abort]}),
        ("transaction", {"actions": [*actions[:3], action("clear", **bitmap("zz"))]}),
        ("transaction", {"actions": [action("add", node="a", name="x")],
                         "properties": {"completion-mode": "grouped"}})])
    assert bitmaps(pair[0]) == before
    agree(pair, [("transaction", {"actions": actions})])
    assert {entry["name"] for entry in bitmaps(pair[0])} == {"b0", "new"}
    # qemu-storage-daemon dies of these.
    for arguments in ({"actions": [action("enable", **bitmap("zz"))]},
                      {"actions": [action("enable", **bitmap("b0"))],
                       "properties": {"completion-mode": "grouped"}}):
        assert answer(pair[0], "transaction", arguments).startswith("GenericError")
    merge = answer(pair[0], "block-dirty-bitmap-merge", {"node": "a", "target": "b0", "bitmaps": []})
    assert merge == "GenericError: Parameter 'bitmaps' needs at least one bitmap"


def dirty(folder, name):
    """The dirty extents as a client of the export sees them."""
    result = images.run("nbdinfo", "--json", f"--map=qemu:dirty-bitmap:{name}",
                        f"nbd+unix:///a?socket={folder}/nbd.sock")
    return [(entry["offset"], entry["length"], entry["type"]) for entry in json.loads(result.stdout)]


def test_clients_of_an_export_see_bitmaps(pair):
    agree(pair, [
        ("block-dirty-bitmap-add", {**bitmap("b0"), "granularity": 65536}),
        ("block-dirty-bitmap-add", {**bitmap("b1"), "granularity": 4096}), export(writable=True)])
    for folder in pair[2:]:
        for offset in (0, 5 * MEBIBYTE, 7 * MEBIBYTE + 512, 16 * MEBIBYTE - 512):
            write(folder, offset, 512)
    agree(pair, [
        ("block-export-del", {"id": "e-a", "mode": "hard"}),
        ("block-dirty-bitmap-disable", bitmap("b0")),
        export(bitmaps=["b1"]),
        ("block-dirty-bitmap-disable", bitmap("b1")),
        export(bitmaps=["b0", {"node": "a", "name": "b1"}]),
        # The export holds them.
        *[(f"block-dirty-bitmap-{verb}", bitmap("b0")) for verb in ("remove", "clear", "enable", "disable")],
        ("block-dirty-bitmap-merge", {"node": "a", "target": "b0", "bitmaps": ["b1"]}),
        ("transaction", {"actions": [action("clear", **bitmap("b0"))]}),
        export("b", bitmaps=[{"node": "a", "name": "b0"}])])
    for name in ("b0", "b1"):
        assert dirty(pair[2], name) == dirty(pair[3], name)
    assert any(kind == 1 for _, _, kind in dirty(pair[2], "b1"))
    contexts = [json.loads(images.run("nbdinfo", "--json", f"nbd+unix:///a?socket={folder}/nbd.sock").stdout)
                ["exports"][0]["contexts"] for folder in pair[2:]]
    assert contexts[0] == contexts[1]
    agree(pair, [("block-export-del", {"id": "e-a", "mode": "hard"}), ("block-dirty-bitmap-clear", bitmap("b0"))])


def test_a_snapshot_brought_back_leaves_no_write_unnoted(agent, directory):
    path = images.create(directory / "q.qcow2", "16M")
    agent.add_qcow2("q", path)
    agent.execute("blockdev-snapshot-internal-sync", device="q", name="t")
    agent.execute("block-dirty-bitmap-add", node="q", name="b")
    agent.run_job("snapshot-save", tag="u", devices=["q"], mode="disks")
    agent.run_job("snapshot-load", tag="u", devices=["q"])
    assert bitmaps(agent, "q")[0]["count"] == 16 * MEBIBYTE


def test_a_bitmap_that_the_image_could_not_hold_is_refused(pair):
    ours, theirs, our_folder, their_folder = pair
    for folder in (our_folder, their_folder):
        images.create(folder / "large.qcow2", "2T")
    script = [("blockdev-add", {"driver": "qcow2", "node-name": "large", "file": {
        "driver": "file", "filename": "DIR/large.qcow2"}})]
    script += [("block-dirty-bitmap-add", {"node": "large", "persistent": True, **changes}) for changes in (
        {"name": "n" * 1024}, {"name": "coarse", "granularity": 1 << 31}, {"name": "fine", "granularity": 512},
        # The name comes first, but for a granularity that there is not.
        {"name": "fine", "granularity": 1 << 31}, {"name": "fine", "granularity": 1000}, {"name": "fine"})]
    compare(script, ours, theirs, our_folder, their_folder)
    # QEMU lets the disk grow, and then cannot store the bitmap.
    with pytest.raises(CommandError, match="Can't make bitmap 'fine' persistent in .*: Too much space"):
        ours.execute("block_resize", node_name="large", size=3 << 40)
    ours.execute("block-dirty-bitmap-remove", node="large", name="fine")
    ours.execute("block_resize", node_name="large", size=3 << 40)
    ours.execute("blockdev-del", node_name="large")
    images.check(our_folder / "large.qcow2")
