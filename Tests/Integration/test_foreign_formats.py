"""vdi, vpc and vmdk: what qemu-img makes is described, mapped, converted and served as QEMU does it, and vdi is written."""

import json

import pytest

from harness import images
from harness.monitor import CommandError
from test_blockdev import nbd_uri
from test_image import image, qemu_img, qemu_io, raw  # noqa: F401

FORMATS = [
    ("vdi", ""), ("vdi", "static=on"), ("vpc", "subformat=dynamic,force_size=on"), ("vpc", "subformat=fixed,force_size=on"),
    ("vmdk", "subformat=monolithicSparse"), ("vmdk", "subformat=streamOptimized"),
]
READ_ONLY = [entry for entry in FORMATS if entry[0] != "vdi"]


def made(directory, raw, form, options):  # noqa: F811
    path = directory / f"disk.{form}"
    qemu_img("convert", "-f", "raw", "-O", form, *(["-o", options] if options else []), raw, path)
    return path


@pytest.mark.parametrize("form, options", FORMATS)
def test_an_image_is_described_as_qemu_img_does(directory, raw, form, options):  # noqa: F811
    path = made(directory, raw, form, options)
    # An image of fixed size does not say at its beginning what it is.
    named = ["-f", form] if "fixed" in options else []
    ours, theirs = (json.loads(tool("info", flag, *named, path))
                    for tool, flag in ((image, "--json"), (qemu_img, "--output=json")))
    for info in (ours, theirs):
        info.pop("children", None)
        info.pop("dirty-flag", None)
    assert ours == theirs


@pytest.mark.parametrize("form, options", FORMATS + [("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
                                                     ("vpc", "subformat=dynamic")])
def test_a_map_says_what_qemu_img_says(directory, form, options):
    path, raw = directory / f"disk.{form}", directory / "raw"
    words = ["write -P 1 1M 2M", "write -P 2 9M 1M", "write -P 3 5000k 4k", "write -z 10M 128k", "write -z 2M 64k"]
    flags = ["-o", options] if options else []
    # A disk that ends within a grain, a block, a table.
    qemu_img("create", "-f", "raw", raw, "16900k")
    if "streamOptimized" in options:
        images.run("qemu-io", "-f", "raw", *(word for line in words for word in ("-c", line)), raw)
        qemu_img("convert", "-f", "raw", "-O", form, *flags, raw, path)
    else:
        qemu_img("create", "-f", form, *flags, path, "16900k")
        images.run("qemu-io", "-f", form, *(word for line in words for word in ("-c", line)), path)
    ours, theirs = (json.loads(tool("map", "-f", form, flag, path))
                    for tool, flag in ((image, "--json"), (qemu_img, "--output=json")))
    assert ours == theirs
    # A part of it, which begins and ends anywhere.
    part = ["--start-offset", "1500k", "--max-length", "8001k"]
    ours, theirs = (json.loads(tool("map", "-f", form, flag, *part, path))
                    for tool, flag in ((image, "--json"), (qemu_img, "--output=json")))
    assert ours == theirs


@pytest.mark.parametrize("form, options", FORMATS)
def test_convert_and_compare_keep_every_byte(directory, raw, form, options):  # noqa: F811
    path = made(directory, raw, form, options)
    named = ["-f", form] if "fixed" in options else []
    image("convert", *named, "-O", "raw", path, directory / "back")
    qemu_img("compare", "-f", "raw", "-F", "raw", raw, directory / "back")
    assert "identical" in image("compare", "-f", form, "-F", "raw", path, raw)
    with open(directory / "back", "r+b") as file:
        file.seek(5 << 20)
        file.write(bytes(range(256)))
    image("compare", "-f", form, "-F", "raw", path, directory / "back", status=1)


def test_vdi_images_are_made_as_qemu_img_makes_them(directory, raw):  # noqa: F811
    ours = directory / "ours.vdi"
    image("convert", "-O", "vdi", raw, ours)
    qemu_img("check", "-f", "vdi", ours)
    qemu_img("compare", "-f", "raw", "-F", "vdi", raw, ours)
    for options in ("", "preallocation=metadata"):
        image("create", "-f", "vdi", *(["-o", options] if options else []), ours, "5G")
        qemu_img("check", "-f", "vdi", ours)
        assert json.loads(qemu_img("info", "--output=json", ours))["virtual-size"] == 5 << 30


@pytest.mark.parametrize("form, options", FORMATS)
def test_served_through_nbd(agent, directory, raw, form, options):  # noqa: F811
    path = made(directory, raw, form, options)
    agent.execute("blockdev-add", driver=form, node_name="n", read_only=True,
                  file={"driver": "file", "filename": str(path)})
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    agent.execute("block-export-add", type="nbd", id="e", node_name="n")
    images.same_content(raw, "raw", nbd_uri(directory, "n"), "raw")
    node, = [node for node in agent.execute("query-named-block-nodes") if node["node-name"] == "n"]
    assert node["drv"] == form and node["ro"] is True
    result = images.run("qemu-io", "-f", "raw", "-c", "write 0 512", nbd_uri(directory, "n"), check=False)
    assert result.returncode != 0


def test_vdi_is_written_through_nbd(agent, directory, raw):  # noqa: F811
    path = made(directory, raw, "vdi", "")
    agent.execute("blockdev-add", driver="vdi", node_name="n", file={"driver": "file", "filename": str(path)})
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    agent.execute("block-export-add", type="nbd", id="e", node_name="n", writable=True)
    words = ["-c", "write -P 7 0 4M", "-c", "write -z 2M 1M", "-c", "write -P 9 7777k 30k", "-c", "flush"]
    images.run("qemu-io", "-f", "raw", *words, nbd_uri(directory, "n"))
    images.run("qemu-io", "-f", "raw", *words, raw)
    images.same_content(raw, "raw", nbd_uri(directory, "n"), "raw")
    # Whether or not the server has noticed that its client is gone.
    agent.execute("block-export-del", id="e", mode="hard")
    agent.execute("blockdev-del", node_name="n")
    qemu_img("check", "-f", "vdi", path)
    images.same_content(raw, "raw", path, "vdi")


@pytest.mark.parametrize("form, options", READ_ONLY)
def test_what_is_not_written_is_refused_for_writing(agent, directory, raw, form, options):  # noqa: F811
    path = made(directory, raw, form, options)
    file = {"driver": "file", "filename": str(path)}
    with pytest.raises(CommandError, match="does not write: open .* with read-only=on"):
        agent.execute("blockdev-add", driver=form, node_name="n", file=file)
    agent.execute("blockdev-add", driver=form, node_name="n", auto_read_only=True, file=file)


@pytest.mark.parametrize("options", ["subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse"])
def test_other_layouts_of_vmdk_are_refused_in_words(directory, options):
    path = directory / "disk.vmdk"
    qemu_img("create", "-f", "vmdk", "-o", options, path, "4M")
    image("info", path, status=1)
