"""New statistics go into a file that somebody wrote without touching anything else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wam.robot.embodiment import METAWORLD_SAWYER, SHIPPED, Embodiment, EmbodimentError, Moments, Statistics
from wam.robot.fill_yaml import filled_text

NUMBERS = Statistics(*(Moments(*((start + 1e-5, 0.2, -3.0, 1e20) for _ in range(4))) for start in (0.0, 1.0)))
FILLED = replace(METAWORLD_SAWYER, statistics=NUMBERS)
TEXT = (SHIPPED / "metaworld-sawyer.yaml").read_text()
FLOW = "statistics: {state: {mean: [0, 0, 0, 0], std: [1, 1, 1, 1]}, action: {mean: [0, 0, 0, 0], std: [1, 1, 1, 1]}}\n"
BLOCK = """statistics: # old
  state:
    mean: [0, 0, 0, 0]
    std: [1, 1, 1, 1]
  action:
    mean:
      - 0
      - 0
      - 0
      - 0
    std: [1,
      1, 1, 1]
"""
BEFORE, AFTER = "# before, with a colon: yes\n\n", "\n# behind\n\nlower_case:   false # no\n"


@pytest.mark.parametrize(
    "statistics", [FLOW, BLOCK, "statistics:\n", "statistics: null # to be measured\n", '"statistics": ~\n']
)
@pytest.mark.parametrize("behind", [AFTER, ""])
def test_only_the_statistics_are_replaced(statistics: str, behind: str) -> None:
    text = TEXT + BEFORE + statistics + behind
    new = filled_text(text, FILLED, "robot.yaml")
    assert Embodiment.from_text(new, "robot.yaml") == FILLED
    assert new.startswith(TEXT + BEFORE + "statistics:\n") and new.endswith(behind)
    assert new.count("#") == (TEXT + BEFORE + behind).count("#"), "comments of other lines"
    assert filled_text(new, FILLED, "robot.yaml") == new


def test_a_file_without_statistics_gets_them_at_its_end() -> None:
    for text in (TEXT, TEXT.rstrip("\n")):
        new = filled_text(text, FILLED, "robot.yaml")
        assert new.startswith(TEXT + "statistics:\n") and Embodiment.from_text(new, "robot.yaml") == FILLED


def test_line_ends_stay() -> None:
    text = (TEXT + FLOW + AFTER).replace("\n", "\r\n")
    new = filled_text(text, FILLED, "robot.yaml")
    assert new.startswith(TEXT.replace("\n", "\r\n")) and new.endswith(AFTER.replace("\n", "\r\n"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (TEXT.replace("video_stride: 2", "video_stride: 1").replace("chunk: 8", "chunk: 4"), "describes another robot"),
        ("name: [", "not valid YAML"),
        (str(METAWORLD_SAWYER.to_dict()).replace("None", "null"), "fields stand inside a line"),
        ("  " + TEXT.split("\n", 1)[1].replace("\n", "\n  "), "fields stand inside a line"),
    ],
)
def test_what_cannot_be_filled_is_named(text: str, named: str) -> None:
    with pytest.raises(EmbodimentError, match=f"robot.yaml: {named}"):
        filled_text(text, FILLED, "robot.yaml")
