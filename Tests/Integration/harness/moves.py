"""Nodes that a running guest's disks go on to."""

import pytest

from . import images
from .fixture import DISK_MEBIBYTES
from .guests import DISKS
from .monitor import CommandError

COPIES = ["copy0", "copy1", "copy2"]
OVERLAYS = ["over0", "over1", "over2"]


def add_copies(guest, directory):
    paths = []
    for node in COPIES:
        paths.append(images.create(directory / f"{node}.qcow2", f"{DISK_MEBIBYTES}M"))
        guest.add_qcow2(node, paths[-1])
    return paths


def assert_on(guest, nodes):
    """Where the guest's disks are, whoever is asked."""
    information = guest.execute("query-guest")
    assert (information["disks"], information["nodes"]) == (DISKS, list(nodes))
    for node in nodes:
        with pytest.raises(CommandError, match="(?i)busy|in use"):
            guest.execute("blockdev-del", node_name=node)
