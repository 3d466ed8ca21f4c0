#!/usr/bin/env bash
# What must be installed before the tree can be built and tested. Sourced by the tools; doing it twice does nothing twice.

coldframe_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build_directory=$coldframe_root/.build
venv_directory=$build_directory/venv
. "$coldframe_root/tools/lib/newer-qemu.sh"

build_packages=(git libfuse3-dev zlib1g-dev libzstd-dev libtomlplusplus-dev pkg-config binutils g++)
demo_packages=(qemu-system-x86 qemu-utils fuse3)
test_packages=("${demo_packages[@]}" libnbd-bin linux-image-cloud-amd64 busybox-static e2fsprogs python3-venv fio cpio kmod xfsprogs
    dosfstools mtools fdisk
    systemd systemd-container)

# One line that says what is wrong, and the end.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Prints those of the given Debian packages that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || printf '%s\n' "$package"
    done
}

# Installs what is missing if it may, otherwise names it and stops.
require_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "these packages are missing; install them first: apt-get install ${missing[*]}"
    printf 'Installing %s\n' "${missing[*]}"
    local log=$build_directory/log/apt.log
    mkdir -p "$(dirname "$log")"
    if ! { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        die "apt-get could not install ${missing[*]}; its output is in $log"
    fi
}

require_swift() {
    command -v swift >/dev/null || die "swift is not in PATH; install Swift 6.1 or later from https://www.swift.org/install"
}

venv_is_complete() {
    "$venv_directory/bin/python" -c 'import pytest, qemu.qmp' 2>/dev/null
}

# The Python environment of the integration tests.
require_venv() {
    venv_is_complete && return 0
    printf 'Making the Python environment in %s\n' "${venv_directory#"$coldframe_root"/}"
    local log=$build_directory/log/pip.log
    mkdir -p "$(dirname "$log")"
    if ! { /usr/bin/python3 -m venv "$venv_directory" && "$venv_directory/bin/pip" install pytest qemu.qmp; } \
        >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        die "the Python environment could not be made; the output is in $log"
    fi
}

# Runs the given set-up function; two tools that start at once take turns.
with_setup_lock() {
    mkdir -p "$build_directory"
    exec {setup_lock}>"$build_directory/setup.lock"
    flock "$setup_lock"
    "$@"
    exec {setup_lock}>&-
}

setup_for_build() { with_setup_lock setup_for_build_locked; }
setup_for_demo() { with_setup_lock setup_for_demo_locked; }
setup_for_test() { with_setup_lock setup_for_test_locked; }

setup_for_build_locked() {
    require_swift
    require_packages "${build_packages[@]}"
}

setup_for_demo_locked() {
    require_swift
    require_packages "${build_packages[@]}" "${demo_packages[@]}"
}

setup_for_test_locked() {
    require_swift
    require_packages "${build_packages[@]}" "${test_packages[@]}"
    require_venv
    require_newer_qemu
}
