"""Runs the benchmarks and says which goals were met."""

import argparse
import os
import signal
import sys

from . import idle, jobs, pause, qcow2, read, sidecar

# A run that is told to end takes its guests with it.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

parser = argparse.ArgumentParser(prog="tools/bench")
parser.add_argument("--only", choices=["pause", "read", "sidecar", "idle", "qcow2", "jobs"])
parser.add_argument("--parts", type=lambda text: text.split(","), help=f"of qcow2: {','.join(qcow2.PARTS)}; "
                    f"of jobs: {','.join(jobs.PARTS)}")
parser.add_argument("--sizes", default="256,1024,4096", help="MiB of touched RAM")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--qemu-only", action="store_true", help="only what needs no coldframed")
options = parser.parse_args()
sizes = [int(size) for size in options.sizes.split(",")]

print(f"{os.cpu_count()} processors, kernel {os.uname().release}, {options.rounds} rounds")
missed = []
if options.only in (None, "pause"):
    missed += pause.run(sizes, options.rounds, options.qemu_only)
if options.only in (None, "read"):
    missed += read.run(options.rounds, options.qemu_only)
if options.only in (None, "sidecar") and not options.qemu_only:
    missed += sidecar.run(options.rounds)
if options.only in (None, "qcow2") and not options.qemu_only:
    missed += qcow2.run(options.rounds, options.parts or qcow2.PARTS)
if options.only in (None, "jobs") and not options.qemu_only:
    missed += jobs.run(options.rounds, options.parts or jobs.PARTS)
if options.only in (None, "idle") and not options.qemu_only:
    missed += idle.run()
for text in missed:
    print(f"MISSED: {text}")
sys.exit(1 if missed else 0)
