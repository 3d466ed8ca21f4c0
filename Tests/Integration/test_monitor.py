"""The monitor as QEMU's: greeting, negotiation, ids, errors, recovery, several clients."""

import json
import socket

import pytest

from harness.agent import Agent
from harness.monitor import CommandError, Monitor, RawMonitor


@pytest.fixture
def raw(agent):
    with RawMonitor(agent.second_socket, negotiate=True) as monitor:
        yield monitor


def error_of(reply):
    return reply["error"]["class"], reply["error"]["desc"]


def test_greeting_names_version_and_out_of_band(agent):
    with RawMonitor(agent.second_socket) as monitor:
        version = monitor.greeting["QMP"]["version"]
        assert set(version["qemu"]) == {"major", "minor", "micro"}
        assert isinstance(version["package"], str)
        assert monitor.greeting["QMP"]["capabilities"] == ["oob"]


def test_lines_end_with_carriage_return_and_newline(raw):
    raw.send('{"execute": "query-version"}')
    assert raw.receive_line().endswith(b"}\r\n")


def test_before_negotiation_nothing_else_is_known(agent):
    with RawMonitor(agent.second_socket) as monitor:
        assert error_of(monitor.ask({"execute": "query-version"})) == (
            "CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'")


def test_second_negotiation_is_refused(raw):
    assert error_of(raw.ask({"execute": "qmp_capabilities"})) == (
        "CommandNotFound", "Capabilities negotiation is already complete, command ignored")


@pytest.mark.parametrize("value", [None, 1, "x", [1, {"a": None}], {"b": 1}, 2**63 - 1, -2**63, 2**64 - 1, True])
def test_ids_of_any_type_come_back(raw, value):
    assert raw.ask({"execute": "query-version", "id": value})["id"] == value


@pytest.mark.parametrize("message, text", [
    ("[1]", "QMP input must be a JSON object"),
    ("{}", "QMP input lacks member 'execute'"),
    ('{"execute": 1}', "QMP input member 'execute' must be a string"),
    ('{"execute": "query-version", "arguments": 1}', "QMP input member 'arguments' must be an object"),
    ('{"execute": "query-version", "control": 1}', "QMP input member 'control' is unexpected"),
    ('{"exec-oob": "query-version"}', "QMP input member 'exec-oob' is unexpected"),
    ('{"execute": "job-cancel", "arguments": {}}', "Parameter 'id' is missing"),
    ('{"execute": "job-cancel", "arguments": {"id": 1}}', "Invalid parameter type for 'id', expected: string"),
    ('{"execute": "job-cancel", "arguments": {"id": "x", "y": 1}}', "Parameter 'y' is unexpected"),
    ('{"execute": "job-cancel", "arguments": {"id": "x"}}', "Job not found"),
    ('{"a": 1, "a": 2}', "JSON parse error, duplicate key"),
])
def test_errors_have_qemus_texts(raw, message, text):
    assert error_of(raw.ask(message)) == ("GenericError", text)


def test_unknown_command_has_a_class_of_its_own(raw):
    assert error_of(raw.ask({"execute": "no-such"})) == (
        "CommandNotFound", "The command no-such has not been found")


@pytest.mark.parametrize("garbage", [b"\xff", b"{'execute': \x01}\n", b"}\n", b'{"execute": "quer\xff'])
def test_garbage_is_survived(raw, garbage):
    raw.send(garbage)
    raw.send(b"\xff")
    raw.send('{"execute": "query-version", "id": "after"}')
    while raw.receive().get("id") != "after":
        pass


def test_deep_nesting_is_an_error_not_a_crash(raw):
    raw.send("[" * 5000)
    raw.send(b"\xff")
    raw.send('{"execute": "query-version", "id": "after"}')
    while raw.receive().get("id") != "after":
        pass


def test_message_in_small_pieces(raw):
    for byte in b'{"execute": "query-version", "id": 7}':
        raw.send(bytes([byte]))
    assert raw.receive()["id"] == 7


