"""Whether RAM and disks are of one moment."""

import pathlib
import time

from . import images
from .guests import DISKS, read_page


def check_moment(numbers, raws):
    """RAM's `numbers` and the raw `raws` (one per writer) of a snapshot agree.

    No record is on a disk that RAM had not issued. What was acknowledged with fsync (writer 0) or O_DIRECT (writer 2) is
    on the disk; what went through the page cache (writer 1) may still be in RAM only. Every ring is whole and the
    filesystems are clean once their journals are replayed (in `raws`, which are changed by it).
    """
    assert numbers.errors == [0, 0, 0], f"the guest saw I/O errors: {numbers}"
    for writer, raw in enumerate(raws):
        issued, acked = numbers.issued[writer], numbers.acked[writer]
        assert acked <= issued <= acked + 1, numbers
        images.replay_ext4(raw)
        on_disk = images.ring_numbers(raw, writer)
        assert max(on_disk) <= issued, f"disk {writer} holds record {max(on_disk)}, RAM had issued {issued}"
        if writer != 1:
            newest = max(on_disk)
            assert newest >= acked, f"disk {writer} ends at record {newest}, RAM knew {acked} as acknowledged"
            assert sorted(on_disk) == list(range(newest - images.RING_SLOTS + 1, newest + 1)), \
                f"the ring of disk {writer} has gaps below {newest}"


def check_snapshot(numbers, disk_images, tag, directory):
    """The same for an internal snapshot, as qemu-img reads it."""
    raws = []
    for disk, image in zip(DISKS, disk_images):
        raws.append(images.snapshot_to_raw(image, tag, pathlib.Path(directory) / f"{disk}-{tag}.raw"))
    try:
        check_moment(numbers, raws)
    finally:
        for raw in raws:
            raw.unlink()


def check_going_on(console):
    """The loaded guest goes on, and what it then writes back fits what is on its disks."""
    console.assert_advances()
    assert console.ask("quiesce")["whole"] == [True, True, True], console.lines[-8:]
    assert [writer["errors"] for writer in console.report()["writers"]] == [0, 0, 0]
    console.ask("resume")


def _records_of(console):
    return [writer["acked"] for writer in console.report()["writers"]]


def let_it_write(console, records=20, timeout=60):
    goal = [acked + records for acked in _records_of(console)]
    deadline = time.monotonic() + timeout
    while any(acked < least for acked, least in zip(_records_of(console), goal)):
        assert time.monotonic() < deadline, "the guest's writers stand still"
        time.sleep(0.05)


def save_load_check(guest, tag, mode, directory):
    """A save and a load under load: RAM and disks are of one moment. Returns the result of the save."""
    let_it_write(guest.console)
    before = guest.console.report()
    saved = guest.save(tag, mode=mode)
    after = guest.console.report()
    let_it_write(guest.console)
    guest.execute("stop")
    guest.load(tag)
    assert guest.execute("query-status")["running"] is False
    numbers = read_page(guest, before["physical"], directory)
    assert before["counter"] <= numbers.counter <= after["counter"], "the state is not of the time of the save"
    check_snapshot(numbers, guest.images, tag, directory)
    guest.execute("cont")
    check_going_on(guest.console)
    return saved
