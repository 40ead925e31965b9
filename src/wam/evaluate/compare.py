"""Which policy is better? Paired by initial state, with an interval; "not distinguishable" is an answer."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from wam.evaluate.results import EpisodeRecord, ResultFolder, ResultFolderError
from wam.evaluate.statistics import Estimate, PairedDifference, mean, paired_difference
from wam.evaluate.summary import policy_name

SETTINGS = ("split", "look", "wording", "max_env_steps")  # of the environment: alike, or no comparison


@dataclass(frozen=True)
class TaskComparison:
    """One task: successes of both policies on the same n episodes, and the difference A - B."""

    task: str
    successes_a: int
    successes_b: int
    paired: PairedDifference


@dataclass(frozen=True)
class Comparison:
    """Policy A against policy B.

    over_tasks: mean difference, each task weighing the same; p_value: McNemar's exact test over all episodes.
    left_out: episodes that only one of the two has finished.
    """

    a: str
    b: str
    tasks: tuple[TaskComparison, ...]
    over_tasks: Estimate
    p_value: float
    n: int
    left_out: int

    @property
    def distinguishable(self) -> bool:
        return not self.over_tasks.contains(0.0)

    @property
    def verdict(self) -> str:
        """One sentence, e.g. `a is better than b by 12.0 points [4.1, 19.8] (n = 500, paired)`."""
        points, low, high = (100 * x for x in dataclasses.astuple(self.over_tasks))
        if not self.distinguishable:
            return (
                f"{self.a} and {self.b} are not distinguishable: {points:+.1f} points [{low:+.1f}, {high:+.1f}] "
                f"(n = {self.n}, paired)"
            )
        better, worse = (self.a, self.b) if points > 0 else (self.b, self.a)
        near, far = sorted((abs(low), abs(high)))  # both limits lie on the same side of 0
        return (
            f"{better} is better than {worse} by {abs(points):.1f} points [{near:.1f}, {far:.1f}] "
            f"(n = {self.n}, paired)"
        )

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "distinguishable": self.distinguishable, "verdict": self.verdict}


def compare_folders(roots: Sequence[Path]) -> list[Comparison]:
    """Every pair of result folders, in the order given.

    Raises ResultFolderError when fewer than two are given, when they ran in different settings, or share no episode.
    """
    if len(roots) < 2:
        raise ResultFolderError(
            f"a comparison needs at least two result folders; found {[str(root) for root in roots]}"
        )
    folders = [ResultFolder(root) for root in roots]
    configs = [folder.config() for folder in folders]
    for root, config in zip(roots[1:], configs[1:], strict=True):
        _demand_same_settings(configs[0], config, roots[0], root)
    names = _names(roots, configs)
    episodes = [folder.episodes() for folder in folders]
    return [
        compare(episodes[i], episodes[j], names[i], names[j]) for i, j in itertools.combinations(range(len(roots)), 2)
    ]


def compare(a: Sequence[EpisodeRecord], b: Sequence[EpisodeRecord], name_a: str, name_b: str) -> Comparison:
    """Compare two lists of episodes on those that both have. Raises ResultFolderError when there are none."""
    of_a, of_b = ({record.key: record.success for record in records} for records in (a, b))
    common = [key for key in of_a if key in of_b]
    if not common:
        raise ResultFolderError(
            f"{name_a} and {name_b} have no episode (task and seed) in common; evaluate the same split"
        )
    tasks = []
    for task in dict.fromkeys(task for task, _ in common):
        keys = [key for key in common if key[0] == task]
        successes_a, successes_b = [of_a[key] for key in keys], [of_b[key] for key in keys]
        paired = paired_difference(successes_a, successes_b)
        tasks.append(TaskComparison(task, sum(successes_a), sum(successes_b), paired))
    everything = paired_difference([of_a[key] for key in common], [of_b[key] for key in common])
    return Comparison(
        a=name_a,
        b=name_b,
        tasks=tuple(tasks),
        over_tasks=mean([task.paired.difference for task in tasks]),
        p_value=everything.p_value,
        n=len(common),
        left_out=len(of_a) + len(of_b) - 2 * len(common),
    )


def rich_table(comparison: Comparison) -> Table:
    """For the terminal: one row per task, the verdict below."""
    title = f"A = {comparison.a}, B = {comparison.b}"
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("task", no_wrap=True)
    for name in ("A", "B", "A - B", "95 % interval", "only A/B"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in comparison.tasks:
        *cells, _, verdict = _task_cells(row)
        table.add_row(row.task, *cells, "\u2248" if verdict else "", style="dim" if verdict else None)
    table.add_section()
    sign = "" if comparison.distinguishable else "\u2248"
    table.add_row("mean over tasks", "", "", *_points(comparison.over_tasks), "", sign, style="bold")
    table.caption = f"\u2248 not distinguishable. {_caption(comparison)}"
    table.caption_justify = "left"
    return table


def markdown(comparison: Comparison) -> str:
    """The same table for a README."""
    lines = [
        f"A = {comparison.a}, B = {comparison.b}",
        "",
        "| task | A | B | A - B (points) | 95 % interval | only A/B | p | |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    lines += ["| " + " | ".join((row.task, *_task_cells(row))) + " |" for row in comparison.tasks]
    value, limits = _points(comparison.over_tasks)
    lines += [f"| **mean over tasks** | | | **{value}** | **{limits}** | | {comparison.p_value:.3f} | |"]
    return "\n".join([*lines, "", _caption(comparison)]) + "\n"


def _caption(comparison: Comparison) -> str:
    left_out = (
        f" {comparison.left_out} episodes that only one of them has were left out." if comparison.left_out else ""
    )
    return (
        f"{comparison.verdict}.{left_out} Newcombe paired intervals per task, MOVER for their mean, exact McNemar p; "
        "one evaluation per policy: training seeds are not part of the interval."
    )


def _task_cells(row: TaskComparison) -> tuple[str, ...]:
    paired = row.paired
    return (
        f"{row.successes_a}/{paired.n}",
        f"{row.successes_b}/{paired.n}",
        *_points(paired.difference),
        f"{paired.only_a}/{paired.only_b}",
        f"{paired.p_value:.3f}",
        "" if paired.distinguishable else "not distinguishable",
    )


def _points(difference: Estimate) -> tuple[str, str]:
    return f"{100 * difference.value:+.1f}", f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"


def _names(roots: Sequence[Path], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The policies' names, or the folders' where two policies are called alike."""
    names = [policy_name(config) for config in configs]
    return names if len(set(names)) == len(names) else [str(root) for root in roots]


def _demand_same_settings(first: Mapping[str, Any], other: Mapping[str, Any], root: Path, other_root: Path) -> None:
    for name in SETTINGS:
        if first.get(name) != other.get(name):
            raise ResultFolderError(
                f"{other_root}: field {name!r} is {other.get(name)!r}, but {root} has {first.get(name)!r}; "
                "only runs in the same environment can be compared"
            )
