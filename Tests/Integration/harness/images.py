"""Images, through tools that nobody here wrote: qemu-img, qemu-io, debugfs, e2fsck."""

import json
import pathlib
import shutil
import struct
import subprocess

MEBIBYTE = 1 << 20
RECORD_BYTES = 4096
RING_SLOTS = 256
_WORD = (1 << 64) - 1


def run(*command, check=True, **options):
    """Runs a tool; its output goes into the error if it fails."""
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result


def tool(name):
    """A tool that Debian keeps where only root's PATH looks."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or name


def create(path, size="64M", form="qcow2", options=None, backing=None):
    command = ["qemu-img", "create", "-q", "-f", form]
    command += ["-o", options] if options else []
    command += ["-b", backing, "-F", "qcow2"] if backing else []
    run(*command, path, *([] if backing and size is None else [size]))
    return pathlib.Path(path)


def write_pattern(path, pattern, offset=0, length=65536, form="qcow2"):
    run("qemu-io", "-f", form, "-c", f"write -q -P {pattern} {offset} {length}", path)


def has_pattern(path, pattern, offset=0, length=65536, form="raw"):
    result = run("qemu-io", "-r", "-U", "-f", form, "-c", f"read -P {pattern} {offset} {length}", path, check=False)
    return result.returncode == 0 and "verification failed" not in result.stdout


def snapshots(path):
    """The internal snapshots of an image that somebody may hold, by name."""
    info = json.loads(run("qemu-img", "info", "-U", "--output=json", path).stdout)
    return {snapshot["name"]: snapshot for snapshot in info.get("snapshots", [])}


def extents(path):
    """`qemu-img map`: what lies where, and how deep in the backing chain."""
    return json.loads(run("qemu-img", "map", "-U", "--output=json", path).stdout)


def check(path):
    """`qemu-img check` finds nothing: no corruption, no leak."""
    result = run("qemu-img", "check", "--output=json", path, check=False)
    report = json.loads(result.stdout) if result.stdout else {}
    assert result.returncode == 0, f"qemu-img check {path}: {result.stdout}{result.stderr}"
    assert not report.get("leaks") and not report.get("corruptions"), report


def snapshot_to_raw(path, tag, output):
    """The disk of an internal snapshot as a raw file, read by qemu-img."""
    run("qemu-img", "convert", "-U", "-l", f"snapshot.name={tag}", "-O", "raw", path, output)
    return pathlib.Path(output)


def same_content(first, first_form, second, second_form):
    run("qemu-img", "compare", "-U", "-f", first_form, "-F", second_form, first, second)


def make_ext4(path, mebibytes):
    with open(path, "wb") as file:
        file.truncate(mebibytes * MEBIBYTE)
    run(tool("mkfs.ext4"), "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", path)
    return pathlib.Path(path)


def replay_ext4(raw):
    """Replays the journal of a raw ext4 disk, as a mount would, and proves that the filesystem is then clean."""
    run(tool("e2fsck"), "-fy", "-E", "journal_only", raw, check=False)
    run(tool("e2fsck"), "-fn", raw)


def _payload(writer, number):
    """The payload of a record, as Tests/Guests/linux/writer.c makes it."""
    x = (number * 0x9E3779B97F4A7C15 + writer + 1) & _WORD
    words = []
    for _ in range((RECORD_BYTES - 24) // 8):
        x ^= (x << 13) & _WORD
        x ^= x >> 7
        x ^= (x << 17) & _WORD
        words.append(x)
    return struct.pack(f"<{len(words)}Q", *words)


def ring_numbers(raw, writer):
    """The numbers in a writer's ring on a replayed raw ext4 disk, by slot. A torn or foreign record fails."""
    output = pathlib.Path(f"{raw}.ring")
    run(tool("debugfs"), "-R", f"dump /ring {output}", raw)
    data = output.read_bytes()
    output.unlink()
    assert len(data) == RING_SLOTS * RECORD_BYTES, f"the ring of writer {writer} has {len(data)} bytes"
    numbers = []
    for slot in range(RING_SLOTS):
        record = data[slot * RECORD_BYTES:(slot + 1) * RECORD_BYTES]
        magic, owner, number = struct.unpack_from("<8sQQ", record)
        assert (magic, owner) == (b"CFRECORD", writer), f"slot {slot} of writer {writer} holds no record"
        assert number % RING_SLOTS == slot, f"slot {slot} of writer {writer} holds number {number}"
        assert record[24:] == _payload(writer, number), f"record {number} of writer {writer} is torn"
        # Slots not yet written hold the numbers before 0.
        numbers.append(number - (1 << 64) if number >> 63 else number)
    return numbers


def install_counter(path):
    """Makes a qcow2 image boot the counter guest."""
    boot_sector = pathlib.Path(path).parent / "counter.bin"
    run("bash", pathlib.Path(__file__).parents[2] / "Guests/counter/build", boot_sector)
    run("qemu-io", "-f", "qcow2", "-c", f"write -q -s {boot_sector} 0 512", path)


def counter_on_disk(path, tag=None):
    """The count that the counter guest wrote last, on a qcow2 disk or on its snapshot `tag`."""
    raw = pathlib.Path(f"{path}.count")
    run("qemu-img", "convert", "-U", *(["-l", f"snapshot.name={tag}"] if tag else []), "-O", "raw", path, raw)
    magic, count = struct.unpack("<4sI", raw.read_bytes()[512:520])
    raw.unlink()
    assert magic == b"CFCT", f"{path} holds no count"
    return count
