"""wam: one command, one file per verb."""

from __future__ import annotations

import importlib
import sys

VERBS = {
    "demo": "watch a shipped nano model act from a sentence, beside what it dreams",
    "collect": "record demonstrations of scripted experts as a LeRobot data set",
    "train-tokenizer": "train the small video tokenizer on a data set's pictures",
    "train": "train a World Action Model on a LeRobot data set",
    "eval": "measure success on unseen episodes, with intervals",
    "compare": "compare evaluations on the same episodes, pair by pair",
}


def main() -> None:
    """Run `wam VERB ...`; exit code 2 for an unknown verb."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"wam: unknown verb {verb!r}\n\n{_usage()}", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(f"wam.cli.{verb.replace('-', '_')}").cli(rest)


def _usage() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:<{width}}{text}" for verb, text in VERBS.items()]
    return "usage: wam VERB [options]    (wam VERB --help shows options and an example)\n\n" + "\n".join(lines)
