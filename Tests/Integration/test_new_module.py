"""tools/new-module: what it writes is formatted and compiles, and it refuses what it cannot do."""

import pathlib
import shutil
import subprocess

import pytest

from harness.agent import BINARIES

ROOT = pathlib.Path(__file__).resolve().parents[2]


def new_module(root, *arguments):
    return subprocess.run([ROOT / "tools/new-module", *arguments, "--root", root], capture_output=True, text=True)


@pytest.fixture
def tree(directory):
    """As much of the tree as the tool changes."""
    for name in ("Package.swift", "Sources/BlockModules/BlockModules.swift", ".swift-format"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    return directory


def test_a_new_format_compiles_as_it_is(tree):
    result = new_module(tree, "format", "SampleDisk")
    assert result.returncode == 0, result.stderr
    folder = tree / "Plugins/Formats/SampleDisk"
    core = sorted((ROOT / "Sources/QAPI/schema").glob("*.json"))
    schema = tree / "Schema.swift"
    subprocess.run([BINARIES / "QAPIGen", "--target", "SampleDiskFormat", "--output", schema,
                    *(word for path in core for word in ("--lookup", path)), folder / "schema/sample-disk.json"],
                   check=True)
    sources = sorted(folder.glob("*.swift"))
    checked = subprocess.run(
        ["swiftc", "-typecheck", "-swift-version", "6", "-module-name", "SampleDiskFormat", "-I", BINARIES / "Modules",
         *(word for path in BINARIES.glob("C*.build/module.modulemap") for word in ("-Xcc", f"-fmodule-map-file={path}")),
         *sources, schema], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    linted = subprocess.run(["swift", "format", "lint", "--strict", "--configuration", tree / ".swift-format",
                             *folder.rglob("*.swift"), tree / "Package.swift", tree / "Sources/BlockModules/BlockModules.swift"],
                            capture_output=True, text=True)
    assert linted.returncode == 0, linted.stderr
    assert '("SampleDiskFormat", "Plugins/Formats/SampleDisk", []),' in (tree / "Package.swift").read_text()
    modules = (tree / "Sources/BlockModules/BlockModules.swift").read_text()
    assert "import SampleDiskFormat\n" in modules and "        SampleDiskFormatModule.module,\n" in modules
    assert "__" not in "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("arguments, text", [
    (("format", "lower"), "no name of a type"), (("filesystem", "Sample"), "there is no kind 'filesystem'"),
    (("format",), "usage:")])
def test_what_it_cannot_make_is_refused(tree, arguments, text):
    result = new_module(tree, *arguments)
    assert result.returncode != 0 and text in result.stderr


def test_a_module_is_not_overwritten(tree):
    assert new_module(tree, "format", "Sample").returncode == 0
    result = new_module(tree, "format", "Sample")
    assert result.returncode != 0 and "is there already" in result.stderr
