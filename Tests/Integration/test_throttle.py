"""Throttle groups and the filter `throttle`, side by side with qemu-storage-daemon, and by the clock."""

import subprocess
import threading
import time

import pytest

from harness import images
from harness.agent import Agent
from harness.blockjobs import MEBIBYTE, add, write
from harness.monitor import CommandError
from harness.reference import answer, both, compare


def add_throttled(peer, folder, node, group):
    """A raw disk `node`, the filter above it as `t-NODE`, and an export of the filter as `node`."""
    add(peer, folder, node)
    peer.execute("blockdev-add", driver="throttle", node_name=f"t-{node}", throttle_group=group, file=node)
    peer.execute("block-export-add", type="nbd", id=node, node_name=f"t-{node}", name=node, writable=True)


def test_objects_answer_as_qemus(twins):
    limits = {"bps-total": 1000, "bps-total-max": 5000, "bps-total-max-length": 3, "iops-read": 7, "iops-size": 4096}
    group = {"qom-type": "throttle-group"}
    script = [
        ("object-add", {**group, "id": "tg0", "limits": limits}),
        ("object-add", {**group, "id": "tg0"}),
        ("object-add", {**group, "id": "0"}),
        ("object-add", {"qom-type": "nothing", "id": "a"}),
        ("object-add", {**group, "id": "b", "wrong": 1}),
        ("object-add", {**group, "id": "b", "limits": {"wrong": 1}}),
        ("object-add", {**group, "id": "b", "limits": {"bps-total": 1, "bps-write": 1}}),
        ("object-add", {**group, "id": "b", "limits": {"bps-total": -1}}),
        ("object-add", {**group, "id": "b", "limits": {"bps-read-max": 1}}),
        ("object-add", {**group, "id": "b", "limits": {"bps-read-max-length": 1 << 32}}),
        ("object-add", {**group, "id": "b", "x-bps-read": -1}),
        ("object-add", {**group, "id": "b", "x-bps-read-max-length": 1 << 32}),
        ("object-add", {**group, "id": "tg1", "x-iops-total": 10, "x-iops-total-max": 20, "x-iops-size": 512}),
        ("qom-get", {"path": "/objects/tg0", "property": "limits"}),
        ("qom-get", {"path": "tg1", "property": "limits"}),
        ("qom-get", {"path": "tg1", "property": "x-iops-total-max"}),
        ("qom-get", {"path": "tg1", "property": "type"}),
        ("qom-get", {"path": "tg1", "property": "iops-total"}),
        ("qom-get", {"path": "/objects/tg9", "property": "limits"}),
        ("qom-set", {"path": "tg0", "property": "limits", "value": {"bps-total": 2000}}),
        ("qom-get", {"path": "tg0", "property": "limits"}),
        ("qom-set", {"path": "tg0", "property": "limits", "value": {"bps-read": 1}}),
        ("qom-set", {"path": "tg0", "property": "limits", "value": 5}),
        ("qom-set", {"path": "tg0", "property": "limits", "value": {"wrong": 1}}),
        ("qom-set", {"path": "tg0", "property": "limits", "value": {"bps-total": "x"}}),
        ("qom-set", {"path": "tg0", "property": "type", "value": 5}),
        ("qom-set", {"path": "tg0", "property": "x-bps-total", "value": 5}),
        ("qom-set", {"path": "tg0", "property": "nothing", "value": 5}),
        ("blockdev-add", {"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": "DIR/n.raw"}}),
        ("blockdev-add", {"driver": "throttle", "node-name": "t", "file": "n"}),
        ("blockdev-add", {"driver": "throttle", "node-name": "t", "throttle-group": "tg9", "file": "n"}),
        ("blockdev-add", {"driver": "throttle", "node-name": "t", "throttle-group": "tg0", "file": "n"}),
        ("blockdev-add", {"driver": "throttle", "node-name": "t2", "throttle-group": "tg0", "file": "t"}),
        ("object-del", {"id": "tg0"}),
        ("object-del", {"id": "tg1"}),
        ("blockdev-del", {"node-name": "n"}),
        ("blockdev-del", {"node-name": "t2"}),
        ("object-del", {"id": "tg0"}),
        ("blockdev-del", {"node-name": "t"}),
        ("object-del", {"id": "tg1"}),
        ("object-del", {"id": "tg1"}),
    ]
    ours, theirs, *folders = twins
    for folder in folders:
        images.create(folder / "n.raw", "1M", form="raw")
    compare(script, ours, theirs, *folders)


