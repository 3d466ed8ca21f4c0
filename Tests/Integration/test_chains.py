"""Overlays, other options of open nodes and their counters, side by side with qemu-storage-daemon."""

import pytest

from harness import images
from harness.agent import Agent
from harness.blockjobs import MEBIBYTE, write
from harness.campaign import Campaign, listed_points
from harness.chains import add_layer, chain, reads
from harness.reference import answer, both


def roots(peer):
    return [(export["id"], export["node-name"]) for export in peer.execute("query-block-exports")]


def read_only(peer, *names):
    return [(node["node-name"], node["ro"], node["backing_file_depth"], "backing-image" in node["image"])
            for flat in (False, True) for node in peer.execute("query-named-block-nodes", flat=flat)
            if node["node-name"] in names]


# External snapshots

@pytest.mark.parametrize("way", ["command", "transaction"])
def test_an_overlay_takes_the_writes(twins, way):
    def script(peer, folder):
        chain(peer, folder, "base")
        write(folder, "write -P 1 0 1M", export="base")
        add_layer(peer, folder, "ov")
        arguments = {"node": "base", "overlay": "ov"}
        if way == "command":
            told = [answer(peer, "blockdev-snapshot", arguments)]
        else:
            told = [answer(peer, "transaction", {"actions": [
                {"type": "blockdev-snapshot", "data": arguments},
                {"type": "block-dirty-bitmap-add", "data": {"node": "ov", "name": "b"}}]})]
        told += [roots(peer), read_only(peer, "base", "ov")]
        write(folder, "write -P 2 64k 64k", export="base")
        told.append(answer(peer, "block-export-del", {"id": "e", "mode": "hard"}))
        told += [answer(peer, "blockdev-del", {"node-name": node}) for node in ("base", "ov", "base")]
        assert images.has_pattern(folder / "base.qcow2", 1, 0, MEBIBYTE, form="qcow2")
        assert images.has_pattern(folder / "ov.qcow2", 2, 65536, form="qcow2")
        images.check(folder / "ov.qcow2")
        return told
    both(twins, script)


def test_an_overlay_is_made(twins):
    def script(peer, folder):
        chain(peer, folder, "base")
        write(folder, "write -P 1 0 1M", export="base")
        told = [answer(peer, "blockdev-snapshot-sync", {
            "node-name": "base", "snapshot-file": str(folder / "ov.qcow2"), "snapshot-node-name": "ov"})]
        told += [roots(peer), read_only(peer, "base", "ov")]
        write(folder, "write -P 2 64k 64k", export="base")
        told += [answer(peer, "blockdev-del", {"node-name": node}) for node in ("ov", "base")]
        # The last user takes an overlay with it that no client has added.
        told.append(answer(peer, "block-export-del", {"id": "e", "mode": "hard"}))
        told += [answer(peer, "blockdev-del", {"node-name": node}) for node in ("ov", "base")]
        assert reads(folder / "ov.qcow2", (1, 0, 65536), (2, 65536, 65536), (1, 131072, 65536))
        images.check(folder / "ov.qcow2")
        return told
    both(twins, script)


def test_what_an_external_snapshot_refuses(twins):
    def script(peer, folder):
        chain(peer, folder, "base", "mid")
        add_layer(peer, folder, "used", backing="base")
        add_layer(peer, folder, "free")
        add_layer(peer, folder, "below")
        peer.execute("blockdev-add", driver="raw", node_name="raw", file="below")
        told = [answer(peer, "blockdev-snapshot", {"node": node, "overlay": overlay}) for node, overlay in (
            ("zz", "free"), ("mid", "zz"), ("mid", "mid"), ("base", "free"), ("mid", "used"), ("mid", "raw"))]
        told += [answer(peer, "blockdev-snapshot-sync", {"snapshot-file": str(folder / "x.qcow2"), **options})
                 for options in ({}, {"device": "base"}, {"node-name": "zz"}, {"node-name": "mid"},
                                 {"node-name": "mid", "snapshot-node-name": "base"},
                                 {"node-name": "mid", "snapshot-node-name": "n", "format": "zzz"},
                                 {"node-name": "mid", "snapshot-node-name": "n", "format": "raw"},
                                 {"node-name": "mid", "snapshot-node-name": "n", "mode": "zz"})]
        return told + [roots(peer)]
    both(twins, script)


