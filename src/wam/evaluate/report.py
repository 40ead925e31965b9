"""A page that shows what a policy does: real beside dreamed video, actions, times, success rates; one file, offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from wam.data.files import write_atomic
from wam.evaluate.compare import Comparison
from wam.evaluate.dreams import dream_quality
from wam.evaluate.figures import PLOT_LEFT, PLOT_RIGHT, action_plot, has_chunks
from wam.evaluate.page import page
from wam.evaluate.provenance import Provenance
from wam.evaluate.rollout import EpisodeResult, Frames
from wam.evaluate.statistics import Estimate
from wam.evaluate.summary import Summary, caption
from wam.evaluate.video import encode_mp4, enlarge, frame_rate
from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment


@dataclass(frozen=True)
class Report:
    """What goes on the page, in this order; leave out what there is not.

    episodes: recorded episodes (`rollout(..., record=True)`). films: mp4 files shown below the summary.
    facts: further lines of "how it was made", e.g. {"checkpoint": "runs/mt10", "denoising steps": "4"}.
    """

    title: str
    provenance: Provenance
    lead: str = ""
    episodes: Sequence[EpisodeResult] = ()
    summary: Summary | None = None
    comparisons: Sequence[Comparison] = ()
    films: Sequence[Path] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    embodiment: Embodiment = METAWORLD_SAWYER


def write_report(report: Report, path: Path) -> Path:
    """Write the page as one HTML file, atomically; returns `path`."""
    text = render(report)
    write_atomic(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return Path(path)


def render(report: Report) -> str:
    """The page as text. Raises ValueError for an episode that was not recorded."""
    parts = [f"<h1>{escape(report.title)}</h1>", f'<p class="lead">{escape(report.lead)}</p>' if report.lead else ""]
    parts += [_episode(e, report.embodiment, f"e{index}") for index, e in enumerate(report.episodes)]
    if report.summary is not None:
        parts.append(_summary(report.summary))
    parts += [_comparison(comparison) for comparison in report.comparisons]
    if report.films:
        parts.append(_gallery(report.films, report.summary))
    parts.append(_made(report))
    return page(report.title, "\n".join(part for part in parts if part))


def _episode(episode: EpisodeResult, embodiment: Embodiment, identity: str) -> str:
    if episode.frames is None:
        raise ValueError(f"episode {episode.task!r} seed {episode.seed} has no frames; run it with record=True")
    fps = frame_rate(episode, embodiment.control_hz)
    timeline = {
        "fps": fps,
        "hz": embodiment.control_hz,
        "steps": episode.frame_steps,
        "left": PLOT_LEFT,
        "right": PLOT_RIGHT,
    }
    screens = _screen(episode.frames, fps, "Real", "what the cameras saw")
    if episode.dreams is not None:
        screens += _screen(episode.dreams, fps, "Dreamed", "what the policy imagined while it chose its actions")
    boundaries = "dashed where a new chunk begins" if has_chunks(episode) else "decided anew in every step"
    return f"""<section data-episode="{escape(json.dumps(timeline))}">