def test_out_of_band_refuses_other_commands(agent):
    with RawMonitor(agent.second_socket) as monitor:
        monitor.ask({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})
        assert error_of(monitor.ask({"exec-oob": "query-version"})) == (
            "GenericError", "The command query-version does not support OOB")
        assert error_of(monitor.ask({"exec-oob": "no-such"}))[0] == "CommandNotFound"
        assert error_of(monitor.ask({"exec-oob": "a", "execute": "b"})) == (
            "GenericError", "QMP input member 'execute' clashes with 'exec-oob'")


def test_commands_and_schema_tell_the_same(agent):
    commands = {entry["name"] for entry in agent.execute("query-commands")}
    schema = {entry["name"] for entry in agent.execute("query-qmp-schema") if entry["meta-type"] == "command"}
    assert commands == schema
    assert {"snapshot-save", "snapshot-load", "snapshot-delete", "transaction", "blockdev-add", "query-jobs",
            "guest-add", "snapshot-export-add", "query-snapshots", "nbd-server-start", "quit"} <= commands


def test_schema_refers_only_to_types_it_has(agent):
    schema = agent.execute("query-qmp-schema")
    names = {entry["name"] for entry in schema}
    assert len(names) == len(schema)
    for entry in schema:
        used = [entry.get("arg-type"), entry.get("ret-type")] + [m["type"] for m in entry.get("members", [])
                                                                if isinstance(m, dict) and "type" in m]
        used += [variant["type"] for variant in entry.get("variants", [])]
        assert {name for name in used if name} <= names, entry


def test_events_reach_every_monitor(agent, directory):
    second = agent.connect_second()
    agent.run_job("blockdev-create", options={"driver": "file", "filename": str(directory / "x"), "size": 65536})
    for monitor in (agent.monitor, second):
        assert monitor.wait_event("JOB_STATUS_CHANGE", where=lambda data: data["status"] == "concluded")


def test_more_monitors_by_option(directory):
    path = directory / "third.sock"
    options = ["--chardev", f"socket,id=c3,path={path},server=on,wait=off", "--monitor", "id=m3,chardev=c3"]
    with Agent(directory, options=options) as agent:
        other = Monitor(path)
        assert other.execute("query-version") == agent.execute("query-version")
        other.close()


def test_slow_reader_stalls_nobody(agent):
    stuck = socket.socket(socket.AF_UNIX)
    stuck.connect(str(agent.second_socket))
    stuck.sendall(b'{"execute": "qmp_capabilities"}')
    stuck.settimeout(2)
    try:
        stuck.sendall(b'{"execute": "query-qmp-schema"}' * 2000)
    except TimeoutError:
        pass
    assert agent.execute("query-version", timeout=5)
    status = open(f"/proc/{agent.process.pid}/status").read()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident < 150_000, f"{resident} KiB resident with a reader that does not read"
    stuck.close()


def test_quit_replies_and_ends(directory):
    agent = Agent(directory).start()
    with RawMonitor(agent.second_socket, negotiate=True) as raw:
        assert raw.ask({"execute": "quit"}) == {"return": {}}
    assert agent.process.wait(20) == 0
    agent.stop()


def test_replies_are_pure_ascii(raw):
    raw.send(json.dumps({"execute": "query-version", "id": "ä€😀"}, ensure_ascii=False))
    line = raw.receive_line()
    assert line.isascii() and json.loads(line)["id"] == "ä€😀"


def test_wrong_enable_can_be_repeated(agent):
    with RawMonitor(agent.second_socket) as monitor:
        bad = monitor.ask({"execute": "qmp_capabilities", "arguments": {"enable": ["bogus"]}})
        assert error_of(bad)[1] == "Parameter 'null' does not accept value 'bogus'"
        assert monitor.ask({"execute": "qmp_capabilities"}) == {"return": {}}


def test_command_error_is_raised_with_its_class(agent):
    with pytest.raises(CommandError) as caught:
        agent.execute("blockdev-del", node_name="zz")
    assert caught.value.description == "Failed to find node with node-name='zz'"
