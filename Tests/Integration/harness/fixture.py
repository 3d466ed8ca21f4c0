"""The saved state of the booted Linux guest, made once per version of its parts.

A fixture's folder holds, all of one moment:
  disk0.qcow2 …             the disks, without snapshots
  state.bin                 the migration stream, for `-incoming`
  with-snapshot/disk0.qcow2 the same disks with QEMU's own internal snapshot `booted`, state and all
"""

import fcntl
import hashlib
import pathlib
import shutil
import subprocess
import tempfile

from . import images
from .guests import BUILD, DISKS, QEMU, ROOT, linux_command
from .qemu import PlainQEMU

SOURCES = ROOT / "Tests/Guests/linux"
DISK_MEBIBYTES = 64
TAG = "booted"


def _key(memory_mebibytes, processors, qemu):
    """Changes when the guest, its sources, QEMU or the kernel change."""
    digest = hashlib.sha256()
    for name in ["vmlinuz", "initramfs.gz"]:
        digest.update((BUILD / "guests/linux" / name).read_bytes())
    digest.update(subprocess.run([qemu, "--version"], check=True, capture_output=True).stdout)
    digest.update(" ".join(linux_command("", memory_mebibytes, processors)).encode())
    digest.update(pathlib.Path(__file__).read_bytes())
    return digest.hexdigest()[:16]


def build_guest():
    """Builds the guest's kernel and initramfs where the sources or the kernel package are newer."""
    output = BUILD / "guests/linux/initramfs.gz"
    newest = max(path.stat().st_mtime for path in [*SOURCES.iterdir(), *pathlib.Path("/boot").glob("vmlinuz-*")])
    if not output.exists() or output.stat().st_mtime < newest:
        images.run("bash", SOURCES / "build", output.parent)


def linux_fixture(memory_mebibytes=192, processors=2, qemu=QEMU):
    """The fixture's folder; boots the guest if nobody did."""
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "fixtures.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build_guest()
        form = f"linux-{memory_mebibytes}-{processors}-{'' if qemu == QEMU else 'newer-'}"
        folder = BUILD / "fixtures" / f"{form}{_key(memory_mebibytes, processors, qemu)}"
        if not folder.exists():
            _make(folder, form, memory_mebibytes, processors, qemu)
    return folder


def _make(folder, form, memory_mebibytes, processors, qemu):
    folder.parent.mkdir(parents=True, exist_ok=True)
    for old in folder.parent.glob(form + "[0-9a-f]" * 16):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix="cf-") as sockets:
        work = pathlib.Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            _boot(work, sockets, memory_mebibytes, processors, qemu)
            work.rename(folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


def _boot(work, sockets, memory_mebibytes, processors, qemu):
    marked = work / "with-snapshot"
    marked.mkdir()
    for disk in DISKS:
        raw = images.make_ext4(work / f"{disk}.raw", DISK_MEBIBYTES)
        images.run("qemu-img", "convert", "-O", "qcow2", raw, marked / f"{disk}.qcow2")
        raw.unlink()
    command = linux_command(sockets, memory_mebibytes, processors, qemu=qemu)
    with PlainQEMU(command, sockets, [(disk, marked / f"{disk}.qcow2") for disk in DISKS]) as qemu:
        qemu.console.wait_ready()
        qemu.monitor.execute("stop")
        qemu.monitor.run_job("snapshot-save", tag=TAG, vmstate=DISKS[0], devices=DISKS)
        save_stream(qemu.monitor, work / "state.bin")
        qemu.quit()
    for disk in DISKS:
        images.run("qemu-img", "convert", "-O", "qcow2", marked / f"{disk}.qcow2", work / f"{disk}.qcow2")


def save_stream(monitor, path):
    """Writes the state of a stopped guest to a file, as a migration stream."""
    monitor.execute("migrate-set-parameters", max_bandwidth=1 << 40)
    mark = monitor.mark()
    monitor.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
    monitor.execute("migrate", uri=f"exec:cat > '{path}'")
    event = monitor.wait_event("MIGRATION", mark, lambda data: data["status"] in ("completed", "failed"))
    assert event["data"]["status"] == "completed", monitor.execute("query-migrate")


if __name__ == "__main__":
    print(linux_fixture())