<p class="sentence">“{escape(episode.instruction)}”</p>
{_chips(episode, embodiment)}
<div class="screens">{screens}</div>
<div class="player" hidden><button type="button">Pause</button><button type="button" title="speed">1×</button>
<input type="range" min="0" max="{len(episode.frames) - 1}" value="0" aria-label="time"><output></output></div>
<h3>Actions <span class="quiet">{boundaries}</span></h3>
<div class="plot"><div>{action_plot(episode, embodiment, identity)}<div class="playhead" hidden></div></div></div>
<div class="columns"><div><h3>Time per chunk</h3>{_stages({name: 1e3 * s for name, s in episode.seconds.items()})}</div>
<div><h3>Episode</h3>{_facts(_episode_facts(episode, embodiment))}</div></div>
</section>"""


def _chips(episode: EpisodeResult, embodiment: Embodiment) -> str:
    seconds = episode.steps / embodiment.control_hz
    outcome = f"success after {seconds:.1f} s" if episode.success else f"no success in {seconds:.1f} s"
    chips = [f'<span class="chip {"good" if episode.success else "bad"}">{outcome}</span>']
    plain = (episode.task, f"seed {episode.seed}", f"{_rate(episode.chunks_per_second)} chunks per second")
    chips += [f'<span class="chip">{escape(text)}</span>' for text in plain]
    return f'<div class="chips">{"".join(chips)}</div>'


def _rate(per_second: float) -> str:
    return f"{per_second:.1f}" if per_second < 100 else f"{per_second:,.0f}"


def _screen(frames: Frames, fps: float, name: str, explanation: str) -> str:
    film = _video(encode_mp4(enlarge(frames), fps), "muted playsinline controls")
    return f"<figure>{film}<figcaption><strong>{name}</strong> {explanation}</figcaption></figure>"


def _video(mp4: bytes, attributes: str) -> str:
    return f'<video {attributes} src="data:video/mp4;base64,{base64.b64encode(mp4).decode()}"></video>'


def _episode_facts(episode: EpisodeResult, embodiment: Embodiment) -> dict[str, str]:
    facts = {
        "control steps": f"{episode.steps} at {embodiment.control_hz:g} Hz",
        "chunks": f"{episode.chunks}, {episode.steps / max(episode.chunks, 1):.1f} actions each",
        "chunks per second": f"{_rate(episode.chunks_per_second)} (the policy alone)",
        "first chunk": f"{1e3 * episode.act_seconds[0]:.1f} ms, with reading the sentence; not in the means",
        "slowest later chunk": f"{1e3 * max(episode.later_act_seconds):.1f} ms",
    }
    if (quality := dream_quality(episode)) is not None:
        facts["dream against reality"] = (
            f"{quality.dreamed:.1f} dB (a picture that stands still: {quality.frozen:.1f} dB)"
        )
    return facts


def _stages(stage_ms: Mapping[str, float]) -> str:
    """Milliseconds per stage with bars; "act" is the policy's total, "simulate" and "render" are the world's."""
    longest = max(stage_ms.values(), default=1.0) or 1.0
    rows = [
        f'<tr{_strong(name == "act")}><td>{escape(_STAGE_NAMES.get(name, name))}</td><td class="n">{ms:.2f} ms</td>'
        f'<td class="bar"><div class="track"><s style="width:{100 * ms / longest:.1f}%"></s></div></td></tr>'
        for name, ms in stage_ms.items()
    ]
    return f'<table class="small">{"".join(rows)}</table>'


_STAGE_NAMES = {"act": "policy, all stages", "simulate": "simulator", "render": "rendering"}


def _summary(summary: Summary) -> str:
    rows = [
        _rate_row(task.task, task.group, f"{task.successes}/{task.n}", task.rate, steps=task.steps_to_success)
        for task in summary.tasks
    ]
    if len(summary.tasks) > 1:
        rows += [
            _rate_row(f"mean of {group.tasks}", group.group, f"{group.successes}/{group.n}", group.rate)
            for group in summary.groups
        ]
        if len(summary.groups) > 1:
            rows.append(_rate_row("mean over groups", "", "", summary.over_groups, strong=True))
        rows.append(
            _rate_row("mean over tasks", "all", f"{summary.successes}/{summary.n}", summary.over_tasks, strong=True)
        )
    head = '<tr><th>task</th><th class="wide">group</th><th class="n">k/n</th><th class="n">%</th>'
    head += '<th class="n">95 % interval</th><th class="n wide">steps</th><th>0 to 100 %</th></tr>'
    return (
        f'<section><h2>Success</h2><div class="scroll"><table>{head}{"".join(rows)}</table></div>'
        f'<p class="note">{escape(caption(summary))}</p><div class="columns"><div><h3>Time per chunk</h3>'
        f"{_stages(summary.timing.stage_ms)}</div></div></section>"
    )


def _rate_row(
    name: str, group: str, counts: str, rate: Estimate, *, steps: float | None = None, strong: bool = False
) -> str:
    return (
        f'<tr{_strong(strong)}><td>{escape(name)}</td><td class="soft wide">{escape(group)}</td>'
        f'<td class="n">{counts}</td>'
        f'<td class="n">{100 * rate.value:.1f}</td><td class="n">{100 * rate.low:.1f} to {100 * rate.high:.1f}</td>'
        f'<td class="n wide">{"" if steps is None else f"{steps:.0f}"}</td>'
        f'<td class="bar">{_interval_bar(rate, 0.0, 1.0)}</td></tr>'
    )


def _comparison(comparison: Comparison) -> str:
    rows = [
        _difference_row(
            row.task, f"{row.successes_a}/{row.paired.n}", f"{row.successes_b}/{row.paired.n}", row.paired.difference
        )
        for row in comparison.tasks
    ]
    rows.append(_difference_row("mean over tasks", "", "", comparison.over_tasks, strong=True))
    head = '<tr><th>task</th><th class="n">A</th><th class="n">B</th><th class="n">A − B</th>'
    head += '<th class="n">95 % interval</th><th>−100 to +100 points</th></tr>'
    return (
        f"<section><h2>A = {escape(comparison.a)}, B = {escape(comparison.b)}</h2>"
        f'<p>{escape(comparison.verdict)}.</p><div class="scroll"><table>{head}{"".join(rows)}</table></div></section>'
    )


def _difference_row(name: str, a: str, b: str, difference: Estimate, *, strong: bool = False) -> str:
    low, high = 100 * difference.low, 100 * difference.high
    return (
        f'<tr{_strong(strong)}><td>{escape(name)}</td><td class="n">{a}</td><td class="n">{b}</td>'
        f'<td class="n">{100 * difference.value:+.1f}</td><td class="n">{low:+.1f} to {high:+.1f}</td>'
        f'<td class="bar">{_interval_bar(difference, -1.0, 1.0)}</td></tr>'
    )


def _interval_bar(estimate: Estimate, low: float, high: float) -> str:
    """The interval as a bar and the estimate as a dot, on a track from `low` to `high`; a line marks 0 inside of it."""

    def place(number: float) -> float:
        return 100 * (min(max(number, low), high) - low) / (high - low)

    left, width = place(estimate.low), place(estimate.high) - place(estimate.low)
    zero = f'<u style="left:{place(0.0):.2f}%"></u>' if low < 0 < high else ""
    return (
        f'<div class="track"><div>{zero}<i style="left:{left:.2f}%;width:{width:.2f}%"></i>'
        f'<b style="left:{place(estimate.value):.2f}%"></b></div></div>'
    )


def _gallery(films: Sequence[Path], summary: Summary | None) -> str:
    """All films; under the names of the groups of tasks when the summary has several."""
    group_of = {} if summary is None else {task.task: task.group for task in summary.tasks}
    by_group: dict[str, list[Path]] = {group: [] for group in group_of.values()}
    for film in map(Path, films):
        by_group.setdefault(group_of.get(film.stem.rsplit("-", 2)[0], "other"), []).append(film)
    filled = {group: members for group, members in by_group.items() if members}
    shown = [
        (f"<h3>{escape(group)}</h3>" if len(filled) > 1 else "")
        + f'<div class="screens gallery">{"".join(map(_figure, members))}</div>'
        for group, members in filled.items()
    ]
    return f"<section><h2>Films</h2>{''.join(shown)}</section>"


def _figure(film: Path) -> str:
    player = _video(film.read_bytes(), "muted playsinline controls loop")
    return f"<figure>{player}<figcaption>{escape(film.stem)}</figcaption></figure>"


def _made(report: Report) -> str:
    made = report.provenance
    facts = {**report.facts, "command": made.command, "commit": made.commit, "machine": made.machine, "date": made.date}
    return f"<section><h2>How it was made</h2>{_facts(facts)}</section>"


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    return f"<dl>{rows}</dl>"


def _strong(strong: bool) -> str:
    return ' class="strong"' if strong else ""
