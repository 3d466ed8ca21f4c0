"""What the agent saved is QEMU's: a plain qemu-system-x86_64 boots into it with -loadvm."""

import pytest

from harness import consistency, images
from harness.guests import DISKS, linux_command
from harness.qemu import PlainQEMU


@pytest.mark.parametrize("mode", ["live", "precopy", "paused"])
def test_qemu_loads_what_was_saved(guest_for, directory, mode):
    guest = guest_for(mode)
    guest.save("t", mode=mode)
    saved = guest.console.counter()
    guest.stop()
    guest.check_images()
    nodes = list(zip(DISKS, guest.images))
    with PlainQEMU(linux_command(directory, qemu=guest.qemu), directory, nodes, options=["-loadvm", "t", "-S"]) as qemu:
        qemu.monitor.execute("cont")
        assert qemu.console.counter() < saved + 5000
        consistency.check_going_on(qemu.console)
        qemu.quit()
    guest.check_images()


def test_qemu_reverts_and_deletes_what_was_saved(guest):
    guest.save("t")
    guest.stop()
    for image in guest.images:
        images.run("qemu-img", "snapshot", "-a", "t", image)
        images.run("qemu-img", "snapshot", "-d", "t", image)
    guest.check_images()
