"""transaction: all of its actions or none."""

import pytest

from harness import images
from harness.monitor import CommandError


@pytest.fixture
def nodes(agent, directory):
    names = ["a", "b", "c"]
    for name in names:
        agent.add_qcow2(name, images.create(directory / f"{name}.qcow2"))
    return names


def snapshot(node, name="t"):
    return {"type": "blockdev-snapshot-internal-sync", "data": {"device": node, "name": name}}


def test_empty_is_a_success(agent):
    assert agent.execute("transaction", actions=[]) == {}


def test_all_nodes_get_the_snapshot(agent, nodes):
    agent.execute("transaction", actions=[snapshot(node) for node in nodes])
    assert [agent.snapshot_names(node) for node in nodes] == [["t"]] * 3


def test_abort_undoes_what_was_done(agent, nodes, directory):
    with pytest.raises(CommandError, match="Transaction aborted using Abort action"):
        agent.execute("transaction", actions=[snapshot("a"), snapshot("b"), {"type": "abort", "data": {}}])
    assert [agent.snapshot_names(node) for node in nodes] == [[]] * 3
    for node in nodes:
        agent.execute("blockdev-del", node_name=node)
        images.check(directory / f"{node}.qcow2")


def test_one_failure_undoes_the_others(agent, nodes):
    agent.execute("blockdev-snapshot-internal-sync", device="c", name="t")
    with pytest.raises(CommandError, match="Snapshot with name 't' already exists on device 'c'"):
        agent.execute("transaction", actions=[snapshot(node) for node in nodes])
    assert [agent.snapshot_names(node) for node in nodes] == [[], [], ["t"]]


def test_errors_name_their_place(agent):
    with pytest.raises(CommandError) as caught:
        agent.execute("transaction", actions=[{"type": "blockdev-snapshot-internal-sync", "data": {"x": 1}}])
    assert caught.value.description == "Parameter 'actions[0].data.device' is missing"
    with pytest.raises(CommandError) as caught:
        agent.execute("transaction", actions=[{"type": "no-such", "data": {}}])
    assert caught.value.description == "Parameter 'type' does not accept value 'no-such'"