def test_the_data_is_what_was_written(twins):
    def script(peer, folder):
        peer.execute("object-add", qom_type="throttle-group", id="tg", limits={"iops-total": 1000})
        add_throttled(peer, folder, "src", "tg")
        write(folder, "write -P 1 0 1M", "write -z 256k 64k", "discard 512k 64k", "write -P 2 700001 77",
              "read -P 1 0 256k", "read -P 0 256k 64k", "read -P 2 700001 77")
        peer.execute("block-export-del", id="src", mode="hard")
        told = [answer(peer, "blockdev-del", {"node-name": node}) for node in ("t-src", "src")]
        assert images.has_pattern(folder / "src.raw", 2, 700001, 77)
        return told
    both(twins, script)


def timed(peer, folder, limits, *commands):
    """Seconds that the commands take through a filter with these limits."""
    peer.execute("object-add", qom_type="throttle-group", id="tg", limits=limits)
    add_throttled(peer, folder, "src", "tg")
    start = time.monotonic()
    write(folder, *commands)
    return time.monotonic() - start


@pytest.mark.parametrize("limits, commands, least", [
    # Of 8 MiB one request and a tenth of a second's worth pass at once: (8 - 1 - 0.4) / 4 = 1.65 s.
    ({"bps-total": 4 * MEBIBYTE}, [f"write -q {start}M 1M" for start in range(8)], 1.6),
    # A second's worth of the burst passes at once as well: (8 - 1 - 4) / 4 = 0.75 s.
    ({"bps-write": 4 * MEBIBYTE, "bps-write-max": 4 * MEBIBYTE}, [f"write -q {n}M 1M" for n in range(8)], 0.7),
    # (60 - 1 - 4) / 40 = 1.375 s; reads are free of it.
    ({"iops-write": 40}, [f"write -q {n}k 1k" for n in range(60)] + [f"read -q {n}k 1k" for n in range(60)], 1.3),
])
def test_times_are_qemus(twins, limits, commands, least):
    ours, theirs, our_folder, their_folder = twins
    our_seconds = timed(ours, our_folder, limits, *commands)
    their_seconds = timed(theirs, their_folder, limits, *commands)
    assert our_seconds >= least and their_seconds >= least
    # A busy machine makes both slower, not faster: the band is wide upwards.
    assert our_seconds < 2 * their_seconds + 2, f"{our_seconds:.2f} s, qemu-storage-daemon {their_seconds:.2f} s"


def test_a_drain_does_not_wait_for_the_limits(agent, directory):
    """A request that would wait for hours passes when its node is to be kept still."""
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    agent.execute("object-add", qom_type="throttle-group", id="tg", limits={"bps-total": 100})
    add(agent, directory, "src", form="qcow2")
    agent.execute("blockdev-add", driver="throttle", node_name="t", throttle_group="tg", file="src")
    agent.execute("block-export-add", type="nbd", id="e", node_name="t", name="src", writable=True)
    writing = threading.Thread(target=write, args=(directory, "write -P 1 0 1M", "write -P 2 1M 1M"))
    writing.start()
    time.sleep(1)
    assert writing.is_alive()
    start = time.monotonic()
    add(agent, directory, "dst")
    agent.execute("blockdev-backup", job_id="j", device="t", target="dst", sync="none")
    assert time.monotonic() - start < 20
    writing.join(30)
    assert not writing.is_alive()


