"""What the experiments share: `wam` commands until a deadline, and results that later sessions can go on with.

An experiment's folder has `settings.json` (what all its runs have in common), `results/RUN/` (evaluations: small, worth
keeping) and `runs/RUN/` (trainings: large, needed until they are evaluated).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import wam
from wam.data.files import write_json
from wam.evaluate.results import EpisodeRecord, ResultFolder

AGAIN = 75  # exit code: out of time, the same command goes on
SETTINGS = "settings.json"
# The commands run the code that this process runs, and find what it finds.
SOURCES = os.pathsep.join([str(Path(wam.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
Item = TypeVar("Item")


class OutOfTime(RuntimeError):
    """The deadline is reached; what is unfinished goes on when the experiment is started again."""


class Commands:
    """Runs `wam` until a deadline.

    minutes: from now on; None: no deadline. A command that is running then is asked to stop, as by a user.
    """

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def wam(self, *words: object) -> None:
        """Raises OutOfTime, or CalledProcessError when the command failed."""
        if self._left() == 0:
            raise OutOfTime
        command = [sys.executable, "-m", "wam.cli.main", *map(str, words)]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": SOURCES}) as process:
            try:
                code = process.wait(self._left())
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                process.wait()
                raise OutOfTime from None
        if code != 0:
            raise subprocess.CalledProcessError(code, command)

    def _left(self) -> float | None:
        """Seconds; 0 when nothing more may begin."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())


def side_by_side(work: Callable[[Item], None], items: Iterable[Item], workers: int) -> bool:
    """Do all items on so many threads; False when time ran out before the end.

    An item that fails does not stop the others. At the end, raises what the first of them raised.
    """
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, item) for item in items]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, OutOfTime):
            raise error
    return not errors


def same_settings(folder: Path, settings: Mapping[str, Any], joined: Sequence[Path] = ()) -> None:
    """Write the settings of an experiment down, or check that it was begun with the same, as were those it joins.

    Raises ValueError naming the first that differs, or a joined folder without settings.
    """
    ours = json.loads(json.dumps(settings))
    for place in (folder, *joined):
        path = place / SETTINGS
        if not path.exists() and place == folder:
            write_json(path, ours)
            continue
        if not path.exists():
            raise ValueError(
                f"{path}: not found; join folders that hold the {SETTINGS} and results/ of this experiment"
            )
        theirs = json.loads(path.read_text())
        for name in dict.fromkeys((*ours, *theirs)):
            if theirs.get(name) != ours.get(name):
                raise ValueError(
                    f"{path}: {name} was {theirs.get(name)!r}, now it is {ours.get(name)!r}; give the same options, or "
                    "another folder"
                )


def finished(folders: Sequence[Path], run: str) -> list[EpisodeRecord] | None:
    """The episodes of a run that was evaluated in one of the experiment's folders; None when it has yet to be done."""
    for folder in folders:
        path = folder / "results" / run
        if (path / "summary.json").exists():
            summary = json.loads((path / "summary.json").read_text())
            if summary["n"] == summary["planned"]:
                return ResultFolder(path).episodes()
    return None
