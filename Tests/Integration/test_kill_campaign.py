"""kill -9 at every fault point of operations on three disks, and again while the next agent recovers.

`COLDFRAME_KILLS` is the number of runs, `all` every point of every operation with every point of recovery (tools/soak).
"""

import os
import random

import pytest

from conftest import SEED
from harness.campaign import CHILDREN, NEW, OLD, PIVOTS, REOPENS, WITH_GUEST, Campaign, listed_points, points_of

OPERATIONS = ["save", "load", "delete", "transaction"]
# What an operation may leave: the tags and the disks' pattern, before it and after it.
OUTCOMES = {
    "save": [(["base"], NEW), (["base", "t"], NEW)],
    "load": [(["base"], NEW), (["base"], OLD)],
    "delete": [(["base"], NEW), ([], NEW)],
    "transaction": [(["base"], NEW), (["base", "t"], NEW)],
}


def runs():
    """Operation, point, points of recovery: a slice by the seed, in which each operation has its share."""
    chance = random.Random(f"{SEED} kills")
    recovery = points_of("recovery")
    wanted = os.environ.get("COLDFRAME_KILLS", "12")
    if wanted == "all":
        return [(operation, point, [second]) for operation in OPERATIONS for point in points_of(operation)
                for second in recovery]
    chosen = []
    for number in range(int(wanted)):
        operation = OPERATIONS[number % len(OPERATIONS)]
        chosen.append((operation, chance.choice(points_of(operation)),
                       chance.sample(recovery, k=chance.choice([0, 1, 1, 2]))))
    return chosen


def pytest_generate_tests(metafunc):
    if "run" in metafunc.fixturenames:
        chosen = runs()
        metafunc.parametrize("run", chosen, ids=[f"{number}-{operation}-{point}-{'-'.join(again) or 'once'}"
                                                 for number, (operation, point, again) in enumerate(chosen)])


def test_all_disks_are_before_or_after(directory, run):
    operation, point, again = run
    campaign = Campaign(directory)
    campaign.kill(operation, point)
    for second in again:
        campaign.kill_in_recovery(second)
    tags, pattern = campaign.outcome()
    assert (tags, pattern) in OUTCOMES[operation]
    if point.endswith(".begin") and operation != "transaction":
        assert (tags, pattern) == OUTCOMES[operation][0]
    if point.endswith((".committed", ".done")):
        assert (tags, pattern) == OUTCOMES[operation][1]


def test_every_listed_point_is_in_a_campaign():
    used = {point for operation in [*OPERATIONS, "recovery"] for point in points_of(operation)}
    assert set(listed_points()) == used | WITH_GUEST | PIVOTS | REOPENS | CHILDREN


@pytest.mark.parametrize("point", ["recovery.begin", "recovery.revert.b", "recovery.delete.c", "recovery.done",
                                   "recovery.leaks.a", "recovery.leaks-freed.c"])
def test_recovery_passes_its_points(directory, point):
    campaign = Campaign(directory)
    campaign.kill("load", "load.commit")
    assert campaign.kill_in_recovery(point)
    assert campaign.outcome() == (["base"], NEW)
