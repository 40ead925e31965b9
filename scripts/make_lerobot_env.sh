#!/usr/bin/env bash
# A virtual environment with the real lerobot 0.4.4, to check our data sets against. It cannot share ours: lerobot pins
# older versions of almost everything, and takes a CUDA torch unless it is told not to look.
#
#   bash scripts/make_lerobot_env.sh [FOLDER] [TORCH]      e.g.  .venv-lerobot  "torch==2.13.0"
set -euo pipefail

folder=${1:-.venv-lerobot}
torch=${2:-torch==2.13.0}
python=python3.11
pip="$folder/bin/pip --quiet --disable-pip-version-check"

[ -f "$folder/.ready" ] && exit 0
command -v ffmpeg >/dev/null || { echo "torchcodec needs FFmpeg. Please run: sudo apt-get install ffmpeg" >&2; exit 1; }

"$python" -m venv "$folder"
$pip install $torch
# torchcodec 0.13.0 loads with torch 2.13; later ones do not. Their own pins are older, hence --no-deps, and hence the
# conflicts that pip reports at the end.
$pip install --no-deps lerobot==0.4.4 torchvision==0.28.0 torchcodec==0.13.0
$pip install "av<16" "datasets<5" "diffusers<0.36" "draccus==0.10.0" "huggingface-hub<0.36" \
  accelerate deepdiff einops gymnasium "imageio[ffmpeg]" jsonlines opencv-python-headless pyserial termcolor
touch "$folder/.ready"
