"""What is written for people: commands that `wam` understands, links that lead somewhere, nothing left to fill in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from wam.cli.main import VERBS, parsed

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "recipes/*.md", "packages/*/README.md", "src/wam/shipped/*/README.md")
    for path in ROOT.glob(pattern)
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
CODE = re.compile(r"^```[a-z]*\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (wam .*)$", flags=re.MULTILINE)
LEFT_OUT = {"train": ("--data", "--out"), "eval": ("--out",)}  # what "..." stands for, where it has to be given


def commands(text: str) -> Iterator[list[str]]:
    """The words of every `wam` command in the code blocks, between fences or indented."""
    for block in (*CODE.findall(text), *INDENTED.findall(text)):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("wam "):
                yield shlex.split(line, comments=True)[1:]


def require_understood(verb: str, words: list[str], where: str) -> None:
    """Fails unless `wam` takes these words for options; nothing is run."""
    assert verb in VERBS, where
    if "--resume" in words:  # the other options are those of a run, which is not there
        return
    if "..." in words:
        words.remove("...")
        words += [word for option in LEFT_OUT[verb] if option not in words for word in (option, "somewhere")]
    try:
        parsed(verb, words)
    except SystemExit as end:
        pytest.fail(f"{where}: `wam {shlex.join([verb, *words])}` ends with {end.code}")


def test_there_are_documents_and_commands_in_them() -> None:
    assert {"README.md", "docs/architecture.md", "recipes/nano-mt50.md"} <= set(NAMES)
    assert len([words for path in DOCUMENTS for words in commands(path.read_text(encoding="utf-8"))]) > 40


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_understood(name: str) -> None:
    for verb, *words in commands((ROOT / name).read_text(encoding="utf-8")):
        require_understood(verb, words, name)


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_the_help_are_understood(verb: str) -> None:
    stem = verb.replace("-", "_")
    files = [
        path for path in (ROOT / "src/wam/cli").glob("*.py") if path.stem == stem or path.stem.startswith(f"{stem}_")
    ]
    examples = {line for path in files for line in re.findall(r"^    (?:Example: )?wam (.*)", path.read_text(), re.M)}
    assert examples, f"{verb} has no example"
    for example in examples:
        mine, *words = shlex.split(example.partition("&&")[0])
        require_understood(mine, words, f"help of {verb}")


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    lost = [link for link in links if ":" not in link and not ((ROOT / name).parent / link.split("#")[0]).exists()]
    assert not lost, f"{name}: {lost} do not exist"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_to_fill_in(name: str) -> None:
    """No line that is one word in capitals, where a table was to stand, and none of the usual marks."""
    text = CODE.sub("", (ROOT / name).read_text(encoding="utf-8"))
    assert not re.findall(r"^[A-Z]{2,}$|\b(?:TABLE|TIME|WHAT|TODO|TBD|FIXME|XXX)\b", text, flags=re.MULTILINE)
