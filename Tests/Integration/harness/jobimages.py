"""Disks for jobs of every type: the same files for both peers, a blkdebug node at each file, and what must hold at the end."""

import functools
import json
import pathlib
import shutil
import subprocess
import tempfile

from . import images

MEBIBYTE = 1 << 20
SIZE = "4M"
# A mirror's first step is as long as what is dirty without a gap: with these it has some left when a limit holds it.
RUNS = [(start * MEBIBYTE, MEBIBYTE - 65536) for start in range(4)]
# Chains and pairs: name, what is below it, pattern and places of what is written at first.
CHAIN = {"base": (None, 1, [(0, 4 * MEBIBYTE)]), "mid": ("base", 2, RUNS), "top": ("mid", 3, [(3 * MEBIBYTE, 65536)])}
PAIR = {"src": (None, 4, RUNS), "dst": (None, 0, [])}
# Two images above one.
LAYERED = {"base": CHAIN["base"], "mid": CHAIN["mid"], "beside": ("base", 0, [])}
# Its bitmap `b` holds all runs but the first.
MARKED = {"marked": PAIR["src"], "dst": PAIR["dst"]}
# The job makes its target itself.
MADE = {"src": PAIR["src"]}
OTHER = {"other": (None, 0, [])}
# Those that become raw files where they fail: in them a place on the disk is the same with both peers.
TARGETS = ("dst", "beside", "other")
# The place of an injected error: where the requests of all jobs begin, whatever their size.
FAULT_OFFSET = 2 * MEBIBYTE


@functools.cache
def templates():
    """The files that every job starts from. Names in them are relative."""
    folder = tempfile.TemporaryDirectory(prefix="cf-jobs-")
    path = pathlib.Path(folder.name)
    for node, (below, pattern, places) in (CHAIN | LAYERED | PAIR | MARKED | OTHER).items():
        images.run("qemu-img", "create", "-q", "-f", "qcow2", *(["-b", f"{below}.qcow2", "-F", "qcow2"] if below else []),
                   f"{node}.qcow2", SIZE, cwd=path)
        for number, (offset, length) in enumerate(places):
            if (node, number) == ("marked", 1):
                images.run("qemu-img", "bitmap", "--add", path / "marked.qcow2", "b")
            images.write_pattern(path / f"{node}.qcow2", pattern, offset, length)
    for node in TARGETS:
        images.create(path / f"{node}.raw", SIZE, form="raw")
    return folder, path


@functools.cache
def host_sector(node):
    """Where the guest's data at FAULT_OFFSET lies in a template's file, in sectors."""
    if node in TARGETS:
        return FAULT_OFFSET // 512
    path = templates()[1] / f"{node}.qcow2"
    found = json.loads(images.run("qemu-img", "map", "--output=json", path).stdout)
    extent = next(each for each in found if each["start"] <= FAULT_OFFSET < each["start"] + each["length"])
    assert extent["depth"] == 0 and extent["data"], extent
    return (extent["offset"] + FAULT_OFFSET - extent["start"]) // 512


def fault(node, kind, errno=5, **more):
    """The options of a blkdebug node with which one request at FAULT_OFFSET fails."""
    return {"inject-error": [{"event": "none", "iotype": kind, "sector": host_sector(node), "errno": errno, "once": True,
                              **more}]}


# The first write that reaches a target.
FAULT_AT_ONCE = {"inject-error": [{"event": "pwritev", "iotype": "write", "errno": 5, "once": True}]}
# The first one after it was flushed for the job's being ready.
FAULT_WHEN_READY = {"set-state": [{"event": "flush_to_disk", "state": 1, "new_state": 2}],
                    "inject-error": [{"event": "pwritev", "state": 2, "iotype": "write", "errno": 5, "once": True}]}


class Disks:
    """The nodes of one job with one peer."""

    def __init__(self, peer, folder, layout):
        self.peer, self.folder, self.layout = peer, folder, layout
        self.faults = {}
        self.forms = {}

    def fail(self, node, rules):
        """Puts rules between a node and its file."""
        self.faults[node] = rules
        if node in TARGETS:
            self.forms[node] = "raw"

    def path(self, node):
        return self.folder / f"{node}.{self.form(node)}"

    def form(self, node):
        return self.forms.get(node, "qcow2")

    def add(self):
        for node, (below, _, _) in self.layout.items():
            shutil.copy(templates()[1] / self.path(node).name, self.path(node))
            # Without it a mirror has all of the target to write, and none of the gaps.
            file = {"driver": "file", "filename": str(self.path(node)), "discard": "unmap"}
            if node in self.faults:
                file = {"driver": "blkdebug", "image": file, "discard": "unmap", **self.faults[node]}
            self.peer.execute("blockdev-add", driver=self.form(node), node_name=node, file=file, discard="unmap",
                              backing=below if self.form(node) == "qcow2" else None)

    def nodes(self):
        """The nodes that have names, with the length of their chains."""
        return sorted([node["node-name"], node["drv"], node["ro"], node["backing_file_depth"]]
                      for node in self.peer.execute("query-named-block-nodes") if not node["node-name"].startswith("#"))


def assert_same_after(ours, theirs, shown):
    """Once all is closed: `shown` shows the same, and qemu-img finds nothing wrong with either side's files."""
    commands = [["qemu-img", "compare", "-f", ours.form(node), "-F", theirs.form(node), ours.path(node), theirs.path(node)]
                for node in shown]
    commands += [["qemu-img", "check", "-q", disks.path(node)] for disks in (ours, theirs)
                 for node in {**disks.layout, **dict.fromkeys(shown)} if disks.form(node) == "qcow2"]
    running = [subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
               for command in commands]
    for command, process in zip(commands, running):
        output, _ = process.communicate()
        # qemu-img check tells of leaked clusters by 3.
        assert process.returncode == 0, f"{' '.join(map(str, command))}: {process.returncode}\n{output}"
