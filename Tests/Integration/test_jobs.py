"""Jobs by QEMU's table: order of events, verbs, progress."""

import pytest

from harness import images
from harness.monitor import CommandError, JobError, RawMonitor


@pytest.fixture
def node(agent, directory):
    path = images.create(directory / "a.qcow2")
    images.write_pattern(path, 0x11, 0, 8 << 20)
    agent.add_qcow2("n", path)
    return "n"


def start_save(agent, tag="t", job_id="j"):
    agent.execute("snapshot-save", job_id=job_id, tag=tag, vmstate="n", devices=["n"])


def refused(agent, command, **arguments):
    with pytest.raises(CommandError) as caught:
        agent.execute(command, **arguments)
    return caught.value.description


def test_success_goes_through_the_states_in_order(agent, node):
    mark = agent.mark()
    start_save(agent)
    agent.wait_job("j")
    agent.wait_event("JOB_STATUS_CHANGE", mark, lambda data: data["status"] == "null")
    assert agent.job_statuses("j", mark) == ["created", "running", "waiting", "pending", "concluded", "null"]


def test_created_and_running_come_before_the_reply(agent, node):
    with RawMonitor(agent.second_socket, negotiate=True) as raw:
        raw.send('{"execute": "snapshot-save", "id": 1, "arguments": '
                 '{"job-id": "j", "tag": "t", "vmstate": "n", "devices": ["n"]}}')
        first = [raw.receive() for _ in range(3)]
        assert [message.get("data", {}).get("status") for message in first[:2]] == ["created", "running"]
        assert first[2] == {"return": {}, "id": 1}
    agent.wait_job("j")


def test_failure_aborts(agent, node):
    mark = agent.mark()
    agent.execute("snapshot-load", job_id="j", tag="missing", vmstate="n", devices=["n"])
    with pytest.raises(JobError, match="Snapshot 'missing' does not exist in one or more devices"):
        agent.wait_job("j")
    agent.wait_event("JOB_STATUS_CHANGE", mark, lambda data: data["status"] == "null")
    assert agent.job_statuses("j", mark) == ["created", "running", "aborting", "concluded", "null"]


def test_a_concluded_job_stays_until_dismissed(agent, node):
    start_save(agent)
    job = agent.wait_job("j", dismiss=False)
    assert job["type"] == "snapshot-save"
    assert job["current-progress"] == job["total-progress"]
    assert refused(agent, "snapshot-save", job_id="j", tag="u", vmstate="n", devices=["n"]) == \
        "Job ID 'j' already in use"
    agent.execute("job-dismiss", id="j")
    assert agent.execute("query-jobs") == []


@pytest.mark.parametrize("verb", ["cancel", "pause", "complete", "finalize"])
def test_a_concluded_job_refuses(agent, node, verb):
    start_save(agent)
    agent.wait_job("j", dismiss=False)
    assert refused(agent, f"job-{verb}", id="j") == \
        f"Job 'j' in state 'concluded' cannot accept command verb '{verb}'"
    assert refused(agent, "job-resume", id="j") == "Can't resume a job that was not paused"


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "complete", "finalize", "dismiss"])
def test_unknown_jobs(agent, verb):
    assert refused(agent, f"job-{verb}", id="zz") == "Job not found"


@pytest.mark.parametrize("job_id", ["", "1a", "a b"])
def test_invalid_job_ids(agent, node, job_id):
    assert refused(agent, "snapshot-save", job_id=job_id, tag="t", vmstate="n", devices=["n"]) == \
        f"Invalid job ID '{job_id}'"


def test_newest_job_first(agent, directory):
    for job_id in ("a", "b"):
        agent.execute("blockdev-create", job_id=job_id,
                      options={"driver": "file", "filename": str(directory / job_id), "size": 65536})
        agent.wait_job(job_id, dismiss=False)
    assert [job["id"] for job in agent.execute("query-jobs")] == ["b", "a"]


def test_create_fails_as_a_job(agent, directory):
    agent.execute("blockdev-create", job_id="j",
                  options={"driver": "file", "filename": str(directory / "no/such"), "size": 65536})
    with pytest.raises(JobError, match="No such file or directory"):
        agent.wait_job("j")
