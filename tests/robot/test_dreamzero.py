"""Prompts and layouts of the robots that DreamZero was released for."""

from __future__ import annotations

import pytest

from wam.robot.dreamzero import ROBOTS, clean_text, released_robot, spoken


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
    prompt = released_robot("oxe_droid").prompt("Open the DOOR")
    assert prompt.startswith("A multi-view video shows that a robot open the door The video is split into three views:")
    assert prompt.endswith("(dropped view). The robot open the door")
    assert released_robot("gr1_unified").prompt("Wave") == "A single view video shows that a human wave"


def test_layouts_name_every_view_once() -> None:
    for robot in ROBOTS.values():
        shown = {cell for row in robot.layout for cell in row if cell is not None}
        assert shown == set(range(max(1, len(robot.views))))
        assert set(robot.relative) <= set(robot.action)


def test_unknown_robot_is_named() -> None:
    with pytest.raises(ValueError, match="robot 'toaster' is not among"):
        released_robot("toaster")
