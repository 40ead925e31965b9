"""Every way we know to spoil a data set, with what the linter must say about it.

A corruption is a function that damages a copy of the clean set on disk (or, for data that do not fit the robot, another
embodiment), with the name that the linter must give it and the episodes that it must point to.
`python -m tests.data.corruptions FOLDER` writes one damaged data set per corruption.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.clean_set import (
    CAMERAS,
    EPISODES,
    FPS,
    FRONT,
    NAMES,
    ROBOT,
    WRIST,
    clean_episode,
    length_of,
    motion,
    scene,
    write_clean,
)
from tests.data.damage import (
    cut,
    data_file,
    edit_column,
    edit_episode_row,
    edit_info,
    edit_list,
    edit_rows,
    edit_video,
    episodes_file,
    first_frame,
    video_file,
    with_gaps,
)
from wam.data.schema import ACTION, STATE, EpisodeData
from wam.data.tables import column_values
from wam.robot.embodiment import Embodiment, Part


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a data set.

    Args:
        name: what was done.
        check: what the linter must call it.
        damage: does it to the folder.
        episodes: those that the finding must name, exactly; empty for a fault of the whole data set.
        field: part of the finding's field or file.
        also: other checks that rightly speak up too.
        robot: the embodiment that the data are checked against.
    """

    name: str
    check: str
    damage: Callable[[Path], object]
    episodes: tuple[int, ...] = ()
    field: str = ""
    also: Set[str] = frozenset()
    robot: Embodiment = ROBOT


def corruptions() -> Iterator[Corruption]:
    """All of them."""
    yield from metadata_corruptions()
    yield from row_corruptions()
    yield from value_corruptions()
    yield from robot_corruptions()
    yield from video_corruptions()


def metadata_corruptions() -> Iterator[Corruption]:
    def info(**changes: Any) -> Callable[[Path], None]:
        return lambda root: edit_info(root, lambda content: content.update(changes))

    def tasks(root: Path) -> None:
        edit_list(root / "meta/tasks.parquet", lambda rows: rows[1].update(task="TODO"))
        for episode in (1, 4, 7):
            edit_episode_row(root, episode, tasks=["TODO"])

    def stats(root: Path) -> None:
        content = json.loads((root / "meta/stats.json").read_text())
        content[ACTION]["std"][2] *= 3
        (root / "meta/stats.json").write_text(json.dumps(content))

    def without_content(root: Path) -> None:
        edit_info(root, lambda content: content["features"].update(note=None))

    total = sum(map(length_of, range(EPISODES)))
    yield Corruption("feature without content", "broken-field", without_content, field="features.note")
    yield Corruption(
        "placeholder that nobody fills",
        "broken-field",
        info(data_path="data/file-{number}.parquet"),
        field="data_path",
        also={"missing-file"},
    )
    yield Corruption(
        "episode without a length",
        "broken-table",
        lambda root: edit_episode_row(root, 9, length=None),
        (),
        episodes_file(9),
        {"totals", "row-count", "long-video", "stats"},
    )
    yield Corruption("one row too many in info.json", "totals", info(total_frames=total + 1), field="total_frames")
    yield Corruption("episodes that do not exist", "totals", info(total_episodes=12), field="total_episodes")
    yield Corruption(
        "table of episodes lost",
        "totals",
        lambda root: (root / episodes_file(8)).unlink(),
        field="total_episodes",
    )
    yield Corruption(
        "table of tasks lost",
        "missing-file",
        lambda root: (root / "meta/tasks.parquet").unlink(),
        (),
        "tasks",
        {"totals"},
    )
    yield Corruption("no statistics", "stats", lambda root: (root / "meta/stats.json").unlink(), (), "stats.json")
    yield Corruption("wrong statistics", "stats", stats, (), "action.joint_3")
    yield Corruption(
        "wrong statistics of an episode",
        "stats",
        lambda root: edit_episode_row(root, 5, **{f"stats/{STATE}/mean": [9.0, 0.0, 0.0, 0.0]}),
        (5,),
        STATE,
    )
    yield Corruption(
        "wrong length",
        "offsets",
        lambda root: edit_episode_row(root, 5, length=60),
        (5,),
        "",
        {"totals", "row-count", "video-place", "short-video"},
    )
    yield Corruption(
        "wrong offset",
        "offsets",
        lambda root: edit_episode_row(root, 6, dataset_from_index=3),
        (6,),
        "",
        {"row-numbers"},
    )
    yield Corruption(
        "place in the video overlaps",
        "video-place",
        lambda root: edit_episode_row(root, 6, **{f"videos/{FRONT}/from_timestamp": first_frame(5) / FPS}),
        (6,),
        FRONT,
        {"cut", "shifted-video"},
    )
    yield Corruption(
        "no place in the video",
        "video-place",
        lambda root: edit_episode_row(root, 2, **{f"videos/{WRIST}/from_timestamp": None}),
        (2,),
        WRIST,
    )
    yield Corruption(
        "empty instruction", "language", lambda root: edit_episode_row(root, 3, tasks=[" "]), (3,), "", {"task-index"}
    )
    yield Corruption("no instruction", "language", lambda root: edit_episode_row(root, 3, tasks=[]), (3,))
    yield Corruption("placeholder instruction", "language", tasks, (1, 4, 7), "tasks")
    yield Corruption(
        "instruction without a task",
        "language",
        lambda root: edit_episode_row(root, 8, tasks=["Dance."]),
        (8,),
        "",
        {"task-index"},
    )


