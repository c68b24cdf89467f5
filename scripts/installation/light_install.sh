#!/usr/bin/env bash
# The main job in a light install without constraints, in a new environment, with each Python given;
# without any, with every one from 3.10 on that is on the PATH or in pyenv's folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
pythons=("$@")
if [ $# -eq 0 ]; then
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
fi
for python in "${pythons[@]}"; do
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    "$python" -m venv "$folder/venv"
    pip=("$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install --no-deps)
    "${pip[@]}" -r requirements-light.txt
    mkdir "$folder/sources"
    cp -r pipeline samples pyproject.toml README.md LICENSE "$folder/sources"
    "${pip[@]}" "$folder/sources"
    "$python" --version
    cp -r scripts samples "$folder"
    XDG_CACHE_HOME="$folder/cache" "$folder/venv/bin/python" "$folder/scripts/installation/light_job.py" "$folder"
    rm -rf "$folder"
done
