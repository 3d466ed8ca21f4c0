"""Nodes: adding, deleting, what they report, and the locks that QEMU's tools respect."""

import subprocess

import pytest

from harness import images
from harness.monitor import CommandError


@pytest.fixture
def image(directory):
    path = images.create(directory / "a.qcow2")
    images.write_pattern(path, 0x11)
    return path


def refused(agent, command, **arguments):
    with pytest.raises(CommandError) as caught:
        agent.execute(command, **arguments)
    return caught.value.description


def test_qcow2_is_reported_as_qemu_does(agent, image):
    agent.add_qcow2("n", image)
    node = agent.node("n")
    assert node["drv"] == "qcow2"
    assert node["ro"] is False
    assert node["image"]["virtual-size"] == 64 * images.MEBIBYTE
    assert node["image"]["cluster-size"] == 65536
    assert node["image"]["format"] == "qcow2"


def test_raw_over_file(agent, directory):
    path = images.create(directory / "a.raw", "1M", form="raw")
    agent.execute("blockdev-add", driver="raw", node_name="n", file={"driver": "file", "filename": str(path)})
    assert agent.node("n")["image"]["virtual-size"] == images.MEBIBYTE


def test_child_by_reference(agent, image):
    agent.execute("blockdev-add", driver="file", node_name="f", filename=str(image))
    agent.execute("blockdev-add", driver="qcow2", node_name="n", file="f")
    assert refused(agent, "blockdev-del", node_name="f") == "Block device f is in use"
    agent.execute("blockdev-del", node_name="n")
    agent.execute("blockdev-del", node_name="f")
    assert agent.node("f") is None


def test_duplicate_node_name(agent, image, directory):
    agent.add_qcow2("n", image)
    other = images.create(directory / "b.qcow2")
    file = {"driver": "file", "filename": str(other)}
    assert refused(agent, "blockdev-add", driver="qcow2", node_name="n", file=file) == \
        "Duplicate nodes with node-name='n'"


def test_node_name_is_needed(agent, image):
    assert refused(agent, "blockdev-add", driver="qcow2", file={"driver": "file", "filename": str(image)}) == \
        "'node-name' must be specified for the root node"


def test_invalid_node_name(agent, image):
    file = {"driver": "file", "filename": str(image)}
    assert refused(agent, "blockdev-add", driver="qcow2", node_name="1abc", file=file) == "Invalid node-name: '1abc'"


def test_qemu_img_refuses_what_the_agent_holds(agent, image):
    agent.add_qcow2("n", image)
    result = images.run("qemu-img", "resize", image, "128M", check=False)
    assert result.returncode != 0 and "lock" in result.stderr
    agent.execute("blockdev-del", node_name="n")
    images.run("qemu-img", "resize", image, "128M")


def test_the_agent_refuses_what_qemu_holds(agent, image, directory):
    holder = subprocess.Popen(["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=f,filename={image}",
                               "--blockdev", "driver=qcow2,node-name=q,file=f", "--pidfile", directory / "pid"])
    try:
        while not (directory / "pid").exists():
            assert holder.poll() is None
        file = {"driver": "file", "filename": str(image)}
        assert 'Failed to get "write" lock' in refused(agent, "blockdev-add", driver="qcow2", node_name="n", file=file)
    finally:
        holder.terminate()
        holder.wait()


def test_read_only_nodes_share_an_image(agent, image):
    agent.add_qcow2("a", image, read_only=True)
    agent.add_qcow2("b", image, read_only=True)
    assert agent.node("a")["ro"] is True
    images.run("qemu-img", "check", image)


def test_snapshots_of_qemu_img_are_listed(agent, image):
    images.run("qemu-img", "snapshot", "-c", "first", image)
    images.run("qemu-img", "snapshot", "-c", "second", image)
    agent.add_qcow2("n", image)
    assert agent.snapshot_names("n") == ["first", "second"]


@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=2M", "refcount_bits=1,compat=1.1",
                                     "refcount_bits=64", "compat=0.10", "lazy_refcounts=on"])
def test_images_of_any_geometry_are_read(agent, directory, options):
    path = images.create(directory / "g.qcow2", "8M", options=options)
    images.write_pattern(path, 0x42, 123 * 512, 512)
    agent.add_qcow2("n", path, read_only=True)
    with_nbd(agent, directory, "n")
    images.run("qemu-io", "-r", "-f", "raw", "-c", f"read -P 0x42 {123 * 512} 512", nbd_uri(directory, "n"))
    images.same_content(path, "qcow2", nbd_uri(directory, "n"), "raw")


