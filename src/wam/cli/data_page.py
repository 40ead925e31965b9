"""The page of a data set: findings on top, then what the model would see, then its numbers; one file, offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from wam.cli.data_pictures import canvases, layout, picture_tag, sized
from wam.cli.data_plots import Band, legend, plot
from wam.data.files import write_atomic
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.lint import NAMES, Report, Severity, Survey
from wam.data.lint.finding import Finding
from wam.data.schema import ACTION, STATE
from wam.evaluate.page import page

SHOWN = 6
"""Episodes whose pictures and lines are shown."""
MOMENTS = {"start": 0.0, "middle": 0.5, "end": 1.0}
MOST_DIMS = 64
STYLE = """<style>
h4 { font-size: .85rem; font-weight: 600; margin: 10px 0 2px; }
.montage { display: grid; grid-template-columns: repeat(3, 1fr); gap: 8px; margin: 0 0 6px; }
.montage img { display: block; width: 100%; border-radius: 6px; image-rendering: pixelated; background: #000; }
.caption { margin: 0 0 18px; font-size: .9rem; } .moment { font-size: .8rem; color: var(--soft); }
td.what { min-width: 320px; width: 56%; } td.what dl { gap: 0 12px; } td.what dt { min-width: 4.6em; }
.chip.warning { color: #b07a1c; border-color: currentColor; }
.findings td { vertical-align: top; } .findings td:first-child { white-space: nowrap; }
.findings td:nth-child(2) { overflow-wrap: anywhere; min-width: 130px; }
.canvas { display: inline-grid; gap: 3px; font-size: .85rem; margin: 0 0 16px; }
.canvas div { border: 1px solid var(--line); border-radius: 5px; padding: 8px 14px; text-align: center; }
.canvas .empty { background: #000; color: #888; }
svg { display: block; height: auto; }
</style>"""


def write_page(survey: Survey, report: Report, path: Path) -> None:
    """Write the page as one HTML file, atomically."""
    text = render(survey, report)
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def render(survey: Survey, report: Report) -> str:
    """The page as text; a data set that cannot be shown in part says so in place of that part."""
    name = Path(report.root).resolve().name
    chosen = chosen_episodes(survey, report)
    parts = [
        f"{STYLE}<h1>{escape(name)}</h1>",
        f'<p class="lead">{escape(_lead(survey, report))}</p>',
        _findings(report),
        _pictures(survey, report, chosen),
        *(plots(survey, column, chosen) for column in (STATE, ACTION) if column in survey.declared.columns),
        _language(survey),
        _lengths(survey),
    ]
    return page(f"{name}: data set", "\n".join(part for part in parts if part))


def chosen_episodes(survey: Survey, report: Report) -> list[int]:
    """Up to `SHOWN` episodes: some that findings name, the others evenly spread."""
    named = Counter(number for finding in report.findings for number in finding.episodes[:3])
    spread = np.linspace(0, len(survey.declared.episodes) - 1, SHOWN).round().astype(int)
    numbers = [number for number, _ in named.most_common(SHOWN // 2)]
    numbers += [survey.declared.episodes[place].index for place in dict.fromkeys(spread.tolist())]
    return sorted(dict.fromkeys(numbers[: SHOWN + len(named)]))[: 2 * SHOWN] if named else sorted(set(numbers))


def _lead(survey: Survey, report: Report) -> str:
    fps = survey.declared.fps
    robot = survey.embodiment.name if survey.embodiment else survey.declared.info.get("robot_type") or "unknown robot"
    minutes = report.rows / fps / 60
    return (
        f"{robot}, LeRobot {report.version}: {report.episodes} episodes, {report.rows:,} rows at {fps:g} per second "
        f"({minutes:.1f} minutes), {len(survey.declared.cameras)} cameras. "
        f"Pictures of {report.films} of {report.all_films} films were looked at."
    )


def _findings(report: Report) -> str:
    if not report.findings:
        chip = '<span class="chip good">nothing found</span>'
        note = "Now look yourself: the linter cannot know which camera is which, nor what the instruction should be."
        return f'<section><h2>Findings</h2><div class="chips">{chip}</div><p>{note}</p></section>'
    kinds: dict[Severity, str] = {"error": "bad", "warning": "warning"}
    counts = [
        f'<span class="chip {kind}">{counted(report, severity)}</span>'
        for severity, kind in kinds.items()
        if report.count(severity)
    ]
    rows = "".join(_finding(finding, kinds.get(finding.severity, "")) for finding in report.findings)
    head = "<tr><th>finding</th><th>where</th><th>what</th></tr>"
    return (
        f'<section><h2>Findings</h2><div class="chips">{"".join(counts)}</div>'
        f'<div class="scroll"><table class="findings">{head}{rows}</table></div></section>'
    )


def counted(report: Report, severity: Severity) -> str:
    """`1 error`, `3 warnings`."""
    number = report.count(severity)
    return f"{number} {severity}" + ("" if number == 1 else "s")


def _finding(finding: Finding, kind: str) -> str:
    title = escape(NAMES.get(finding.check, ""))
    lines = (("found", finding.found), ("expected", finding.expected), ("do", finding.advice))
    what = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in lines)
    return (
        f'<tr><td title="{title}"><span class="chip {kind}">{finding.severity}</span><br>{escape(finding.check)}</td>'
        f'<td>{escape(finding.where)}</td><td class="what"><dl>{what}</dl></td></tr>'
    )


# -- pictures ----------------------------------------------------------------------------------------------------------


def _pictures(survey: Survey, report: Report, chosen: Sequence[int]) -> str:
    robot = survey.embodiment
    try:
        dataset = LeRobotDataset(survey.declared.root, check=False)
    except (ValueError, OSError) as error:
        return f'<section><h2>What the cameras show</h2><p class="note">Not shown: {escape(str(error))}</p></section>'
    title = f"What the model sees: the canvas of {robot.name}" if robot else "What the cameras show, side by side"
    question = "Is every camera the one that the name in this layout says? Upright, sharp, and at the right moment?"
    parts = [f"<h2>{escape(title)}</h2><p>{question}</p>{_layout(list(dataset.meta.cameras), survey)}"]
    heads = "".join(f'<div class="moment">{name}</div>' for name in MOMENTS)
    parts.append(f'<div class="montage">{heads}</div>')
    for number in chosen:
        named = [finding.check for finding in report.findings if number in finding.episodes]
        parts.append(_montage(survey, dataset, number, list(dict.fromkeys(named))))
    return f"<section>{''.join(parts)}</section>"


def _layout(cameras: list[str], survey: Survey) -> str:
    """The canvas as a little map with the cameras' names."""
    rows = survey.embodiment.canvas if survey.embodiment else (tuple(cameras),)
    cells = []
    for row in rows:
        for name in dict.fromkeys(row) if None not in row else row:
            width = row.count(name) if name is not None else 1
            text = "black" if name is None else escape(name)
            cells.append(
                f'<div class="{"empty" if name is None else ""}" style="grid-column: span {width}">{text}</div>'
            )
    label = escape(layout(cameras, survey.embodiment))
    style = f"grid-template-columns: repeat({len(rows[0])}, auto)"
    return f'<div class="canvas" role="img" aria-label="{label}" style="{style}">{"".join(cells)}</div>'


def _montage(survey: Survey, dataset: LeRobotDataset, number: int, named: Sequence[str]) -> str:
    """One episode: start, middle and end; `named` are the checks that speak of it."""
    episode = survey.episodes[number]
    rows = [round(share * (episode.length - 1)) for share in MOMENTS.values()]
    sentence = escape(" / ".join(episode.tasks) or "(no instruction)")
    chips = " ".join(f'<span class="chip bad">{escape(check)}</span>' for check in named)
    caption = f'<p class="caption"><strong>Episode {number}</strong> {chips} “{sentence}”'
    try:
        pictures = sized(canvases(dataset, number, rows, survey.embodiment))
    except (ValueError, OSError, IndexError) as error:
        return f'{caption}<br><span class="soft">not shown: {escape(str(error))}</span></p>'
    tags = "".join(picture_tag(p, f"episode {number}, row {row}") for p, row in zip(pictures, rows, strict=True))
    return f'<div class="montage">{tags}</div>{caption}, rows {", ".join(map(str, rows))}</p>'


# -- numbers -----------------------------------------------------------------------------------------------------------


def plots(survey: Survey, column: str, chosen: Sequence[int]) -> str:
    """Every dimension of a column: the chosen episodes over the quantile bands of the data set."""
    lines = {n: survey.rows[n][column] for n in chosen if n in survey.rows and column in survey.rows[n]}
    if not lines:
        return f'<section><h2>{escape(column)}</h2><p class="note">No rows can be read.</p></section>'
    sample = survey.sample(column)
    drawn = []
    for dim in range(min(survey.width(column), MOST_DIMS)):
        band = Band.of(sample[:, dim]) if len(sample) else None
        series = {f"episode {n}": v.reshape(len(v), -1)[:, dim].astype(np.float64) for n, v in lines.items()}
        drawn.append(plot(survey.dim_name(column, dim), series, survey.declared.fps, band))
    labels = [f"episode {number}" for number in lines]
    return f"<section><h2>{escape(column)}</h2>{legend(labels)}{''.join(drawn)}</section>"


def _language(survey: Survey) -> str:
    """All instructions, the most frequent first."""
    counts = Counter(task for episode in survey.declared.episodes for task in episode.tasks)
    rows = "".join(f'<tr><td>{escape(t)}</td><td class="n">{n}</td></tr>' for t, n in counts.most_common(40))
    rest = f'<p class="note">and {len(counts) - 40} more</p>' if len(counts) > 40 else ""
    head = '<tr><th>instruction</th><th class="n">episodes</th></tr>'
    return f'<section><h2>Instructions</h2><div class="scroll"><table>{head}{rows}</table></div>{rest}</section>'


def _lengths(survey: Survey) -> str:
    """How long episodes are, as a histogram."""
    lengths = np.array([episode.length for episode in survey.declared.episodes]) / survey.declared.fps
    counts, edges = np.histogram(lengths, bins=min(12, max(1, len(np.unique(lengths)))))
    rows = "".join(
        f'<tr><td>{low:.2f} to {high:.2f} s</td><td class="n">{count}</td><td class="bar"><div class="track">'
        f'<s style="width:{100 * count / counts.max():.1f}%"></s></div></td></tr>'
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    head = '<tr><th>length</th><th class="n">episodes</th><th></th></tr>'
    return f'<section><h2>Lengths</h2><table class="small">{head}{rows}</table></section>'
