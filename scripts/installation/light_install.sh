#!/usr/bin/env bash
# The main job in a light install without constraints, in a new environment, with each Python given;
# without any, with every one from 3.10 on that is on the PATH or in pyenv's folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -eq 0 ]; then
    pythons=()
    for minor in $(seq 10 30); do
        for python in "$(command -v "python3.$minor" || true)" \
            "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python3; do
            # A shim of pyenv is there for versions that are not.
            if [ -x "$python" ] && "$python" -c 'import venv' 2>/dev/null; then
                pythons+=("$python")
                break
            fi
        done
    done
    # Without any, there is nothing to check.
    [ ${#pythons[@]} -gt 0 ] || exit 0
    set -- "${pythons[@]}"
fi
if [ $# -gt 1 ]; then
    # An install waits for the network and the disk, a job for the processor.
    printf '%s\0' "$@" | xargs -0 -n 1 -P "$(getconf _NPROCESSORS_ONLN)" "$PWD/scripts/installation/light_install.sh"
    exit
fi
folder=$(mktemp -d)
exec 3>&1
trap 'cat "$folder/log" >&3; rm -rf "$folder"' EXIT
{
    "$1" --version
    "$1" -m venv "$folder/venv"
    # Only what is imported is compiled.
    pip=("$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install --no-deps --no-compile)
    "${pip[@]}" -r requirements-light.txt
    mkdir "$folder/sources"
    cp -r pipeline samples pyproject.toml README.md LICENSE "$folder/sources"
    "${pip[@]}" "$folder/sources"
    cp -r scripts samples "$folder"
    XDG_CACHE_HOME="$folder/cache" "$folder/venv/bin/python" "$folder/scripts/installation/light_job.py" "$folder"
} >"$folder/log" 2>&1
