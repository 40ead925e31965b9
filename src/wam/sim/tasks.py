"""The 50 Meta-World tasks: names, difficulty, instructions, and the splits that keep training and testing apart."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from wam.sim.sentences import SENTENCES

# Grouping by difficulty of Seo et al. 2023 (Masked World Models for Visual Control, appendix F).
DIFFICULTY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "easy": (
            "button-press", "button-press-topdown", "button-press-topdown-wall", "button-press-wall", "coffee-button",
            "dial-turn", "door-close", "door-lock", "door-open", "door-unlock", "drawer-close", "drawer-open",
            "faucet-close", "faucet-open", "handle-press", "handle-press-side", "handle-pull", "handle-pull-side",
            "lever-pull", "peg-unplug-side", "plate-slide", "plate-slide-back", "plate-slide-back-side",
            "plate-slide-side", "reach", "reach-wall", "window-close", "window-open",
        ),
        "medium": (
            "basketball", "bin-picking", "box-close", "coffee-pull", "coffee-push", "hammer", "peg-insert-side",
            "push-wall", "soccer", "sweep", "sweep-into",
        ),
        "hard": ("assembly", "hand-insert", "pick-out-of-hole", "pick-place", "push", "push-back"),
        "very-hard": ("disassemble", "pick-place-wall", "shelf-place", "stick-pull", "stick-push"),
    }
)  # fmt: skip

MT10 = (
    "reach", "push", "pick-place", "door-open", "drawer-open", "drawer-close", "button-press-topdown",
    "peg-insert-side", "window-open", "window-close",
)  # fmt: skip

HELDOUT_TASKS = ("bin-picking", "box-close", "door-lock", "door-unlock", "hand-insert")  # the test tasks of ML45

GOAL_MARKER_TASKS = frozenset(
    {
        "coffee-pull", "hand-insert", "pick-out-of-hole", "pick-place", "pick-place-wall", "plate-slide-back",
        "plate-slide-back-side", "plate-slide-side", "push", "push-back", "push-wall", "reach", "reach-wall",
        "stick-pull", "stick-push",
    }
)  # fmt: skip
"""Tasks whose goal is a place in the air or on the table: only there does the picture show it, as a green ball. In all
others the goal can be read off an object (a drawer, a hole, a net), and a marker would only be clutter."""

PRECISE_TASKS = frozenset(
    {
        "assembly", "basketball", "bin-picking", "box-close", "disassemble", "hammer", "peg-insert-side",
        "pick-out-of-hole", "pick-place-wall", "shelf-place", "stick-pull", "stick-push",
    }
)  # fmt: skip
"""Tasks in which the expert has little room for disturbances."""


@dataclass(frozen=True)
class Task:
    """One task.

    sentence: the canonical instruction; paraphrases: other wordings that training data may use; unseen_sentence: a
    wording that training data never uses.
    """

    name: str
    difficulty: str
    sentence: str
    paraphrases: tuple[str, ...]
    unseen_sentence: str

    @property
    def training_sentences(self) -> tuple[str, ...]:
        return (self.sentence, *self.paraphrases)


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        name: Task(name, difficulty, SENTENCES[name][0], SENTENCES[name][1:-1], SENTENCES[name][-1])
        for difficulty, names in DIFFICULTY.items()
        for name in names
    }
)

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mt10": MT10,
        "mt50": tuple(TASKS),
        "heldout-tasks": HELDOUT_TASKS,
        "ml45-train": tuple(name for name in TASKS if name not in HELDOUT_TASKS),
        **DIFFICULTY,
    }
)
"""Names that stand for several tasks wherever tasks are listed."""


SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Split:
    """A range of seeds, `first <= seed < end`; a seed is one initial state of a task."""

    name: str
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first

    def seed(self, index: int) -> int:
        """The seed of initial state number `index`. Raises ValueError naming the split and what it has."""
        if not 0 <= index < len(self):
            raise ValueError(f"initial state {index} asked for, split {self.name!r} has 0 to {len(self) - 1}")
        return self.first + index


SPLITS: Mapping[SplitName, Split] = MappingProxyType(
    {
        "train": Split("train", 0, 1_000_000),
        "val": Split("val", 1_000_000, 1_100_000),
        "test": Split("test", 2_000_000, 2_100_000),
    }
)


def task(name: str) -> Task:
    """The task of this name; ValueError with close matches for an unknown one."""
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known tasks are {sorted(TASKS)}"
        raise ValueError(f"unknown Meta-World task {name!r}; {hint}")
    return TASKS[name]


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Task names with groups ("mt10", "easy", ...) replaced by their tasks; each task once, in order."""
    expanded: dict[str, None] = {}
    for name in names:
        for member in GROUPS.get(name, (name,)):
            expanded[task(member).name] = None
    return tuple(expanded)


def asked_for(words: str) -> Task:
    """The task of a name, or the one of whose sentences a sentence shares most words; rare words count more.

    Raises ValueError when none comes close, naming the closest.
    """
    if words in TASKS:
        return TASKS[words]
    if " " not in words.strip():
        return task(words)  # says what is wrong with the name
    known = [(_words(sentence), name) for name in TASKS for sentence in SENTENCES[name]]
    counts = Counter(word for sentence, _ in known for word in sentence)

    def weight(sentence: frozenset[str]) -> float:
        return sum(math.log(len(known) / (counts[word] + 0.5)) for word in sentence)

    asked = _words(words)
    shares = dict.fromkeys(TASKS, 0.0)
    for sentence, name in known:
        shares[name] = max(shares[name], weight(asked & sentence) / weight(asked | sentence))
    best = sorted(shares, key=lambda name: -shares[name])[:3]
    if shares[best[0]] < 0.5:
        raise ValueError(f"no Meta-World task is asked for by {words!r}; the closest are {best}; give a task's name")
    return TASKS[best[0]]


def _words(sentence: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", sentence.lower()))
