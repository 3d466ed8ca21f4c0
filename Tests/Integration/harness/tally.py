"""What a run has done, for the last line of a campaign."""

import collections

counts = collections.Counter()


def line():
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
