"""Nodes that are reopened with another `file`."""

from . import images
from .blockjobs import MEBIBYTE, write
from .reference import answer


def reopen(peer, *options, **more):
    return answer(peer, "blockdev-reopen", {"options": list(options), **more})


def add(peer, *nodes):
    told = [answer(peer, "blockdev-add", options) for options in nodes]
    assert told == [{}] * len(nodes), told


def export(peer, node, name="src"):
    told = answer(peer, "block-export-add", {
        "type": "nbd", "id": f"e-{name}", "node-name": node, "name": name, "writable": True})
    assert told == {}, told


def unexport(peer, name="src"):
    peer.execute("block-export-del", id=f"e-{name}", mode="hard")


def nodes(peer):
    """Names, drivers and access of all nodes; those that have no name of their own are counted."""
    listed = peer.execute("query-named-block-nodes")
    return [sum(node["node-name"].startswith("#") for node in listed)] + sorted(
        [node["node-name"], node["drv"], node["ro"]] for node in listed if not node["node-name"].startswith("#"))


def files(peer, folder, *names, form="raw", size="1M", **options):
    """Files with a node each, in which the byte at every place is the file's number."""
    for number, name in enumerate(names, 1):
        path = images.create(folder / f"{name}.img", size, form=form)
        images.write_pattern(path, number, 0, MEBIBYTE, form=form)
        add(peer, {"driver": "file", "node-name": name, "filename": str(path), **options})


def shows(folder, *parts, name="src"):
    """Reads through an export: (pattern, offset, bytes)."""
    commands = [f"read -q -P {pattern} {offset} {size}" for pattern, offset, size in parts]
    images.run("qemu-io", "-f", "raw", "-r", *[word for command in commands for word in ("-c", command)],
               f"nbd+unix:///{name}?socket={folder}/nbd.sock")


def raw(file, **more):
    return {"driver": "raw", "node-name": "hd", "file": file, **more}


def two_disks(peer, folder):
    """Two qcow2 disks of the same make, with a named file node each."""
    disks = []
    for number in (0, 2):
        path = images.create(folder / f"hd{number}.qcow2", "1M")
        disks.append({"driver": "qcow2", "node-name": f"hd{number}", "file": {
            "driver": "file", "node-name": f"hd{number}-file", "filename": str(path)}})
    add(peer, *disks)
    for number in (0, 2):
        export(peer, f"hd{number}", f"hd{number}")
        write(folder, f"write -P {number + 1} 0 64k", export=f"hd{number}")
    return disks
