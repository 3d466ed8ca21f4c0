"""coldframed's command line: qemu-storage-daemon's options, and the configuration file."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest

from harness import images
from harness.agent import BINARIES
from harness.monitor import Monitor


@pytest.fixture
def image(directory):
    path = images.create(directory / "a.qcow2")
    images.write_pattern(path, 0x11)
    return path


@pytest.fixture
def start(directory):
    """Starts coldframed with just these options."""
    running = []

    def go(*options, wait_for=directory / "pid", **more):
        arguments = [BINARIES / "coldframed", *map(str, options), "--pidfile", directory / "pid"]
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env={
            **os.environ, "COLDFRAME_RUNTIME_DIR": str(directory / "run"),
            "COLDFRAME_STATE_DIR": str(directory / "state")}, **more)
        running.append(process)
        deadline = time.monotonic() + 20
        while not wait_for.exists() and process.poll() is None:
            assert time.monotonic() < deadline, f"no {wait_for}"
            time.sleep(0.02)
        return process

    yield go
    for process in running:
        if process.poll() is None:
            process.terminate()
        process.wait(20)


def monitor_options(directory):
    return ["--chardev", f"socket,id=c,path={directory}/m.sock,server=on,wait=off", "--monitor", "chardev=c"]


def test_a_monitor_that_is_named_first_sees_the_whole_start(start, image, directory):
    """Its first command waits until all options are carried out, as with qemu-storage-daemon."""
    nodes = [word for number in range(20) for word in (
        "--blockdev", f"driver=qcow2,node-name=n{number},read-only=on,file.driver=file,file.filename={image}")]
    start(*monitor_options(directory), *nodes, wait_for=directory / "m.sock")
    monitor = Monitor(directory / "m.sock")
    assert len(monitor.execute("query-named-block-nodes")) == 40
    monitor.close()


@pytest.mark.parametrize("form", ["keys", "json"])
def test_export_without_a_monitor(start, image, directory, form):
    if form == "keys":
        node = f"driver=qcow2,node-name=n,file.driver=file,file.filename={image}"
        export = "type=nbd,id=e,node-name=n,name=disk,writable=on"
    else:
        node = json.dumps({"driver": "qcow2", "node-name": "n", "file": {"driver": "file", "filename": str(image)}})
        export = json.dumps({"type": "nbd", "id": "e", "node-name": "n", "name": "disk", "writable": True})
    start("--blockdev", node, "--nbd-server", f"addr.type=unix,addr.path={directory}/nbd.sock", "--export", export)
    images.run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x11 0 64k", f"nbd+unix:///disk?socket={directory}/nbd.sock")


def test_nodes_in_the_order_of_the_options(start, image, directory):
    start("--blockdev", f"driver=file,node-name=f,filename={image}", "--blockdev", "driver=qcow2,node-name=n,file=f",
          *monitor_options(directory))
    monitor = Monitor(directory / "m.sock")
    assert {"f", "n"} <= {node["node-name"] for node in monitor.execute("query-named-block-nodes")}
    monitor.close()


def test_a_node_before_its_child_is_an_error(start, image):
    process = start("--blockdev", "driver=qcow2,node-name=n,file=f",
                    "--blockdev", f"driver=file,node-name=f,filename={image}")
    assert process.wait(20) == 1
    assert "f" in process.stderr.read()


def test_monitor_on_stdio(start, directory):
    process = start("--chardev", "stdio,id=c", "--monitor", "chardev=c", stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE)
    assert "QMP" in json.loads(process.stdout.readline())
    process.stdin.write('{"execute": "qmp_capabilities"}{"execute": "quit"}')
    process.stdin.flush()
    assert json.loads(process.stdout.readline()) == {"return": {}}
    assert process.wait(20) == 0


def greeting(family, address):
    with socket.socket(family) as connection:
        connection.settimeout(10)
        connection.connect(address)
        text = b""
        while len(text) < 40:
            text += connection.recv(4096)
        return text


def test_monitor_on_loopback_tcp(start):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    start("--chardev", f"socket,id=c,host=127.0.0.1,port={port},server=on,wait=off", "--monitor", "chardev=c")
    assert greeting(socket.AF_INET, ("127.0.0.1", port)).startswith(b'{"QMP": {')


def test_pretty_output(start, directory):
    start(*monitor_options(directory)[:2], "--monitor", "chardev=c,pretty=on")
    text = greeting(socket.AF_UNIX, str(directory / "m.sock"))
    assert text.startswith(b'{\r\n    "QMP": {')


def test_two_monitors_of_one_id_are_refused(start, directory):
    options = monitor_options(directory)[:2]
    process = start(*options, "--chardev", f"socket,id=d,path={directory}/d.sock,server=on,wait=off",
                    "--monitor", "id=m,chardev=c", "--monitor", "id=m,chardev=d")
    assert process.wait(20) == 1
    assert "m" in process.stderr.read()


@pytest.mark.parametrize("options", [["--no-such"], ["--blockdev", "driver=zz,node-name=n"], ["--monitor", "chardev=x"],
                                     ["--blockdev", "{bad json"], ["--export", "type=nbd,id=e,node-name=n"]])
def test_bad_options_end_with_a_message(start, options):
    process = start(*options)
    assert process.wait(20) == 1
    assert process.stderr.read().strip()


def test_sigterm_ends_in_order(start, image, directory):
    process = start("--blockdev", f"driver=qcow2,node-name=n,file.driver=file,file.filename={image}",
                    *monitor_options(directory))
    assert int((directory / "pid").read_text()) == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not (directory / "pid").exists()
    images.check(image)


def test_version_and_help():
    for option in ("--version", "--help"):
        result = subprocess.run([BINARIES / "coldframed", option], capture_output=True, text=True)
        assert result.returncode == 0 and "coldframe" in result.stdout.lower()


def test_configuration_file(start, image, directory):
    (directory / "tree").mkdir()
    config = directory / "web1.toml"
    config.write_text(f'''
name = "web1"
[[blockdev]]
node-name = "disk0"
driver = "qcow2"
file = {{ driver = "file", filename = "{image}" }}
[[snapshot-export]]
id = "tree"
mountpoint = "{directory}/tree"
''')
    start("--config", config)
    monitor = Monitor(directory / "run/web1/qmp.sock")
    assert "disk0" in {node["node-name"] for node in monitor.execute("query-named-block-nodes")}
    assert [export["id"] for export in monitor.execute("query-snapshot-exports")] == ["tree"]
    monitor.close()


@pytest.mark.parametrize("text", ["name = ", "nam = 'x'", "[[blockdev]]\ndriver = 'zz'\nnode-name = 'n'"])
def test_a_bad_configuration_is_named(start, directory, text):
    config = directory / "bad.toml"
    config.write_text(text)
    process = start("--config", config)
    assert process.wait(20) == 1
    assert "bad.toml" in process.stderr.read()
