#!/bin/sh
# Renew the pins: constraints.txt (what runs and builds) and constraints-dev.txt (that, and the tools). Needs uv.
set -eu
cd "$(dirname "$0")/.."
pin() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate "$@"; }
pin pyproject.toml constraints.in -o constraints.txt
pin --group dev -c constraints.txt pyproject.toml constraints.in -o constraints-dev.txt
