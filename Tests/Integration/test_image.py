"""`coldframe image` beside `qemu-img`: what one makes the other reads, and both say the same of it."""

import json
import subprocess

import pytest

from harness.agent import BINARIES

COLDFRAME = BINARIES / "coldframe"
OPTIONS = [
    "", "cluster_size=4k,refcount_bits=8", "extended_l2=on", "compression_type=zstd,preallocation=metadata",
    "compat=0.10", "lazy_refcounts=on,preallocation=falloc", "data_file=DATA", "data_file=DATA,data_file_raw=on",
]


def image(*arguments, status=0):
    done = subprocess.run([COLDFRAME, "image", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def qemu_img(*arguments, status=0):
    done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def qemu_io(path, *commands):
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", *words, str(path)], check=True, capture_output=True, timeout=120)


@pytest.fixture
def raw(directory, chance):
    """8 MiB with data that compresses, data that does not, and holes."""
    path = directory / "raw"
    with open(path, "wb") as file:
        file.truncate(8 << 20)
        for _ in range(20):
            file.seek(chance.randrange(0, 7 << 20))
            file.write(chance.randbytes(50_000) + b"text " * 10_000)
    return path


@pytest.mark.parametrize("options", OPTIONS)
def test_a_new_image_is_what_qemu_img_makes(directory, options):
    ours, theirs = directory / "ours", directory / "theirs"
    for path, tool in ((ours, image), (theirs, qemu_img)):
        chosen = options.replace("DATA", f"{path}.data")
        tool("create", "-f", "qcow2", *(["-o", chosen] if chosen else []), path, "9M")
    qemu_img("check", ours)
    a, b = (json.loads(qemu_img("info", "--output=json", path)) for path in (ours, theirs))
    for info in (a, b):
        for key in ("filename", "actual-size", "children"):
            info.pop(key, None)
        info["format-specific"]["data"].pop("data-file", None)
    assert a == b


@pytest.mark.parametrize("options", OPTIONS)
def test_info_and_check_say_what_qemu_img_says(directory, options):
    path = directory / "a"
    chosen = options.replace("DATA", f"{path}.data")
    qemu_img("create", "-f", "qcow2", *(["-o", chosen] if chosen else []), path, "9M")
    qemu_io(path, "write -P 1 0 1M", "write -P 2 3000k 70k", "write -z 5M 1M", "discard 0 128k")
    if "data_file" not in options:
        qemu_img("snapshot", "-c", "tag", path)
        qemu_io(path, "write -P 3 512k 1M")
    ours, theirs = (json.loads(tool("info", flag, path))
                    for tool, flag in ((image, "--json"), (qemu_img, "--output=json")))
    for info in (ours, theirs):
        info.pop("children", None)
        if "dirty-flag" in info and not info["dirty-flag"]:
            info.pop("dirty-flag")
    assert ours == theirs
    ours, theirs = (json.loads(tool("check", flag, path))
                    for tool, flag in ((image, "--json"), (qemu_img, "--output=json")))
    assert ours == theirs


def test_map_says_what_qemu_img_says(directory):
    base, top = directory / "base", directory / "top"
    image("create", "-f", "qcow2", base, "8M")
    qemu_io(base, "write -P 1 0 1M", "write -P 2 4M 256k", "write -z 6M 1M")
    image("create", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    qemu_io(top, "write -P 3 512k 1M", "write -z 4M 64k")
    for path in (base, top):
        assert json.loads(image("map", "--json", path)) == json.loads(qemu_img("map", "--output=json", path))


@pytest.mark.parametrize("options", ["preallocation=metadata", "preallocation=falloc", "preallocation=full",
                                     "preallocation=metadata,extended_l2=on", "preallocation=metadata,cluster_size=4k"])
def test_map_of_a_preallocated_image(directory, options):
    path = directory / "a"
    qemu_img("create", "-f", "qcow2", "-o", options, path, "8M")
    qemu_io(path, "write -P 1 1M 1M", "write -z 4100k 900k", "discard 6M 1M")
    ours = json.loads(image("map", "--json", path))
    assert ours == json.loads(qemu_img("map", "--output=json", path))
    assert any(entry["data"] and not entry["zero"] for entry in ours)
    top = directory / "top"
    image("create", "-f", "qcow2", "-o", "extended_l2=on", "-b", path, "-F", "qcow2", top)
    qemu_io(top, "write -P 3 512k 4k", "write -z 4M 4k")
    assert json.loads(image("map", "--json", top)) == json.loads(qemu_img("map", "--output=json", top))


@pytest.mark.parametrize("target", ["raw", "qcow2", "qcow2 -c", "qcow2 -c -o compression_type=zstd",
                                    "qcow2 -o cluster_size=4k", "qcow2 -o extended_l2=on"])
def test_convert_keeps_every_byte(directory, raw, target):
    new = directory / "new"
    output, *more = target.split()
    image("convert", "-O", output, *more, raw, new)
    qemu_img("compare", "-f", "raw", "-F", output, raw, new)
    assert "identical" in image("compare", raw, new)
    if output == "qcow2":
        qemu_img("check", new)
    # And back, through what qemu-img makes of it.
    again = directory / "again"
    qemu_img("convert", "-f", output, "-O", "qcow2", "-c", new, again)
    image("convert", "-O", "raw", again, new)
    qemu_img("compare", "-f", "raw", "-F", "raw", raw, new)


def test_a_snapshot_is_converted(directory):
    path = directory / "a"
    image("create", "-f", "qcow2", path, "4M")
    qemu_io(path, "write -P 1 0 1M")
    qemu_img("snapshot", "-c", "tag", path)
    qemu_io(path, "write -P 2 0 2M")
    image("convert", "--snapshot", "tag", path, directory / "ours")
    qemu_img("convert", "-l", "tag", "-O", "raw", path, directory / "theirs")
    qemu_img("compare", directory / "ours", directory / "theirs")


def test_compare_tells_what_differs(directory, raw):
    other = directory / "other"
    image("convert", "-O", "qcow2", raw, other)
    qemu_io(other, "write -P 255 5M 512")
    assert json.loads(image("compare", "--json", raw, other, status=1))["identical"] is False
    longer = directory / "longer"
    image("convert", "-O", "raw", raw, longer)
    with open(longer, "ab") as file:
        file.truncate(9 << 20)
    image("compare", raw, longer)
    image("compare", "-s", raw, longer, status=1)
    image("compare", raw, directory / "nowhere", status=2)


def test_check_finds_and_mends(directory):
    path = directory / "a"
    qemu_img("create", "-f", "qcow2", path, "8M")
    qemu_io(path, "write -P 1 0 4M")
    before = directory / "before"
    qemu_img("convert", "-O", "raw", path, before)
    with open(path, "r+b") as file:
        file.seek(0x20000 + 2 * 6)
        file.write(b"\0\0\0\2")
    theirs = json.loads(qemu_img("check", "--output=json", path, status=2))
    ours = json.loads(image("check", "--json", path, status=2))
    assert ours["corruptions"] == theirs["corruptions"]
    mended = json.loads(image("check", "--json", "--repair", "all", path))
    assert mended["corruptions-fixed"] > 0
    qemu_img("check", path)
    qemu_img("compare", "-F", "raw", path, before)


def test_names_in_images_are_followed_into_allowed_folders_only(directory):
    for name in ("other", "images"):
        (directory / name).mkdir()
    base, top = directory / "other" / "base", directory / "images" / "top"
    image("create", "-f", "qcow2", base, "1M")
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    image("convert", top, directory / "new", status=1)
    image("convert", "--allow-backing", directory / "other", top, directory / "new")
