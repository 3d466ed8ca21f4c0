"""Commands on nodes in use, side by side with qemu-storage-daemon."""

from harness.blockjobs import MEBIBYTE, add, source_and_target, without_progress, write
from harness.reference import answer, both, story, wait_gone


def sizes(peer):
    return {node["node-name"]: node["image"]["virtual-size"] for node in peer.execute("query-named-block-nodes")
            if not node["node-name"].startswith("#")}


def test_a_disk_gets_another_size(twins):
    def script(peer, folder):
        add(peer, folder, "a", size="4M")
        peer.execute("block-dirty-bitmap-add", node="a", name="b")
        told = []
        for arguments in ({"node-name": "zz"}, {"device": "zz"}, {}, {"node-name": "a", "size": -1},
                          {"node-name": "a", "size": 8 * MEBIBYTE}, {"node-name": "a", "size": MEBIBYTE}):
            told += [answer(peer, "block_resize", {"size": MEBIBYTE, **arguments}), sizes(peer)]
        add(peer, folder, "r", size="1M", **{"read-only": True})
        told.append(answer(peer, "block_resize", {"node-name": "r", "size": 2 * MEBIBYTE}))
        return told
    both(twins, script)


def test_a_job_s_disk_keeps_its_size(twins):
    def script(peer, folder):
        source_and_target(peer, folder)
        mark = peer.mark()
        told = [answer(peer, "blockdev-backup",
                       {"job-id": "j", "device": "src", "target": "dst", "sync": "none"})]
        told.append(answer(peer, "block_resize", {"node-name": "dst", "size": MEBIBYTE}))
        peer.execute("job-cancel", id="j")
        wait_gone(peer, "j")
        return told + without_progress(story(peer, mark, "j"))
    both(twins, script)


def test_query_block_lists_devices_only(twins):
    """Of which there are none without a guest: nodes, exports and jobs use what has no name there."""
    def script(peer, folder):
        source_and_target(peer, folder)
        told = [peer.execute("query-block")]
        peer.execute("blockdev-backup", job_id="j", device="src", target="dst", sync="none")
        told.append(peer.execute("query-block"))
        peer.execute("job-cancel", id="j")
        wait_gone(peer, "j")
        return told
    assert both(twins, script) == [[], []]


def test_a_write_behind_the_threshold_is_told_once(twins):
    def script(peer, folder):
        source_and_target(peer, folder)
        mark = peer.mark()

        def threshold():
            return [node["write_threshold"] for node in peer.execute("query-named-block-nodes")
                    if node["node-name"] == "src"]
        told = [answer(peer, "block-set-write-threshold", {"node-name": "zz", "write-threshold": 1}),
                answer(peer, "block-set-write-threshold", {"node-name": "src", "write-threshold": 4 * MEBIBYTE}),
                threshold()]
        write(folder, "write 0 4M")
        told.append(threshold())
        write(folder, "write 3M 1536k", "write 5M 1M")
        peer.wait_event("BLOCK_WRITE_THRESHOLD", mark)
        told += [threshold(), [event["data"] for event in peer.events_since(mark, "BLOCK_WRITE_THRESHOLD")]]
        return told
    both(twins, script)
