"""The drivers null-co and null-aio and the filter compress, side by side with qemu-storage-daemon."""

import json

from harness import images
from harness.blockjobs import MEBIBYTE, add, write
from harness.reference import answer, both


def uri(folder, export):
    return f"nbd+unix:///{export}?socket={folder}/nbd.sock"


def nodes(peer):
    return {node["node-name"]: [node["image"], node["file"], node["ro"]]
            for node in peer.execute("query-named-block-nodes", flat=True)}


def test_disks_that_keep_nothing(twins):
    def script(peer, folder):
        told = [answer(peer, "blockdev-add", options) for options in (
            {"driver": "null-co", "node-name": "plain"},
            {"driver": "null-aio", "node-name": "slow", "latency-ns": 1000},
            {"driver": "null-co", "node-name": "zero", "size": MEBIBYTE, "read-zeroes": True},
            {"driver": "null-aio", "node-name": "odd", "size": 1000, "read-zeroes": True, "read-only": True},
            {"driver": "null-co", "node-name": "refused", "latency-ns": 1 << 63},
            {"driver": "null-co", "node-name": "refused", "size": "1M"},
            {"driver": "null-co", "node-name": "refused", "filename": "null-co://"})]
        told.append(nodes(peer))
        for node in ("zero", "odd"):
            told.append(answer(peer, "block-export-add", {
                "type": "nbd", "id": node, "node-name": node, "name": node, "writable": node == "zero"}))
            told.append(json.loads(images.run("nbdinfo", "--json", "--map", uri(folder, node)).stdout))
        write(folder, "write -P 5 0 64k", "write -z 64k 64k", "discard 0 1M", "flush", export="zero")
        write(folder, "read -P 0 0 1M", export="zero")
        told += [answer(peer, "block-export-del", {"id": node, "mode": "hard"}) for node in ("zero", "odd")]
        told += [answer(peer, "blockdev-del", {"node-name": node}) for node in ("plain", "slow", "zero", "odd")]
        return told
    both(twins, script)


def test_a_negative_size_is_an_error(agent):
    # qemu-storage-daemon 7.2 ends.
    assert answer(agent, "blockdev-add", {"driver": "null-co", "node-name": "n", "size": -5}) \
        == "GenericError: Parameter 'size' expects a non-negative number below 2^64"


def test_a_latency_that_nobody_would_see_the_end_of_is_an_error(agent):
    assert answer(agent, "blockdev-add", {"driver": "null-co", "node-name": "n", "latency-ns": 60_000_000_001}) \
        == "GenericError: 'latency-ns' must be at most 60000000000"


def test_what_is_written_is_compressed(twins):
    def script(peer, folder):
        image = add(peer, folder, "disk", form="qcow2")
        add(peer, folder, "raw")
        told = [answer(peer, "blockdev-add", {"driver": "compress", "node-name": name, "file": file})
                for name, file in (("c", "disk"), ("refused", "raw"), ("refused", "c"))]
        told.append(nodes(peer)["c"][0]["virtual-size"])
        told.append(answer(peer, "block-export-add", {
            "type": "nbd", "id": "e", "node-name": "c", "name": "c", "writable": True}))
        # Whole clusters, part of one, over a border, zeros.
        write(folder, "write -P 1 0 1M", "write -P 2 1M 512", f"write -P 4 {2 * MEBIBYTE - 512} 1024",
              "write -z 4M 128k", "write -P 6 5M 100k", "flush", export="c")
        told += [answer(peer, "block-export-del", {"id": "e", "mode": "hard"}),
                 answer(peer, "blockdev-del", {"node-name": "disk"}), answer(peer, "blockdev-del", {"node-name": "c"}),
                 answer(peer, "blockdev-del", {"node-name": "disk"})]
        images.check(image)
        checked = json.loads(images.run("qemu-img", "check", "--output=json", image).stdout)
        told.append({key: checked.get(key) for key in ("compressed-clusters", "allocated-clusters")})
        mapped = json.loads(images.run("qemu-img", "map", "--output=json", image).stdout)
        # Where nothing was, zeros are marked by QEMU and need no mark here.
        told.append([[piece["start"], piece["length"]] for piece in mapped if piece["data"]])
        raw = folder / "content.raw"
        images.run("qemu-img", "convert", "-O", "raw", image, raw)
        for pattern, offset, length in ((1, 0, MEBIBYTE), (2, MEBIBYTE, 512), (4, 2 * MEBIBYTE - 512, 1024),
                                        (0, 4 * MEBIBYTE, 131072), (6, 5 * MEBIBYTE, 102400),
                                        (0, 6 * MEBIBYTE, 2 * MEBIBYTE)):
            assert images.has_pattern(raw, pattern, offset, length), f"{pattern} at {offset}"
        return told
    told = both(twins, script)
    # 16 and one in the first two MiB, one on each side of their end, two at 5M.
    assert next(entry for entry in told if isinstance(entry, dict) and "compressed-clusters" in entry)[
        "compressed-clusters"] == 21


def test_stored_clusters_and_the_end_of_an_odd_disk_are_written(agent, directory):
    # qemu-storage-daemon 7.2 answers EIO to a second write of a cluster, and does not let such a disk be written.
    agent.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(directory / "nbd.sock")}})
    image = add(agent, directory, "disk", form="qcow2", size=str(MEBIBYTE + 512))
    agent.execute("blockdev-add", driver="compress", node_name="c", file="disk")
    for node, command in (("disk", "write -P 1 0 128k"), ("c", "write -P 2 4096 4096"), ("c", "write -P 4 8192 4096"),
                          ("c", "write -P 3 1M 512")):
        agent.execute("block-export-add", type="nbd", id="e", node_name=node, name="e", writable=True)
        write(directory, command, export="e")
        agent.execute("block-export-del", id="e", mode="hard")
    agent.execute("blockdev-del", node_name="c")
    agent.execute("blockdev-del", node_name="disk")
    images.check(image)
    assert json.loads(images.run("qemu-img", "check", "--output=json", image).stdout)["compressed-clusters"] == 2
    for pattern, offset, length in ((1, 0, 4096), (2, 4096, 4096), (4, 8192, 4096),
                                    (1, 12288, 131072 - 12288), (3, MEBIBYTE, 512)):
        assert images.has_pattern(image, pattern, offset, length, form="qcow2")
