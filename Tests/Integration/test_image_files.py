"""`coldframe image files`: the files of a guest's disk, of its snapshots too, without a mount."""

import json
import os
import subprocess

import pytest

from harness.agent import BINARIES

COLDFRAME = BINARIES / "coldframe"
START = 2048 * 512
NAMES = {"config.txt": b"first\n", "a long name with umlauts äöü.bin": bytes(range(256)) * 1000}


def run(*arguments, **options):
    subprocess.run([str(word) for word in arguments], check=True, capture_output=True, timeout=60, **options)


def files(*arguments, status=0):
    done = subprocess.run([COLDFRAME, "image", "files", *map(str, arguments)], capture_output=True, timeout=120)
    assert done.returncode == status, (arguments, done)
    return done.stdout if status == 0 else done.stderr.decode()


@pytest.fixture
def disk(directory):
    """A qcow2 disk with a GPT, a FAT filesystem on the second partition and a snapshot from before it was damaged."""
    raw, image, tree = directory / "raw", directory / "disk.qcow2", directory / "tree"
    with open(raw, "wb") as file:
        file.truncate(48 << 20)
    run("/usr/sbin/sfdisk", raw, input=b"label: gpt\n3: start=40960, size=8192\n2: start=2048, size=32768\n")
    run("/usr/sbin/mkfs.fat", "-F", "16", "--offset", "2048", raw, "16384")
    (tree / "folder").mkdir(parents=True)
    for name, content in NAMES.items():
        (tree / name).write_bytes(content)
    (tree / "folder" / "inner").write_bytes(b"x")
    run("mcopy", "-s", "-i", f"{raw}@@{START}", *tree.iterdir(), "::",
        env=os.environ | {"LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"})
    run("qemu-img", "convert", "-O", "qcow2", raw, image)
    run("qemu-img", "snapshot", "-c", "before", image)
    run("qemu-io", "-c", f"write -P 0 {START} 64k", image)
    return image


def test_a_snapshots_files_are_listed_and_read(disk):
    listed = {entry["name"]: entry for entry in json.loads(files(disk, "--snapshot", "before", "--json"))}
    assert {name: entry["size"] for name, entry in listed.items() if entry["kind"] == "regular"} == {
        name: len(content) for name, content in NAMES.items()}
    assert listed["folder"]["kind"] == "directory"
    for name, content in NAMES.items():
        assert files(disk, "--snapshot", "before", "--partition", 2, "--read", "/" + name) == content
    text = files(disk, "-s", "before").decode()
    assert "config.txt" in text and "directory" in text
    assert files(disk, "-s", "before", "FOLDER/../folder/inner", "--read") == b"x"


def test_what_cannot_be_shown_says_why(disk):
    assert "There is no filesystem that is known: partition 2 (16.0 MiB, unknown)" in files(disk, status=1)
    for arguments, text in [
        (("-p", 7), "has no partition 7; partition 2 (16.0 MiB, fat), partition 3"),
        (("-p", 3), "no filesystem that is known"), (("/nowhere",), "There is no '/nowhere'"),
        (("/folder", "--read"), "is no regular file"), (("/config.txt/x",), "'/config.txt' is no directory"),
    ]:
        assert text in files(disk, "--snapshot", "before", *arguments, status=1)
    assert "has no snapshot 'x'" in files(disk, "--snapshot", "x", status=1)


def test_a_name_does_nothing_to_the_terminal(directory):
    image = directory / "volume"
    with open(image, "wb") as file:
        file.truncate(1440 << 10)
    run("/usr/sbin/mkfs.fat", image)
    (directory / "EVIL.TXT").write_bytes(b"")
    run("mcopy", "-i", image, directory / "EVIL.TXT", "::")
    content = image.read_bytes()
    image.write_bytes(content.replace(b"EVIL    TXT", b"\x1b[2J    TXT"))
    assert b"\x1b" not in files(image) and b"\\u{1b}[2J.TXT" in files(image)


def test_a_damaged_chain_of_partitions_hides_no_primary_one(directory):
    image = directory / "mbr"
    with open(image, "wb") as file:
        file.truncate(48 << 20)
    run("/usr/sbin/sfdisk", image, input=b"label: dos\nstart=2048, size=32768, type=e\nstart=40960, size=16384, type=5\n"
        b"start=43008, size=2048\nstart=47104, size=2048\n")
    run("/usr/sbin/mkfs.fat", "-F", "16", "--offset", "2048", image, "16384")
    (directory / "a.txt").write_bytes(b"here")
    run("mcopy", "-i", f"{image}@@{START}", directory / "a.txt", "::")
    assert files(image, "--read", "/a.txt") == b"here"
    with open(image, "r+b") as file:
        file.seek(40960 * 512 + 510)
        file.write(b"\0\0")
    done = subprocess.run([COLDFRAME, "image", "files", image, "--read", "/a.txt"], capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, b"here")
    assert b"Warning: the partition table of" in done.stderr and b"Sector 40960 is no table" in done.stderr
    assert "partition 1 (16.0 MiB, fat), the rest of the partition table is damaged" in files(image, "-p", 5, status=1)
