"""From the lines of `episodes.jsonl` to a table: every rate with k/n and its interval, and what every mean averages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from wam.data.files import write_json
from wam.evaluate.provenance import Provenance
from wam.evaluate.results import EpisodeRecord
from wam.evaluate.statistics import Estimate, mean, wilson


@dataclass(frozen=True)
class TaskSummary:
    """One task. steps_to_success: mean control steps of the successful episodes, or None when there is none."""

    task: str
    group: str
    successes: int
    n: int
    rate: Estimate
    steps_to_success: float | None


@dataclass(frozen=True)
class GroupSummary:
    """The mean over the tasks of one difficulty group, each task weighing the same."""

    group: str
    tasks: int
    successes: int
    n: int
    rate: Estimate


@dataclass(frozen=True)
class Timing:
    """How long the policy took, over the chunks of all episodes, on a machine that may have done other work.

    The first chunk of an episode, which also reads the sentence, counts only in `first_ms`.
    stage_ms: mean per chunk; "act" is the whole call, "simulate" and "render" are not part of it.
    clock: over all episodes, the counts of `wam.realtime.Report`; empty when the world waited for the policy.
    """

    chunks: int
    first_ms: float
    chunks_per_second: float
    mean_ms: float
    p95_ms: float
    stage_ms: Mapping[str, float]
    clock: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """The result of an evaluation.

    over_tasks: mean over all tasks; over_groups: mean over the difficulty groups (the Meta-World 50 convention).
    planned: how many episodes the configuration asks for; fewer than that are on disk while a run is unfinished.
    """

    config: Mapping[str, Any]
    provenance: Provenance
    planned: int
    successes: int
    n: int
    tasks: tuple[TaskSummary, ...]
    groups: tuple[GroupSummary, ...]
    over_tasks: Estimate
    over_groups: Estimate
    timing: Timing

    @property
    def title(self) -> str:
        """Which policy on what, in one line."""
        many = f"{len(self.tasks)} tasks" if len(self.tasks) > 1 else self.tasks[0].task
        return f"{policy_name(self.config)} on {many}, {self.config.get('split', 'custom')} split"

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "confidence": 0.95}

    def write(self, path: Path) -> None:
        """Write `summary.json`, atomically."""
        write_json(path, self.to_dict())


def summarise(
    records: Sequence[EpisodeRecord],
    groups: Mapping[str, str],
    config: Mapping[str, Any],
    provenance: Provenance,
    planned: int | None = None,
) -> Summary:
    """Summarise the episodes of one evaluation.

    groups: task -> difficulty group, in the order in which groups are reported; other tasks form the group "other".
    Raises ValueError when there are no episodes.
    """
    if not records:
        raise ValueError("no finished episode to summarise; run `wam eval` first")
    by_task: dict[str, list[EpisodeRecord]] = {}
    for record in records:
        by_task.setdefault(record.task, []).append(record)
    tasks = tuple(_task_summary(task, groups.get(task, "other"), lines) for task, lines in by_task.items())
    ordered = dict.fromkeys([*groups.values(), "other"])
    present = tuple(
        _group_summary(name, [t for t in tasks if t.group == name]) for name in ordered if _has(name, tasks)
    )
    return Summary(
        config=config,
        provenance=dataclasses.replace(provenance, commit=_commits(records)),
        planned=len(records) if planned is None else planned,
        successes=sum(task.successes for task in tasks),
        n=len(records),
        tasks=tasks,
        groups=present,
        over_tasks=mean([task.rate for task in tasks]),
        over_groups=mean([group.rate for group in present]),
        timing=_timing(records),
    )


def policy_name(config: Mapping[str, Any]) -> str:
    """How tables call the policy of a result folder: its label, else the checkpoint's folder, else its kind."""
    if config.get("label"):
        return str(config["label"])
    if not config.get("checkpoint"):
        return str(config.get("policy", "policy"))
    folder = Path(config["checkpoint"])
    return folder.parent.name if folder.name == "model" and folder.parent.name else folder.name  # RUN/model of training


