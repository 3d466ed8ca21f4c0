"""The NBD server, seen by libnbd's and QEMU's clients."""

import json
import subprocess
import time

import pytest

from harness import images
from harness.monitor import CommandError
from test_blockdev import nbd_uri


@pytest.fixture
def exported(agent, directory):
    """A writable qcow2 image exported as `n`."""
    path = images.create(directory / "a.qcow2")
    images.write_pattern(path, 0x33, 0, 1 << 20)
    agent.add_qcow2("n", path)
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    agent.execute("block-export-add", type="nbd", id="e", node_name="n", writable=True)
    return path


def test_nbdinfo_sees_the_export(exported, directory):
    info = json.loads(images.run("nbdinfo", "--json", nbd_uri(directory, "n")).stdout)["exports"][0]
    assert info["export-size"] == 64 * images.MEBIBYTE
    assert info["is_read_only"] is False
    for ability in ("can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn"):
        assert info[ability] is True, ability


def test_nbdinfo_lists(exported, directory):
    listing = json.loads(images.run("nbdinfo", "--list", "--json", nbd_uri(directory, "")).stdout)
    assert [export["export-name"] for export in listing["exports"]] == ["n"]


def test_block_status_shows_holes(exported, directory):
    extents = json.loads(images.run("nbdinfo", "--map", "--json", nbd_uri(directory, "n")).stdout)
    assert extents[0]["offset"] == 0 and extents[0]["length"] == 1 << 20 and extents[0]["type"] == 0
    assert sum(extent["length"] for extent in extents) == 64 * images.MEBIBYTE
    assert extents[-1]["type"] != 0


def test_nbdcopy_both_ways(agent, exported, directory, chance):
    source = directory / "random.raw"
    source.write_bytes(chance.randbytes(8 * images.MEBIBYTE) + bytes(56 * images.MEBIBYTE))
    images.run("nbdcopy", source, nbd_uri(directory, "n"))
    images.run("nbdcopy", nbd_uri(directory, "n"), directory / "back.raw")
    images.same_content(source, "raw", directory / "back.raw", "raw")
    agent.execute("block-export-del", id="e")
    agent.execute("blockdev-del", node_name="n")
    images.check(exported)
    images.same_content(source, "raw", exported, "qcow2")


def test_many_requests_in_flight_keep_their_data(agent, exported, directory):
    images.run("fio", "--name=t", "--ioengine=nbd", f"--uri={nbd_uri(directory, 'n')}", "--rw=randrw", "--bs=4k",
               "--size=32M", "--io_size=16M", "--iodepth=32", "--verify=crc32c", "--do_verify=1", "--verify_state_save=0",
               timeout=300) \
        if fio_has_nbd() else images.run(
            "qemu-img", "bench", "-f", "raw", "-w", "-d", "32", "-c", "4000", "-s", "4k", nbd_uri(directory, "n"))
    agent.execute("block-export-del", id="e", mode="hard")
    agent.execute("blockdev-del", node_name="n")
    images.check(exported)


def fio_has_nbd():
    return "nbd" in images.run("fio", "--enghelp", check=False).stdout.split()


def test_trim_and_zeroes_read_as_zeros(exported, directory):
    uri = nbd_uri(directory, "n")
    images.run("qemu-io", "-f", "raw", "-c", "write -z -u 0 65536", "-c", "read -P 0 0 65536", uri)
    images.run("qemu-io", "-f", "raw", "-c", "discard 65536 65536", "-c", "read -P 0x33 131072 65536", uri)


def test_acknowledged_writes_survive_kill(agent, exported, directory):
    images.run("qemu-io", "-t", "writeback", "-f", "raw", "-c", "write -P 0x77 8M 1M", nbd_uri(directory, "n"))
    agent.process.kill()
    agent.process.wait()
    assert images.has_pattern(exported, 0x77, 8 << 20, 1 << 20, form="qcow2")


def test_a_read_only_export_refuses_writes(agent, exported, directory):
    agent.execute("block-export-add", type="nbd", id="r", node_name="n", name="readonly")
    assert images.run("qemu-io", "-f", "raw", "-c", "write 0 512", nbd_uri(directory, "readonly"),
                      check=False).returncode != 0


def test_a_client_holds_its_export_unless_forced(agent, exported, directory):
    client = subprocess.Popen(["qemu-io", "-f", "raw", nbd_uri(directory, "n")], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    try:
        # It is connected when it has read.
        client.stdin.write(b"read 0 512\n")
        client.stdin.flush()
        assert b"read 512/512" in client.stdout.readline()
        with pytest.raises(CommandError, match="export 'e' still in use"):
            agent.execute("block-export-del", id="e")
        mark = agent.mark()
        agent.execute("block-export-del", id="e", mode="hard")
        agent.wait_event("BLOCK_EXPORT_DELETED", mark, lambda data: data["id"] == "e")
    finally:
        client.stdin.close()
        client.wait()


@pytest.mark.parametrize("command, arguments, text", [
    ("block-export-add", {"type": "nbd", "id": "e", "node_name": "n"}, "Block export id 'e' is already in use"),
    ("block-export-add", {"type": "nbd", "id": "f", "node_name": "n"}, "NBD server already has export named 'n'"),
    ("block-export-del", {"id": "zz"}, "Export 'zz' is not found"),
    ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "/nowhere"}}}, "NBD server already running"),
    ("blockdev-del", {"node_name": "n"}, "Node n is in use"),
])
def test_refusals_have_qemus_texts(agent, exported, command, arguments, text):
    with pytest.raises(CommandError) as caught:
        agent.execute(command, **arguments)
    assert (caught.value.error_class, caught.value.description) == ("GenericError", text)
