#!/usr/bin/env bash
# Makes the environment of `make demo`, `make test` and `make bench`: environment.sh FOLDER UNFINISHED EXTRAS
# UNFINISHED is a file in it that is there while this runs. An environment that has it is made again from nothing, because
# pip takes a package that an interrupted installation has half unpacked for an installed one.
set -euo pipefail
folder=$1
unfinished=$2
extras=$3

say() { printf 'medmapai: %s\n' "$*" >&2; }

# A Python that can make an environment; the version that Slicer has comes first.
find_python() {
    local name
    for name in python3.12 python3.11 python3.13 python3.10 python3 python; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
    done
    say "no Python 3.10 to 3.13 with its venv module was found; install one (Debian, Ubuntu: apt-get install python3-venv)."
    return 1
}

# The shared libraries that Qt and VTK want from the system and that a bare Debian or Ubuntu lacks.
install_system_libraries() {
    [ "$(uname -s)" = Linux ] || return 0
    local pair missing=()
    for pair in libEGL.so.1:libegl1 libGL.so.1:libgl1 libX11.so.6:libx11-6 libxkbcommon.so.0:libxkbcommon0 \
        libdbus-1.so.3:libdbus-1-3 libfontconfig.so.1:libfontconfig1 libfreetype.so.6:libfreetype6 \
        libglib-2.0.so.0:libglib2.0-0 libzstd.so.1:libzstd1; do
        "$folder/bin/python" -c "import ctypes; ctypes.CDLL('${pair%:*}')" 2>/dev/null || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing the system libraries ${missing[*]}"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" &&
            return 0
    fi
    say "Qt and VTK need system libraries that are not here; install them (Debian, Ubuntu: sudo apt-get install ${missing[*]})."
}

if [ -e "$unfinished" ] || ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    say "making $folder with $("$python" --version)"
    "$python" -m venv --clear "$folder"
fi
touch "$unfinished"

# What is in constraints.txt needs Python 3.11; on 3.10 pip chooses.
known=(-c constraints.txt)
"$folder/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || known=()
say "installing packages: up to 8 GB on disk, 2 to 10 minutes the first time"
"$folder/bin/python" -m pip install --disable-pip-version-check ${known[@]+"${known[@]}"} -e ".[$extras]"
install_system_libraries
rm -f "$unfinished"
