"""The picture of a run: loss per modality over minutes, training and validation."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt


def plot_losses(log: Path, image: Path) -> None:
    """Draw a run's log.jsonl as a PNG."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line for line in lines if "action" in line]
    checks = [line for line in lines if "validation" in line]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    for axis, name in zip(axes, ("action", "video"), strict=True):
        axis.plot([s["seconds"] / 60 for s in steps], [s[name] for s in steps], lw=0.8, label="training")
        axis.plot(
            [c["seconds"] / 60 for c in checks], [c["validation"][name] for c in checks], "o-", ms=3, label="validation"
        )
        axis.set(xlabel="minutes", ylabel=f"{name} loss", yscale="log" if any(s[name] > 0 for s in steps) else "linear")
        axis.legend(frameon=False)
    figure.savefig(image, dpi=110)
    plt.close(figure)
