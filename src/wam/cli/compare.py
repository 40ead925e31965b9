"""wam compare: which of two or more evaluated policies is better, episode by episode on the same initial states.

Example:
    wam compare runs/eval/mt10 runs/eval/mt10-one-step
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from wam.data.files import write_atomic
from wam.evaluate.compare import compare_folders, markdown, rich_table
from wam.evaluate.provenance import Provenance
from wam.evaluate.report import Report, write_report


@dataclass(frozen=True)
class Compare:
    """Which of two or more evaluated policies is better, episode by episode on the same initial states.

    Differences come with paired 95 % intervals; "not distinguishable" when the interval contains 0.

    Example: wam compare runs/eval/mt10 runs/eval/mt10-one-step
    """

    results: tyro.conf.Positional[tuple[Path, ...]]
    """Folders written by `wam eval`, on the same split; every pair is compared."""
    markdown: Path | None = None
    """Also write the tables to this Markdown file."""
    report: Path | None = None
    """Also write the tables to this HTML file."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Compare) -> None:
    """Compare, show, write."""
    console = Console(stderr=True, markup=False)
    comparisons = compare_folders(config.results)
    for comparison in comparisons:
        console.print(rich_table(comparison))
    if config.markdown is not None:
        text = "\n".join(markdown(comparison) for comparison in comparisons)
        write_atomic(config.markdown, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    if config.report is not None:
        facts = {"result folders": ", ".join(map(str, config.results))}
        page = Report("Comparison of policies", Provenance.here(), comparisons=comparisons, facts=facts)
        write_report(page, config.report)
    if config.json:
        print(json.dumps([comparison.to_dict() for comparison in comparisons]))
