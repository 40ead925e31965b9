"""wam parity: are our numbers those of the released code? Compare with golden cases, tensor by tensor.

Example:
    wam parity golden/
    wam parity golden/ --cases dit_i2v_infer chunk_loop --verbose
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from wam.evaluate.parity.golden import CaseResult, Check
from wam.evaluate.parity.run import ParityReport, run_folder


@dataclass(frozen=True)
class Parity:
    """Are our numbers those of the released code? Compare with golden cases, tensor by tensor.

    Exit code 0: all within tolerance; 1: something above it; 2: within tolerance, but some cases are not covered.

    Example: wam parity golden/
    """

    folder: tyro.conf.Positional[Path]
    """Folder of golden cases: NAME.json with NAME.safetensors beside it."""
    cases: tuple[str, ...] = ()
    """Only these cases; all of them when left out."""
    verbose: bool = False
    """Show every tensor instead of the worst one of every case."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Parity) -> None:
    """Run, show, and end with the exit code of the report."""
    console = Console(stderr=True)
    with console.status("") as status:
        report = run_folder(config.folder, config.cases, lambda name: status.update(f"comparing {name}"))
    for line in _shown(report, config.verbose):
        console.print(line)
    if config.json:
        print(json.dumps(report.to_dict()))
    if report.exit_code:
        sys.exit(report.exit_code)


def _shown(report: ParityReport, verbose: bool) -> list[Table | str]:
    lines: list[Table | str] = []
    if verbose:
        lines += [_tensors(result) for result in report.results]
    lines.append(_overview(report))
    lines += [escape(f"{result.case}: {note}") for result in report.results for note in result.notes if verbose]
    if report.not_covered:
        lines.append(f"[yellow]not covered: {escape(', '.join(report.not_covered))}[/yellow]")
    return lines


def _overview(report: ParityReport) -> Table:
    """One row per case: its worst tensor, and every tensor above its limit."""
    columns = [Column(name, no_wrap=True) for name in ("case", "tensors", "", "measure", "error", "limit", "seconds")]
    table = Table(*columns[:3], Column("worst or wrong tensor", overflow="fold"), *columns[3:])
    for result in report.results:
        wrong = [check for check in result.checks if not check.ok]
        first, *rest = wrong or [result.worst]
        count = f"{len(result.checks) - len(wrong)}/{len(result.checks)}"
        table.add_row(escape(result.case), count, _verdict(result.ok), *_row(first), f"{result.seconds:.1f}")
        for check in rest:
            table.add_row("", "", "", *_row(check), "")
    return table


def _tensors(result: CaseResult) -> Table:
    table = Table("tensor", "measure", "error", "limit", "", title=escape(result.case), title_justify="left")
    for check in result.checks:
        table.add_row(*_row(check), _verdict(check.ok))
    return table


def _row(check: Check) -> tuple[str, str, str, str]:
    return escape(check.tensor), check.measure, f"{check.error:.2g}", f"{check.limit:.2g}"


def _verdict(ok: bool) -> str:
    return "[green]ok[/green]" if ok else "[red]wrong[/red]"
