#!/bin/sh
# Resolve pyproject.toml anew into requirements.lock, from PyPI alone whatever this machine's pip is set to: the
# lock holds hashes and no address, so that it means the same everywhere. Run by `make lock`.
set -eu
cd "$(dirname "$0")/.."
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python=$(command -v python3.11 || command -v python3)
"$python" -m venv "$room/venv"
"$room/venv/bin/python" -m pip install --quiet --disable-pip-version-check pip-tools
env -u PIP_FIND_LINKS -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
    "$room/venv/bin/pip-compile" --quiet --generate-hashes --all-extras --all-build-deps --allow-unsafe \
    --strip-extras --no-header --no-emit-options --no-emit-index-url --no-emit-find-links \
    --no-emit-trusted-host --upgrade --output-file "$room/requirements.lock" pyproject.toml
{
    echo "# Every package at one version, each file by its hash. Made by \`make lock\`; changed only by it."
    cat "$room/requirements.lock"
} > requirements.lock
