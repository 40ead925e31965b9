"""A result folder: `config.json` says what was asked, `episodes.jsonl` has one line per finished episode.

The folder is the resumable state of an evaluation and the input of every table, so nothing is kept elsewhere.
`summary.json`, written at the end, repeats what was asked: published folders may do without `config.json`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wam.data.files import read_json, write_atomic, write_json
from wam.evaluate.rollout import EpisodeResult

logger = logging.getLogger(__name__)

CONFIG, EPISODES, SUMMARY = "config.json", "episodes.jsonl", "summary.json"


class ResultFolderError(ValueError):
    """A result folder that is missing, damaged, or belongs to another evaluation."""


@dataclass(frozen=True)
class EpisodeRecord:
    """One line of `episodes.jsonl`.

    steps: control steps; act_ms: milliseconds of every call of the policy; stage_ms: mean per chunk and stage, the
    policy's without the first chunk (see `EpisodeResult`).
    commit: the version of the code that ran this episode. video: path inside the folder, or None.
    clock: how the robot's clock was kept, see `EpisodeResult`; empty when the world waited for the policy.
    """

    task: str
    seed: int
    instruction: str
    success: bool
    steps: int
    act_ms: tuple[float, ...]
    stage_ms: Mapping[str, float]
    commit: str
    video: str | None = None
    clock: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        return self.task, self.seed

    @classmethod
    def of(cls, result: EpisodeResult, commit: str, video: str | None = None) -> EpisodeRecord:
        return cls(
            task=result.task,
            seed=result.seed,
            instruction=result.instruction,
            success=result.success,
            steps=result.steps,
            act_ms=tuple(round(1e3 * seconds, 3) for seconds in result.act_seconds),
            stage_ms={name: round(1e3 * seconds, 3) for name, seconds in result.seconds.items()},
            commit=commit,
            video=video,
            clock=result.clock,
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str) -> EpisodeRecord:
        """Raises ResultFolderError, naming the line and the field, when they are not those of a record."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        wrong = known.symmetric_difference({"clock", *fields})  # lines from before there was a clock have none
        if wrong:
            raise ResultFolderError(
                f"{source}: fields {sorted(wrong)} are missing or unknown; this line was written by another version"
            )
        return cls(**{**fields, "act_ms": tuple(fields["act_ms"])})


class ResultFolder:
    """The folder of one evaluation; `open` before appending, `read` to look at a finished one."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @classmethod
    def open(cls, root: Path, config: Mapping[str, Any]) -> ResultFolder:
        """Start a new evaluation or go on with the same one; where nothing is finished yet, any may start.

        Raises ResultFolderError, naming the fields, when episodes of another configuration are in the folder.
        """
        folder = cls(root)
        wanted = json.loads(json.dumps(config))  # tuples become lists, as they do on disk
        if (folder.root / EPISODES).exists() and not (folder.root / CONFIG).exists():
            raise ResultFolderError(f"{folder.root}: has {EPISODES} but no {CONFIG}; choose an empty folder")
        folder._drop_torn_line()
        if folder.episodes():
            _demand_same(folder.config(), wanted, folder.root)
        else:
            write_json(folder.root / CONFIG, wanted)
        return folder

    def config(self) -> dict[str, Any]:
        """What was asked. Raises ResultFolderError when neither `config.json` nor `summary.json` says it."""
        if (self.root / CONFIG).exists():
            return read_json(self.root / CONFIG, ResultFolderError)
        summary = self.root / SUMMARY
        asked = read_json(summary, ResultFolderError).get("config") if summary.exists() else None
        if not isinstance(asked, dict):
            raise ResultFolderError(
                f"{self.root}: no {CONFIG}, and no {SUMMARY} with field 'config'; give a folder written by `wam eval`"
            )
        return asked

    def episodes(self) -> list[EpisodeRecord]:
        """All finished episodes, in the order of completion; of several lines for one episode the first counts."""
        path = self.root / EPISODES
        if not path.exists():
            return []
        records: dict[tuple[str, int], EpisodeRecord] = {}
        for number, line in enumerate(_whole_lines(path), start=1):
            try:
                fields = json.loads(line)
            except json.JSONDecodeError as error:
                raise ResultFolderError(f"{path}, line {number}: not JSON ({error}); remove the line") from error
            record = EpisodeRecord.from_dict(fields, f"{path}, line {number}")
            records.setdefault(record.key, record)
        return list(records.values())

    def append(self, record: EpisodeRecord) -> None:
        """Add one line in a single write and flush it to disk: a crash leaves whole lines, and at most one torn end."""
        line = json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n"
        descriptor = os.open(self.root / EPISODES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode("utf-8"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _drop_torn_line(self) -> None:
        path = self.root / EPISODES
        if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            logger.warning("%s: the last line was cut off; that episode runs again", path)
            whole = "".join(line + "\n" for line in _whole_lines(path))
            write_atomic(path, lambda temporary: temporary.write_text(whole, encoding="utf-8"))


def _whole_lines(path: Path) -> list[str]:
    """The lines that end with a newline; what follows the last newline was cut off."""
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], within: str = "") -> dict[str, tuple[Any, Any]]:
    """Entries that are not alike in two configurations, those of mappings in them by dotted names: (found, wanted)."""
    changed: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*found, *wanted}):
        before, now = found.get(name), wanted.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            changed |= differences(before, now, f"{within}{name}.")
        elif before != now:
            changed[f"{within}{name}"] = before, now
    return changed


def _demand_same(found: Mapping[str, Any], wanted: Mapping[str, Any], root: Path) -> None:
    """Where weights lie does not matter: their fingerprint stands beside it."""
    changed = differences(found, wanted)
    if "fingerprint" in {*found, *wanted}:
        changed.pop("checkpoint", None)
    if changed:
        said = "; ".join(f"field {name!r} is {old!r}, but this run has {new!r}" for name, (old, new) in changed.items())
        raise ResultFolderError(
            f"{root / CONFIG}: {said}; choose another --out, or repeat the command that started this folder"
        )
