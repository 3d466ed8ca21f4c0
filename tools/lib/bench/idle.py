"""Memory of an agent that does nothing, with a guest and a tree."""

import tempfile
import time

from harness.agent import GuestAgent

GOAL_MEBIBYTES = 40


def resident_mebibytes(process_id):
    with open(f"/proc/{process_id}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def run():
    with tempfile.TemporaryDirectory(prefix="cf-") as directory, GuestAgent(directory) as guest:
        mountpoint = guest.directory / "tree"
        mountpoint.mkdir()
        guest.execute("snapshot-export-add", id="tree", mountpoint=str(mountpoint))
        time.sleep(2)
        fresh = resident_mebibytes(guest.process.pid)
        guest.save("t")
        time.sleep(2)
        used = resident_mebibytes(guest.process.pid)
    print(f"\nIdle memory of coldframed with a guest of three disks and a tree: {fresh:.1f} MiB resident, "
          f"{used:.1f} MiB after a save (goal below {GOAL_MEBIBYTES})")
    return [f"idle memory {max(fresh, used):.1f} MiB"] if max(fresh, used) >= GOAL_MEBIBYTES else []
