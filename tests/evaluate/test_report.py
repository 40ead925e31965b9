"""The page: one file, whole, offline, and its films are the frames that were recorded."""

from __future__ import annotations

import base64
import io
import json
import re
from html import unescape
from pathlib import Path

import av
import numpy as np
import pytest

from tests.evaluate.point_robot import POINT, SIZE, PointEnv, PointPolicy
from tests.evaluate.test_summary import CONFIG, GROUPS, MADE, episodes
from wam.evaluate.compare import compare
from wam.evaluate.report import Report, render, write_report
from wam.evaluate.rollout import EpisodeResult, rollout
from wam.evaluate.summary import summarise
from wam.evaluate.video import SCALE, encode_mp4, film, film_mp4


def decode(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def episode() -> EpisodeResult:
    return rollout(PointEnv("far"), PointPolicy(dream=True), 0, max_env_steps=32, record=True, embodiment=POINT)


@pytest.fixture(scope="module")
def text(episode: EpisodeResult, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with everything on it."""
    root = tmp_path_factory.mktemp("page")
    (root / "reach.mp4").write_bytes(film_mp4(episode, POINT.control_hz))
    a, b = episodes({"reach": 9, "push": 1}, 10), episodes({"reach": 4, "push": 1}, 10)
    plain = rollout(PointEnv(), PointPolicy(), 1, record=True, embodiment=POINT)
    report = Report(
        "One <point>",
        MADE,
        lead="A page & a test.",
        episodes=[episode, plain],
        summary=summarise(a, GROUPS, CONFIG, MADE),
        comparisons=[compare(a, b, "big", "small")],
        films=[root / "reach.mp4"],
        facts={"checkpoint": "runs/<x>"},
        embodiment=POINT,
    )
    return write_report(report, root / "page.html").read_text(encoding="utf-8")


def test_nothing_is_fetched(text: str) -> None:
    assert text.startswith("<!doctype html>")
    assert "<link" not in text
    assert "@import" not in text
    sources = re.findall(r'(?:src|href)="([^"]{5})', text)
    assert sources
    assert all(source == "data:" or source.startswith("#") for source in sources)


def test_films_are_the_recorded_frames(text: str, episode: EpisodeResult) -> None:
    """Two of the first episode, one of the second, one in the gallery; the first two have equal length."""
    films = [decode(base64.b64decode(data)) for data in re.findall(r"data:video/mp4;base64,([^\"]+)", text)]
    assert len(films) == 4
    assert films[0].shape == films[1].shape == (9, SCALE * SIZE, SCALE * SIZE, 3)
    assert episode.dreams is not None
    shown = films[1][1:].mean(axis=(1, 2, 3))
    assert shown == pytest.approx(episode.dreams[1:].mean(axis=(1, 2, 3)), abs=4)


def test_the_player_knows_the_time_of_every_frame(text: str, episode: EpisodeResult) -> None:
    timelines = [json.loads(unescape(found)) for found in re.findall(r'data-episode="([^"]+)"', text)]
    assert len(timelines) == 2
    assert timelines[0]["steps"] == list(episode.frame_steps)
    assert timelines[0]["fps"] == 5.0
    assert timelines[0]["hz"] == 10.0


def test_words_are_escaped(text: str) -> None:
    assert "Reach the &lt;red&gt; dot." in text
    assert "One &lt;point&gt;" in text
    assert "runs/&lt;x&gt;" in text
    assert "<red>" not in text


def test_two_drawings_share_no_id(text: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'xlink:href="#([^"]+)"', text))
    assert used <= set(ids)
    assert "currentColor" in text
    assert "#010203" not in text


def test_tables_and_bars_show_the_intervals(text: str) -> None:
    assert "59.6 to 98.2" in text  # 9/10
    (left, width), *_ = re.findall(r'<i style="left:([0-9.]+)%;width:([0-9.]+)%"', text)
    assert (float(left), float(left) + float(width)) == pytest.approx((59.58, 98.21), abs=0.02)
    assert "big is better than small" in text or "not distinguishable" in text
    assert "how it was made" in text.lower()
    assert "a machine" in text


def test_groups_have_their_mean_and_their_films(episode: EpisodeResult, tmp_path: Path) -> None:
    names = ("reach-1-success", "push-2-failure", "close-3-failure")
    for name in names:
        (tmp_path / f"{name}.mp4").write_bytes(film_mp4(episode, POINT.control_hz))
    found = summarise(episodes({"reach": 10, "close": 8, "push": 2}, 10), GROUPS, CONFIG, MADE)
    text = render(Report("x", MADE, summary=found, films=[tmp_path / f"{name}.mp4" for name in names]))
    gallery = text[text.index("<h2>Films</h2>") :]
    assert re.findall(r"<h3>(easy|hard)</h3>|<figcaption>([^<]+)", gallery) == [
        ("easy", ""), ("", "reach-1-success"), ("", "close-3-failure"), ("hard", ""), ("", "push-2-failure"),
    ]  # fmt: skip
    (value, low, high), *_ = re.findall(
        r"mean over groups</td>.*?([0-9.]+)</td><td class=\"n\">([0-9.]+) to ([0-9.]+)", text
    )
    assert (value, low, high) == tuple(
        f"{100 * x:.1f}" for x in (0.55, found.over_groups.low, found.over_groups.high)
    ), "the mean of 0.9 (two easy tasks) and 0.2"


def test_an_unrecorded_episode_is_refused() -> None:
    silent = rollout(PointEnv(), PointPolicy(), 1, embodiment=POINT)
    with pytest.raises(ValueError, match="record=True"):
        render(Report("x", MADE, episodes=[silent], embodiment=POINT))
    with pytest.raises(ValueError, match="record=True"):
        film(silent)


def test_a_film_has_real_and_dream_side_by_side(episode: EpisodeResult) -> None:
    frames = film(episode)
    assert episode.frames is not None
    assert episode.dreams is not None
    body = SCALE * SIZE
    assert frames.shape == (9, body + 28, 2 * body + 8, 3)
    assert np.array_equal(frames[:, -body:, :body][:, ::SCALE, ::SCALE], episode.frames)
    assert np.array_equal(frames[:, -body:, -body:][:, ::SCALE, ::SCALE], episode.dreams)
    captions = frames[:, :28]
    assert captions.max() > 150  # something is written
    assert not np.array_equal(captions[0], captions[1])  # the step counts


def test_mp4_refuses_what_players_cannot_show(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even height"):
        encode_mp4(np.zeros((2, 15, 16, 3), np.uint8), 10)
    with pytest.raises(ValueError, match="at least one frame"):
        encode_mp4(np.zeros((0, 16, 16, 3), np.uint8), 10)
