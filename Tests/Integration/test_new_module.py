"""tools/new-module: what it writes is formatted and compiles, and it refuses what it cannot do."""

import pathlib
import shutil
import subprocess

import pytest

from harness.agent import BINARIES

ROOT = pathlib.Path(__file__).resolve().parents[2]


def new_module(root, *arguments):
    return subprocess.run([ROOT / "tools/new-module", *arguments, "--root", root], capture_output=True, text=True)


# Kind, folder, the end of the target's name, the list of modules.
KINDS = [("format", "Formats", "Format", "Sources/BlockModules/BlockModules.swift"),
         ("protocol", "Protocols", "Protocol", "Sources/BlockModules/BlockModules.swift"),
         ("filter", "Filters", "Filter", "Sources/BlockModules/BlockModules.swift"),
         ("export", "Exports", "Export", "Sources/coldframed/Modules.swift"),
         ("store", "VMStateStores", "Store", "Sources/coldframed/Modules.swift"),
         ("filesystem", "GuestFilesystems", "Filesystem", "Sources/BlockModules/BlockModules.swift")]


@pytest.fixture
def tree(directory):
    """As much of the tree as the tool changes."""
    for name in ("Package.swift", "Sources/BlockModules/BlockModules.swift", "Sources/coldframed/Modules.swift",
                 ".swift-format"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    return directory


@pytest.mark.parametrize("kind, parent, suffix, modules", KINDS)
def test_a_new_module_compiles_as_it_is(tree, kind, parent, suffix, modules):
    """`tools/soak` builds them for good and runs the conformance tests on them."""
    result = new_module(tree, kind, "SampleDisk")
    assert result.returncode == 0, result.stderr
    target, folder = f"SampleDisk{suffix}", tree / "Plugins" / parent / "SampleDisk"
    core = sorted((ROOT / "Sources/QAPI/schema").glob("*.json"))
    schema = tree / "Schema.swift"
    sources = sorted(folder.glob("*.swift"))
    if kind != "filesystem":  # It has no options.
        subprocess.run([BINARIES / "QAPIGen", "--target", target, "--output", schema,
                        *(word for path in core for word in ("--lookup", path)), folder / "schema/sample-disk.json"],
                       check=True)
        sources.append(schema)
    checked = subprocess.run(
        ["swiftc", "-typecheck", "-swift-version", "6", "-module-name", target, "-I", BINARIES / "Modules",
         *(word for path in BINARIES.glob("C*.build/module.modulemap") for word in ("-Xcc", f"-fmodule-map-file={path}")),
         *sources], capture_output=True, text=True)
    assert checked.returncode == 0 and "warning:" not in checked.stderr, checked.stderr
    linted = subprocess.run(["swift", "format", "lint", "--strict", "--configuration", tree / ".swift-format",
                             *folder.rglob("*.swift"), tree / "Package.swift", tree / modules],
                            capture_output=True, text=True)
    assert linted.returncode == 0, linted.stderr
    assert f'("{target}", "Plugins/{parent}/SampleDisk", []),' in (tree / "Package.swift").read_text()
    listed = (tree / modules).read_text()
    assert f"import {target}\n" in listed and f" {target}Module.module,\n" in listed
    assert "__" not in "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("arguments, text", [
    (("format", "lower"), "no name of a type"), (("disk", "Sample"), "there is no kind 'disk'"),
    (("format",), "usage:")])
def test_what_it_cannot_make_is_refused(tree, arguments, text):
    result = new_module(tree, *arguments)
    assert result.returncode != 0 and text in result.stderr


def test_a_module_is_not_overwritten(tree):
    assert new_module(tree, "format", "Sample").returncode == 0
    result = new_module(tree, "format", "Sample")
    assert result.returncode != 0 and "is there already" in result.stderr


def test_a_name_belongs_to_one_driver(tree):
    assert new_module(tree, "format", "Sample").returncode == 0
    result = new_module(tree, "filter", "Sample")
    assert result.returncode != 0 and "has a driver 'sample' already" in result.stderr
    for kind in ("export", "store", "filesystem"):
        assert new_module(tree, kind, "Sample").returncode == 0
    (tree / "Plugins/GuestFilesystems/Sample").rename(tree / "Plugins/GuestFilesystems/Other")
    assert "has a driver 'sample' already" in new_module(tree, "filesystem", "Sample").stderr
