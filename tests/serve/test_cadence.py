"""Which frames the model sees, and whether that was a guess."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam.robot.embodiment import METAWORLD_SAWYER, load_embodiment
from wam.serve.cadence import Cadence, Choice, choose

CADENCE = Cadence(frames=4, stride=2, control_hz=40.0)  # a frame every 0.05 s, a chunk of 0.2 s


def chosen(count: int, times: list[float] | None = None, previous: float | None = None, begun: bool = True) -> Choice:
    stamps = None if times is None else np.array(times)
    return choose(CADENCE, count, stamps, begun=begun, previous=previous)


def test_the_cadence_is_the_robots() -> None:
    assert Cadence.of(METAWORLD_SAWYER) == CADENCE
    droid = Cadence.of(load_embodiment("droid-franka"))
    assert (droid.frames, droid.stride_seconds, droid.chunk_seconds) == (8, pytest.approx(0.2), pytest.approx(1.6))


def test_an_episode_begins_with_the_present_frame_alone() -> None:
    assert chosen(4, begun=False) == Choice((3,), "first")
    assert chosen(1, [0.0], begun=False).anew


def test_without_memory_the_present_frame_is_enough() -> None:
    choice = choose(CADENCE, 3, None, begun=True, remembers=False)
    assert (choice.frames, choice.how, choice.guessed, choice.anew) == ((2,), "present", False, False)


def test_one_frame_per_chunk_begins_anew_and_says_so() -> None:
    choice = chosen(1)
    assert choice.anew and choice.guessed and choice.frames == (0,)
    assert "1 frame(s) arrived, going on needs 4, one every 2 control steps" in choice.why


@pytest.mark.parametrize(
    ("count", "frames", "how"),
    [
        (4, (0, 1, 2, 3), "assumed"),
        (8, (1, 3, 5, 7), "assumed"),  # one per control step
        (2, (0, 0, 1, 1), "resampled"),  # what the released server does with 4 of 8
        (3, (0, 1, 2, 2), "resampled"),
        (5, (1, 2, 3, 4), "resampled"),
        (12, (2, 5, 8, 11), "resampled"),
        (1, (0,), "anew"),
    ],
)
def test_frames_without_time_stamps_are_a_guess(count: int, frames: tuple[int, ...], how: str) -> None:
    choice = chosen(count)
    assert (choice.frames, choice.how, choice.guessed) == (frames, how, True)


def test_frames_at_the_trained_times_are_exact() -> None:
    assert chosen(4, [1.05, 1.10, 1.15, 1.20], previous=1.0) == Choice((0, 1, 2, 3), "exact")


def test_among_more_frames_than_needed_those_at_the_trained_times_are_chosen() -> None:
    every_step = [1.0 + i * 0.025 for i in range(1, 9)]
    assert chosen(8, every_step, previous=1.0) == Choice((1, 3, 5, 7), "exact")
    sixty_hz = [1.0 + i / 60 for i in range(1, 13)]
    assert chosen(12, sixty_hz, previous=1.0) == Choice((2, 5, 8, 11), "exact")
    thirty_hz = [1.0 + i / 30 for i in range(1, 7)]  # 1.05 and 1.15 lie between two of them
    assert chosen(6, thirty_hz, previous=1.0).how == "exact"


def test_a_history_that_reaches_back_before_the_last_request_does_no_harm() -> None:
    history = [0.9, 0.95, 1.0, 1.05, 1.10, 1.15, 1.20]
    assert chosen(7, history, previous=1.0) == Choice((3, 4, 5, 6), "exact")


@pytest.mark.parametrize(
    ("times", "previous", "how", "why"),
    [
        ([1.05, 1.10], 1.0, "anew", "0.100 s after the last request"),  # half a chunk was executed
        ([1.20], 1.0, "anew", "no frame within 0.050 s"),
        ([1.10, 1.20], 1.0, "resampled", "up to 0.050 s"),
        ([1.05, 1.10, 1.20], 1.0, "resampled", "up to 0.050 s"),
        ([1.15, 1.20, 1.25, 1.30], 1.0, "late", "0.300 s for a chunk"),
        ([1.55, 1.60, 1.65, 1.70], 1.0, "anew", "more than two chunks"),
    ],
)
def test_time_stamps_that_do_not_fit_are_found(times: list[float], previous: float, how: str, why: str) -> None:
    choice = chosen(len(times), times, previous)
    assert choice.how == how and choice.guessed and why in choice.why
    assert choice.frames[-1] == len(times) - 1


@given(
    st.integers(1, 20),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.floats(0.001, 0.3), min_size=20, max_size=20),
    st.floats(0.0, 1.0),
)
@settings(max_examples=300, deadline=None)
def test_the_present_is_always_last_and_the_number_always_fits(
    count: int, stamped: bool, begun: bool, remembers: bool, gaps: list[float], passed: float
) -> None:
    times = np.cumsum(gaps)[:count] if stamped else None
    previous = None if times is None else float(times[-1]) - passed
    choice = choose(CADENCE, count, times, begun=begun, previous=previous, remembers=remembers)
    assert choice.frames[-1] == count - 1
    assert list(choice.frames) == sorted(choice.frames)
    goes_on = choice.how in ("exact", "assumed", "late", "resampled")
    assert len(choice.frames) == (4 if goes_on else 1)
    assert choice.guessed == bool(choice.why)
