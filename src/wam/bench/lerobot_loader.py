"""The lerobot loader, timed in an interpreter of its own: `loader.py` starts this file there and talks to it in JSON.

It imports nothing of wam, since that interpreter need not have it. The first line on stdin says what to load; every
further line is a wish: {"pass": true} to load all windows once, {"save": PATH} to write the first ones to a file, or
{"end": true}.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset


def lerobot_dataset() -> Any:
    """lerobot's class; a torchvision that was built for another torch wants two operators declared first."""
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except RuntimeError:
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    return LeRobotDataset


def serve(wishes: TextIO, answers: TextIO) -> None:
    """Open the data set, then answer one line for each."""
    asked = json.loads(wishes.readline())
    torch.set_num_threads(1)
    dataset = lerobot_dataset()(
        "local/dataset",
        root=Path(asked["root"]),
        delta_timestamps={name: [row / asked["fps"] for row in rows] for name, rows in asked["window"].items()},
    )
    windows: Subset[Any] = Subset(dataset, asked["rows"])
    workers = asked["workers"]
    loader: DataLoader[Any] = DataLoader(
        windows, batch_size=asked["batch"], num_workers=workers, persistent_workers=workers > 0
    )

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    answer({"backend": dataset.video_backend, "version": _version()})
    for line in wishes:
        wish = json.loads(line)
        if "end" in wish:
            break
        if "save" in wish:
            # from the loader, as videos that lerobot has open in this process do not survive a fork
            batches = list(islice(loader, asked["compared"]))
            arrays: dict[str, Any] = {
                name: torch.cat([batch[name] for batch in batches]).numpy() for name in asked["window"]
            }
            np.savez(wish["save"], **arrays)
            answer({})
            continue
        began, spent = time.perf_counter(), time.process_time()
        for _ in loader:
            pass
        answer({"seconds": time.perf_counter() - began, "cpu": time.process_time() - spent})


def _version() -> str:
    import lerobot

    return str(lerobot.__version__)


if __name__ == "__main__":
    protocol, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not mix with the answers
    serve(sys.stdin, protocol)
