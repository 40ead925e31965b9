"""A checkpoint of lerobot-train as a folder of wam, for `wam eval`, `wam serve` and `wam.engine.load_policy`.

python -m lerobot_policy_wam.export outputs/train/.../checkpoints/last/pretrained_model OUT
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lerobot_policy_wam.modeling_wam import WamPolicy


def export(checkpoint: Path | str, out: Path) -> None:
    """Raises FileExistsError when OUT is not empty."""
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"{out}: is not empty; choose another folder")
    WamPolicy.from_pretrained(checkpoint).world.save(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    export(arguments.checkpoint, arguments.out)
