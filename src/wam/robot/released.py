"""The robots that DreamZero was released for: what the released files call them, and how their prompts are written."""

from __future__ import annotations

import ast
import html
from collections.abc import Mapping
from types import MappingProxyType

import ftfy

from wam.robot.embodiment import Embodiment, EmbodimentError, load_embodiment

TAGS: Mapping[str, str] = MappingProxyType({"oxe_droid": "droid-franka", "agibot": "agibot-g1", "yam": "yam"})
"""Released tag -> shipped embodiment."""

PROMPTED_LIKE: Mapping[str, str] = MappingProxyType(
    {**TAGS, "xdof": "agibot-g1", "gr1_unified": "human-video", "mecka_hands": "human-video"}
)
"""Released tag -> embodiment whose prompt it shares; of some, nothing but the prompt is known."""


def released_embodiment(tag: str) -> Embodiment:
    """Raises EmbodimentError naming the robots there are."""
    if tag not in TAGS:
        raise EmbodimentError(f"robot {tag!r} is not among those of the released weights: {sorted(TAGS)}")
    return load_embodiment(TAGS[tag])


def released_prompt(embodiment: Embodiment, instruction: str) -> str:
    """The sentence that the text encoder reads, cleaned as the released tokenizer does."""
    return clean_text(embodiment.prompt(spoken(instruction)))


def spoken(instruction: str) -> str:
    """Lower case; a text that spells a list, such as "['a', 'b']", stands for its first entry."""
    try:
        value = ast.literal_eval(instruction)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # whatever somebody says
        value = instruction
    first = value[0] if isinstance(value, (list, tuple)) and value else instruction
    return str(first).lower()


def clean_text(text: str) -> str:
    """Repair encodings, unescape HTML twice, one blank for every run of white space (Wan's cleaning)."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
