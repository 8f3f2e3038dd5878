#!/usr/bin/env bash
# Makes the Python environment of the peers that are had from PyPI, of the versions in
# requirements.txt, in a folder of its own, and prints its interpreter.
set -euo pipefail
cd "$(dirname "$0")"
venv=$(cd ../.. && pwd)/.cache/peers-venv
python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check -r requirements.txt >&2
echo "$venv/bin/python"
