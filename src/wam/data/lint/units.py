"""Checks for units that do not agree: between episodes, between state and action, between joints of one arm."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from wam.data.lint.actions import correlation
from wam.data.lint.finding import Finding
from wam.data.lint.survey import Survey
from wam.data.schema import ACTION, STATE

FACTORS = {180 / np.pi: "degrees and radians", 1000.0: "metres and millimetres", 100.0: "metres and centimetres, or %"}
LARGE = 20.0
"""A scale that differs by more than this between episodes is another unit."""
JOINT = re.compile(r"joint|shoulder|elbow|wrist|waist|forearm|axis|yaw|pitch|roll", re.IGNORECASE)
RADIANS, DEGREES = 3.3, 20.0
"""Joints that stay within ± 3.3 beside joints that go beyond ± 20 look like radians beside degrees."""
ADVICE = "convert all to one unit; models expect radians and metres unless the embodiment says otherwise"


def check_units_between_episodes(survey: Survey) -> Iterator[Finding]:
    """States and actions have the same scale in all episodes."""
    for name in (STATE, ACTION):
        vectors = survey.vectors(name) if name in survey.declared.columns else {}
        if len(vectors) < 3:
            continue
        reach = np.array([np.abs(values).max(0) for values in vectors.values()])
        width = np.array([np.ptp(values, axis=0) for values in vectors.values()])
        dims = [d for d in range(survey.width(name)) if d not in survey.grippers(name) and np.median(width[:, d]) > 0]
        if not dims:
            continue
        ratios = np.stack([part[:, dims] / np.median(part[:, dims], axis=0) for part in (reach, width)], axis=1)
        for number, ratio in zip(vectors, ratios, strict=True):
            for size, factor in (("larger", ratio), ("smaller", 1 / np.maximum(ratio, 1e-9))):
                other = (factor > LARGE).all(axis=0)
                if other.mean() >= 0.5:
                    times = float(np.exp(np.log(factor[:, other]).mean()))
                    found = f"values about {times:.3g} times {size} in {int(other.sum())} of {len(dims)} dimensions"
                    what = f"the scale of the other episodes; mixed {_guess(times)}?"
                    yield Finding("units", "error", found, what, ADVICE, field=name, episodes=(number,))


def check_units_of_pairs(survey: Survey) -> Iterator[Finding]:
    """An action that follows a state of the same name has its unit."""
    if not survey.pairs or not set(survey.dim_names(STATE)) & set(survey.dim_names(ACTION)) - {""}:
        return
    both = sorted(survey.vectors(STATE).keys() & survey.vectors(ACTION).keys())
    if not both:
        return
    state = np.concatenate([survey.vectors(STATE)[number] for number in both])
    action = np.concatenate([survey.vectors(ACTION)[number] for number in both])
    for mine, theirs in survey.pairs:
        x, y = state[:, mine], action[:, theirs]
        if correlation(x, y) < 0.9:
            continue
        slope = float(np.std(y) / np.std(x))
        times = max(slope, 1 / slope)
        unit = next((name for factor, name in FACTORS.items() if abs(times / factor - 1) < 0.2), None)
        if unit is not None:
            size = "larger" if slope > 1 else "smaller"
            found, what = f"the action is {times:.3g} times {size} than its state", f"one unit; mixed {unit}?"
            yield Finding("units", "error", found, what, ADVICE, field=survey.dim_name(ACTION, theirs))


def check_units_of_joints(survey: Survey) -> Iterator[Finding]:
    """All joints of one column are in one unit."""
    for name in (STATE, ACTION):
        rows = survey.sample(name) if name in survey.declared.columns else np.zeros((0, 0))
        joints = [d for d, dim in enumerate(survey.dim_names(name)) if JOINT.search(dim)] if len(rows) else []
        joints = [d for d in joints if d not in survey.grippers(name)]
        reach = {dim: float(np.quantile(np.abs(rows[:, dim]), 0.99)) for dim in joints}
        small = [dim for dim, value in reach.items() if 0.1 < value < RADIANS]
        large = [dim for dim, value in reach.items() if value > DEGREES]
        if small and large:
            found = f"{survey.dim_name(name, small[0])} stays within ±{reach[small[0]]:.2g}, "
            found += f"{survey.dim_name(name, large[0])} reaches ±{reach[large[0]]:.3g}"
            what = "all joints in radians, or all in degrees"
            yield Finding("units", "warning", found, what, ADVICE, field=name)


def _guess(times: float) -> str:
    """The usual mix-up with the nearest factor."""
    return min(FACTORS.items(), key=lambda item: abs(np.log(times / item[0])))[1]
