"""wam data lint: name what is wrong with a data set, and draw a page to look at.

Example:
    wam data lint data/kitchen
    wam data lint data/kitchen --embodiment droid-franka --page kitchen.html
    wam data lint lerobot/droid_1.0.1 --revision 3f1d9c2 --fast --json
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from wam.cli.data_page import counted, write_page
from wam.data.hub import resolve_dataset
from wam.data.lint import Options, Report, Survey, examine
from wam.data.lint.finding import SEVERITIES
from wam.robot.embodiment import load_embodiment

COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


@dataclass(frozen=True)
class Lint:
    """Look at a LeRobot data set (v2.0, v2.1, v3.0) from its metadata to its pictures, and name every fault.

    Exit code 0: no errors (there may be warnings); 1: errors; 2: it cannot be read, or the page cannot be written.
    """

    path: tyro.conf.Positional[str]
    """Folder of the data set, or its id on the Hub."""
    revision: str | None = None
    """Commit of a data set on the Hub."""
    embodiment: str | None = None
    """The robot that the data are meant for: a YAML file, or the name of a shipped one."""
    page: Path | None = None
    """Write a page with the findings, pictures in canvas order and plots."""
    fast: bool = False
    """Decode the pictures of 8 episodes only; headers and rows of all are still read."""
    workers: int = 2
    """Threads that decode videos."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Lint) -> None:
    """Look, print the findings, write the page; the exit code tells the outcome."""
    console = Console(stderr=True)
    try:
        embodiment = load_embodiment(config.embodiment) if config.embodiment is not None else None
        root = resolve_dataset(config.path, config.revision)
        survey, report = _examine(root, Options(embodiment, config.fast, config.workers), console)
        _print(report, survey, console)
        if config.page is not None:
            write_page(survey, report, config.page)
            console.print(f"page: {config.page.resolve()}", markup=False, highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        console.print(f"wam data lint: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    if config.json:
        print(json.dumps(report.to_json() | {"page": str(config.page) if config.page else None}))
    if report.count("error"):
        sys.exit(1)


def _examine(root: Path, options: Options, console: Console) -> tuple[Survey, Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bars = {name: progress.add_task(f"reading {name}", total=None) for name in ("rows", "pictures")}
        return examine(
            root, options, lambda name, done, total: progress.update(bars[name], completed=done, total=total)
        )


def _print(report: Report, survey: Survey, console: Console) -> None:
    if report.findings:
        table = Table(show_lines=True, expand=True)
        table.add_column("finding", ratio=2, overflow="fold")
        table.add_column("where", ratio=3, overflow="fold")
        table.add_column("found, expected, what to do", ratio=6, overflow="fold")
        for finding in report.findings:
            colour = COLOURS[finding.severity]
            name = f"[{colour}]{finding.severity}[/]\n{escape(finding.check)}"
            lines = [f"[dim]found[/]     {escape(finding.found)}", f"[dim]expected[/]  {escape(finding.expected)}"]
            table.add_row(
                name, escape(finding.where), "\n".join([*lines, f"[dim]do[/]        {escape(finding.advice)}"])
            )
        console.print(table, highlight=False)
    counts = ", ".join(counted(report, severity) for severity in SEVERITIES[:2])
    cameras = len(survey.declared.cameras)
    console.print(
        f"{report.root}: LeRobot {report.version}, {report.episodes} episodes, {report.rows} rows, {cameras} cameras; "
        f"pictures of {report.films} of {report.all_films} films looked at: {counts}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
