"""Checks of single numbers: not finite, never moving, cut off, far outside, jumping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from wam.data.lint.finding import Finding
from wam.data.lint.survey import Survey
from wam.data.schema import ACTION, STATE

STUCK_ROWS = 10
"""Rows that an episode needs before a dimension that never moves in it means anything."""
ODD = 0.1001
"""Up to this share of the episodes is odd when it does otherwise than all the rest; more is another way of doing it."""
FAR = 3.0
"""An outlier is this many widths (1 % to 99 % quantile) beyond the quantiles."""
SATURATED = {STATE: 0.25, ACTION: 0.5}
"""Column -> share of rows at exactly its smallest or largest value that is too many."""
JUMP = 6.0
"""A jump is so many times larger than 99 % of all steps, and a good part of the range."""
TURNS = {"360 degrees": 360.0, "2 pi": 2 * np.pi}
DISTINCT = 20
"""A dimension with at most so many different values is a switch, not a measurement."""


def check_finite(survey: Survey) -> Iterator[Finding]:
    """No NaN and no infinity."""
    for number, columns in survey.rows.items():
        for name, values in columns.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                bad = np.argwhere(~np.isfinite(values.reshape(len(values), -1)))
                row, dim = (int(index) for index in bad[0])
                field = survey.dim_name(name, dim) if survey.width(name) > 1 else name
                found = f"{values.reshape(len(values), -1)[row, dim]} in row {row} ({len(bad)} such values)"
                advice = "leave the episode out, or repair its values"
                yield Finding("not-finite", "error", found, "finite numbers", advice, field=field, episodes=(number,))


def check_constant(survey: Survey) -> Iterator[Finding]:
    """Every dimension moves: in the data set, and if it is measured, in an episode if it does in nearly all others."""
    for name in survey.vector_names:
        vectors, grippers = survey.vectors(name), survey.grippers(name)
        if sum(map(len, vectors.values())) < 2:
            continue
        width = {number: np.ptp(values, axis=0) for number, values in vectors.items()}
        low = np.min([values.min(0) for values in vectors.values()], axis=0)
        high = np.max([values.max(0) for values in vectors.values()], axis=0)
        for dim in range(survey.width(name)):
            field = survey.dim_name(name, dim)
            if low[dim] == high[dim]:
                yield _never_moves(field, float(low[dim]), dim in grippers)
            elif dim not in grippers and name.startswith("observation"):  # a command may well stay the same
                yield from _stuck(field, dim, vectors, width)


def _never_moves(field: str, value: float, gripper: bool) -> Finding:
    if gripper:
        advice = "check that the gripper is recorded; if the task needs none, take it out of the embodiment"
        return Finding(
            "gripper-still", "warning", f"always {value:g}", "a gripper that opens and closes", advice, field=field
        )
    advice = "check the recording; take the dimension out of the embodiment if it has no meaning"
    return Finding("constant", "warning", f"always {value:g}", "a dimension that moves", advice, field=field)


def _stuck(
    field: str, dim: int, vectors: Mapping[int, np.ndarray], width: Mapping[int, np.ndarray]
) -> Iterator[Finding]:
    """Episodes in which a dimension stands still that moves in nearly all others."""
    still = [number for number, values in vectors.items() if width[number][dim] == 0 and len(values) >= STUCK_ROWS]
    if still and len(still) <= ODD * len(vectors):
        for number in still:
            found = f"always {vectors[number][0, dim]:g}"
            what, advice = (
                "a dimension that moves, as in the other episodes",
                "a sensor was stuck? Leave the episode out",
            )
            yield Finding("constant", "warning", found, what, advice, field=field, episodes=(number,))


def check_saturated(survey: Survey) -> Iterator[Finding]:
    """No measurement is cut off at a limit for a large share of the time."""
    for name, share in SATURATED.items():
        if name not in survey.declared.columns:
            continue
        rows = survey.sample(name)
        for dim in range(survey.width(name)) if len(rows) else ():
            values = rows[:, dim]
            if dim in survey.grippers(name) or len(np.unique(values)) <= DISTINCT:
                continue
            for end, limit in (("smallest", values.min()), ("largest", values.max())):
                found = float((values == limit).mean())
                if found > share:
                    advice = "check limits and clipping in the recording; what was cut off cannot be learned"
                    what = f"at most {share:.0%} of the rows at the {end} value"
                    text = f"{found:.0%} of the rows are exactly {limit:g}"
                    yield Finding("saturated", "warning", text, what, advice, field=survey.dim_name(name, dim))


def check_outliers(survey: Survey) -> Iterator[Finding]:
    """No single value lies far beyond the quantiles."""
    for name in survey.vector_names:
        rows = survey.sample(name)
        if len(rows) < 100:
            continue
        q01, q99 = np.quantile(rows, (0.01, 0.99), axis=0)
        reach = FAR * (q99 - q01)
        for number, values in survey.vectors(name).items():
            far = ((values < q01 - reach) | (values > q99 + reach)) & (reach > 0)
            for dim in np.flatnonzero(far.any(0)).tolist():
                row = int(np.flatnonzero(far[:, dim])[0])
                found = f"{values[row, dim]:.4g} in row {row} ({int(far[:, dim].sum())} such rows)"
                what = f"about {q01[dim]:.4g} to {q99[dim]:.4g}, where 98 % of all values lie"
                advice = "a glitch of the sensor? Repair the rows or leave the episode out; it widens the normalisation"
                yield Finding(
                    "outlier", "warning", found, what, advice, field=survey.dim_name(name, dim), episodes=(number,)
                )


def check_jumps(survey: Survey) -> Iterator[Finding]:
    """The state moves on steadily from row to row."""
    if STATE not in survey.declared.columns:
        return
    vectors = {number: values for number, values in survey.vectors(STATE).items() if len(values) > 1}
    if not vectors:
        return
    steps = np.concatenate([np.abs(np.diff(values, axis=0)) for values in vectors.values()])
    usual, spread = np.quantile(steps, 0.99, axis=0), np.ptp(survey.sample(STATE), axis=0)
    grippers = survey.grippers(STATE)
    for number, values in vectors.items():
        moved = np.abs(np.diff(values, axis=0))
        for dim in np.flatnonzero((moved > JUMP * usual).any(0) & (usual > 0)).tolist():
            row, jump = int(moved[:, dim].argmax()), float(moved[:, dim].max())
            if dim not in grippers and jump > 0.3 * spread[dim]:
                yield _jump(survey.dim_name(STATE, dim), number, row, jump, float(usual[dim]))


def _jump(field: str, number: int, row: int, jump: float, usual: float) -> Finding:
    what = f"steps of at most {usual:.3g}, as in 99 % of all rows"
    turn = next((name for name, full in TURNS.items() if abs(jump / full - 1) < 0.05), None)
    if turn is not None:
        found = f"a step of {turn} after row {row}"
        advice = "an angle wraps round: unwrap it, or use another form of it"
    else:
        found = f"a step of {jump:.4g} after row {row}"
        advice = "rows are missing or two recordings were joined: cut the episode there"
    return Finding("jump", "warning", found, what, advice, field=field, episodes=(number,))
