"""Checks of the stored statistics against the data: wrong statistics train quietly and badly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from wam.data.lint.finding import Finding
from wam.data.lint.survey import Survey
from wam.data.schema import STATS_PATH

TOLERANCE = 0.02
"""Difference that is allowed, in standard deviations (mean, std) or widths (min, max)."""
QUANTILE_TOLERANCE = 0.25
"""The same for quantiles, in widths: LeRobot averages those of the episodes."""
ADVICE = "write them again with `wam data stats PATH --repair`; the normalisation would be wrong"


def check_stats(survey: Survey) -> Iterator[Finding]:
    """`meta/stats.json` fits the rows."""
    for name in survey.vector_names if survey.declared.stats else ():
        vectors = survey.vectors(name)
        if len(vectors) < len(survey.declared.episodes):
            continue  # rows are missing or broken, which other checks say
        told = survey.declared.stats.get(name)
        if not isinstance(told, Mapping):
            what = "statistics of every column"
            yield Finding("stats", "warning", "no statistics of this column", what, ADVICE, STATS_PATH, name)
            continue
        rows = np.concatenate(list(vectors.values()))
        yield from _compare(survey, name, told, rows)


def _compare(survey: Survey, name: str, told: Mapping[str, Any], rows: np.ndarray) -> Iterator[Finding]:
    """The first number of a column that is wrong."""
    real = {"mean": rows.mean(0), "std": rows.std(0), "min": rows.min(0), "max": rows.max(0)}
    real |= dict(zip(("q01", "q99"), np.quantile(rows, (0.01, 0.99), axis=0), strict=True))
    width = real["max"] - real["min"]
    for kind, expected in real.items():
        if kind not in told:
            continue
        try:
            found = np.asarray(told[kind], dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            text, what = f"{kind} is no list of numbers", f"{expected.size} numbers"
            yield Finding("stats", "error", text, what, ADVICE, STATS_PATH, name)
            return
        if found.shape != expected.shape:
            text, what = f"{kind} has {found.size} numbers", f"{expected.size} numbers"
            yield Finding("stats", "error", text, what, ADVICE, STATS_PATH, name)
            return
        quantile = kind in ("q01", "q99")
        scale = real["std"] if kind in ("mean", "std") else width
        allowed = (QUANTILE_TOLERANCE if quantile else TOLERANCE) * scale + 1e-5 * (1 + np.abs(expected))
        wrong = np.flatnonzero(~(np.abs(found - expected) <= allowed))
        if len(wrong):
            dim = int(wrong[0])
            text, what = f"{kind} is {found[dim]:.5g}", f"{expected[dim]:.5g}, computed from the rows"
            yield Finding("stats", "error", text, what, ADVICE, STATS_PATH, survey.dim_name(name, dim))
            return


def check_episode_stats(survey: Survey) -> Iterator[Finding]:
    """The statistics of every episode fit its rows."""
    advice = "write the table of episodes again; programs that merge these statistics normalise wrongly"
    for name in survey.vector_names:
        told = survey.declared.episode_stats.get(name, {})
        for number, values in survey.vectors(name).items():
            real = {"mean": values.mean(0), "min": values.min(0), "max": values.max(0)}
            allowed = TOLERANCE * (real["max"] - real["min"]) + 1e-5 * (1 + np.abs(real["mean"]))
            for kind, expected in real.items():
                found = told.get(kind, {}).get(number)
                if found is None:
                    continue
                if found.shape != expected.shape or not (np.abs(found - expected) <= allowed).all():
                    text = f"{kind} is {np.round(found, 4).tolist()}"
                    what = f"{kind} as computed from the rows"
                    yield Finding("stats", "error", text, what, advice, field=name, episodes=(number,))
                    break
