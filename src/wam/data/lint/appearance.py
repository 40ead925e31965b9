"""Checks that every episode looks like the others through the same camera: not exchanged, turned or miscoloured.

The average picture of an episode is compared with the median of all episodes, as it is and as each known mistake would
make it. Cameras that see alike, or scenes that change a lot, give no verdict; the page is for the human eye.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from wam.data.lint.finding import Finding
from wam.data.lint.survey import Survey

CLEARLY = 0.5
"""A mistake is believed when undoing it at least halves the difference to the usual picture."""
LEAST = 4.0
"""Differences (of 255) below this are never looked into."""
FEWEST = 3
"""Episodes from which a usual picture can be told."""

MISTAKES: Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "the picture is upside down": ("turned", lambda picture: picture[::-1]),
    "the picture is mirrored": ("turned", lambda picture: picture[:, ::-1]),
    "the picture is turned by 180 degrees": ("turned", lambda picture: picture[::-1, ::-1]),
    "red and blue are exchanged": ("colours", lambda picture: picture[..., ::-1]),
}
"""What was found -> (check, how to undo it)."""


def check_cameras(survey: Survey) -> Iterator[Finding]:
    """In no episode two cameras are exchanged, and no picture is turned or has red and blue exchanged."""
    pictures = {
        key: {
            number: film.mean for (number, camera), film in survey.films.items() if camera == key and not film.missing
        }
        for key in survey.declared.cameras
    }
    pictures = {key: mine for key, mine in pictures.items() if len(mine) >= FEWEST}
    usual = {key: np.median(list(mine.values()), axis=0) for key, mine in pictures.items()}
    for key, mine in pictures.items():
        for number, picture in mine.items():
            off = _difference(picture, usual[key])
            if off < LEAST:
                continue
            others = {other: _difference(picture, usual[other]) for other in usual if other != key}
            nearest = min(others, key=lambda other: others[other], default=None)
            if nearest is not None and others[nearest] < CLEARLY * off:
                yield _exchanged(key, nearest, number)
                continue
            yield from _mistaken(key, picture, usual[key], off, number)


def _exchanged(key: str, other: str, number: int) -> Finding:
    found = f"shows what {other} shows in the other episodes"
    what, advice = "the same camera in all episodes", "cameras were exchanged: rename the videos of these episodes"
    return Finding("swapped-cameras", "error", found, what, advice, field=key, episodes=(number,))


def _mistaken(key: str, picture: np.ndarray, usual: np.ndarray, off: float, number: int) -> Iterator[Finding]:
    """The mistake that explains the difference best, if it explains it clearly."""
    differences = {found: _difference(undo(picture), usual) for found, (_, undo) in MISTAKES.items()}
    found = min(differences, key=lambda mistake: differences[mistake])
    if differences[found] < CLEARLY * off:
        advice = "encode the video again the right way (upright, RGB), or leave the episode out"
        what = "the picture as in the other episodes"
        yield Finding(MISTAKES[found][0], "error", found, what, advice, field=key, episodes=(number,))


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of uint8 or float pictures, 0 to 255."""
    return float(np.abs(a.astype(np.float32) - b).mean())
