"""What the tests of jobs on nodes have in common: nodes, writers, and stories of jobs that compare."""

from . import images

MEBIBYTE = 1 << 20


def add(peer, folder, node, form="raw", size="8M", **options):
    path = folder / f"{node}.{form}"
    if not path.exists():
        images.create(path, size, form=form)
    peer.execute("blockdev-add", driver=form, node_name=node, discard="unmap",
                 file={"driver": "file", "filename": str(path), "discard": "unmap"}, **options)
    return path


def source_and_target(peer, folder, size="8M"):
    source = add(peer, folder, "src", size=size)
    add(peer, folder, "dst", size=size)
    peer.execute("block-export-add", type="nbd", id="e", node_name="src", name="src", writable=True)
    return source


def write(folder, *commands, export="src"):
    arguments = [word for command in commands for word in ("-c", command)]
    images.run("qemu-io", "-f", "raw", *arguments, f"nbd+unix:///{export}?socket={folder}/nbd.sock")


def without_progress(told):
    """For stories of jobs that end somewhere in the middle."""
    return [[entry[0], {key: value for key, value in entry[1].items() if key not in ("offset", "len")}]
            if isinstance(entry, list) else entry for entry in told]


def without_drains(told):
    """QEMU's jobs show a pause whenever another command holds their node still."""
    kept = []
    for entry in told:
        if entry == "running" and kept and kept[-1] == "paused":
            kept.pop()
        elif entry == "ready" and kept and kept[-1] == "standby":
            kept.pop()
        else:
            kept.append(entry)
    return kept


def block_job(peer, job_id):
    jobs = [job for job in peer.execute("query-block-jobs") if job["device"] == job_id]
    return {key: value for key, value in jobs[0].items() if key not in ("busy", "offset")} if jobs else None


def bitmaps(peer, node="src"):
    """A node's dirty bitmaps. QEMU keeps what is still to be copied in bitmaps of the source; that is nobody's business."""
    found = next((entry for entry in peer.execute("query-named-block-nodes") if entry["node-name"] == node), {})
    return [entry for entry in found.get("dirty-bitmaps", []) if "name" in entry or entry["recording"]]