def test_a_transaction_that_fails_takes_no_overlay(twins):
    def script(peer, folder):
        chain(peer, folder, "base")
        add_layer(peer, folder, "ov")
        told = [answer(peer, "transaction", {"actions": [
            {"type": "blockdev-snapshot", "data": {"node": "base", "overlay": "ov"}}, {"type": "abort", "data": {}}]}),
            answer(peer, "transaction", {"actions": [
                {"type": "blockdev-snapshot-sync", "data": {
                    "node-name": "base", "snapshot-file": str(folder / "n.qcow2"), "snapshot-node-name": "n"}},
                {"type": "abort", "data": {}}]}),
            answer(peer, "transaction", {"properties": {"completion-mode": "grouped"}, "actions": [
                {"type": "blockdev-snapshot", "data": {"node": "base", "overlay": "ov"}}]})]
        told += [roots(peer), read_only(peer, "base", "ov", "n")]
        write(folder, "write -P 3 0 64k", export="base")
        told += [answer(peer, "blockdev-del", {"node-name": "ov"})]
        return told
    both(twins, script)


def test_an_aborted_overlay_leaves_no_file(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    chain(agent, directory, "base")
    told = answer(agent, "transaction", {"actions": [
        {"type": "blockdev-snapshot-sync", "data": {
            "node-name": "base", "snapshot-file": str(directory / "n.qcow2"), "snapshot-node-name": "n"}},
        {"type": "abort", "data": {}}]})
    assert "Abort action" in told and not (directory / "n.qcow2").exists()


# Other options

def test_a_node_is_reopened(twins):
    def script(peer, folder):
        chain(peer, folder, "base", "mid", "top")
        file = {"driver": "file", "filename": str(folder / "mid.qcow2")}
        mid = {"driver": "qcow2", "node-name": "mid", "file": file, "backing": "base"}
        told = [answer(peer, "blockdev-reopen", {"options": [options]}) for options in (
            {"driver": "qcow2", "file": file}, {**mid, "node-name": "zz"}, {**mid, "driver": "raw"},
            {"driver": "qcow2", "node-name": "mid", "file": file},
            {**mid, "backing": "zz"}, {**mid, "backing": "top"}, {**mid, "read-only": True}, {**mid},
            {**mid, "l2-cache-size": 1 << 20, "discard": "unmap"})]
        told.append(read_only(peer, "base", "mid", "top"))
        # Two at once, of which the second cannot be.
        told.append(answer(peer, "blockdev-reopen", {"options": [{**mid}, {**mid, "backing": "top"}]}))
        told.append(read_only(peer, "base", "mid", "top"))
        return told
    both(twins, script)


def test_a_writer_keeps_its_node_writable(twins):
    def script(peer, folder):
        chain(peer, folder, "base")
        base = {"driver": "qcow2", "node-name": "base", "read-only": True,
                "file": {"driver": "file", "filename": str(folder / "base.qcow2")}}
        told = [answer(peer, "blockdev-reopen", {"options": [base]})]
        write(folder, "write -P 1 0 64k", export="base")
        peer.execute("block-export-del", id="e", mode="hard")
        told += [answer(peer, "blockdev-reopen", {"options": [base]}), read_only(peer, "base")]
        told.append(answer(peer, "block-export-add", {
            "type": "nbd", "id": "e", "node-name": "base", "name": "base", "writable": True}))
        told += [answer(peer, "blockdev-reopen", {"options": [{**base, "read-only": False}]}), read_only(peer, "base")]
        told.append(answer(peer, "block-export-add", {
            "type": "nbd", "id": "e", "node-name": "base", "name": "base", "writable": True}))
        write(folder, "write -P 2 64k 64k", export="base")
        peer.execute("block-export-del", id="e", mode="hard")
        told.append(answer(peer, "blockdev-del", {"node-name": "base"}))
        assert reads(folder / "base.qcow2", (1, 0, 65536), (2, 65536, 65536))
        images.check(folder / "base.qcow2")
        return told
    both(twins, script)


def test_a_backing_image_is_taken_out_and_put_in(twins):
    def script(peer, folder):
        chain(peer, folder, "base")
        write(folder, "write -P 1 0 1M", export="base")
        peer.execute("block-export-del", id="e", mode="hard")
        add_layer(peer, folder, "top", backing="base")
        top = {"driver": "qcow2", "node-name": "top",
               "file": {"driver": "file", "filename": str(folder / "top.qcow2")}}
        told = [answer(peer, "blockdev-reopen", {"options": [{**top, "backing": None}]}), read_only(peer, "top")]
        told.append(answer(peer, "blockdev-del", {"node-name": "base"}))
        return told
    both(twins, script)


def test_a_persistent_bitmap_survives_a_reopening(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    chain(agent, directory, "base")
    agent.execute("block-dirty-bitmap-add", node="base", name="b", persistent=True)
    write(directory, "write -P 1 0 64k", export="base")
    agent.execute("block-export-del", id="e", mode="hard")
    options = {"driver": "qcow2", "node-name": "base", "file": {
        "driver": "file", "filename": str(directory / "base.qcow2")}}
    agent.execute("blockdev-reopen", options=[{**options, "read-only": True}])
    info = images.run("qemu-img", "info", "-U", directory / "base.qcow2").stdout
    assert "name: b" in info and "in-use" not in info
    assert "readonly" in answer(agent, "block-dirty-bitmap-clear", {"node": "base", "name": "b"})
    agent.execute("blockdev-reopen", options=[options])
    node = next(node for node in agent.execute("query-named-block-nodes") if node["node-name"] == "base")
    assert [(entry["name"], entry["count"]) for entry in node["dirty-bitmaps"]] == [("b", 65536)]
    agent.execute("block-dirty-bitmap-clear", node="base", name="b")
    agent.execute("blockdev-del", node_name="base")
    images.check(directory / "base.qcow2")


def test_a_backing_file_gets_another_name(twins):
    def script(peer, folder):
        chain(peer, folder, "base", "mid", "top")
        write(folder, "write -P 1 0 64k", export="top")
        told = [answer(peer, "change-backing-file", {"device": device, "image-node-name": image, "backing-file": "n.qcow2"})
                for device, image in (("zz", "mid"), ("mid", "mid"), ("top", "zz"), ("top", "base"), ("top", "mid"),
                                      ("top", "top"))]
        told.append(read_only(peer, "base", "mid", "top"))
        told.append([node["image"].get("backing-filename") for node in peer.execute("query-named-block-nodes")
                     if node["node-name"] in ("mid", "top")])
        peer.execute("block-export-del", id="e", mode="hard")
        for node in ("top", "mid"):
            peer.execute("blockdev-del", node_name=node)
            info = images.run("qemu-img", "info", "-U", folder / f"{node}.qcow2").stdout
            assert "backing file: n.qcow2" in info and "backing file format: qcow2" in info
        return told
    both(twins, script)


# Counters and others

def test_counters_of_nodes(twins):
    def script(peer, folder):
        path = folder / "r.raw"
        images.create(path, "8M", "raw")
        peer.execute("blockdev-add", driver="raw", node_name="r", discard="unmap",
                     file={"driver": "file", "node-name": "f", "filename": str(path), "discard": "unmap"})
        peer.execute("block-export-add", type="nbd", id="e", node_name="r", name="r", writable=True)
        write(folder, "write -P 1 1M 64k", "discard 2M 64k", export="r")
        return [answer(peer, "query-blockstats", {}), answer(peer, "query-blockstats", {"query-nodes": True})]
    both(twins, script)


def test_changes_that_no_node_takes(twins):
    def script(peer, folder):
        chain(peer, folder, "base")
        told = [answer(peer, "x-blockdev-change", arguments) for arguments in (
            {"parent": "zz"}, {"parent": "base"}, {"parent": "base", "child": "file", "node": "base"},
            {"parent": "base", "child": "zz"}, {"parent": "base", "child": "file"}, {"parent": "base", "node": "zz"},
            {"parent": "base", "node": "base"})]
        told += [answer(peer, "x-blockdev-set-iothread", arguments) for arguments in (
            {"node-name": "zz", "iothread": "t"}, {"node-name": "base", "iothread": "t"},
            {"node-name": "base", "iothread": "t", "force": True})]
        peer.execute("block-export-del", id="e", mode="hard")
        return told + [answer(peer, "x-blockdev-set-iothread", {"node-name": "base", "iothread": None})]
    both(twins, script)


def test_the_picture_of_the_graph(twins):
    def script(peer, folder):
        chain(peer, folder, "base", "top")
        graph = peer.execute("x-debug-query-block-graph")
        names = {node["id"]: node["name"] for node in graph["nodes"] if node["type"] == "block-driver"}
        return sorted([names[edge["parent"]], names[edge["child"]], edge["name"], sorted(edge["perm"]),
                       sorted(edge["shared-perm"])]
                      for edge in graph["edges"] if names.get(edge["parent"]) and names[edge["child"]] in ("base", "top"))
    both(twins, script)


@pytest.mark.parametrize("command, arguments", [
    ("blockdev-reopen", {"options": []}),
    ("block-dirty-bitmap-merge", {"node": "base", "target": "b", "bitmaps": []}),
    ("transaction", {"actions": [{"type": "block-dirty-bitmap-enable", "data": {"node": "base", "name": "zz"}}]}),
    ("transaction", {"properties": {"completion-mode": "grouped"}, "actions": [
        {"type": "block-dirty-bitmap-enable", "data": {"node": "base", "name": "b"}}]}),
    ("transaction", {"actions": [{"type": "block-dirty-bitmap-disable", "data": {"node": "zz", "name": "b"}}]}),
    ("transaction", {"actions": [
        {"type": "block-dirty-bitmap-merge", "data": {"node": "base", "target": "b", "bitmaps": []}}]})], ids=str)
def test_inputs_that_end_qemu_are_errors(agent, directory, command, arguments):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    chain(agent, directory, "base")
    agent.execute("block-dirty-bitmap-add", node="base", name="b")
    assert "GenericError" in answer(agent, command, arguments)
    assert agent.execute("query-jobs") == []


# A restart

def test_a_restarted_agent_finds_the_overlay(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    chain(agent, directory, "base")
    write(directory, "write -P 1 0 1M", export="base")
    add_layer(agent, directory, "ov")
    agent.execute("blockdev-snapshot", node="base", overlay="ov")
    agent.execute("blockdev-snapshot-sync", node_name="ov", snapshot_file=str(directory / "second.qcow2"),
                  snapshot_node_name="second")
    write(directory, "write -P 2 64k 64k", export="base")
    agent.process.kill()
    agent.process.wait()
    agent.stop()
    with Agent(directory) as again:
        assert roots(again) == [("e", "second")]
        assert read_only(again, "base", "ov", "second")[:3] == [
            ("second", False, 2, True), ("ov", True, 1, True), ("base", True, 0, False)]
        url = f"nbd+unix:///base?socket={directory}/nbd.sock"
        images.run("qemu-io", "-f", "raw", "-r", "-c", "read -q -P 2 64k 64k", "-c", "read -q -P 1 0 64k", url)


# kill -9 at every point of a transaction that puts overlays above three disks

@pytest.mark.parametrize("point", [point for point in listed_points(["n0", "n1", "n2"])
                                   if point.startswith("transaction.")])
def test_all_disks_have_their_overlay_or_none(directory, point):
    disks = range(3)
    agent = Agent(directory, environment={"COLDFRAME_FAULT": f"{point}=kill"}).start()
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    for disk in disks:
        add_layer(agent, directory, f"n{disk}")
        add_layer(agent, directory, f"o{disk}")
        agent.execute("block-export-add", type="nbd", id=f"e{disk}", node_name=f"n{disk}", name=f"d{disk}",
                      writable=True)
        write(directory, "write -P 1 0 64k", export=f"d{disk}")
    with pytest.raises(Exception):
        agent.execute("transaction", actions=[
            {"type": "blockdev-snapshot", "data": {"node": f"n{disk}", "overlay": f"o{disk}"}} for disk in disks])
    Campaign.wait_for_death(agent, point)
    with Agent(directory) as again:
        assert again.execute("query-intents") == []
        shown = [node for _, node in roots(again)]
        assert shown in ([f"n{disk}" for disk in disks], [f"o{disk}" for disk in disks])
        if point.endswith((".recorded", ".committed")):
            assert shown[0] == "o0"
        if point.endswith((".begin", ".intent")) or ".cut." in point:
            assert shown[0] == "n0"
        for disk in disks:
            url = f"nbd+unix:///d{disk}?socket={directory}/nbd.sock"
            images.run("qemu-io", "-f", "raw", "-c", "read -P 1 0 64k", "-c", "write -q -P 2 0 64k", url)
        log = again.log()
    if point.endswith((".intent", ".commit")) or ".cut." in point:
        assert "was undone" in log, log