def row_corruptions() -> Iterator[Corruption]:
    def each(change: Callable[[int, dict[str, Any]], object], *episodes: int) -> Callable[[Path], None]:
        def damage(root: Path) -> None:
            for episode in episodes:
                edit_rows(root, episode, lambda rows: [change(i, row) for i, row in enumerate(rows)], stats=False)

        return damage

    def column(change: Callable[[pa.Table], pa.Table], episode: int) -> Callable[[Path], None]:
        def damage(root: Path) -> None:
            path = root / data_file(episode)
            pq.write_table(change(pq.read_table(path)), path)

        return damage

    def five_wide(table: pa.Table) -> pa.Table:
        values = np.pad(column_values(table[ACTION]), ((0, 0), (0, 1)))
        wide = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 5)
        return table.set_column(table.column_names.index(ACTION), ACTION, wide)

    def swap(rows: list[dict[str, Any]]) -> None:
        for name in (STATE, ACTION, "frame_index", "index", "timestamp"):
            rows[9][name], rows[10][name] = rows[10][name], rows[9][name]

    def at(row: int, **changes: Any) -> Callable[[int, dict[str, Any]], None]:
        return lambda i, values: values.update(changes) if i == row else None

    group = (4, 5, 6, 7)
    yield Corruption("data file lost", "missing-file", lambda root: (root / data_file(5)).unlink(), group, data_file(5))
    yield Corruption("data file cut off", "broken-table", lambda root: cut(root / data_file(5)), (), data_file(5))
    yield Corruption("column lost", "missing-column", column(lambda t: t.drop_columns([ACTION]), 5), group, ACTION)
    yield Corruption("one dimension too many", "column-shape", column(five_wide, 5), group, ACTION)
    yield Corruption("last row lost", "row-count", column(lambda t: t.slice(0, t.num_rows - 1), 7), (7,))
    yield Corruption(
        "rows of a stranger", "row-count", each(lambda i, row: row.update(episode_index=99), 6), (6,), "", {"duplicate"}
    )
    yield Corruption("rows exchanged", "row-numbers", lambda root: edit_rows(root, 4, swap), (4,), "", {"time-stamps"})
    yield Corruption(
        "frame numbers restart", "row-numbers", each(lambda i, row: row.update(frame_index=i % 20), 2), (2,)
    )
    yield Corruption("time goes back", "time-stamps", each(at(20, timestamp=0.1), 3), (3,))
    yield Corruption(
        "time jumps",
        "time-stamps",
        each(lambda i, row: row.update(timestamp=i / FPS + (2.0 if i > 15 else 0.0)), 3),
        (3,),
    )
    yield Corruption("other rate", "time-stamps", each(lambda i, row: row.update(timestamp=i / 10), 0, 9), (0, 9))
    yield Corruption(
        "time does not restart", "time-stamps", each(lambda i, row: row.update(timestamp=7 + i / FPS), 1), (1,)
    )
    yield Corruption("task that does not exist", "task-index", each(at(5, task_index=17), 4), (4,))
    yield Corruption("task of another episode", "task-index", each(lambda i, row: row.update(task_index=2), 4), (4,))
    yield Corruption(
        "success is lost again", "success", each(lambda i, row: row.update({"next.success": i == 20}), 4), (4,)
    )
    yield Corruption(
        "success from the start", "success", each(lambda i, row: row.update({"next.success": True}), 4), (4,)
    )
    yield Corruption(
        "no success at all", "success", each(lambda i, row: row.update({"next.success": False}), *range(EPISODES))
    )
    yield Corruption(
        "success contradicts the table", "success", lambda root: edit_episode_row(root, 4, success=0), (4,)
    )


