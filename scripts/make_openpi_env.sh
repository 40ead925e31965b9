#!/usr/bin/env bash
# A robot's computer: the oldest Python that wam-client supports, the real openpi-client (which pins numpy below 2), and
# wam-client beside it.
#
#   bash scripts/make_openpi_env.sh [FOLDER] [PYTHON]      e.g.  .venv-openpi  python3.9
set -euo pipefail

folder=${1:-.venv-openpi}
python=${2:-python3.9}
repository=$(cd "$(dirname "$0")/.." && pwd)
pip="$folder/bin/pip --quiet --disable-pip-version-check"

[ -f "$folder/.ready" ] && exit 0
"$python" --version >/dev/null 2>&1 || { echo "$python does not run. Please install it, or name another one" >&2; exit 1; }

"$python" -m venv "$folder"
$pip install --upgrade pip  # the one that comes with 3.9 cannot make editable installs from pyproject.toml
$pip install openpi-client==0.1.2 pytest
$pip install -e "$repository/packages/wam-client"
touch "$folder/.ready"
