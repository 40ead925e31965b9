"""The shell of a report: one HTML file with its style and script inside, nothing fetched from anywhere."""

from __future__ import annotations

from html import escape

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff; --ink: #1d1f23; --soft: #6a6e76; --line: #e3e3e0;
  --accent: #3b6fb6; --good: #2c8a5b; --bad: #b8473d; --track: #ececea; }
@media (prefers-color-scheme: dark) { :root { --paper: #141518; --card: #1c1e22; --ink: #e8e8e6; --soft: #9a9ea6;
  --line: #2e3137; --accent: #7fabe6; --good: #63c295; --bad: #e58277; --track: #2a2d33; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans",
  sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 48px 24px 64px; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 24px; font-weight: 680; }
h2 { font-size: 1.2rem; letter-spacing: -.01em; margin: 0 0 14px; font-weight: 640; }
h3 { font-size: .8rem; text-transform: uppercase; letter-spacing: .07em; color: var(--soft); margin: 0 0 8px;
  font-weight: 600; }
h3 .quiet { text-transform: none; letter-spacing: 0; font-weight: 400; margin-left: 6px; }
p { margin: 0 0 10px; }
.note { color: var(--soft); font-size: .85rem; margin: 12px 0 0; }
.soft { color: var(--soft); }
.lead { color: var(--soft); font-size: 1.05rem; margin: -18px 0 28px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 24px;
  margin: 0 0 24px; }
.sentence { font-size: 1.35rem; font-weight: 600; letter-spacing: -.01em; line-height: 1.3; margin: 0 0 8px; }
.chips { display: flex; flex-wrap: wrap; gap: 8px; margin: 0 0 18px; font-size: .85rem; }
.chip { border: 1px solid var(--line); border-radius: 99px; padding: 2px 11px; color: var(--soft); }
.chip.good { color: var(--good); border-color: currentColor; }
.chip.bad { color: var(--bad); border-color: currentColor; }
.screens { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 16px; }
figure { margin: 0; max-width: 660px; } figcaption { font-size: .85rem; color: var(--soft); margin-top: 5px; }
video { display: block; width: 100%; border-radius: 8px; background: #000; image-rendering: pixelated; }
.player { display: flex; align-items: center; gap: 12px; margin: 14px 0 22px; font-size: .85rem; color: var(--soft); }
.player button { font: inherit; color: var(--ink); background: var(--track); border: 0; border-radius: 8px;
  padding: 5px 12px;
  min-width: 68px; cursor: pointer; }
.player input { flex: 1; min-width: 40px; accent-color: var(--accent); }
.player output { min-width: 11.5em; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.plot { overflow-x: auto; }
.plot > div { position: relative; min-width: 620px; }
.plot svg { display: block; height: auto; }
.playhead { position: absolute; top: 0; bottom: 34px; width: 1.5px; background: var(--accent); opacity: .85;
  pointer-events: none; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 28px;
  margin-top: 20px; }
.scroll { overflow-x: auto; }
.scroll td:first-child { white-space: nowrap; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .82rem; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
td.n, th.n { text-align: right; white-space: nowrap; } tr:last-child td { border-bottom: 0; }
tr.strong td { font-weight: 650; } td.bar { min-width: 170px; width: 34%; padding-right: 0; }
table.small td.bar { min-width: 70px; } table.small td:first-child { white-space: nowrap; }
.track { position: relative; height: 14px; background: var(--track); border-radius: 7px; }
.track div { position: relative; height: 100%; margin: 0 7px; }
.track i { position: absolute; top: 5px; height: 4px; border-radius: 2px; background: var(--accent); opacity: .5; }
.track b { position: absolute; top: 2px; width: 10px; height: 10px; margin-left: -5px; border-radius: 50%;
  background: var(--accent); }
.track u { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--soft); }
.track s { position: absolute; left: 0; top: 0; bottom: 0; border-radius: 7px; background: var(--accent);
  opacity: .55; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media (max-width: 620px) { main { padding: 28px 14px 40px; } section { padding: 16px; border-radius: 10px; }
  .player { flex-wrap: wrap; } .player output { min-width: 0; } h1 { font-size: 1.6rem; }
  .wide { display: none; } td.bar { min-width: 90px; } th, td { padding-right: 10px; } }
@media print { section { break-inside: avoid; } .player { display: none; } }
"""

# Both films have the same frames at the same times; the dream follows the real one, the playhead follows both.
_SCRIPT = """
for (const episode of document.querySelectorAll("[data-episode]")) {
  const facts = JSON.parse(episode.dataset.episode), [real, dream] = episode.querySelectorAll("video");
  const bar = episode.querySelector(".player"), [button, speed] = bar.querySelectorAll("button");
  const slider = bar.querySelector("input"), label = bar.querySelector("output");
  const head = episode.querySelector(".playhead");
  const last = facts.steps.length - 1, speeds = [1, 0.5, 0.25];
  let seen = 0, visible = false, wanted = true, waiting = null;
  bar.hidden = false; head.hidden = false;
  for (const video of [real, dream]) if (video) video.controls = false;
  const start = (index) => (index + 0.5) / facts.fps;
  const show = (index) => {
    const step = facts.steps[index];
    slider.value = index;
    label.textContent = `step ${step} of ${facts.steps[last]} \\u00b7 ${(step / facts.hz).toFixed(2)} s`;
    head.style.left = `${100 * (facts.left + (facts.right - facts.left) * step / Math.max(facts.steps[last], 1))}%`;
  };
  const both = (action) => { for (const video of [real, dream]) if (video) action(video); };
  const update = () => {
    button.textContent = wanted ? "Pause" : "Play";
    if (wanted && visible) both((video) => video.play().catch(() => {})); else both((video) => video.pause());
  };
  const jump = (index) => { both((video) => { video.currentTime = start(index); }); seen = index; show(index); };
  const tick = () => {
    if (!real.paused) {
      seen = Math.min(last, Math.floor(real.currentTime * facts.fps));
      const late = dream && Math.abs(dream.currentTime - real.currentTime) > 0.6 / facts.fps;
      if (late) dream.currentTime = real.currentTime;
      show(seen);
    }
    requestAnimationFrame(tick);
  };
  button.onclick = () => { wanted = !wanted; if (wanted && seen === last) jump(0); update(); };
  speed.onclick = () => {
    const next = speeds[(speeds.indexOf(real.playbackRate) + 1) % speeds.length];
    both((video) => { video.playbackRate = next; });
    speed.textContent = `${next}\\u00d7`;
  };
  slider.oninput = () => { clearTimeout(waiting); wanted = false; update(); jump(Number(slider.value)); };
  const again = () => { if (wanted) { jump(0); update(); } };
  real.onended = () => { both((video) => video.pause()); jump(last); waiting = setTimeout(again, 1200); };
  const watch = ([entry]) => { visible = entry.isIntersecting; update(); };
  new IntersectionObserver(watch, { threshold: 0.1 }).observe(real);
  show(0); tick();
}
for (const film of document.querySelectorAll(".gallery video")) {
  film.controls = false;
  film.onclick = () => { if (film.paused) film.play(); else film.pause(); };
  const watch = ([entry]) => { if (entry.isIntersecting) film.play().catch(() => {}); else film.pause(); };
  new IntersectionObserver(watch, { threshold: 0.2 }).observe(film);
}
"""


def page(title: str, body: str) -> str:
    """The whole file. `title` is plain text, `body` is HTML."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )
