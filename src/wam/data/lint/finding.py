"""A finding: what is wrong, where, what was expected and what to do. A report: all findings of one data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From bad to harmless. An *error* makes training wrong or impossible, a *warning* is likely a fault and wants a look,
a *note* only says what the linter did not look at."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        check: stable name of the check (see `wam.data.lint.run.CHECKS`).
        severity: see `SEVERITIES`.
        found: what is there.
        expected: what should be there.
        advice: what to do.
        file: path relative to the data set, if it is about one file.
        field: column, dimension, camera or field of the metadata.
        episodes: numbers of the episodes; empty = the whole data set.
    """

    check: str
    severity: Severity
    found: str
    expected: str
    advice: str
    file: str = ""
    field: str = ""
    episodes: tuple[int, ...] = ()

    @property
    def where(self) -> str:
        """Episodes, field and file in a few words."""
        episodes = f"episode{'s' if len(self.episodes) > 1 else ''} {spans(self.episodes)}" if self.episodes else ""
        return ", ".join(part for part in (episodes, self.field, self.file) if part) or "data set"


@dataclass(frozen=True)
class Report:
    """All findings of one data set, the worst first.

    Args:
        root: the data set.
        version: format version.
        episodes: declared episodes.
        rows: declared rows.
        findings: merged and sorted.
        films: pairs of episode and camera whose pictures were looked at, of `all_films`.
    """

    root: str
    version: str
    episodes: int
    rows: int
    findings: tuple[Finding, ...]
    films: int
    all_films: int

    def count(self, severity: Severity) -> int:
        """Findings of this severity."""
        return Counter(finding.severity for finding in self.findings)[severity]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {f"{severity}s": self.count(severity) for severity in SEVERITIES}


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per fault instead of one per episode: the same check, field, expectation and advice go together."""
    groups: dict[tuple[str, ...], list[Finding]] = defaultdict(list)
    for finding in findings:
        alone = () if finding.episodes else (finding.file, finding.found)
        groups[(finding.check, finding.severity, finding.field, finding.expected, finding.advice, *alone)].append(
            finding
        )
    together = [_one(group) for group in groups.values()]
    order = {severity: rank for rank, severity in enumerate(SEVERITIES)}
    return tuple(sorted(together, key=lambda f: (order[f.severity], f.check, f.episodes, f.field, f.file)))


def spans(numbers: Iterable[int], most: int = 8) -> str:
    """`0, 1, 2, 5` -> "0-2, 5"; after `most` stretches only their number is said."""
    stretches: list[list[int]] = []
    for number in sorted(set(numbers)):
        if stretches and number == stretches[-1][1] + 1:
            stretches[-1][1] = number
        else:
            stretches.append([number, number])
    texts = [f"{first}" if first == last else f"{first}-{last}" for first, last in stretches]
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")


def _one(group: list[Finding]) -> Finding:
    first = group[0]
    episodes = tuple(sorted({number for finding in group for number in finding.episodes}))
    if len(episodes) <= len(first.episodes):
        return first
    files = sorted({finding.file for finding in group})
    others = len(episodes) - len(first.episodes)
    return replace(
        first,
        episodes=episodes,
        file=files[0] if len(files) == 1 else f"{len(files)} files, first {files[0]}",
        found=f"{first.found} (episode {first.episodes[0]}; {others} more alike)",
    )