def test_backing_files_are_read_through(agent, directory):
    base = images.create(directory / "base.qcow2", "8M")
    images.write_pattern(base, 0x21)
    top = images.create(directory / "top.qcow2", "8M", backing=base)
    images.write_pattern(top, 0x22, 65536)
    below = {"driver": "qcow2", "file": {"driver": "file", "filename": str(base)}}
    agent.add_qcow2("n", top, read_only=True, backing=below)
    with_nbd(agent, directory, "n")
    images.same_content(top, "qcow2", nbd_uri(directory, "n"), "raw")


def test_blockdev_create_makes_what_qemu_img_accepts(agent, directory):
    path = directory / "new.qcow2"
    agent.run_job("blockdev-create", options={"driver": "file", "filename": str(path), "size": 0})
    agent.execute("blockdev-add", driver="file", node_name="f", filename=str(path))
    agent.run_job("blockdev-create", options={"driver": "qcow2", "file": "f", "size": 32 * images.MEBIBYTE})
    agent.execute("blockdev-del", node_name="f")
    images.check(path)
    agent.add_qcow2("n", path)
    assert agent.node("n")["image"]["virtual-size"] == 32 * images.MEBIBYTE


def test_internal_snapshot_by_command(agent, image):
    agent.add_qcow2("n", image)
    agent.execute("blockdev-snapshot-internal-sync", device="n", name="s")
    assert refused(agent, "blockdev-snapshot-internal-sync", device="n", name="s") == \
        "Snapshot with name 's' already exists on device 'n'"
    deleted = agent.execute("blockdev-snapshot-delete-internal-sync", device="n", name="s")
    assert deleted["name"] == "s"
    assert refused(agent, "blockdev-snapshot-delete-internal-sync", device="n", name="s") == \
        "Snapshot with id 'null' and name 's' does not exist on device 'n'"
    agent.execute("blockdev-del", node_name="n")
    images.check(image)


def nbd_uri(directory, export):
    return f"nbd+unix:///{export}?socket={directory}/nbd.sock"


def with_nbd(agent, directory, node, **options):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    agent.execute("block-export-add", type="nbd", id="e", node_name=node, **options)


def test_block_resize_grows_and_shrinks(agent, image):
    agent.add_qcow2("n", image)
    agent.execute("blockdev-snapshot-internal-sync", device="n", name="before")
    agent.execute("block-dirty-bitmap-add", node="n", name="b")
    for size in (128, 32, 64):
        agent.execute("block_resize", node_name="n", size=size * images.MEBIBYTE)
        assert agent.node("n")["image"]["virtual-size"] == size * images.MEBIBYTE
    assert refused(agent, "block_resize", node_name="n", size=1000) == "The new size must be a multiple of 512"
    assert refused(agent, "block_resize", node_name="n", size=-512) == "Parameter 'size' expects a >0 size"
    assert refused(agent, "block_resize", node_name="x", size=512) == "Cannot find device='' nor node-name='x'"
    agent.execute("blockdev-del", node_name="n")
    images.check(image)


def test_block_resize_does_not_pull_a_disk_from_under_its_user(agent, image, directory):
    agent.add_qcow2("n", image)
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd")}})
    agent.execute("block-export-add", id="e", type="nbd", node_name="n")
    assert "'resize'" in refused(agent, "block_resize", node_name="n", size=128 * images.MEBIBYTE)


def test_damage_is_told_and_the_node_becomes_read_only(agent, image, directory):
    # The first L2 entry points to the L2 table itself.
    with open(image, "r+b") as file:
        file.seek(40)
        l1 = int.from_bytes(file.read(8), "big")
        file.seek(l1)
        l2 = int.from_bytes(file.read(8), "big") & 0x00FFFFFFFFFFFE00
        file.seek(l2)
        file.write((l2 | 1 << 63).to_bytes(8, "big"))
    agent.add_qcow2("n", image)
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd")}})
    agent.execute("block-export-add", id="e", type="nbd", node_name="n", writable=True)
    done = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 4k", f"nbd+unix:///n?socket={directory}/nbd"],
                          capture_output=True, text=True, timeout=60)
    assert "rror" in done.stdout + done.stderr
    event = agent.wait_event("BLOCK_IMAGE_CORRUPTED")
    assert event["data"]["node-name"] == "n" and event["data"]["fatal"] is True
    assert agent.node("n")["ro"] is True
    agent.execute("block-export-del", id="e", mode="hard")
    agent.execute("blockdev-del", node_name="n")
    info = subprocess.run(["qemu-img", "info", str(image)], capture_output=True, text=True, timeout=60).stdout
    assert "corrupt: true" in info
