"""What the page looks like: calm, with sharp pixels, one colour for what is real, one for what is dreamed."""

REAL, DREAM, SOFT, LINE, INK = "#2f7d6d", "#7a5bb5", "#6a6e76", "#e3e3e0", "#1d1f23"
SERIES = ("#3b6fb6", "#d98324", "#2c8a5b", "#b8473d", "#7a5bb5", "#0f8fa8", "#a3722c", "#5f6b7a")
STAGES = {
    "observe": "#b9c6d8",
    "prompt": "#d98324",  # reading a new sentence
    "encode": "#7fa3cf",
    "remember": "#3b6fb6",
    "denoise": "#7a5bb5",
    "act": "#2c8a5b",
}

CSS = f"""
:root {{ --nicegui-default-padding: 0; --real: {REAL}; --dream: {DREAM}; --soft: {SOFT}; --line: {LINE}; }}
body {{ background: #f7f7f5; color: {INK}; font: 15px/1.5 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", "DejaVu Sans", sans-serif; }}
.nicegui-content {{ padding: 0; display: block; }}
.board {{ display: grid; grid-template-columns: 300px minmax(0, 1120px); gap: 18px; padding: 18px 26px; margin: 0 auto;
  justify-content: center; align-items: start; }}
@media (max-width: 1000px) {{ .board {{ grid-template-columns: minmax(0, 1fr); }} }}
.card {{ background: #fff; border: 1px solid var(--line); border-radius: 14px; padding: 12px 16px 14px; }}
.side {{ display: flex; flex-direction: column; gap: 14px; }}
.stage {{ display: flex; flex-direction: column; gap: 13px; min-width: 0; }}
.name {{ font-size: 1.5rem; font-weight: 680; letter-spacing: -.02em; line-height: 1.1; }}
.soft {{ color: var(--soft); font-size: .86rem; }}
.label {{ color: var(--soft); font-size: .74rem; font-weight: 600; text-transform: uppercase; letter-spacing: .07em; }}
.row {{ display: flex; gap: 8px; align-items: center; flex-wrap: wrap; }}
.row > .grow {{ flex: 1; }}
.sentence {{ font-size: 1.55rem; font-weight: 640; letter-spacing: -.015em; line-height: 1.25; flex: 1;
  min-width: 12em; }}
.chip {{ border: 1px solid currentColor; border-radius: 99px; padding: 1px 12px; font-size: .86rem; color: var(--soft);
  white-space: nowrap; }}
.chip.good {{ color: #fff; background: #2c8a5b; border-color: #2c8a5b; }}
.chip.live {{ color: #3b6fb6; }} .chip.bad {{ color: #b8473d; }} .chip.wait {{ color: #b06a14; }}
.pair {{ display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }}
.strip {{ display: grid; grid-template-columns: 96px repeat(var(--frames), minmax(0, 1fr)); gap: 7px 10px;
  align-items: center; }}
.strip .when {{ text-align: center; }}
.shot {{ display: block; width: 100%; aspect-ratio: var(--shape); image-rendering: pixelated; border-radius: 6px;
  background: #ececea; box-sizing: border-box; }}
.shot.real {{ border: 3px solid var(--real); }}
.shot.dream {{ border: 3px dashed var(--dream); background-clip: padding-box; }}
.shot.empty {{ border-style: dotted; opacity: .35; }}
.tag {{ font-weight: 640; white-space: nowrap; }}
.tag.real {{ color: var(--real); }} .tag.dream {{ color: var(--dream); }}
.tag.real::before {{ content: ""; display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  background: var(--real); margin-right: 7px; }}
.tag.dream::before {{ content: ""; display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  border: 2px solid var(--dream); box-sizing: border-box; margin-right: 7px; }}
.caption {{ display: flex; justify-content: space-between; align-items: baseline; gap: 12px; margin-bottom: 7px;
  white-space: nowrap; overflow: hidden; }}
.plot {{ width: 100%; height: 190px; }} .plot.low {{ height: 168px; }}
.q-btn {{ text-transform: none; border-radius: 9px; font-weight: 560; }}
.q-field, .q-toggle {{ font-size: .95rem; }}
.stages {{ display: flex; flex-wrap: wrap; gap: 0 10px; font-size: .74rem;
  color: var(--soft); }}
.stages > * {{ white-space: nowrap; }} .stages > *::before {{ content: ""; display: inline-block; width: 9px;
  height: 9px; border-radius: 3px; margin-right: 5px; background: var(--colour); }}
.full {{ width: 100%; }}
.number {{ font-variant-numeric: tabular-nums; }}
"""
