"""Checks of what the action says about the state: labels that are no labels, held labels, grippers upside down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from wam.data.lint.finding import Finding
from wam.data.lint.survey import Survey
from wam.data.lint.values import ODD
from wam.data.schema import ACTION, STATE
from wam.data.vectors import places

SAME = 0.95
"""Share of rows with the same value that makes two columns one."""
PAST = 3
"""Rows that an action which merely repeats the state may be behind it."""
FOLLOWS = 0.4
"""Correlation between the gripper's action and its state above which their relation counts as known."""


def check_action_is_state(survey: Survey) -> Iterator[Finding]:
    """The action is not a copy of the present or an earlier state. (The *next* state is a good absolute action.)"""
    if not survey.pairs:
        return
    mine, theirs = (list(dims) for dims in zip(*survey.pairs, strict=True))
    states, actions = survey.vectors(STATE), survey.vectors(ACTION)
    advice = "the labels teach the model to stand still: record commands, or take the next state as the action"
    for number in sorted(states.keys() & actions.keys()):
        state, action = states[number][:, mine], actions[number][:, theirs]
        for behind in range(PAST + 1):
            if _same(state[: len(state) - behind], action[behind:]):
                found = (
                    "equal to the state of the same row" if not behind else f"equal to the state {behind} rows before"
                )
                what = "commands: where to go, not where the robot is"
                yield Finding("action-is-state", "error", found, what, advice, field=ACTION, episodes=(number,))
                break


def _same(state: np.ndarray, action: np.ndarray) -> bool:
    """Whether all dimensions that move are equal in nearly all rows."""
    moving = np.ptp(state, axis=0) > 0 if len(state) > 2 else np.zeros(state.shape[1], bool)
    if not moving.any():
        return False
    close = np.isclose(state[:, moving], action[:, moving], rtol=1e-5, atol=1e-7).all(axis=1)
    return bool(close.mean() >= SAME)


def check_held(survey: Survey) -> Iterator[Finding]:
    """Actions change at the declared rate, not every k rows."""
    if ACTION not in survey.declared.columns:
        return
    gaps = []
    for values in survey.vectors(ACTION).values():
        changes = np.flatnonzero((np.diff(values, axis=0) != 0).any(axis=1))
        gaps.append(np.diff(changes))
    gap = np.concatenate(gaps) if gaps else np.zeros(0)
    if len(gap) < 10:
        return
    usual = int(np.median(gap))
    if usual > 1 and float((gap == usual).mean()) > 0.8:
        fps = survey.declared.fps
        found, what = f"every action is held for {usual} rows ({fps / usual:g} per second)", f"{fps:g} per second (fps)"
        advice = f"actions and rows have different rates: record at {fps / usual:g} Hz, or keep every {usual}th row"
        yield Finding("action-held", "warning", found, what, advice, field=ACTION)


# -- gripper -----------------------------------------------------------------------------------------------------------


def check_gripper_range(survey: Survey) -> Iterator[Finding]:
    """The raw values of a gripper are those that the embodiment calls open and closed."""
    for column, parts in survey.parts.items():
        for place in places(parts, column):
            if place.part.gripper is not None and place.end <= survey.width(place.key):
                values = survey.sample(place.key)[:, place.start : place.end]
                if len(values):
                    field = f"{place.key}.{place.part.name}"
                    yield from _gripper_range(field, values.min(), values.max(), *sorted(place.part.gripper))


def _gripper_range(field: str, found_low: float, found_high: float, low: float, high: float) -> Iterator[Finding]:
    width = high - low
    outside = found_low < low - 0.1 * width or found_high > high + 0.1 * width
    if outside or 0 < found_high - found_low < 0.1 * width:
        advice = "correct 'gripper' (open, closed) in the embodiment, or rescale the column"
        text = f"values from {found_low:g} to {found_high:g}"
        yield Finding("gripper-range", "error", text, f"from {low:g} to {high:g} (embodiment)", advice, field=field)


def check_gripper_sign(survey: Survey) -> Iterator[Finding]:
    """In every episode the gripper follows its action in the same direction, and begins at the same end."""
    states, actions = survey.vectors(STATE), survey.vectors(ACTION)
    grippers = list(zip(survey.grippers(STATE), survey.grippers(ACTION), strict=False))
    for mine, theirs in grippers if len(survey.grippers(STATE)) == len(survey.grippers(ACTION)) else ():
        both = sorted(states.keys() & actions.keys())
        relation = {e: _relation(states[e][:, mine], actions[e][:, theirs]) for e in both}
        yield from _odd_relation(survey, relation, survey.dim_name(STATE, mine))
    for mine in survey.grippers(STATE):
        yield from _odd_start({e: values[0, mine] for e, values in states.items()}, survey.dim_name(STATE, mine))


def _relation(state: np.ndarray, action: np.ndarray, ahead: int = 3) -> tuple[float, float]:
    """Correlation of the action with the state, and with the movement that follows; 0 where nothing moves."""
    return correlation(action, state), correlation(action[:-ahead], state[ahead:] - state[:-ahead])


def _odd_relation(survey: Survey, relation: Mapping[int, tuple[float, float]], field: str) -> Iterator[Finding]:
    if len(relation) < 3:
        return
    table = np.array(list(relation.values()))
    kind = int(np.abs(np.median(table, axis=0)).argmax())
    usual = float(np.median(table[:, kind]))
    if abs(usual) < FOLLOWS:
        return
    odd = [number for number, both in relation.items() if both[kind] * np.sign(usual) < -FOLLOWS]
    if len(odd) <= ODD * len(relation):
        for number in odd:
            found = f"the gripper moves against its action (correlation {relation[number][kind]:+.2f})"
            what, advice = f"as in the other episodes ({usual:+.2f})", "open and closed are exchanged: flip the values"
            yield Finding("gripper-sign", "error", found, what, advice, field=field, episodes=(number,))


def _odd_start(start: Mapping[int, float], field: str) -> Iterator[Finding]:
    values = np.array(list(start.values()))
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    if len(values) < 5 or low == high:
        return
    place = (values - low) / (high - low)
    for end, far in ((place < 0.1, place > 0.9), (place > 0.9, place < 0.1)):
        if far.mean() <= ODD and (end | far).all():
            for number in np.array(list(start))[far].tolist():
                found, what = f"begins at {start[number]:.4g}", f"about {np.median(values):.4g}, as the other episodes"
                advice = "open and closed are exchanged, or the episode begins in the middle of a grasp: look at it"
                yield Finding("gripper-sign", "warning", found, what, advice, field=field, episodes=(number,))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two series; 0 where one does not move."""
    if len(a) < 3:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-12 else 0.0
