"""Backing chains of qcow2 images as nodes of the same names."""

from . import images
from .reference import wait_gone


def add_layer(peer, folder, node, backing=None, size="8M", named=True, **options):
    """Makes `<node>.qcow2` and adds it."""
    path = folder / f"{node}.qcow2"
    images.create(path, size, backing=folder / f"{backing}.qcow2" if backing and named else None)
    peer.execute("blockdev-add", driver="qcow2", node_name=node, backing=backing,
                 file={"driver": "file", "filename": str(path)}, **options)
    return path


def chain(peer, folder, *nodes, size="8M", read_only=True):
    """Layers from the lowest to the topmost, which is exported under its name."""
    below = None
    for node in nodes:
        options = {"read_only": True} if read_only and node != nodes[-1] else {}
        add_layer(peer, folder, node, backing=below, size=size, **options)
        below = node
    peer.execute("block-export-add", type="nbd", id="e", node_name=nodes[-1], name=nodes[-1], writable=True)


def reads(path, *parts):
    """Pattern, offset and length of parts of a qcow2 image with its backing files."""
    return all(images.has_pattern(path, *part, form="qcow2") for part in parts)


def pivot(peer, command, **arguments):
    """A job that comes to be ready, and then lets the users of its node go on to the other one."""
    mark = peer.mark()
    peer.execute(command, job_id="j", **arguments)
    peer.wait_event("BLOCK_JOB_READY", mark)
    peer.execute("job-complete", id="j")
    ended = peer.wait_event("BLOCK_JOB_COMPLETED", mark)
    assert "error" not in ended["data"], ended
    wait_gone(peer, "j")


def overlay_all(peer, folder, nodes, overlays):
    """Puts an overlay above each node, all in one transaction. Returns the overlays' files."""
    paths = [folder / f"{overlay}.qcow2" for overlay in overlays]
    peer.execute("transaction", actions=[
        {"type": "blockdev-snapshot-sync", "data": {
            "node-name": node, "snapshot-file": str(path), "snapshot-node-name": overlay}}
        for node, overlay, path in zip(nodes, overlays, paths)])
    return paths
