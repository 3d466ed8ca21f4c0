#!/usr/bin/env python3
"""Rules of the tree that no compiler knows: short files, and imports that point in one direction only."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAXIMUM_LINES = 400
LINE_LIMITED = {".swift", ".c", ".h", ".cpp", ".py", ".sh", ".S"}
IMPORT = re.compile(r"^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:(?:public|package|internal|private|fileprivate)\s+)?"
                    r"import\s+(?:(?:struct|class|enum|protocol|func|var|let|typealias)\s+)?(\w+)")

# What each target may import of this package; system modules are judged apart. The targets not named here are free.
ALLOWED = {
    "LinuxSystem": {"CLinux"},
    "QMPWire": set(),
    "QAPI": {"QMPWire"},
    "QMPClient": {"QMPWire", "LinuxSystem"},
    "KeeperWire": {"LinuxSystem"},
    "ColdframeKit": {"QAPI", "QMPWire", "LinuxSystem", "Logging"},
    "BlockCopying": {"ColdframeKit", "LinuxSystem"},
    "AgentCore": {"ColdframeKit", "BlockCopying", "QAPI", "QMPWire", "LinuxSystem", "CChecksum", "Logging"},
    "ImageTools": {"ColdframeKit", "LinuxSystem"},
    "coldframe": {"QMPClient", "QMPWire", "LinuxSystem", "ArgumentParser", "AgentCore", "BlockModules", "ColdframeKit",
                  "ImageTools", "QAPI"},
    "coldframe-keeper": {"KeeperWire", "LinuxSystem"},
}
FREE_OF_CHOICE = {"Synchronization"}


def tracked(pattern):
    listing = subprocess.run(["git", "ls-files", "-z", "--", pattern], cwd=ROOT, check=True, capture_output=True)
    return [pathlib.Path(name) for name in listing.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def imports(path):
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        match = IMPORT.match(line)
        if match:
            yield number, match.group(1)


def module_folders():
    """Module names and folders as Package.swift lists them."""
    return dict(re.findall(r'\("(\w+)", "(Plugins/[^"]+)"', (ROOT / "Package.swift").read_text()))


def long_files():
    for path in tracked("."):
        is_script = path.suffix == "" and path.parts[0] in ("tools", ".ci", "Tests")
        if path.suffix not in LINE_LIMITED and not is_script:
            continue
        count = len((ROOT / path).read_text().splitlines())
        if count > MAXIMUM_LINES:
            yield f"{path}: {count} lines; at most {MAXIMUM_LINES}, one idea per file"


def wrong_source_imports(modules):
    for path in tracked("Sources/*.swift"):
        target = path.parts[1]
        for number, name in imports(path):
            if name == "Foundation":
                yield f"{path}:{number}: Foundation stays out of the agent"
            elif target in ALLOWED and name not in ALLOWED[target] | FREE_OF_CHOICE:
                if name == "Glibc" and target != "coldframe-keeper":  # memcpy and the like
                    continue
                yield f"{path}:{number}: {target} may not import {name}"


def wrong_module_imports(modules):
    for own, folder in modules.items():
        forbidden = (set(modules) - {own}) | {"AgentCore", "coldframed", "coldframe", "Foundation"}
        for path in tracked(f"{folder}/*.swift"):
            if "Tests" in path.parts:  # A guest's tests need somebody's disks.
                continue
            for number, name in imports(path):
                if name in forbidden:
                    yield f"{path}:{number}: a module may not import {name}"


def main():
    modules = module_folders()
    found = [*long_files(), *wrong_source_imports(modules), *wrong_module_imports(modules)]
    for text in found:
        print(f"lint: {text}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