def value_corruptions() -> Iterator[Corruption]:
    def spike(value: float, row: int = 11, dim: int = 1) -> Callable[[np.ndarray], np.ndarray]:
        def change(values: np.ndarray) -> np.ndarray:
            values[row, dim] = value
            return values

        return change

    def times(factor: float, *dims: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda values: values * [factor if dim in dims else 1.0 for dim in range(4)]

    def upside_down(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[:, :3], 1 - values[:, 3:]], axis=1)

    def clipped(values: np.ndarray) -> np.ndarray:
        return np.minimum(values, [0.1, 0.1, 0.1, 1.0])

    def fixed(value: float, dim: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda values: np.where(np.arange(4) == dim, value, values)

    def edit(column: str, change: Callable[[np.ndarray], np.ndarray], *episodes: int) -> Callable[[Path], None]:
        return lambda root: edit_column(root, column, change, *episodes)

    def copy_state(behind: int) -> Callable[[Path], None]:
        def change(rows: list[dict[str, Any]]) -> None:
            states = [row[STATE] for row in rows]
            for i, row in enumerate(rows):
                row[ACTION] = states[max(0, i - behind)]

        return lambda root: [edit_rows(root, episode, change) for episode in (2, 3)]

    def teleport(values: np.ndarray) -> np.ndarray:
        return values + np.where(np.arange(len(values)) > 20, 2.2, 0.0)[:, None] * [0, 0, 1, 0]

    def both(*edits: Callable[[Path], None]) -> Callable[[Path], None]:
        return lambda root: [edit(root) for edit in edits]

    def twice(root: Path) -> None:
        shutil.rmtree(root)
        write_clean(root, lambda episode, data: clean_episode(2) if episode == 7 else data)

    def short(root: Path) -> None:
        def change(episode: int, data: EpisodeData) -> EpisodeData:
            columns = {name: values[-6:] for name, values in data.columns.items()}
            images = {name: frames[-6:] for name, frames in data.images.items()}
            return replace(data, columns=columns, images=images) if episode == 3 else data

        shutil.rmtree(root)
        write_clean(root, change)

    yield Corruption("NaN", "not-finite", edit(ACTION, spike(np.nan), 6), (6,), "action.joint_2")
    yield Corruption("infinity", "not-finite", edit(STATE, spike(-np.inf), 1), (1,), "observation.state.joint_2")
    yield Corruption("dead dimension", "constant", edit(STATE, fixed(0.25, 2)), (), "observation.state.joint_3")
    yield Corruption("stuck encoder", "constant", edit(STATE, fixed(0.25, 2), 8), (8,), "observation.state.joint_3")
    yield Corruption("clipped", "saturated", edit(STATE, clipped), (), STATE)
    yield Corruption("glitch", "outlier", edit(STATE, spike(25.0), 5), (5,), "joint_2", {"jump", "units"})
    yield Corruption(
        "glitch of the action", "outlier", edit(ACTION, spike(-25.0), 5), (5,), "action.joint_2", {"units"}
    )
    yield Corruption("teleport", "jump", edit(STATE, teleport, 7), (7,), "joint_3")
    yield Corruption("angle wraps round", "jump", edit(STATE, wrapped, 4), (4,), "joint_1")
    yield Corruption("action is the state", "action-is-state", copy_state(0), (2, 3), ACTION)
    yield Corruption("action is an old state", "action-is-state", copy_state(1), (2, 3), ACTION)
    yield Corruption("actions held", "action-held", edit(ACTION, lambda v: v[np.arange(len(v)) // 4 * 4]), (), ACTION)
    yield Corruption(
        "gripper never moves", "gripper-still", edit(ACTION, fixed(1.0, 3)), (), "action.gripper", {"gripper-sign"}
    )
    yield Corruption(
        "gripper in percent",
        "gripper-range",
        both(edit(STATE, times(100, 3)), edit(ACTION, times(100, 3))),
        (),
        "gripper",
    )
    yield Corruption("gripper upside down", "gripper-sign", edit(ACTION, upside_down, 6), (6,), "gripper")
    yield Corruption(
        "both grippers upside down",
        "gripper-sign",
        both(edit(ACTION, upside_down, 6), edit(STATE, upside_down, 6)),
        (6,),
        "gripper",
    )
    yield Corruption(
        "one episode in degrees", "units", edit(STATE, times(180 / np.pi, 0, 1, 2), 3), (3,), STATE, {"outlier", "jump"}
    )
    yield Corruption("actions in degrees", "units", edit(ACTION, times(180 / np.pi, 0, 1, 2)), (), "action.joint")
    yield Corruption(
        "one joint in degrees",
        "units",
        both(edit(STATE, times(180 / np.pi, 1)), edit(ACTION, times(180 / np.pi, 1))),
        (),
        STATE,
    )
    yield Corruption("the same episode twice", "duplicate", twice, (2, 7))
    yield Corruption("aborted episode", "short-episode", short, (3,), "", {"success", "gripper-sign"})


def wrapped(values: np.ndarray) -> np.ndarray:
    """The first joint passes the end of its range once, upwards."""
    turned = values.copy()
    turned[:, 0] += np.where(np.arange(len(values)) > 22, 2 * np.pi, 0.0)
    return turned


def robot_corruptions() -> Iterator[Corruption]:
    def nothing(root: Path) -> None:
        """The data are right, for another robot."""

    def rename_camera(root: Path) -> None:
        edit_info(root, lambda info: info["features"].update({f"{WRIST}_2": info["features"].pop(WRIST)}))
        (root / "videos" / WRIST).rename(root / "videos" / f"{WRIST}_2")
        for path in (root / "meta/episodes").rglob("*.parquet"):
            table = pq.read_table(path)
            new = [n.replace(WRIST, f"{WRIST}_2") for n in table.column_names]
            pq.write_table(table.rename_columns(new), path)

    slower = replace(ROBOT, control_hz=15.0)
    seven = Part("joints", tuple(f"joint_{i + 1}" for i in range(7)))
    wider = replace(ROBOT, state=(seven, ROBOT.state[1]), action=ROBOT.action[1:])
    narrow = replace(ROBOT, action=(Part("joints", NAMES[:3]),))
    moved = replace(ROBOT, state=(Part("gripper", NAMES[3:]), Part("joints", NAMES[:3])))
    square = replace(ROBOT, view_height=64, view_width=64, crop=1.0)
    yield Corruption("robot of another rate", "control-rate", nothing, (), "fps", robot=slower)
    yield Corruption("camera under another name", "embodiment-cameras", rename_camera, (), WRIST)
    yield Corruption("robot with more joints", "embodiment-dims", nothing, (), STATE, {"gripper-range"}, robot=wider)
    yield Corruption("robot with fewer actions", "embodiment-dims", nothing, (), ACTION, robot=narrow)
    yield Corruption("dimensions in another order", "embodiment-dims", nothing, (), STATE, robot=moved)
    yield Corruption("pictures of another shape", "view-shape", nothing, (), FRONT, robot=square)


def video_corruptions() -> Iterator[Corruption]:
    def film(change: Callable[[np.ndarray], np.ndarray], episode: int = 5, key: str = FRONT) -> Callable[[Path], None]:
        return lambda root: edit_video(root, episode, key, change)

    def late(frames: np.ndarray, rows: int) -> np.ndarray:
        return np.concatenate([np.repeat(frames[:1], rows, axis=0), frames[:-rows]])

    def all_late(root: Path) -> None:
        shutil.rmtree(root)
        write_clean(
            root, lambda _, d: replace(d, images={n: late(f, 3) if n == "front" else f for n, f in d.images.items()})
        )

    def frozen(frames: np.ndarray) -> np.ndarray:
        return frames[np.minimum(np.arange(len(frames)), 15)]

    def partly_black(frames: np.ndarray) -> np.ndarray:
        return (
            frames
            * ((np.arange(len(frames)) < 20) | (np.arange(len(frames)) > 26)).astype(np.uint8)[:, None, None, None]
        )

    def exchanged(root: Path) -> None:
        def change(episode: int, data: EpisodeData) -> EpisodeData:
            front, wrist = (data.images[name] for name in CAMERAS)
            return replace(data, images={"front": wrist, "wrist": front}) if episode == 6 else data

        shutil.rmtree(root)
        write_clean(root, change)

    def joined(frames: np.ndarray) -> np.ndarray:
        return np.concatenate([frames[:22], scene(motion(1)[: len(frames) - 22], 0)[::-1] // 2 + 90])

    def bits(root: Path) -> None:
        path = root / video_file(5, FRONT)
        content = bytearray(path.read_bytes())
        start = content.index(b"mdat") + 4
        size = content.index(b"moov") - start
        for place in range(start + size // 2, start + size // 2 + 200):
            content[place] ^= 0xFF
        path.write_bytes(bytes(content))

    def smaller(frames: np.ndarray) -> np.ndarray:
        return frames[:, ::2, ::2]

    group = (4, 5, 6, 7)
    video = video_file(5, FRONT)
    yield Corruption("video lost", "missing-file", lambda root: (root / video).unlink(), group, video)
    yield Corruption("video cut off", "broken-video", lambda root: cut(root / video), group, video)
    yield Corruption(
        "bits of the video flipped", "broken-video", bits, (5, 6, 7), video, {"cut", "frozen-video", "shifted-video"}
    )
    yield Corruption("last frames lost", "short-video", film(lambda frames: frames[:-5], 7), (7,), video)
    yield Corruption(
        "frames too many", "long-video", film(lambda frames: np.concatenate([frames, frames[-4:]]), 7), (7,), video
    )
    yield Corruption(
        "video of another size", "picture-size", lambda root: edit_video(root, 5, FRONT, smaller, whole=True), (), video
    )
    yield Corruption(
        "video of another rate",
        "video-rate",
        lambda root: edit_video(root, 5, FRONT, lambda f: f, fps=10, whole=True),
        (),
        video,
        {"video-times"},
    )
    yield Corruption(
        "frames dropped, the rest at its time", "video-times", with_gaps, (5,), video, {"short-video", "video-rate"}
    )
    yield Corruption("black", "black-video", film(lambda frames: frames * 0), (5,), FRONT)
    yield Corruption("white", "black-video", film(lambda frames: frames * 0 + 255), (5,), FRONT)
    yield Corruption("black for a moment", "black-video", film(partly_black), (5,), FRONT, {"cut"})
    yield Corruption("camera hung", "frozen-video", film(frozen), (5,), FRONT, {"cut"})
    yield Corruption("one film late", "shifted-video", film(partial(late, rows=4)), (5,), FRONT)
    yield Corruption("one film early", "shifted-video", film(lambda f: late(f[::-1], 4)[::-1], 3, WRIST), (3,), WRIST)
    yield Corruption("all films late", "shifted-video", all_late, (), FRONT)
    yield Corruption("two recordings joined", "cut", film(joined), (5,), FRONT, {"shifted-video"})
    yield Corruption("cameras exchanged", "swapped-cameras", exchanged, (6,), FRONT)
    yield Corruption("upside down", "turned", film(lambda frames: frames[:, ::-1]), (5,), FRONT)
    yield Corruption("mirrored", "turned", film(lambda frames: frames[:, :, ::-1], 2, WRIST), (2,), WRIST)
    yield Corruption("red and blue exchanged", "colours", film(lambda frames: frames[..., ::-1]), (5,), FRONT)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    clean = write_clean(folder / "clean")
    for corruption in corruptions():
        copy = folder / corruption.name.replace(" ", "-")
        shutil.copytree(clean, copy)
        corruption.damage(copy)
