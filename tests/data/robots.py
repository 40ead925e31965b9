"""Small data sets of four robots in the formats in which they come, and a file for each.

metaworld    v3.0, two pictures of one size, 40 rows per second
libero       v2.1 as openpi's conversion has it: pictures inside the tables, `state`, `actions`, `image`, 10 per second
two-arms     v3.0, 14 actions, larger pictures, 20 rows per second
people       v3.0, one picture, neither states nor actions
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.data.write_v2 import write_v2
from wam.cli.robot import New, new
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import ACTION, STATE, Camera, DatasetSpec, EpisodeData, Feature, image_key
from wam.robot.draft import Choices
from wam.robot.embodiment import load_embodiment

EPISODES, CELL = 6, 32


@dataclass(frozen=True)
class Kind:
    """A robot's data: rows per second, cameras and their pixels, dimensions."""

    fps: int
    cameras: Mapping[str, int]
    state: tuple[str, ...]
    action: tuple[str, ...]


def shipped(name: str, fps: int, size: int) -> Kind:
    robot = load_embodiment(name)
    return Kind(fps, dict.fromkeys(robot.cameras, size), robot.state_names, robot.action_names)


KINDS = {
    "metaworld": shipped("metaworld-sawyer", 40, CELL),
    "libero": shipped("libero-panda", 10, CELL),
    "two-arms": shipped("robosuite-two-arms", 20, 2 * CELL),
    "people": Kind(30, {"left": CELL, "right": CELL}, (), ()),
}
PUBLIC_LIBERO = {
    image_key("image"): "image",
    image_key("wrist_image"): "wrist_image",
    STATE: "state",
    ACTION: "actions",
}


def write_robots(root: Path) -> dict[str, tuple[Path, Path]]:
    """Name -> (data set, embodiment file drafted from it)."""
    found = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        data = _write(root / name, kind, number)
        if name == "libero":
            data = rename(write_v2(root / "libero-v2.1", LeRobotDataset(data), images=True), PUBLIC_LIBERO)
        choices = Choices(name, view=(CELL, CELL), video_stride=2, frames_per_chunk=1, video_only=not kind.action)
        new(New(str(data), root / f"{name}.yaml", choices=choices))
        found[name] = (data, root / f"{name}.yaml")
    return found


def rename(root: Path, names: Mapping[str, str]) -> Path:
    """Give features of a v2.1 data set other names, everywhere."""
    for path in root.glob("data/**/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.rename_columns([names.get(column, column) for column in table.column_names]), path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"] = {names.get(key, key): value for key, value in info["features"].items()}
    (root / "meta/info.json").write_text(json.dumps(info))
    stats = root / "meta/episodes_stats.jsonl"
    lines = [json.loads(line) for line in stats.read_text().splitlines()]
    for line in lines:
        line["stats"] = {names.get(key, key): value for key, value in line["stats"].items()}
    stats.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def _write(root: Path, kind: Kind, number: int) -> Path:
    features = {
        column: Feature("float32", (len(names),), names)
        for column, names in ((STATE, kind.state), (ACTION, kind.action))
        if names
    }
    cameras = {name: Camera(size, size) for name, size in kind.cameras.items()}
    with LeRobotWriter(root, DatasetSpec(kind.fps, root.name, features, cameras)) as writer:
        for episode in range(EPISODES):
            writer.add_episode(_episode(kind, np.random.default_rng([number, episode])))
    return root


def _episode(kind: Kind, rng: np.random.Generator) -> EpisodeData:
    """Smooth motions in units of the robot's own, and a spot that moves with the first of them."""
    rows = 30
    path = np.cumsum(rng.normal(size=(rows, max(len(kind.state), 2))), axis=0) * 0.1 + 10.0 * kind.fps
    columns = {}
    if kind.state:
        columns[STATE] = path.astype(np.float32)
        moves = rng.normal(size=(rows, len(kind.action))) * kind.fps
        for dim, name in enumerate(kind.action):
            if "gripper" in name:
                moves[:, dim] = np.where(np.arange(rows) < rows // 2, -1.0, 1.0)
        columns[ACTION] = moves.astype(np.float32)
    images = {name: _pictures(path, size) for name, size in kind.cameras.items()}
    return EpisodeData(images, columns, f"do thing {rng.integers(2)} with {len(kind.action)} numbers")


def _pictures(path: np.ndarray, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    spot = np.exp(-(((x - path[:, 0, None, None] % 1) ** 2 + (y - path[:, 1, None, None] % 1) ** 2) * 40))
    return (np.stack([spot, 0.5 * spot + 0.3 * x, np.broadcast_to(y, spot.shape)], axis=-1) * 255).astype(np.uint8)
