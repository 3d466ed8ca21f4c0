#!/usr/bin/env bash
# A QEMU of 9.0 or later beside Debian 12's 7.2, for what 7.2 cannot do under TCG (precopy). Sourced by setup.sh.
#
# It comes from the release's backports, is unpacked below the build folder and installed nowhere.

newer_qemu_directory=$build_directory/qemu-newer
newer_qemu=$newer_qemu_directory/qemu-system-x86_64
newer_qemu_packages=(qemu-system-x86 qemu-system-common qemu-system-data seabios)

# Whether the given QEMU runs and is of 9.0 or later.
is_newer_qemu() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\)\..*/\1/p')
    [ "${version:-0}" -ge 9 ]
}

# Makes $newer_qemu; a host whose own QEMU is new enough gives that one.
require_newer_qemu() {
    is_newer_qemu "$newer_qemu" && return 0
    local unpacked=$newer_qemu_directory/root program data
    mkdir -p "$newer_qemu_directory"
    if is_newer_qemu qemu-system-x86_64; then
        printf '#!/bin/sh\nexec qemu-system-x86_64 "$@"\n' >"$newer_qemu.new"
    else
        printf 'Fetching a newer QEMU\n'
        local log=$build_directory/log/newer-qemu.log
        mkdir -p "$(dirname "$log")"
        if ! fetch_newer_qemu "$unpacked" >"$log" 2>&1; then
            tail -n 5 "$log" >&2
            die "a newer QEMU could not be had from the backports; the output is in $log"
        fi
        program=$unpacked/usr/bin/qemu-system-x86_64
        data=("$unpacked/usr/share/qemu" "$unpacked/usr/share/seabios")
        printf '#!/bin/sh\nexec "%s" -L "%s" -L "%s" "$@"\n' "$program" "${data[@]}" >"$newer_qemu.new"
    fi
    chmod +x "$newer_qemu.new"
    is_newer_qemu "$newer_qemu.new" || die "the newer QEMU does not run: $("$newer_qemu.new" --version 2>&1 | tail -n 1)"
    mv "$newer_qemu.new" "$newer_qemu"
}

# Downloads and unpacks the packages into a folder. apt works in folders of its own: the host's lists stay as they are.
fetch_newer_qemu() (
    set -e
    site=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
        awk -v release="$(. /etc/os-release && echo "$VERSION_CODENAME")" '$2 == release { print $1; exit }')
    [ -n "$site" ] || { echo "apt knows no source of this Debian release"; exit 1; }
    work=$newer_qemu_directory/apt
    rm -rf "$work" "$1"
    mkdir -p "$work"/{lists/partial,cache/archives/partial,packages} "$1"
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")-backports
    printf 'deb %s %s main\n' "$site" "$release" >"$work/sources.list"
    options=(-q -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=)
    apt-get "${options[@]}" update
    cd "$work/packages"
    apt-get "${options[@]}" -t "$release" download "${newer_qemu_packages[@]}"
    for package in *.deb; do dpkg -x "$package" "$1"; done
    rm -rf "$work"
)
