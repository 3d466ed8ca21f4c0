"""The bitmap of a backup that goes into it also when the backup fails: what it does not hold any more is in the copy."""

import json

from . import images
from .jobimages import MARKED

DISK = "marked"


def clean_ranges(peer, folder, node):
    """What the bitmap `b` does not hold, as a client sees it: offsets and lengths."""
    mark = peer.mark()
    peer.execute("block-export-add", type="nbd", id="m", name="m", writable=True, node_name=node, bitmaps=["b"])
    context = "qemu:dirty-bitmap:b"
    found = json.loads(images.run("nbdinfo", f"--map={context}", "--json",
                                  f"nbd+unix:///m?socket={folder}/nbd.sock").stdout)
    peer.execute("block-export-del", id="m", mode="hard")
    peer.wait_event("BLOCK_EXPORT_DELETED", mark)
    return [(extent["offset"], extent["length"]) for extent in found if extent["type"] == 0]


def assert_nothing_is_forgotten(disks, clean):
    """Of what the bitmap held at first, all that it does not hold at the end has its copy."""
    pattern = MARKED[DISK][1]
    reads = []
    for start, length in MARKED[DISK][2][1:]:
        for offset, count in clean:
            first, last = max(start, offset), min(start + length, offset + count)
            if first < last:
                reads += ["-c", f"read -P {pattern} {first} {last - first}"]
    if reads:
        output = images.run("qemu-io", "-r", "-f", disks.form("dst"), *reads, disks.path("dst")).stdout
        assert "verification failed" not in output, output
