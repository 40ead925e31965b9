"""Prompts of the robots that DreamZero was released for."""

from __future__ import annotations

import pytest

from wam.robot.embodiment import EmbodimentError, load_embodiment
from wam.robot.released import PROMPTED_LIKE, TAGS, clean_text, released_embodiment, released_prompt, spoken


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Put the Bowl down", "put the bowl down"),
        ("['Fold the towel.', 'other']", "fold the towel."),
        ("[3.5]", "3.5"),
        ("don't move", "don't move"),
        ("[]", "[]"),
        ("__import__('os')", "__import__('os')"),  # read as text, never run
    ],
)
def test_instruction(instruction: str, expected: str) -> None:
    assert spoken(instruction) == expected


def test_text_is_cleaned_as_the_released_tokenizer_does() -> None:
    assert clean_text("  the “two”  &amp;amp; blocks\n") == 'the "two" & blocks'


def test_the_instruction_stands_at_both_ends_of_the_prompt() -> None:
    prompt = released_prompt(released_embodiment("oxe_droid"), "Open the DOOR")
    assert prompt.startswith("A multi-view video shows that a robot open the door The video is split into three views:")
    assert prompt.endswith("(dropped view). The robot open the door")
    human = load_embodiment(PROMPTED_LIKE["gr1_unified"])
    assert released_prompt(human, "Wave") == "A single view video shows that a human wave"


def test_released_robots_share_widths_and_chunks() -> None:
    for tag in TAGS:
        robot = released_embodiment(tag)
        assert (robot.state_width, robot.action_width) == (64, 32)
        assert (robot.frames_per_chunk, robot.actions_per_chunk) == (2, 24)


def test_unknown_robot_is_named() -> None:
    with pytest.raises(EmbodimentError, match="robot 'toaster' is not among"):
        released_embodiment("toaster")
