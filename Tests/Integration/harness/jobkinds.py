"""The kinds of jobs on nodes: how each is asked for, what it reads and writes, and which states it can come to."""

import dataclasses

from .jobimages import CHAIN, LAYERED, MADE, MARKED, PAIR

TO_DST = {"device": "src", "target": "dst", "sync": "full"}
# With one request at a time it is no matter of chance what is copied when one fails.
OF_BITMAP = {"device": "marked", "target": "dst", "bitmap": "b", "x-perf": {"max-workers": 1}}
# A client's write while the job is there: to what the bitmap of a backup holds, and to what it does not.
OVER_ITS_EDGE = "write -P 9 512k 1M"
SMALL = "write -P 9 1M 64k"


@dataclasses.dataclass(frozen=True)
class Kind:
    """One way to ask for a job."""

    command: str
    arguments: dict
    layout: dict
    # The node whose file is read, or written, and the option for errors there.
    source: tuple
    target: tuple | None
    comes_to_be_ready: bool = False
    # One of several in a transaction.
    can_be_grouped: bool = False
    # It has no work before it is ready.
    begins_ready: bool = False
    # Many requests are under way at a time: what of them is done when one fails is different each time.
    is_parallel: bool = False
    # What a client writes to the disk in any case; None: only where a state needs it.
    writes: str | None = None

    @property
    def disk(self):
        return self.arguments["device"]

    @property
    def copy(self):
        """What shows the disk when the job has ended well."""
        return self.arguments.get("target", "base")

    @property
    def keeps_what_is_left(self):
        """A backup that ends badly leaves in its bitmap what it has not copied."""
        return self.arguments.get("bitmap-mode") == "always"

    @property
    def makes_target(self):
        return self.command.startswith("drive-")


def backup(**more):
    return Kind("blockdev-backup", more, MARKED, ("marked", "on-source-error"), ("dst", "on-target-error"),
                can_be_grouped=True, writes=OVER_ITS_EDGE)


def mirror(layout=PAIR, device="src", target="dst", sync="full", more=None, **properties):
    return Kind("blockdev-mirror", {"device": device, "target": target, "sync": sync, **(more or {})}, layout,
                (device, "on-source-error"), (target, "on-target-error"), comes_to_be_ready=True, is_parallel=True,
                **properties)


KINDS = {
    "backup": Kind("blockdev-backup", TO_DST, PAIR, ("src", "on-source-error"), ("dst", "on-target-error"),
                   can_be_grouped=True, is_parallel=True),
    "mirror": mirror(),
    "blocking": mirror(more={"copy-mode": "write-blocking"}),
    "commit": Kind("block-commit", {"device": "top", "top-node": "mid", "base-node": "base"}, CHAIN,
                   ("mid", "on-error"), ("base", "on-error")),
    "active": Kind("block-commit", {"device": "top", "base-node": "base"}, CHAIN, ("mid", "on-error"), ("base", "on-error"),
                   comes_to_be_ready=True, is_parallel=True),
    "stream": Kind("block-stream", {"device": "top", "base-node": "base"}, CHAIN, ("mid", "on-error"), None),
    "mirror of the top": mirror(LAYERED, "mid", "beside", "top"),
    "mirror of nothing": mirror(sync="none", begins_ready=True, writes=SMALL),
    "incremental": backup(**OF_BITMAP, sync="incremental"),
    "bitmap on success": backup(**OF_BITMAP, sync="bitmap", **{"bitmap-mode": "on-success"}),
    "bitmap never": backup(**OF_BITMAP, sync="bitmap", **{"bitmap-mode": "never"}),
    "bitmap always": backup(**OF_BITMAP, sync="bitmap", **{"bitmap-mode": "always"}),
    "drive-mirror": Kind("drive-mirror", {**TO_DST, "format": "qcow2"}, MADE, ("src", "on-source-error"), None,
                         comes_to_be_ready=True, is_parallel=True),
    "drive-backup": Kind("drive-backup", {**TO_DST, "format": "qcow2"}, MADE, ("src", "on-source-error"), None,
                         can_be_grouped=True, is_parallel=True),
}
