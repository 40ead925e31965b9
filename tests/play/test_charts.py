"""The plots show the numbers of a snapshot at the right steps; pictures travel pixel by pixel."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
from PIL import Image

from tests.evaluate.point_robot import POINT, PointEnv, PointPolicy
from wam.evaluate.rollout import RunningEpisode
from wam.play import charts
from wam.play.episode import SHOWN_CHUNKS, Snapshot, SteeredEpisode
from wam.play.pictures import NOTHING, data_uri


def after(steps: int) -> tuple[Snapshot, np.ndarray]:
    """A snapshot after so many steps, and all actions sent."""
    episode = SteeredEpisode.begin(RunningEpisode(PointEnv("far"), 400, True, POINT), PointPolicy(), 3, None)
    for _ in range(steps):
        episode.advance()
    return episode.show(Snapshot()), episode.result().actions


def test_actions_stand_at_their_steps_and_the_chunk_goes_on_after_now() -> None:
    shown, sent = after(45)
    options = charts.actions(POINT.action_names, shown)
    assert [series["name"] for series in options["series"]] == ["dx", "dy"]
    dx = dict(options["series"][0]["data"])
    start = 40 - charts.PAST
    assert min(dx) == start and max(dx) == 48  # the end of the chunk; its last action lasts one step
    assert np.allclose([dx[step] for step in range(start, 45)], sent[start:45, 0], atol=1e-4)
    assert shown.actions is not None and np.isclose(dx[47], shown.actions[7, 0], atol=1e-4)
    area, line = options["series"][0]["markArea"]["data"], options["series"][0]["markLine"]["data"]
    assert area == [[{"xAxis": 40}, {"xAxis": 48}]] and line == [{"xAxis": 45}]
    assert options["xAxis"]["min"] <= start and options["xAxis"]["max"] == 48
    json.dumps(options)  # on its way to the browser


def test_a_plot_without_an_episode_is_empty() -> None:
    assert all(series["data"] == [] for series in charts.actions(POINT.action_names)["series"])
    assert all(value is None for series in charts.latency()["series"] for value in series["data"])


def test_stages_are_stacked_in_milliseconds_and_the_last_calls_remain() -> None:
    calls = [{"encode": 0.004, "denoise": 0.021}, {"encode": 0.005}]
    bars = {series["name"]: series["data"] for series in charts.latency(calls)["series"]}
    assert bars["encode"][:3] == [4.0, 5.0, None] and bars["denoise"][:2] == [21.0, None]
    assert len(bars["encode"]) == SHOWN_CHUNKS
    assert len(after(8 * SHOWN_CHUNKS + 8)[0].seconds) == SHOWN_CHUNKS


def test_pictures_keep_every_pixel() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    content = base64.b64decode(data_uri(picture).split(",")[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), picture)
    assert data_uri(None) == NOTHING
    assert Image.open(io.BytesIO(base64.b64decode(NOTHING.split(",")[1]))).size == (1, 1)
