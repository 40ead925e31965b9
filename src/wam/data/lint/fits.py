"""Checks that the data set fits the robot that it is meant for: cameras, sizes, columns, names, rate."""

from __future__ import annotations

from collections.abc import Iterator

from wam.data.lint.finding import Finding
from wam.data.lint.survey import Survey
from wam.data.schema import ACTION, STATE
from wam.data.vectors import PartPlace, places
from wam.robot.embodiment import Embodiment, Part

ASPECT_TOLERANCE = 0.05


def check_embodiment(survey: Survey) -> Iterator[Finding]:
    """All that the embodiment needs is there, at its rate and in its shape."""
    if survey.embodiment is not None:
        yield from _rate(survey, survey.embodiment)
        for camera in survey.embodiment.cameras:
            yield from _camera(survey, survey.embodiment, camera)
        yield from _vector(survey, STATE, survey.embodiment.state)
        yield from _vector(survey, ACTION, survey.embodiment.action)


def _rate(survey: Survey, robot: Embodiment) -> Iterator[Finding]:
    fps = survey.declared.fps
    if abs(fps / robot.control_hz - 1) > 0.01:
        found, what = f"{fps:g} rows per second", f"{robot.control_hz:g} (control_hz of embodiment {robot.name!r})"
        advice = "resample the data, or give the embodiment this rate: actions would be played too fast or too slow"
        yield Finding("control-rate", "error", found, what, advice, field="fps")


def _camera(survey: Survey, robot: Embodiment, camera: str) -> Iterator[Finding]:
    there = survey.declared.cameras
    key = robot.camera_key(camera)
    if key not in there:
        what = f"{key} (camera {camera!r} of embodiment {robot.name!r})"
        advice = "correct the camera's key in the embodiment, or record that camera"
        found = f"no such camera; there are {sorted(there)}"
        yield Finding("embodiment-cameras", "error", found, what, advice, field=key)
        return
    found = f"{there[key].height} x {there[key].width} pixels"
    cell = f"{robot.view_height} x {robot.view_width} (cell of embodiment {robot.name!r})"
    squeeze = (there[key].width / there[key].height) / (robot.view_width / robot.view_height)
    if abs(squeeze - 1) > ASPECT_TOLERANCE:
        advice = "choose a cell of the same shape (view_height, view_width): the picture would be squeezed"
        yield Finding("view-shape", "error", found, f"the shape of {cell}", advice, field=key)
    elif there[key].height < robot.view_height:
        advice = "choose a smaller cell, or record larger pictures: the picture would be blown up"
        yield Finding("view-shape", "warning", found, f"at least {cell}", advice, field=key)
    elif robot.crop is None and there[key].height != robot.view_height:
        advice = "give the embodiment a 'crop' (1.0 keeps the whole picture), so that pictures are resized"
        yield Finding("view-shape", "error", found, f"exactly {cell}, which has no crop", advice, field=key)


def _vector(survey: Survey, column: str, parts: tuple[Part, ...]) -> Iterator[Finding]:
    """Every part lies inside its column, and names agree where both sides have them."""
    there = survey.declared.columns
    placed = places(parts, column)
    for place in placed:
        name = f"part {place.part.name!r}"
        if place.key not in there:
            found, what = f"no such column; there are {sorted(there)}", f"the column of {name}"
            advice = "correct 'key' in the embodiment, or record that column"
            yield Finding("embodiment-dims", "error", found, what, advice, field=place.key)
        elif place.end > survey.width(place.key):
            found = f"{survey.width(place.key)} dimensions"
            what = f"at least {place.end}: {name} is {place.start} to {place.end - 1}"
            advice = "is it data of another robot? Otherwise correct the parts of the embodiment"
            yield Finding("embodiment-dims", "error", found, what, advice, field=place.key)
        else:
            yield from _names(survey, place)
    used = max((place.end for place in placed if place.key == column), default=0)
    if 0 < used < survey.width(column) and all(part.start is None for part in parts):
        found, what = f"{survey.width(column)} dimensions", f"{used}, all that the embodiment's parts use"
        advice = "name all dimensions in the embodiment; give parts a 'start' if some are left out on purpose"
        yield Finding("embodiment-dims", "error", found, what, advice, field=column)


def _names(survey: Survey, place: PartPlace) -> Iterator[Finding]:
    """The same dimension under the same name in another place is an exchanged order."""
    names = survey.declared.columns[place.key].names
    for dim, name in enumerate(place.part.dims, start=place.start):
        if names.count(name) == 1 and names.index(name) != dim:
            found, what = f"{name!r} is dimension {names.index(name)}", f"dimension {dim}, says the embodiment"
            advice = "correct the order or 'start' in the embodiment: dimensions would be exchanged"
            yield Finding("embodiment-dims", "error", found, what, advice, field=place.key)
