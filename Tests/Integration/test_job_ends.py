"""Commands that come while a job is ending."""

import time

from harness import images
from harness.monitor import CommandError


def test_an_image_that_is_deleted_as_its_stream_ends_holds_nothing(agent, directory):
    """With nothing to copy the stream ends at once, and the deletion comes at any step of its end."""
    base, top = images.create(directory / "b.qcow2", "1M"), images.create(directory / "t.qcow2", "1M")
    for number in range(60):
        agent.add_qcow2("base", base)
        agent.add_qcow2("top", top, backing="base")
        mark = agent.mark()
        agent.execute("block-stream", job_id=f"j{number}", device="top", base_node="base")
        time.sleep(number % 20 * 0.0001)
        deadline = time.monotonic() + 10
        for node in ("top", "base"):
            while True:
                try:
                    agent.execute("blockdev-del", node_name=node)
                    break
                except CommandError:
                    assert time.monotonic() < deadline, f"'{node}' is held after round {number}"
        agent.wait_event("JOB_STATUS_CHANGE", mark, lambda data: data["status"] == "null")
