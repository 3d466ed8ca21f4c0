"""The agent is killed in the middle of an operation on two disks; the next one brings it to an end: both or none."""

import time

import pytest

from harness import images
from harness.agent import Agent
from harness.monitor import CommandError

NODES = ["a", "b"]


@pytest.fixture
def paths(directory):
    made = [images.create(directory / f"{name}.qcow2") for name in NODES]
    for path in made:
        images.write_pattern(path, 0x11)
    return made


def start(directory, paths, fault=None):
    options = [word for name, path in zip(NODES, paths)
               for word in ("--blockdev", f"driver=qcow2,node-name={name},file.driver=file,file.filename={path}")]
    environment = {"COLDFRAME_FAULT": f"{fault}=kill"} if fault else {}
    return Agent(directory, options=options, environment=environment)


def begin(agent, command, **arguments):
    """Starts the job at which the agent is going to die."""
    try:
        agent.execute(command, job_id="j", devices=NODES, **arguments)
    except Exception:  # The reply may be lost with the agent.
        pass
    deadline = time.monotonic() + 20
    while agent.process.poll() is None:
        assert time.monotonic() < deadline, "the agent did not reach its fault point"
        time.sleep(0.01)
    agent.stop()


def tags(agent):
    return {node: agent.snapshot_names(node) for node in NODES}


def finish(agent, paths):
    """Nothing is pending, and the images are sound: not even clusters are leaked."""
    assert agent.execute("query-intents") == []
    for node in NODES:
        agent.execute("blockdev-del", node_name=node)
    for path in paths:
        images.check(path)


@pytest.mark.parametrize("point", ["save.begin", "save.cut.a", "save.cut.b", "save.commit"])
def test_a_save_that_was_killed_is_gone(directory, paths, point):
    begin(start(directory, paths, point).start(), "snapshot-save", tag="t", vmstate="a")
    with start(directory, paths) as agent:
        assert tags(agent) == {"a": [], "b": []}
        agent.run_job("snapshot-save", tag="t", vmstate="a", devices=NODES)
        assert tags(agent) == {"a": ["t"], "b": ["t"]}
        finish(agent, paths)


@pytest.mark.parametrize("point, left", [("delete.begin", ["t"]), ("delete.a", []), ("delete.b", [])])
def test_a_delete_that_was_killed_goes_on_or_has_not_begun(directory, paths, point, left):
    with start(directory, paths) as agent:
        agent.run_job("snapshot-save", tag="t", vmstate="a", devices=NODES)
    begin(start(directory, paths, point).start(), "snapshot-delete", tag="t")
    with start(directory, paths) as agent:
        assert tags(agent) == {"a": left, "b": left}
        finish(agent, paths)


@pytest.mark.parametrize("point", ["load.begin", "load.rewind.a", "load.rewind.b"])
def test_a_load_that_was_killed_leaves_the_disks_as_they_were(directory, paths, point):
    with start(directory, paths) as agent:
        agent.run_job("snapshot-save", tag="t", vmstate="a", devices=NODES)
    for path in paths:
        images.write_pattern(path, 0x22)
    begin(start(directory, paths, point).start(), "snapshot-load", tag="t", vmstate="a")
    with start(directory, paths) as agent:
        assert tags(agent) == {"a": ["t"], "b": ["t"]}
        finish(agent, paths)
    for path in paths:
        assert images.has_pattern(path, 0x22, form="qcow2")


def test_an_intent_waits_for_its_images_and_blocks_only_them(directory, paths):
    with start(directory, paths) as agent:
        agent.run_job("snapshot-save", tag="t", vmstate="a", devices=NODES)
    begin(start(directory, paths, "delete.b").start(), "snapshot-delete", tag="t")
    with Agent(directory, options=["--blockdev", f"driver=qcow2,node-name=a,file.driver=file,file.filename={paths[0]}"]
               ) as agent:
        pending = agent.execute("query-intents")
        assert [(intent["operation"], intent["tag"]) for intent in pending] == [("delete", "t")]
        assert pending[0]["obstacles"] == [
            f"Image '{paths[1]}' of node 'b' is not open for writing here: add it with blockdev-add"]
        assert f"pending    delete of 't': Image '{paths[1]}'" in agent.cli("status", "web1").stdout
        agent.add_qcow2("b", paths[1])
        assert tags(agent) == {"a": [], "b": []}
        finish(agent, paths)


def test_an_image_that_is_another_one_now_is_not_touched(directory, paths):
    with start(directory, paths) as agent:
        agent.run_job("snapshot-save", tag="t", vmstate="a", devices=NODES)
    begin(start(directory, paths, "delete.b").start(), "snapshot-delete", tag="t")
    # A copy has the snapshot, its id and its date; but it is another file.
    copy = directory / "copy"
    copy.write_bytes(paths[1].read_bytes())
    copy.rename(paths[1])
    with start(directory, paths) as agent:
        pending = agent.execute("query-intents")
        assert [intent["obstacles"] for intent in pending] == [[f"Image '{paths[1]}' of node 'b' is another file than it was"]]
        assert tags(agent) == {"a": [], "b": ["t"]}
        # The other image can be worked on.
        agent.execute("blockdev-snapshot-internal-sync", device="b", name="more")
        agent.run_job("snapshot-save", tag="alone", devices=["b"])


def test_a_locked_image_keeps_its_intent_pending(directory, paths):
    with start(directory, paths) as agent:
        agent.run_job("snapshot-save", tag="t", vmstate="a", devices=NODES)
    begin(start(directory, paths, "delete.a").start(), "snapshot-delete", tag="t")
    # Somebody else has it open.
    other_directory = directory / "other"
    other_directory.mkdir()
    with Agent(other_directory, name="other") as other:
        other.add_qcow2("x", paths[1])
        with Agent(directory, options=["--blockdev",
                                       f"driver=qcow2,node-name=a,file.driver=file,file.filename={paths[0]}"]) as agent:
            with pytest.raises(CommandError, match="lock"):
                agent.add_qcow2("b", paths[1])
            assert len(agent.execute("query-intents")) == 1
            other.execute("blockdev-del", node_name="x")
            agent.add_qcow2("b", paths[1])
            assert tags(agent) == {"a": [], "b": []}
            finish(agent, paths)