def rich_table(summary: Summary) -> Table:
    """For the terminal."""
    table = Table(title=summary.title, title_justify="left", header_style="bold")
    for name, justify in (("task", "left"), ("group", "left"), ("k/n", "right"), ("success", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("95 % interval", justify="right")
    table.add_column("steps", justify="right")
    for task in summary.tasks:
        steps = "-" if task.steps_to_success is None else f"{task.steps_to_success:.0f}"
        table.add_row(task.task, task.group, f"{task.successes}/{task.n}", *_cells(task.rate), steps)
    table.add_section()
    for name, group, counts, rate in _means(summary):
        table.add_row(name, group, counts, *_cells(rate), "", style="bold" if name == "mean over tasks" else None)
    table.caption = caption(summary)
    table.caption_justify = "left"
    return table


def markdown(summary: Summary) -> str:
    """The same table for a README or a model card, with its provenance below."""
    lines = [
        f"**{summary.title}**",
        "",
        "| task | group | k/n | success % | 95 % interval | steps |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for task in summary.tasks:
        steps = "-" if task.steps_to_success is None else f"{task.steps_to_success:.0f}"
        lines.append(_row(task.task, task.group, f"{task.successes}/{task.n}", *_cells(task.rate), steps))
    for name, group, counts, rate in _means(summary):
        bold = "**" if name == "mean over tasks" else ""
        lines.append(_row(f"{bold}{name}{bold}", group, counts, *(f"{bold}{c}{bold}" for c in _cells(rate)), ""))
    made = summary.provenance
    lines += ["", caption(summary), "", f"`{made.command}`, commit {made.commit}, {made.date}. {made.machine}."]
    return "\n".join(lines) + "\n"


def caption(summary: Summary) -> str:
    """One sentence on how the numbers are to be read."""
    unfinished = "" if summary.n == summary.planned else f" UNFINISHED: {summary.n} of {summary.planned} episodes."
    timing = summary.timing
    return (
        "k/n with Wilson intervals; means weigh tasks alike (MOVER); steps = control steps to success. "
        f"{timing.chunks_per_second:.1f} chunks/s, {timing.mean_ms:.1f} ms per chunk (p95 {timing.p95_ms:.1f}) "
        f"after the first of each episode ({timing.first_ms:.0f} ms)."
        f"{_on_the_clock(timing.clock)}{unfinished}"
    )


def _on_the_clock(clock: Mapping[str, int]) -> str:
    """How the robot's clock was kept, for the caption; nothing when the world waited for the policy."""
    if not clock:
        return ""
    return (
        f" On the robot's clock: {clock['ticks']} ticks, {clock['waiting']} of them before a first chunk, "
        f"{clock['missed']} missed; {clock['thoughts']} chunks, {clock['late']} later than expected."
    )


def _means(summary: Summary) -> list[tuple[str, str, str, Estimate]]:
    rows = [
        (f"mean of {g.tasks} task{'s' if g.tasks > 1 else ''}", g.group, f"{g.successes}/{g.n}", g.rate)
        for g in summary.groups
    ]
    if len(summary.groups) > 1:
        rows.append(("mean over groups", "", "", summary.over_groups))
    return [*rows, ("mean over tasks", "all", f"{summary.successes}/{summary.n}", summary.over_tasks)]


def _cells(rate: Estimate) -> tuple[str, str]:
    return f"{100 * rate.value:.1f}", f"{100 * rate.low:.1f}-{100 * rate.high:.1f}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _task_summary(task: str, group: str, records: Sequence[EpisodeRecord]) -> TaskSummary:
    steps = [record.steps for record in records if record.success]
    rate = wilson(len(steps), len(records))
    return TaskSummary(task, group, len(steps), len(records), rate, float(np.mean(steps)) if steps else None)


def _has(group: str, tasks: Sequence[TaskSummary]) -> bool:
    return any(task.group == group for task in tasks)


def _group_summary(group: str, tasks: Sequence[TaskSummary]) -> GroupSummary:
    successes, n = sum(task.successes for task in tasks), sum(task.n for task in tasks)
    return GroupSummary(group, len(tasks), successes, n, mean([task.rate for task in tasks]))


def _timing(records: Sequence[EpisodeRecord]) -> Timing:
    act = np.array([ms for record in records for ms in record.act_ms[1:] or record.act_ms])
    stages: dict[str, float] = {}
    for record in records:
        for stage, ms in record.stage_ms.items():
            stages[stage] = stages.get(stage, 0.0) + ms * max(len(record.act_ms) - 1, 1)
    return Timing(
        chunks=len(act),
        first_ms=float(np.mean([record.act_ms[0] for record in records])),
        chunks_per_second=float(1e3 / max(act.mean(), 1e-9)),
        mean_ms=float(act.mean()),
        p95_ms=float(np.quantile(act, 0.95)),
        stage_ms={stage: total / len(act) for stage, total in stages.items()},
        clock=_clock(records),
    )


def _clock(records: Sequence[EpisodeRecord]) -> dict[str, int]:
    """Counts add up; the expected delay, which is no count, is left out."""
    names = dict.fromkeys(name for record in records for name in record.clock if name != "delay")
    return {name: sum(record.clock.get(name, 0) for record in records) for name in names}


def _commits(records: Sequence[EpisodeRecord]) -> str:
    """Usually one; an evaluation that was resumed after an update names all of them."""
    return ", ".join(sorted({record.commit for record in records}))
