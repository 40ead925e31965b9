"""Checks that pictures belong to their rows.

What the pictures tell about the state is learned from the data set itself: tiny grey frames are projected on their
principal components, and a linear fit reads the state from them, for every episode from the others. This is done anew
for every delay of a few rows between pictures and state, and scored by how much of the position is explained, times
the correlation of the velocities. Frames that belong to their rows have the best score at 0; frames that are three
rows late have it at 3. Where pictures say little about the state there is no verdict. (The mere amount of motion in
the picture is a poor witness: things that the robot moves go on moving after it.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wam.data.lint.finding import Finding, Severity
from wam.data.lint.survey import Survey
from wam.data.schema import STATE

REACH_SECONDS, REACH_ROWS = 0.4, 8
"""Delays that are looked for: up to this time, and at most so many rows."""
WORTH_TELLING = 2
"""Delays of one row are common: a camera needs time."""
COMPONENTS, ROWS_PER_COMPONENT = 48, 20
FOLDS = 5
LEAST_SCORE, RESAMPLES, AGREE = 0.1, 200, 0.95
"""A delay of the data set is believed where its score is at least `LEAST_SCORE` and resampling the episodes finds it
again (± 1 row) in this share of all draws."""
SURE, BETTER, UNITED = 0.3, 3.0, 0.8
"""A delay of one episode is believed where its score is at least `SURE` and `BETTER` times that at the usual delay, and
this share of all episodes has its best score at the usual delay (± 1 row)."""
CUT_TIMES, CUT_LEAST = 3.0, 6.0
"""A cut changes a picture this many times more than 99 % of all steps do, and by at least so much (of 255)."""
ROUGH = 0.3
"""A dimension whose steps are so large beside its width is noise or a switch, not a movement."""


@dataclass(frozen=True)
class Signals:
    """Of the episodes that are long enough: pictures (T, K) in their components and states (T, S), both centred."""

    numbers: tuple[int, ...]
    pictures: tuple[np.ndarray, ...]
    states: tuple[np.ndarray, ...]


def check_shifted(survey: Survey) -> Iterator[Finding]:
    """No video is early or late: neither in the whole data set nor in single episodes."""
    reach = max(WORTH_TELLING + 1, min(round(REACH_SECONDS * survey.declared.fps), REACH_ROWS))
    for key in survey.declared.cameras:
        signals = _signals(survey, key, reach)
        if len(signals.numbers) < FOLDS:
            continue
        usual = usual_delay(signals, reach)
        if abs(usual) >= WORTH_TELLING:
            yield _shifted(survey, key, usual, ())
        for number, delay in odd_delays(signals, usual, reach).items():
            yield _shifted(survey, key, delay, (number,))


def _shifted(survey: Survey, key: str, delay: int, episodes: tuple[int, ...]) -> Finding:
    seconds, when = abs(delay) / survey.declared.fps, "late" if delay > 0 else "early"
    found = f"pictures are about {abs(delay)} rows ({seconds:.2f} s) {when} against the state"
    advice = "shift the video against the rows, or measure the delay of the camera and correct it in the recording"
    severity: Severity = "error" if episodes else "warning"
    what = "what moves the state moves the picture in the same row"
    return Finding("shifted-video", severity, found, what, advice, field=key, episodes=episodes)


# -- delays ------------------------------------------------------------------------------------------------------------


def usual_delay(signals: Signals, reach: int) -> int:
    """The delay of the pictures in the whole data set; 0 where resampling the episodes does not confirm another."""
    sums = np.stack([_sums_at(signals, delay, delay, reach) for delay in range(-reach, reach + 1)], axis=1)
    scores = _score(sums.sum(0))
    best = int(scores.argmax())
    if best in (0, 2 * reach) or scores[best] < LEAST_SCORE:
        return 0
    draws = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    again = np.array([_score(sums[draw].sum(0)).argmax() for draw in draws])
    return best - reach if (np.abs(again - best) <= 1).mean() >= AGREE else 0


def odd_delays(signals: Signals, usual: int, reach: int) -> dict[int, int]:
    """Episodes whose delay is beyond doubt not the usual one -> their delay."""
    delays = range(-reach, reach + 1)
    scores = _score(np.stack([_sums_at(signals, usual, delay, reach) for delay in delays], axis=1))
    best = scores.argmax(1) - reach
    if (np.abs(best - usual) <= 1).mean() < UNITED:
        return {}
    peak, expected = scores.max(1), scores[:, usual + reach]
    odd = (np.abs(best - usual) >= WORTH_TELLING) & (np.abs(best) >= WORTH_TELLING) & (np.abs(best) < reach)
    odd &= (peak >= SURE) & (peak >= BETTER * expected)
    return {signals.numbers[i]: int(best[i]) for i in np.flatnonzero(odd)}


def _sums_at(signals: Signals, fitted: int, delay: int, reach: int) -> np.ndarray:
    """How well a fit at one delay reads the states at another: five sums per episode, see `_score`; (n, 5)."""
    fit_on = [_later(pictures, fitted, reach) for pictures in signals.pictures]
    read_at = fit_on if fitted == delay else [_later(pictures, delay, reach) for pictures in signals.pictures]
    states = [_centred(state[reach : len(state) - reach]) for state in signals.states]
    rows = []
    for seen, real in zip(_read(fit_on, read_at, states), states, strict=True):
        velocity, seen_velocity = np.diff(real, axis=0), np.diff(seen, axis=0)
        pairs = [(seen - real, seen - real), (real, real), (velocity, seen_velocity)]
        pairs += [(velocity, velocity), (seen_velocity, seen_velocity)]
        rows.append([float((a * b).sum()) for a, b in pairs])
    return np.array(rows)


def _score(sums: np.ndarray) -> np.ndarray:
    """(..., 5) -> (...): share of the position that is explained, times the correlation of the velocities; 0 to 1."""
    error, total, product, real, seen = np.moveaxis(sums, -1, 0)
    scale = np.sqrt(real * seen)
    correlation = np.where(scale > 0, product / np.where(scale > 0, scale, 1.0), 0.0)
    return np.asarray(np.clip(1 - error / total, 0, 1) * np.clip(correlation, 0, 1))


# -- from frames to signals --------------------------------------------------------------------------------------------


def _signals(survey: Survey, key: str, reach: int) -> Signals:
    """What is needed of one camera; empty where no state moves steadily."""
    states = survey.vectors(STATE) if STATE in survey.declared.columns else {}
    films = {number: film for (number, camera), film in survey.films.items() if camera == key and not film.missing}
    numbers = [number for number, film in films.items() if len(states.get(number, ())) == len(film.tiny) > 3 * reach]
    moving = _smooth_dimensions([states[number] for number in numbers])
    if not moving.any():
        return Signals((), (), ())
    scale = np.concatenate([_centred(states[number][:, moving]) for number in numbers]).std(0)
    scaled = tuple(_centred(states[number][:, moving]) / np.where(scale > 0, scale, 1.0) for number in numbers)
    return Signals(tuple(numbers), _components([films[number].tiny for number in numbers]), scaled)


def _smooth_dimensions(states: list[np.ndarray]) -> np.ndarray:
    """bool (S,): dimensions that move, and move steadily."""
    if not states:
        return np.zeros(0, bool)
    steps = np.concatenate([np.diff(state, axis=0) for state in states])
    width = np.ptp(np.concatenate(states), axis=0)
    return np.asarray((width > 0) & (steps.std(0) < ROUGH * np.where(width > 0, width, 1.0)))


def _components(films: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Films (T, h, w) as deviations from their mean picture, in their principal components: (T, K) each."""
    pixels = [_centred(film.reshape(len(film), -1).astype(np.float64)) for film in films]
    rows = sum(map(len, pixels))
    _, directions = np.linalg.eigh(np.sum([part.T @ part for part in pixels], axis=0) / rows)
    kept = directions[:, ::-1][:, : max(1, min(COMPONENTS, rows // ROWS_PER_COMPONENT))]
    return tuple(part @ kept for part in pixels)


def _later(values: np.ndarray, delay: int, reach: int) -> np.ndarray:
    """The rows `reach` .. T - `reach`, shifted by a delay, and centred: always T - 2 reach rows."""
    return _centred(values[reach + delay : len(values) - reach + delay])


def _centred(values: np.ndarray) -> np.ndarray:
    return np.asarray(values - values.mean(0))


def _read(fit_on: list[np.ndarray], read_at: list[np.ndarray], states: list[np.ndarray]) -> list[np.ndarray]:
    """States (T, S) as a ridge regression reads them from pictures (T, K), every fold with the fit of the others."""
    squares = np.stack([pictures.T @ pictures for pictures in fit_on])
    products = np.stack([pictures.T @ state for pictures, state in zip(fit_on, states, strict=True)])
    seen: list[np.ndarray] = [np.zeros(0)] * len(fit_on)
    folds = np.arange(len(fit_on)) % FOLDS
    for fold in range(FOLDS):
        square, product = squares[folds != fold].sum(0), products[folds != fold].sum(0)
        ridge = (0.01 * np.trace(square) / len(square) + 1e-9) * np.eye(len(square))
        weights = np.linalg.solve(square + ridge, product)
        for i in np.flatnonzero(folds == fold):
            seen[i] = read_at[i] @ weights
    return seen


# -- cuts --------------------------------------------------------------------------------------------------------------


def check_cuts(survey: Survey) -> Iterator[Finding]:
    """Inside an episode the picture never changes all at once."""
    for key in survey.declared.cameras:
        films = {number: film for (number, camera), film in survey.films.items() if camera == key and not film.missing}
        steps = [film.motion[1:] for film in films.values() if len(film.motion) > 1]
        if not steps:
            continue
        limit = max(CUT_TIMES * float(np.quantile(np.concatenate(steps), 0.99)), CUT_LEAST)
        for number, film in films.items():
            shows = film.brightness > 10
            shows[1:] &= shows[:-1]  # to black and back is no cut
            cuts = np.flatnonzero((film.motion > limit) & shows)
            if len(cuts):
                yield _cut(key, number, int(cuts[0]), len(film.motion), len(cuts))


def _cut(key: str, number: int, row: int, length: int, count: int) -> Finding:
    found = f"the whole picture changes at row {row}" + (f" and {count - 1} more times" if count > 1 else "")
    if row <= length // 4:
        advice = f"do the first {row} pictures belong to the episode before? Correct its place in the video"
    elif row >= length - length // 4:
        advice = f"do the last {length - row} pictures belong to the next episode? Correct its place in the video"
    else:
        advice = "two recordings were joined, or frames are missing: cut the episode there"
    what = "a picture that changes little from row to row"
    return Finding("cut", "error", found, what, advice, field=key, episodes=(number,))