def test_the_agent_ends_in_time(directory):
    """Though requests wait for hours."""
    with Agent(directory) as agent:
        agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
        agent.execute("object-add", qom_type="throttle-group", id="tg", limits={"bps-total": 100})
        add_throttled(agent, directory, "src", "tg")
        process = subprocess.Popen(
            ["qemu-io", "-f", "raw", "-c", "write 0 1M", "-c", "write 1M 1M",
             f"nbd+unix:///src?socket={directory}/nbd.sock"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        assert process.poll() is None
    process.kill()
    process.wait()


def test_other_limits_take_effect_at_once(agent, directory):
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    agent.execute("object-add", qom_type="throttle-group", id="tg", limits={"bps-total": 100})
    add_throttled(agent, directory, "src", "tg")
    writing = threading.Thread(target=write, args=(directory, "write -P 1 0 1M", "write -P 2 1M 1M"))
    writing.start()
    time.sleep(1)
    assert writing.is_alive()
    agent.execute("qom-set", path="tg", property="limits", value={"bps-total": 0})
    writing.join(30)
    assert not writing.is_alive()


def test_a_restarted_agent_has_its_groups(agent, directory):
    agent.execute("object-add", qom_type="throttle-group", id="old", limits={"bps-total": 1 << 20})
    add(agent, directory, "src")
    agent.execute("blockdev-add", driver="throttle", node_name="t", throttle_group="old", file="src")
    agent.execute("blockdev-del", node_name="t")
    agent.execute("object-add", qom_type="throttle-group", id="new", limits={"iops-total": 5})
    agent.execute("blockdev-add", driver="throttle", node_name="t", throttle_group="new", file="src")
    agent.execute("object-del", id="old")
    agent.execute("qom-set", path="new", property="limits", value={"iops-total": 6})
    agent.process.kill()
    agent.process.wait()
    agent.stop()
    with Agent(directory) as again:
        assert again.execute("qom-get", path="new", property="limits")["iops-total"] == 6
        with pytest.raises(CommandError, match="object 'new' is in use, can not be deleted"):
            again.execute("object-del", id="new")
        with pytest.raises(CommandError, match="object 'old' not found"):
            again.execute("object-del", id="old")


def test_groups_of_command_line_and_configuration(directory):
    images.create(directory / "n.raw", "1M", form="raw")
    (directory / "web1.toml").write_text(f"""
[[blockdev]]
driver = "throttle"
node-name = "t"
throttle-group = "tg1"
file = {{ driver = "file", filename = "{directory}/n.raw" }}
[[object]]
qom-type = "throttle-group"
id = "tg1"
limits = {{ iops-total = 50 }}
""")
    options = ["--object", "throttle-group,id=tg0,x-bps-read=7,limits.bps-write=8", "--config", directory / "web1.toml"]
    with Agent(directory, options=options) as agent:
        assert agent.execute("qom-get", path="tg1", property="limits")["iops-total"] == 50
        limits = agent.execute("qom-get", path="tg0", property="limits")
        assert (limits["bps-read"], limits["bps-write"]) == (7, 8)


def test_objects_of_the_guest_are_the_guests(guest):
    guest.execute("object-add", qom_type="iothread", id="io1")
    assert guest.execute("qom-get", path="/objects/io1", property="type") == "iothread"
    guest.execute("object-add", qom_type="throttle-group", id="ours", limits={"iops-total": 5})
    assert guest.execute("qom-get", path="ours", property="limits")["iops-total"] == 5
    guest.execute("object-del", id="io1")
    guest.execute("object-del", id="ours")
    with pytest.raises(CommandError, match="object 'ours' not found"):
        guest.execute("object-del", id="ours")
    schema = {entry["name"]: entry for entry in guest.execute("query-qmp-schema")}
    kinds = schema[schema["object-add"]["arg-type"]]
    assert {"iothread", "throttle-group"} <= {variant["case"] for variant in kinds["variants"]}
