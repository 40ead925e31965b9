"""The two plots as ECharts options: the actions around the present, and the time of every stage of the last calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wam.play.episode import SHOWN_CHUNKS, Snapshot
from wam.play.style import DREAM, LINE, SERIES, SOFT, STAGES

PAST = 24
"""Control steps before the present chunk that the plot of actions shows."""

_TEXT = {"color": SOFT, "fontSize": 11}
_FRAME = {
    "animation": False,
    "grid": {"left": 42, "right": 14, "top": 32, "bottom": 30},
    "legend": {"top": 0, "left": 0, "itemWidth": 14, "itemHeight": 8, "icon": "roundRect", "textStyle": _TEXT},
    "tooltip": {"trigger": "axis", "confine": True},
}


def _axis(**options: Any) -> dict[str, Any]:
    line = {"lineStyle": {"color": LINE}}
    return {"axisLabel": _TEXT, "nameTextStyle": _TEXT, "axisLine": line, "splitLine": line, "axisTick": line} | options


def actions(names: Sequence[str], shown: Snapshot | None = None) -> dict[str, Any]:
    """Every dimension of the actions in robot units: what was sent, and the rest of the chunk."""
    start = 0
    sent = chunk = np.zeros((0, len(names)), dtype=np.float32)
    if shown is not None and shown.actions is not None and shown.sent is not None:
        chunk, start = shown.actions, shown.step - shown.done
        sent = shown.sent[: len(shown.sent) - shown.done][-PAST:]
    values = np.concatenate([sent, chunk])
    first, end, now = start - len(sent), start + len(chunk), 0 if shown is None else shown.step
    largest = max(1.0, math.ceil(2 * float(np.abs(values).max(initial=0))) / 2)
    held = np.concatenate([values, values[-1:]])  # the last action lasts one step too
    series: list[dict[str, Any]] = [
        {
            "name": name.replace("_", " "),
            "type": "line",
            "step": "end",
            "symbol": "none",
            "lineStyle": {"width": 2},
            "data": [[first + row, round(float(value), 4)] for row, value in enumerate(held[:, dim])],
        }
        for dim, name in enumerate(names)
    ]
    if len(chunk):
        series[0]["markArea"] = {
            "silent": True,
            "itemStyle": {"color": DREAM, "opacity": 0.09},
            "data": [[{"xAxis": start}, {"xAxis": end}]],
        }
        series[0]["markLine"] = {
            "silent": True,
            "symbol": "none",
            "label": {"formatter": "now", **_TEXT},
            "lineStyle": {"color": SOFT, "type": "solid", "width": 1.5},
            "data": [{"xAxis": now}],
        }
    low = max(0, end - PAST - max(8, len(chunk)))
    x = _axis(type="value", min=low, max=max(end, low + PAST + 8), minInterval=8, splitLine={"show": False})
    y = _axis(type="value", min=-largest, max=largest, interval=largest / 2)
    return {**_FRAME, "color": list(SERIES), "xAxis": x, "yAxis": y, "series": series}


def latency(calls: Sequence[Mapping[str, float]] = ()) -> dict[str, Any]:
    """Milliseconds of every stage of the last calls, one on the other."""
    columns = [*calls, *[{}] * (SHOWN_CHUNKS - len(calls))]
    series = [
        {
            "name": stage,
            "type": "bar",
            "stack": "call",
            "barCategoryGap": "25%",
            "itemStyle": {"color": colour},
            "data": [round(1000 * call[stage], 2) if stage in call else None for call in columns],
        }
        for stage, colour in STAGES.items()
    ]
    x = _axis(type="category", data=[""] * len(columns), axisTick={"show": False})
    y = _axis(type="value", splitNumber=4, axisLabel={**_TEXT, "formatter": "{value} ms"})
    grid = {"left": 52, "right": 14, "top": 12, "bottom": 8}
    return {**_FRAME, "grid": grid, "legend": {"show": False}, "xAxis": x, "yAxis": y, "series": series}
